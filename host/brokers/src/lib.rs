//! Where Semel's messages come from and go to.
//!
//! | broker | source | sink |
//! |---|---|---|
//! | JSON Lines, a file or stdin and stdout | [`FileSource`] | [`FileSink`] |
//! | HTTP (feature `http`, on by default) | [`HttpSource`] | [`HttpSink`] |
//! | Apache Kafka (feature `kafka`, on by default) | [`KafkaSource`] | [`KafkaSink`] |
//! | RabbitMQ (feature `rabbitmq`, on by default) | [`RabbitMqSource`] | [`RabbitMqSink`] |
//! | Apache RocketMQ (feature `rocketmq`, on by default) | [`RocketMqSource`] | [`RocketMqSink`] |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(any(feature = "http", feature = "rabbitmq", feature = "rocketmq"))]
mod causes;
mod file;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(any(feature = "http", feature = "kafka", feature = "rocketmq"))]
mod lock;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
mod percent;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "rocketmq")]
mod rocketmq;
#[cfg(test)]
mod sample;
#[cfg(any(feature = "http", feature = "kafka", feature = "rabbitmq"))]
mod strands;
mod survey;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
mod tls;

pub use file::{
    FileError, FileName, FileProgress, FileSink, FileSource, examine_input, examine_output,
};
#[cfg(feature = "http")]
pub use http::{
    HttpDestination, HttpDestinationError, HttpMethod, HttpServer, HttpSink, HttpSource,
    HttpSourceConfig, HttpSourceError, HttpSubscription, HttpTls, InFlight, ResponseSink,
};
#[cfg(feature = "kafka")]
pub use kafka::{
    KafkaCluster, KafkaSink, KafkaSinkConfig, KafkaSource, KafkaSourceConfig, KafkaUrl,
    KafkaUrlError, examine_kafka,
};
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::{
    RabbitMqDestination, RabbitMqQueueKind, RabbitMqSink, RabbitMqSinkConfig, RabbitMqSource,
    RabbitMqSourceConfig, RabbitMqUrl, RabbitMqUrlError, examine_rabbitmq,
};
#[cfg(feature = "rocketmq")]
pub use rocketmq::{
    ROCKETMQ_LOG_TARGETS, RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource,
    RocketMqSourceConfig, RocketMqStartError, RocketMqTransactionalSink, RocketMqTransactions,
    RocketMqTransactionsConfig, RocketMqUrl, RocketMqUrlError, examine_rocketmq,
};
pub use survey::{Survey, TopicRole, TopicUse};
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
pub use tls::TlsFileError;
