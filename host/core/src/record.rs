//! What a store knows of a message.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    DeadLetter, Fingerprint, Lane, Message, Partition, Position, RecordId, RunId, Version,
};

/// The state of one (plugin, business key). `Done` and `Dead` are terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RecordState {
    /// Never handled, or so long ago that its record expired.
    #[default]
    Absent,
    /// Waiting to be run again.
    Parked {
        /// Of the parked message.
        fingerprint: Fingerprint,
        /// Of the parked row; new with each write.
        version: Version,
    },
    /// Handled: its effects are applied.
    Done {
        /// Of the message that was handled.
        fingerprint: Fingerprint,
        /// The run whose effects were applied.
        run: RunId,
        /// What the handler answered.
        reply: Option<Bytes>,
    },
    /// A dead letter, also after the operator dropped it.
    Dead {
        /// Of the dead message.
        fingerprint: Fingerprint,
    },
}

impl RecordState {
    /// The fingerprint of the message that the record is about.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Absent => None,
            Self::Parked { fingerprint, .. }
            | Self::Done { fingerprint, .. }
            | Self::Dead { fingerprint } => Some(*fingerprint),
        }
    }
}

/// A message's place in its lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LanePosition {
    /// Order is kept within one partition.
    pub partition: Partition,
    /// And within one lane of it.
    pub lane: Lane,
    /// By offset.
    pub offset: u64,
}

/// A question to [`Store::check`](crate::Store::check).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckQuery {
    /// Which record.
    pub record: RecordId,
    /// Where in its lane, for plugins that declare one.
    pub lane: Option<LanePosition>,
}

/// The answer to a [`CheckQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The record.
    pub state: RecordState,
    /// Whether a parked message of the same plugin, partition and lane has a smaller offset.
    pub behind: bool,
    /// The store's time bucket at the check. A commit that relies on this answer after the
    /// bucket expired is refused: a record may have come and gone in between.
    pub bucket: u64,
}

/// A value and the commit that wrote it. What isn't there has version 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versioned {
    /// The commit.
    pub version: Version,
    /// The value.
    pub value: Option<Bytes>,
}

/// A message that waits in the store to be run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedRow {
    /// Whose fate it owns.
    pub record: RecordId,
    /// Of the body.
    pub fingerprint: Fingerprint,
    /// The message itself.
    pub message: Message,
    /// Where it was received.
    pub position: Position,
    /// Its lane, if the plugin declares one.
    pub lane: Option<Lane>,
    /// How many runs failed so far. 0: it waits for another message.
    pub attempt: u32,
    /// Since when it waits for an earlier version of its entity, in milliseconds since
    /// 1970-01-01 UTC, if that is what it waits for.
    pub waits_since_ms: Option<u64>,
    /// Not to be run before this time, in milliseconds since 1970-01-01 UTC.
    pub due_ms: u64,
    /// Why it waits.
    pub reason: String,
    /// The write that put it here; set by the store.
    pub version: Version,
}

impl ParkedRow {
    /// The row that a replayed dead letter becomes: due at once, without a lane. The store
    /// sets its version.
    pub fn replayed(
        record: &RecordId,
        fingerprint: Fingerprint,
        letter: &DeadLetter,
        now_ms: u64,
    ) -> Self {
        Self {
            record: record.clone(),
            fingerprint,
            message: letter.message.clone(),
            position: letter.position.clone(),
            lane: None,
            attempt: 0,
            waits_since_ms: None,
            due_ms: now_ms,
            reason: format!("replayed: {}", letter.reason),
            version: 0,
        }
    }

    /// Its place in its lane.
    pub fn lane_position(&self) -> Option<LanePosition> {
        self.lane.as_ref().map(|lane| LanePosition {
            partition: self.position.partition.clone(),
            lane: lane.clone(),
            offset: self.position.offset,
        })
    }
}
