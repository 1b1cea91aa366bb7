//! The matrix of a sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table, TableStyle};
use semel_core::crash::CrashPoint;

use super::fault::{Fault, Kind};
use super::{Configuration, Harm, Trial, Verdict};

/// What all trials came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    rows: BTreeMap<(Configuration, Kind), Row>,
}

/// What the trials of one kind came to on one configuration.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Crash points at which a fault struck; in recordings, those that were passed.
    pub points: BTreeSet<CrashPoint>,
    /// Trials.
    pub trials: usize,
    /// Trials in which every fault struck.
    pub struck: usize,
    /// Times that a fault struck.
    pub strikes: usize,
    /// Copies that consumers dropped.
    pub copies: usize,
    /// Flaws by harm.
    pub flaws: BTreeMap<Harm, usize>,
    /// The time that trials took, one after another.
    pub took: Duration,
}

const HEADER: [&str; 9] = [
    "configuration",
    "fault",
    "crash points",
    "trials",
    "struck",
    "lost",
    "doubled",
    "wrong",
    "copies",
];

impl Report {
    /// Adds a trial.
    pub fn add(&mut self, trial: &Trial, verdict: &Verdict) {
        let kind = trial.fault.kind();
        let row = self.rows.entry((trial.configuration, kind)).or_default();
        let aimed = match &trial.fault {
            Fault::Kill(passages) => passages.clone(),
            Fault::Pause(passage) => vec![*passage],
            _ => Vec::new(),
        };
        let wanted = match &trial.fault {
            Fault::None => 0,
            Fault::Recover(_) => 1,
            Fault::Kill(passages) => passages.len(),
            Fault::KillStore(times) | Fault::KillBroker(times) => {
                usize::try_from(*times).unwrap_or(usize::MAX)
            }
            Fault::Pause(_) | Fault::LoseStoreReply(_) | Fault::LoseBrokerReply(_) => 1,
        };
        row.points.extend(
            aimed
                .iter()
                .take(verdict.strikes)
                .map(|passage| passage.point),
        );
        row.points.extend(verdict.passed.keys());
        row.trials += 1;
        row.struck += usize::from(verdict.strikes == wanted);
        row.strikes += verdict.strikes;
        row.copies += verdict.copies;
        row.took += verdict.took;
        for flaw in &verdict.flaws {
            *row.flaws.entry(flaw.harm).or_default() += 1;
        }
    }

    /// All rows together of these kinds.
    pub fn total(&self, kinds: &[Kind]) -> Row {
        let mut total = Row::default();
        for ((_, kind), row) in &self.rows {
            if kinds.contains(kind) {
                total.points.extend(&row.points);
                total.trials += row.trials;
                total.struck += row.struck;
                total.strikes += row.strikes;
                total.copies += row.copies;
                total.took += row.took;
                for (harm, count) in &row.flaws {
                    *total.flaws.entry(*harm).or_default() += count;
                }
            }
        }
        total
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
        for ((configuration, kind), row) in &self.rows {
            table.add_row(row.cells(&configuration.to_string(), &kind.to_string()));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl Row {
    /// How many flaws of a kind there are.
    pub fn flaws(&self, harm: Harm) -> usize {
        self.flaws.get(&harm).copied().unwrap_or(0)
    }

    fn cells(&self, configuration: &str, kind: &str) -> Vec<String> {
        let numbers = [
            self.points.len(),
            self.trials,
            self.strikes,
            self.flaws(Harm::Lost),
            self.flaws(Harm::Doubled),
            self.flaws(Harm::Wrong),
            self.copies,
        ];
        let mut cells = vec![configuration.to_owned(), kind.to_owned()];
        cells.extend(numbers.iter().map(ToString::to_string));
        cells
    }
}
