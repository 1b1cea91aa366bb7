//! Outgoing messages, as sinks take them.

use bytes::Bytes;
use semel_core::{
    BusinessKey, Lane, MessageId, OutboxLane, OutboxRow, Outgoing, PluginName, RecordId, RowId,
};

/// A message without key and headers. Those of a `plugin` with another `record` have other ids.
pub fn row(
    plugin: &str,
    record: impl Into<Bytes>,
    destination: &str,
    body: impl Into<Bytes>,
) -> OutboxRow {
    let record = RecordId {
        plugin: PluginName::new(plugin),
        key: BusinessKey::new(record),
    };
    OutboxRow {
        id: RowId {
            version: 1,
            ordinal: 0,
        },
        message_id: MessageId::derive(&record, 0),
        plugin: record.plugin,
        lane: None,
        due_ms: 0,
        outgoing: Outgoing {
            destination: destination.into(),
            key: None,
            headers: Vec::new(),
            body: body.into(),
            delay_ms: None,
        },
    }
}

/// The same message in a lane.
pub fn in_lane(row: OutboxRow, lane: &str) -> OutboxRow {
    let lane = OutboxLane {
        plugin: row.plugin.clone(),
        lane: Lane::new(lane.to_owned()),
    };
    OutboxRow {
        lane: Some(lane),
        ..row
    }
}
