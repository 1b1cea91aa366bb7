//! Rows of parked messages, outgoing messages and dead letters.

use semel_core::{DeadLetter, OutboxRow, ParkedRow, StoreError, Version};

use super::schema::{Tables, lane_id, outbox_lane_id, record_id};
use super::text::{Script, Words};

/// Keeps parked rows, each with its version.
pub(super) fn insert_parked<'r>(
    script: &mut Script,
    words: &Words,
    tables: &Tables,
    rows: impl Iterator<Item = (&'r ParkedRow, Version)>,
) {
    let head = format!(
        "INSERT INTO {} (id, plugin, version, lane, pos, due, content) VALUES ",
        tables.parked
    );
    let columns = ["version", "lane", "pos", "due", "content"];
    let replacing = words.or_update("id", &columns);
    script.insert(&head, &replacing, rows, |values, (row, version)| {
        let lane = row.lane_position();
        let lane = lane.map(|at| lane_id(&row.record.plugin, &at));
        values
            .bytes(&record_id(&row.record))
            .bytes(row.record.plugin.as_str().as_bytes())
            .number(version)
            .bytes_or_null(lane.as_ref().map(|lane| &lane[..]))
            .number(row.position.offset)
            .number(row.due_ms)
            .bytes(&crate::codec::encode(row));
    });
}

/// Keeps outgoing messages.
pub(super) fn insert_outbox(script: &mut Script, tables: &Tables, tail: &str, rows: &[OutboxRow]) {
    let head = format!(
        "INSERT INTO {} (version, ordinal, lane, content) VALUES ",
        tables.outbox
    );
    script.insert(&head, tail, rows, |values, row| {
        let lane = row.lane.as_ref().map(outbox_lane_id);
        values
            .number(row.id.version)
            .number(row.id.ordinal.into())
            .bytes_or_null(lane.as_ref().map(|lane| &lane[..]))
            .bytes(&crate::codec::encode(row));
    });
}

/// Keeps dead letters.
pub(super) fn insert_letters<'r>(
    script: &mut Script,
    tables: &Tables,
    tail: &str,
    letters: impl Iterator<Item = &'r DeadLetter>,
) {
    let head = format!("INSERT INTO {} (id, plugin, letter) VALUES ", tables.dead);
    script.insert(&head, tail, letters, |values, letter| {
        values
            .bytes(letter.id.as_str().as_bytes())
            .bytes(letter.plugin.as_str().as_bytes())
            .bytes(&crate::codec::encode(letter));
    });
}

/// Servers that are told to be lenient cut off what is too long, and then two keys are one.
pub(super) fn check_length(what: &str, bytes: &[u8], longest: usize) -> Result<(), StoreError> {
    if bytes.len() <= longest {
        return Ok(());
    }
    Err(StoreError::failed(format!(
        "{what} has {} bytes, and the store's tables take {longest}: shorten it (it begins with \
         `{}`)",
        bytes.len(),
        bytes[..32].escape_ascii()
    )))
}
