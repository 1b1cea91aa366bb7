//! Apache Kafka.
//!
//! The client is librdkafka, which is built with this crate and linked statically. It logs each
//! attempt of each of its threads in an outage; here its lines go to `tracing` at `debug`, under
//! the target `librdkafka`. What matters of them, the source and the sink say themselves.

mod errors;
mod message;
mod observer;
mod partitioner;
mod sink;
mod source;
mod survey;
mod topics;
mod url;

pub use sink::{KafkaSink, KafkaSinkConfig};
pub use source::{KafkaSource, KafkaSourceConfig};
pub use survey::examine_kafka;
pub use url::{KafkaUrl, KafkaUrlError};

use rdkafka::ClientConfig;

/// What consumers and producers have in common.
fn client_config(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("client.id", "semel")
        // A broker that comes back is to be found soon.
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.refresh.interval.ms", "30000")
        // Brokers close idle connections, which is no news.
        .set("log.connection.close", "false");
    config
}
