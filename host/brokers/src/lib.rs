//! Where Semel's messages come from and go to.
//!
//! | broker | source | sink |
//! |---|---|---|
//! | JSON Lines, a file or stdin and stdout | [`FileSource`] | [`FileSink`] |
//! | HTTP (feature `http`, on by default) | [`HttpSource`] | [`HttpSink`] |
//! | Apache RocketMQ (feature `rocketmq`, on by default) | [`RocketMqSource`] | [`RocketMqSink`] |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod file;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "rocketmq")]
mod rocketmq;

pub use file::{FileError, FileName, FileProgress, FileSink, FileSource};
#[cfg(feature = "http")]
pub use http::{
    HttpDestination, HttpDestinationError, HttpMethod, HttpServer, HttpSink, HttpSource,
    HttpSourceConfig, HttpSourceError, HttpSubscription, HttpTls, InFlight, ResponseSink,
};
#[cfg(feature = "rocketmq")]
pub use rocketmq::{
    ROCKETMQ_LOG_TARGETS, RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource,
    RocketMqSourceConfig, RocketMqStartError, RocketMqTransactionalSink, RocketMqTransactions,
    RocketMqTransactionsConfig, RocketMqUrl, RocketMqUrlError,
};
