//! A run that asks to be committed, and what becomes of it.

use crate::{Message, RunId, StateKey, Version, Write};

/// One run of a handler, ready for its commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    /// Which run.
    pub id: RunId,
    /// For which message.
    pub message: Message,
    /// What the check found; parking is conditional on it.
    pub expected: Expected,
    /// What the handler read.
    pub reads: Vec<Read>,
    /// What is to become of the message.
    pub verdict: Verdict,
}

/// The record as the check found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expected {
    /// No record.
    Absent,
    /// The parked row of this version, after so many failures.
    Parked {
        /// Of the row.
        version: Version,
        /// Failures so far.
        attempt: u8,
    },
}

impl Expected {
    /// How many runs failed before.
    pub fn attempt(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Parked { attempt, .. } => attempt,
        }
    }
}

/// A value that the handler read: the store's at version `base`, with the writes of the runs
/// `seen` on top (indices into the batch).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Read {
    /// Which value.
    pub key: StateKey,
    /// The version that the store gave for it.
    pub base: Version,
    /// The runs of this batch whose staged writes were on top.
    pub seen: Vec<u8>,
}

/// What a run asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Apply these writes, and send if the message's handler sends; mark the record done.
    Done(Vec<Write>),
    /// Keep the message for another attempt.
    Park(Park),
    /// Bury the message.
    Dead(Cause),
}

/// A message to keep in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Park {
    /// How many runs failed so far.
    pub attempt: u8,
    /// Whether it only waits behind its lane's predecessor.
    pub behind: bool,
}

/// Why a message is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The handler rejected it.
    Rejected,
    /// Its attempts are used up.
    Exhausted,
}

impl Verdict {
    /// The writes to apply.
    pub fn writes(&self) -> &[Write] {
        match self {
            Self::Done(writes) => writes,
            Self::Park(_) | Self::Dead(_) => &[],
        }
    }

    /// Whether the message is only parked because its lane's predecessor is.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Park(Park { behind: true, .. }))
    }

    /// Whether it stands for a counted failure.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Park(park) => !park.behind,
            Self::Dead(cause) => *cause == Cause::Exhausted,
            Self::Done(_) => false,
        }
    }
}

/// What became of one run of a commit. Nothing of a run is written unless it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its verdict is durable now.
    Applied,
    /// The record was done or dead already, by a message with the same payload.
    Duplicate,
    /// The record belongs to a message with another payload.
    Mismatch,
    /// The record is not the one that the check found.
    AlreadyParked,
    /// A parked message of the lane comes first.
    Behind,
    /// A read went stale, or an earlier run of the lane was not applied.
    Conflict,
}
