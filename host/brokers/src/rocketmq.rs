//! Apache RocketMQ 5.
//!
//! The client logs an outage once for each attempt of each of its tasks, and what it shut
//! down as a long line of JSON. A host should turn [`ROCKETMQ_LOG_TARGETS`] off unless asked
//! for them: what matters of it, the source and the sink say themselves.

mod check_back;
mod connection;
mod cursor;
mod errors;
mod message;
mod routes;
mod sink;
mod source;
mod survey;
mod transactional_sink;
mod transactions;
mod url;

pub use semel_rocketmq_client::{RocketMqClient, RocketMqStartError};
pub use sink::{RocketMqSink, RocketMqSinkConfig};
pub use source::{RocketMqSource, RocketMqSourceConfig};
pub use survey::examine_rocketmq;
pub use transactional_sink::RocketMqTransactionalSink;
pub use transactions::{RocketMqTransactions, RocketMqTransactionsConfig};
pub use url::{RocketMqUrl, RocketMqUrlError};

/// The targets under which the client logs through `tracing`.
pub const ROCKETMQ_LOG_TARGETS: [&str; 5] = [
    "rocketmq_client_rust",
    "rocketmq_transport",
    "rocketmq_runtime",
    "rocketmq_protocol",
    "rocketmq_model",
];
