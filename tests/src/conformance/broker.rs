//! What every source and every sink must do.
//!
//! The suites see trait objects only. A fixture feeds the source, or reads back what the sink
//! published; both speak in outbox rows, whose id, key, headers and body must come through.

mod sink;
mod source;

use bytes::Bytes;
use semel_core::{Header, OutboxRow};

use crate::outgoing;

pub use sink::*;
pub use source::*;

/// The plugin that the suites' rows are of.
pub const PLUGIN: &str = "conformance";

/// The destination, and topic, of the suites' rows.
pub const DESTINATION: &str = "conformance";

/// The `number`th row, with that number as JSON body, in a lane if there is one.
pub fn row(number: u64, lane: Option<&str>) -> OutboxRow {
    let number_text = number.to_string();
    let mut row = outgoing::row(PLUGIN, number_text.clone(), DESTINATION, number_text);
    row.id.version = number + 1;
    row.outgoing.key = Some(Bytes::from(format!("key-{number}")));
    match lane {
        Some(lane) => outgoing::in_lane(row, lane),
        None => row,
    }
}

/// `count` rows, one after the other in each of `lanes` lanes.
pub fn rows_in_lanes(count: u64, lanes: u64) -> Vec<OutboxRow> {
    (0..count)
        .map(|number| row(number, Some(&format!("lane-{}", number % lanes))))
        .collect()
}

/// Rows whose contents are easily lost on the way.
pub fn awkward_rows() -> Vec<OutboxRow> {
    let header = |name: &str, value: &str| Header {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let headers = [
        vec![],
        vec![header("a", "1"), header("b", "2")],
        vec![header("z", "first"), header("a", "second")],
        vec![header("twice", "1"), header("twice", "2")],
        vec![header("empty", ""), header("Ünïcode", "\u{1}\u{2}\n\"")],
        vec![
            header("KEYS", "x"),
            header("UNIQ_KEY", "y"),
            header("TAGS", "z"),
        ],
    ];
    let bodies = [
        Bytes::new(),
        Bytes::from_static(b" "),
        Bytes::from_static(br#"{"b": 1.0, "a": [null, "\u00e9"]}"#),
        Bytes::from_static(b"{\n  \"pretty\": true\n}\n"),
        Bytes::from_static(br#"{"base64":"AAA="}"#),
        Bytes::from_static(b"\0\x01\x02\xff no text"),
        Bytes::from(vec![0xa5; 300 * 1024]),
    ];
    let keys = [
        Some("key"),
        None,
        Some("a key with spaces"),
        Some("schlüssel"),
    ];
    let count = headers.len() * bodies.len();
    (0..count)
        .map(|index| {
            let mut row = row(index as u64, None);
            row.outgoing.key = keys[index % keys.len()].map(Bytes::from);
            row.outgoing.headers = headers[index % headers.len()].clone();
            row.outgoing.body = bodies[index / headers.len()].clone();
            row
        })
        .collect()
}
