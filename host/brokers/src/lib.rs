//! Where Semel's messages come from and go to.
//!
//! | broker | source | sink |
//! |---|---|---|
//! | JSON Lines, a file or stdin and stdout | [`FileSource`] | [`FileSink`] |
//! | Apache RocketMQ (feature `rocketmq`, on by default) | [`RocketMqSource`] | [`RocketMqSink`] |
#![forbid(unsafe_code)]
#![deny(missing_docs)]
// The RocketMQ client nests futures deeply.
#![recursion_limit = "512"]

mod file;
#[cfg(feature = "rocketmq")]
mod rocketmq;

pub use file::{FileError, FileName, FileProgress, FileSink, FileSource};
#[cfg(feature = "rocketmq")]
pub use rocketmq::{
    ROCKETMQ_LOG_TARGETS, RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource,
    RocketMqSourceConfig, RocketMqStartError, RocketMqUrl, RocketMqUrlError,
};
