//! What commands print: tables for people, JSON Lines for programs.

use std::io::{self, StdoutLock, Write};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;
use serde_json::value::RawValue;

/// Longer values are cut in tables; `--json` gives them whole.
const CELL_WIDTH: usize = 100;

/// The width of text that is broken into lines.
const TEXT_WIDTH: u16 = 100;

/// Between columns. Padding counts as part of a column's width.
const COLUMN_GAP: u16 = 2;

/// Rows that a person or a program reads.
pub trait Row: Serialize {
    /// The table's columns.
    const COLUMNS: &'static [&'static str];

    /// One cell for each column.
    fn cells(&self) -> Vec<String>;
}

/// Prints rows page by page, so that no listing has to fit into memory.
pub struct Listing {
    json: bool,
    out: StdoutLock<'static>,
    /// Of the pages before, so that the columns of all pages line up.
    widths: Vec<u16>,
}

impl Listing {
    /// To stdout.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            out: io::stdout().lock(),
            widths: Vec::new(),
        }
    }

    /// Prints a page.
    pub fn page<R: Row>(&mut self, rows: &[R]) -> Result<()> {
        if self.json {
            for row in rows {
                json_line(&mut self.out, row)?;
            }
        } else if !rows.is_empty() {
            let mut table = plain_table();
            if self.widths.is_empty() {
                table.set_header(R::COLUMNS.iter().map(|name| name.to_uppercase()));
            }
            for row in rows {
                table.add_row(row.cells().iter().map(|cell| one_line(cell)));
            }
            self.align(&mut table);
            writeln!(self.out, "{}", rendered(&mut table))?;
        }
        Ok(())
    }

    /// After the last page: says so where there was none.
    pub fn finish(mut self, nothing: &str) -> Result<()> {
        if !self.json && self.widths.is_empty() {
            writeln!(self.out, "{nothing}")?;
        }
        Ok(())
    }

    fn align(&mut self, table: &mut Table) {
        for (column, width) in self.widths.iter().enumerate() {
            if let Some(column) = table.column_mut(column) {
                let width = Width::Fixed(width + COLUMN_GAP);
                column.set_constraint(ColumnConstraint::LowerBoundary(width));
            }
        }
        let own = table.column_max_content_widths();
        let before = self.widths.iter().copied().chain(std::iter::repeat(0));
        self.widths = own.into_iter().zip(before).map(|(a, b)| a.max(b)).collect();
    }
}

/// Prints rows as a table whose last column is broken into lines, and not cut.
pub fn whole<R: Row>(rows: &[R]) -> Result<()> {
    let mut table = plain_table();
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(TEXT_WIDTH * 2)
        .set_header(R::COLUMNS.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.cells().iter().map(|cell| several_lines(cell)));
    }
    if let Some(last) = table.column_mut(R::COLUMNS.len() - 1) {
        last.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(TEXT_WIDTH)));
    }
    writeln!(io::stdout().lock(), "{}", rendered(&mut table))?;
    Ok(())
}

/// Prints one thing as a table of its properties, values whole.
pub fn properties(properties: &[(&str, String)]) -> Result<()> {
    let mut table = plain_table();
    for (name, value) in properties {
        table.add_row([*name, value.as_str()]);
    }
    writeln!(io::stdout().lock(), "{}", rendered(&mut table))?;
    Ok(())
}

/// Prints one thing as a line of JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    json_line(&mut io::stdout().lock(), value)
}

/// Whether the reader of our output went away, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn json_line(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    Ok(())
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// The table's lines, with columns set apart by two spaces.
fn rendered(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, COLUMN_GAP));
    }
    table.trim_fmt()
}

/// A cell's text without line breaks, cut where it would swamp the table.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(CELL_WIDTH)
        .collect();
    if text.chars().nth(CELL_WIDTH).is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// A cell's text with its line breaks, and nothing else that a terminal acts on.
fn several_lines(text: &str) -> String {
    let kept = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    text.chars().map(kept).collect()
}

/// Bytes as JSON: what is JSON as itself, everything else as `{"base64": "…"}`.
pub fn json_of_bytes(bytes: &[u8]) -> Box<RawValue> {
    // Line breaks can only stand between tokens, and JSON Lines has no room for them.
    let json = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| serde_json::from_str::<&RawValue>(text).is_ok())
        .and_then(|text| RawValue::from_string(text.trim().replace(['\n', '\r'], " ")).ok());
    json.unwrap_or_else(|| base64_json(bytes))
}

/// Bytes as a JSON string, or `{"base64": "…"}` where they are no text.
pub fn text_or_base64(bytes: &[u8]) -> Box<RawValue> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| serde_json::value::to_raw_value(text).ok());
    text.unwrap_or_else(|| base64_json(bytes))
}

/// Bytes as `{"base64": "…"}`.
pub fn base64_json(bytes: &[u8]) -> Box<RawValue> {
    RawValue::from_string(format!(r#"{{"base64":"{}"}}"#, STANDARD.encode(bytes)))
        .expect("base64 needs no escapes")
}

/// Bytes for a table's cell.
pub fn text_of_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Milliseconds since 1970-01-01 UTC as `2026-11-21T07:20:08.123Z`.
pub fn time_text(ms: u64) -> String {
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil_date(days);
    let seconds = ms_of_day / 1_000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        ms_of_day % 1_000
    )
}

/// The Gregorian date of a day counted from 1970-01-01, by H. Hinnant's `civil_from_days`.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_on_one_line() {
        assert_eq!(
            json_of_bytes(b"12345678901234567890.5").get(),
            "12345678901234567890.5"
        );
        assert_eq!(
            json_of_bytes(b" {\n\"a\": [1]\r\n}\n").get(),
            "{ \"a\": [1]  }"
        );
        assert_eq!(json_of_bytes(b"plain").get(), r#"{"base64":"cGxhaW4="}"#);
        assert_eq!(json_of_bytes(b"").get(), r#"{"base64":""}"#);
        assert_eq!(json_of_bytes(b"\xff").get(), r#"{"base64":"/w=="}"#);
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(time_text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time_text(1_795_245_608_123), "2026-11-21T07:20:08.123Z");
    }

    #[test]
    fn long_cells_are_cut() {
        assert_eq!(one_line("a\nb"), "a b");
        assert_eq!(one_line(&"x".repeat(100)), "x".repeat(100));
        let cut = one_line(&"x".repeat(101));
        assert_eq!(cut.chars().count(), 100);
        assert!(cut.ends_with('…'));
    }
}
