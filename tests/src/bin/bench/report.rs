//! The table.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::handlers::Kind;
use crate::lap::Sample;
use crate::rows::Row;

/// One line: a row of the table with one kind of handler.
#[derive(Debug, Serialize)]
pub struct Line {
    row: &'static str,
    durability: &'static str,
    handler: &'static str,
    messages: usize,
    /// Of several runs, figure by figure.
    #[serde(flatten)]
    median: Median,
    /// This rate divided by the native handler's.
    of_native: Option<f64>,
    /// Handler calls, in all runs together.
    runs: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Median {
    rate: f64,
    host_cpu_us: f64,
    server_cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// What all runs of a row with one kind of handler gave.
pub struct Series {
    /// Which kind.
    pub kind: Kind,
    /// In the order of the runs; the native ones came in between.
    pub samples: Vec<Sample>,
}

/// The lines of a row.
pub fn lines(row: Row, messages: usize, series: &[Series]) -> Vec<Line> {
    let native = series.iter().find(|series| series.kind == Kind::Native);
    let native = native.map(|series| Median::of(&series.samples).rate);
    let line = |series: &Series| {
        let median = Median::of(&series.samples);
        Line {
            row: row.title(),
            durability: row.durability(),
            handler: match (series.kind, row.runs_handlers()) {
                (_, false) => "none called",
                (Kind::Wasm, true) => "wasm",
                (Kind::Native, true) => "native",
            },
            messages,
            median,
            of_native: native
                .filter(|_| series.kind == Kind::Wasm)
                .map(|native| median.rate / native),
            runs: series.samples.iter().map(|sample| sample.counts.runs).sum(),
        }
    };
    series.iter().map(line).collect()
}

/// All lines for people, with the durability below.
pub fn table(lines: &[Line]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "",
        "handler",
        "msg/s",
        "host CPU\nµs/msg",
        "msg/s per core\nof the host",
        "servers' CPU\nµs/msg",
        "p50\nms",
        "p99\nms",
        "of native",
    ]);
    let mut notes: Vec<String> = Vec::new();
    let mut last = "";
    for line in lines {
        let median = &line.median;
        let servers = median.server_cpu_us;
        table.add_row([
            if line.row == last {
                String::new()
            } else {
                line.row.to_owned()
            },
            line.handler.to_owned(),
            format!("{:.0}", median.rate),
            format!("{:.1}", median.host_cpu_us),
            format!("{:.0}", 1e6 / median.host_cpu_us),
            if servers > 0.0 {
                format!("{servers:.1}")
            } else {
                "–".to_owned()
            },
            format!("{:.1}", median.p50_ms),
            format!("{:.1}", median.p99_ms),
            line.of_native
                .map_or("–".to_owned(), |share| format!("{:.0} %", share * 100.0)),
        ]);
        if line.row != last {
            notes.push(format!(
                "{}: {} messages; {}",
                line.row, line.messages, line.durability
            ));
        }
        last = line.row;
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n\n{}", notes.join("\n"))
}

impl Median {
    fn of(samples: &[Sample]) -> Self {
        let middle = |figure: fn(&Sample) -> f64| {
            let mut figures: Vec<f64> = samples.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            rate: middle(|sample| sample.rate),
            host_cpu_us: middle(|sample| sample.host_cpu_us),
            server_cpu_us: middle(|sample| sample.server_cpu_us),
            p50_ms: middle(|sample| sample.p50_ms),
            p99_ms: middle(|sample| sample.p99_ms),
        }
    }
}
