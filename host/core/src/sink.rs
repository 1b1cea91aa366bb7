//! The seam to where outgoing messages go.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Lane, MessageId, Outgoing, PluginName, Version};

/// The place of an outgoing message in the outbox. Rows of one lane are published in this
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowId {
    /// The commit that wrote it.
    pub version: Version,
    /// Its index among the messages of that run.
    pub ordinal: u32,
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.ordinal)
    }
}

/// What outgoing messages must share to be published in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OutboxLane {
    /// The plugin that published.
    pub plugin: PluginName,
    /// The lane of the message that it handled.
    pub lane: Lane,
}

/// A committed outgoing message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Its place in the outbox.
    pub id: RowId,
    /// Who published it.
    pub plugin: PluginName,
    /// The id that consumers see.
    pub message_id: MessageId,
    /// Its lane. A message with a delay has none: it can't keep others waiting.
    pub lane: Option<OutboxLane>,
    /// Not to be published before, in milliseconds since 1970-01-01 UTC; 0 for at once.
    pub due_ms: u64,
    /// The message.
    pub outgoing: Outgoing,
}

/// Publishes outgoing messages.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Publishes rows and says for each whether the broker confirmed it, in order. Rows of a
    /// lane go out one after the other; once one of them fails, the later ones of its lane in
    /// this call are failed unsent.
    ///
    /// A row that is published twice must be recognisable by its `message_id`.
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>>;

    /// Whether the broker itself keeps a row back until it is due. Of other sinks, the relay
    /// does.
    fn delays(&self, _row: &OutboxRow) -> bool {
        false
    }

    /// Flushes and lets go of connections. Nothing is published after.
    async fn close(&self) {}
}

/// Why a row was not published. Unless it is refused, it stays in the outbox and is tried
/// again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// The broker can't be reached or did not confirm in time.
    #[error("not confirmed by the broker: {0}")]
    Unavailable(String),
    /// The broker will never take this message. It becomes a dead letter.
    #[error("refused by the broker: {0}")]
    Refused(String),
    /// An earlier message of the same lane failed.
    #[error("held back behind an earlier message of its lane")]
    Held,
    /// The destination is mapped to nothing.
    #[error("no such destination: {0}")]
    Unmapped(String),
}
