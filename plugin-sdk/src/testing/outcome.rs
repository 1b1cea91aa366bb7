//! What became of a message.

use std::time::Duration;

/// What became of a message under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler succeeded and its effects count.
    Applied {
        /// What it replied.
        reply: Option<Vec<u8>>,
    },
    /// The key was seen before, with the same body: the handler did not run.
    Duplicate {
        /// What the first run replied, if it succeeded.
        reply: Option<Vec<u8>>,
    },
    /// A version that is as new or newer was applied: the handler did not run.
    Stale,
    /// The handler asked to be run again, or versions before this one are missing: the message
    /// is parked, nothing counts.
    Parked {
        /// Why.
        reason: String,
        /// The delay that it asked for.
        after: Option<Duration>,
    },
    /// The handler rejected the message, or added to what is no counter: it is a dead letter,
    /// nothing counts.
    Rejected {
        /// Why.
        reason: String,
    },
    /// The message never got to the handler, and is a dead letter: it has no key, lane or
    /// version, its topic is not the handler's, or its key was seen with another body.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Whether the handler succeeded.
    pub fn is_applied(&self) -> bool {
        matches!(self, Self::Applied { .. })
    }

    /// Whether the key was seen before.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Duplicate { .. })
    }

    /// Whether a version that is as new or newer was applied.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale)
    }

    /// Whether the message is parked.
    pub fn is_parked(&self) -> bool {
        matches!(self, Self::Parked { .. })
    }

    /// Whether the handler rejected the message.
    pub fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }

    /// Whether the message never got to the handler and never will.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// The reply.
    pub fn reply(&self) -> Option<&[u8]> {
        match self {
            Self::Applied { reply } | Self::Duplicate { reply } => reply.as_deref(),
            _ => None,
        }
    }

    /// Why the message was parked, rejected or refused.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Parked { reason, .. } | Self::Rejected { reason } | Self::Refused { reason } => {
                Some(reason)
            }
            _ => None,
        }
    }
}
