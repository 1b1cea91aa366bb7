//! Rows for unit tests.

use bytes::Bytes;
use semel_core::{
    BusinessKey, Header, MessageId, OutboxRow, Outgoing, PluginName, RecordId, RowId,
};

/// A row for the destination `d`, in no lane and due at once.
pub(crate) fn row(
    key: Option<&'static [u8]>,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> OutboxRow {
    let record = RecordId {
        plugin: PluginName::new("p"),
        key: BusinessKey::new("k"),
    };
    let header = |&(name, value): &(&str, &str)| Header {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    OutboxRow {
        id: RowId {
            version: 1,
            ordinal: 0,
        },
        plugin: record.plugin.clone(),
        message_id: MessageId::derive(&record, 0),
        lane: None,
        due_ms: 0,
        outgoing: Outgoing {
            destination: "d".into(),
            key: key.map(Bytes::from_static),
            headers: headers.iter().map(header).collect(),
            body: Bytes::from_static(body),
            delay_ms: None,
        },
    }
}
