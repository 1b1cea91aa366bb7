//! The seam to where messages come from.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Delivery, Position, Settlement};

/// Hands over messages at least once.
///
/// Within a partition, offsets ascend, and whoever is given offset n was also given every
/// offset below it that is not acknowledged (*prefix delivery*). After a crash, a source
/// starts again at the first position that is not acknowledged.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Waits for messages, at most `limit` of them. An empty batch means that none came within
    /// the source's own poll time.
    async fn receive(&self, limit: usize) -> Result<Received, SourceError>;

    /// Tells the broker that every message of these partitions *up to and including* these
    /// offsets is recorded. Going back is harmless.
    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError>;

    /// Whether someone waits at the source to hear what becomes of each message.
    fn wants_settlements(&self) -> bool {
        false
    }

    /// Hears what became of messages whose record is durable: each once for each delivery, in any
    /// order, before or after it is acknowledged.
    async fn settle(&self, _settlements: Vec<Settlement>) {}

    /// How long after it was sent a message may be delivered again, where the source knows.
    /// A done record must not expire before.
    fn redelivery(&self) -> Option<Duration> {
        None
    }

    /// Lets go of partitions and connections.
    async fn close(&self) {}
}

/// What a source has to say.
#[derive(Clone, Debug)]
pub enum Received {
    /// Messages, in order within each partition.
    Batch(Vec<Delivery>),
    /// There will be no more: the file's end.
    End,
}

/// Why a source has nothing to give.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The broker can't be reached. The engine asks again after a pause.
    #[error("the source is unavailable: {0}")]
    Unavailable(String),
    /// It can't go on without someone's help.
    #[error("the source failed: {0}")]
    Failed(String),
}
