//! What an engine is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::{
    Clock, Grants, KeyExpression, PluginName, RelayHandle, Runner, Source, Stats, Store,
    Transactions, Versioning,
};

/// One plugin's settings.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Whose engine it is.
    pub plugin: PluginName,
    /// Where the business key stands in a message.
    pub key: KeyExpression,
    /// Where the lane stands, if messages are to be handled in order.
    pub order_by: Option<KeyExpression>,
    /// How messages are numbered, if they are.
    pub versioning: Option<Versioning>,
    /// What the operator gives the plugin.
    pub grants: Arc<Grants>,
    /// How long a done record lives.
    pub retention: Duration,
    /// What becomes of failures.
    pub retry: RetryPolicy,
    /// How much is done at once.
    pub flow: FlowLimits,
    /// Whether an engine whose source ended waits for parked messages to settle.
    pub wait_for_parked: bool,
    /// A random number that no other host process has. Run ids are made from it.
    pub instance: u64,
}

/// When a failed message is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// After this many failures the message becomes a dead letter.
    pub max_attempts: u32,
    /// The delay after the first failure; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 8,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(600),
        }
    }
}

impl RetryPolicy {
    /// The delay after the `attempt`th failure (from 1).
    pub fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.first_delay
            .saturating_mul(1 << doublings)
            .min(self.max_delay)
    }
}

/// Bounds on what is on its way between receive and acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Tasks that run handlers at the same time. About one a worker thread keeps them busy.
    pub concurrency: usize,
    /// Runs in one commit, and messages in one check. Larger batches share a disk flush or
    /// round trip between more messages; smaller ones conflict less.
    pub batch: usize,
    /// Messages in flight.
    pub in_flight: usize,
    /// Bytes in flight.
    pub in_flight_bytes: usize,
    /// State values kept at hand between batches.
    pub cached_values: usize,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            concurrency: 2,
            batch: 256,
            in_flight: 2_048,
            in_flight_bytes: 64 << 20,
            cached_values: 65_536,
        }
    }
}

/// What an engine works with.
#[derive(Clone)]
pub struct EngineParts {
    /// Where messages come from.
    pub source: Arc<dyn Source>,
    /// Where everything durable is kept.
    pub store: Arc<dyn Store>,
    /// Where the handler runs.
    pub runner: Arc<dyn Runner>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who publishes outgoing messages.
    pub relay: RelayHandle,
    /// Who sends half messages, if any destination is transactional.
    pub transactions: Option<Arc<dyn Transactions>>,
    /// Threads for handlers, apart from those that do I/O.
    pub workers: Handle,
    /// Where to count.
    pub stats: Arc<Stats>,
}
