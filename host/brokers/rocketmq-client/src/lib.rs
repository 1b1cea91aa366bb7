//! Apache RocketMQ's client, as Semel's source and sink use it.
//!
//! The client's futures nest so deeply that the compiler takes minutes to see that they are
//! `Send` wherever they are awaited. Here it has to see it once for each method of a trait;
//! what is built on [`Consumer`] and [`Producer`] compiles in no time.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
// The client nests futures deeply.
#![recursion_limit = "512"]

mod client;
mod consumer;
mod inspector;
mod producer;
mod transaction;

pub use client::{RocketMqClient, RocketMqStartError};
pub use consumer::{Consumer, ConsumerSettings};
pub use inspector::{Inspector, TopicShare};
pub use producer::{Producer, ProducerSettings};
pub use rocketmq_client_rust::{ClientError, ClientResult, SendStatus};
pub use rocketmq_model::common::message::{
    STRING_HASH_SET as TAKEN_PROPERTIES, message_builder::MessageBuilder, message_ext::MessageExt,
    message_queue::MessageQueue, message_single::Message,
};
pub use transaction::{CheckBack, Decision, HalfMessage, TransactionalProducer};
