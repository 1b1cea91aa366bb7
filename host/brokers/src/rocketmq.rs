//! Apache RocketMQ 5.
//!
//! The client logs an outage once for each attempt of each of its tasks, and what it shut
//! down as a long line of JSON. A host should turn [`ROCKETMQ_LOG_TARGETS`] off unless asked
//! for them: what matters of it, the source and the sink say themselves.

mod client;
mod cursor;
mod erased;
mod message;
mod sink;
mod source;
mod url;

pub use client::{RocketMqClient, RocketMqStartError};
pub use sink::{RocketMqSink, RocketMqSinkConfig};
pub use source::{RocketMqSource, RocketMqSourceConfig};
pub use url::{RocketMqUrl, RocketMqUrlError};

/// The targets under which the client logs through `tracing`.
pub const ROCKETMQ_LOG_TARGETS: [&str; 5] = [
    "rocketmq_client_rust",
    "rocketmq_transport",
    "rocketmq_runtime",
    "rocketmq_protocol",
    "rocketmq_model",
];
