use std::collections::BTreeMap;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table, TableStyle};

use super::{Cell, GroupOutcome, Outcome};

/// What all cells came to.
#[derive(Debug, Default)]
pub struct Report {
    cells: BTreeMap<Cell, Line>,
}

#[derive(Debug, Default)]
struct Line {
    alone: Option<Result<Outcome, String>>,
    group: Option<Result<GroupOutcome, String>>,
}

const HEADER: [&str; 7] = [
    "source",
    "store",
    "messages/s",
    "killed",
    "result",
    "three hosts",
    "copies",
];

impl Report {
    /// Adds what one host came to.
    pub fn add(&mut self, cell: Cell, outcome: Result<Outcome, String>) {
        self.cells.entry(cell).or_default().alone = Some(outcome);
    }

    /// Adds what several hosts came to.
    pub fn add_group(&mut self, cell: Cell, outcome: Result<GroupOutcome, String>) {
        self.cells.entry(cell).or_default().group = Some(outcome);
    }

    /// Whether everything was exact.
    pub fn is_exact(&self) -> bool {
        self.cells
            .values()
            .all(|line| !matches!(line.alone, Some(Err(_))) && !matches!(line.group, Some(Err(_))))
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        self.table(UTF8_FULL_CONDENSED).to_string()
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        self.table(ASCII_MARKDOWN).to_string()
    }

    fn table(&self, style: TableStyle) -> Table {
        let mut table = Table::new();
        table.load_style(style).set_header(HEADER);
        for (cell, line) in &self.cells {
            let [rate, kills, result] = match &line.alone {
                Some(Ok(outcome)) => [
                    format!("{:.0}", outcome.rate),
                    outcome.kills.to_string(),
                    "exact".to_owned(),
                ],
                Some(Err(_)) => ["", "", "FAILED"].map(str::to_owned),
                None => ["", "", ""].map(str::to_owned),
            };
            let [group, copies] = match &line.group {
                Some(Ok(outcome)) => [
                    format!(
                        "exact: {} restarted, {} killed",
                        outcome.restarts, outcome.kills
                    ),
                    outcome.copies.to_string(),
                ],
                Some(Err(_)) => ["FAILED", ""].map(str::to_owned),
                None => ["", ""].map(str::to_owned),
            };
            let (source, store) = (cell.source.to_string(), cell.store.to_string());
            table.add_row([source, store, rate, kills, result, group, copies]);
        }
        for column in [2, 3, 6] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}
