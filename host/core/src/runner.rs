//! The seam to where handlers run.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{RunContext, StateKey, StoreError, Version};

/// Runs a handler on one message.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Calls the handler in a fresh sandbox. Whatever the handler does, including never
    /// returning, this ends within the runner's own limits.
    async fn run(&self, context: RunContext) -> Finished;
}

/// A run that ended.
#[derive(Debug)]
pub struct Finished {
    /// What was staged and read.
    pub context: RunContext,
    /// The handler's answer: a reply, or how it failed.
    pub answer: Result<Option<Bytes>, Failure>,
}

/// How a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The handler asks to be run again.
    Retry {
        /// Why.
        reason: String,
        /// The least delay in milliseconds.
        after_ms: Option<u64>,
    },
    /// The handler gives the message up.
    Reject {
        /// Why.
        reason: String,
    },
    /// The handler did not come to an end of its own: a trap, a limit, a timeout. Treated as
    /// a retry.
    Trap {
        /// What happened, in a line.
        reason: String,
        /// Panic text and backtrace.
        detail: Option<String>,
    },
    /// The host could not answer the handler; see [`RunContext::take_fault`]. No attempt
    /// counts.
    Aborted,
}

/// A consistent view of the store for one run.
#[async_trait]
pub trait Snapshot: Send + Sync + std::fmt::Debug {
    /// The value if it is at hand.
    fn peek(&self, key: &StateKey) -> Option<Seen>;

    /// The value, asking the store if need be.
    async fn get(&self, key: &StateKey) -> Result<Seen, StoreError>;
}

/// A value and what it rests on, as in [`Read`](crate::Read).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The value.
    pub value: Option<Bytes>,
    /// The version that the store gave.
    pub base: Version,
    /// Staged runs whose writes are in the value, by their number in the engine.
    pub staged: Vec<u64>,
}
