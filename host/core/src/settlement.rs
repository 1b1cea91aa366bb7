//! What becomes of messages, for sources at which someone waits to hear it.

use bytes::Bytes;

use crate::{Cause, Position};

/// A message whose record is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Where it was received.
    pub position: Position,
    /// What became of it.
    pub disposition: Disposition,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It was handled.
    Done {
        /// What the handler answered.
        reply: Option<Bytes>,
        /// Whether an earlier delivery of the same message was.
        duplicate: bool,
    },
    /// The handler failed for now; the message waits in the store to be run again.
    Parked,
    /// It is a dead letter, or an earlier delivery of the same message is.
    Dead {
        /// Why, where this delivery is the letter.
        cause: Option<Cause>,
        /// Why, in a line.
        reason: Option<String>,
    },
}
