//! Messages that will not be handled unless someone acts.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::derive_hex;
use crate::{Message, OutboxRow, Partition, PluginName, Position, RecordId};

/// A message given up, with all that is needed to see why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its handle for commands.
    pub id: DeadLetterId,
    /// The plugin that it was for.
    pub plugin: PluginName,
    /// The record that it is the end of. None where the message has no record of its own: it
    /// never had a key, or its key belongs to another payload.
    pub record: Option<RecordId>,
    /// What kind of end.
    pub cause: Cause,
    /// Why, in a line.
    pub reason: String,
    /// The guest's panic text and backtrace, if there are any.
    pub detail: Option<String>,
    /// The message. Of malformed input: the raw bytes as body.
    pub message: Message,
    /// The outgoing message, where it is one that a broker refused. A replay puts it back into
    /// the outbox.
    pub outgoing: Option<Box<OutboxRow>>,
    /// Where it was received.
    pub position: Position,
    /// How often the handler ran on it and failed.
    pub attempts: u32,
    /// When it was given up, in milliseconds since 1970-01-01 UTC.
    pub dead_ms: u64,
}

impl DeadLetter {
    /// Of an outgoing message that a broker refused.
    pub fn undeliverable(row: &OutboxRow, reason: String, dead_ms: u64) -> Self {
        let outgoing = &row.outgoing;
        let position = Position {
            partition: Partition::new(&format!("outbox:{}", outgoing.destination)),
            offset: row.id.version,
        };
        Self {
            id: DeadLetterId::of_outgoing(row),
            plugin: row.plugin.clone(),
            record: None,
            cause: Cause::Undeliverable,
            reason,
            detail: None,
            message: Message {
                id: row.message_id.to_string(),
                topic: Arc::clone(&outgoing.destination),
                keys: Vec::new(),
                headers: outgoing.headers.clone(),
                body: outgoing.body.clone(),
                timestamp_ms: dead_ms,
            },
            outgoing: Some(Box::new(row.clone())),
            position,
            attempts: 0,
            dead_ms,
        }
    }
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The handler rejected it.
    Rejected,
    /// The last attempt failed.
    Exhausted,
    /// Its key was used before, with another payload.
    Mismatch,
    /// It has no usable business key or lane.
    NoKey,
    /// The source could not read it as a message.
    Malformed,
    /// It is an outgoing message, and a broker refused it.
    Undeliverable,
    /// It can't be compared with other versions of its entity.
    NoVersion,
}

impl Cause {
    /// Whether the letter is the end of a record, which a replay can take up again.
    pub fn has_record(self) -> bool {
        matches!(self, Self::Rejected | Self::Exhausted)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Mismatch => "mismatch",
            Self::NoKey => "no-key",
            Self::Malformed => "malformed",
            Self::Undeliverable => "undeliverable",
            Self::NoVersion => "no-version",
        })
    }
}

/// 16 hexadecimal digits. The same message dies under the same id, so that burying it again
/// changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeadLetterId(String);

impl DeadLetterId {
    /// Of the letter that ends a record.
    pub fn of_record(record: &RecordId) -> Self {
        Self(derive_hex("semel dead record", record, &[])[..16].to_owned())
    }

    /// Of a letter that has a position only.
    pub fn of_position(plugin: &PluginName, position: &Position) -> Self {
        let mut hasher = blake3::Hasher::new();
        let partition = position.partition.as_str();
        for part in ["semel dead position", plugin.as_str(), partition] {
            hasher
                .update(&(part.len() as u64).to_be_bytes())
                .update(part.as_bytes());
        }
        let hash = hasher.update(&position.offset.to_be_bytes()).finalize();
        Self(hash.to_hex()[..16].to_owned())
    }

    /// Of an outgoing message.
    pub fn of_outgoing(row: &OutboxRow) -> Self {
        let hash = blake3::hash(format!("semel dead outgoing {}", row.message_id).as_bytes());
        Self(hash.to_hex()[..16].to_owned())
    }

    /// From what an operator typed.
    pub fn from_text(text: &str) -> Self {
        Self(text.to_ascii_lowercase())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
