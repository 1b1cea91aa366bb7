//! Apache Kafka.
//!
//! The client is librdkafka, which is built with this crate and linked statically. It logs each
//! attempt of each of its threads in an outage; here its lines go to `tracing` at `debug`, under
//! the target `librdkafka`. What matters of them, the source and the sink say themselves.

mod cluster;
mod errors;
mod message;
mod observer;
mod partitioner;
mod sink;
mod source;
mod survey;
mod topics;
mod url;

pub use cluster::KafkaCluster;
pub use sink::{KafkaSink, KafkaSinkConfig};
pub use source::{KafkaSource, KafkaSourceConfig};
pub use survey::examine_kafka;
pub use url::{KafkaUrl, KafkaUrlError};
