//! RabbitMQ, by AMQP 0-9-1.

mod errors;
mod link;
mod message;
mod queue;
mod sink;
mod source;
mod survey;
mod url;

pub use queue::RabbitMqQueueKind;
pub use sink::{RabbitMqSink, RabbitMqSinkConfig};
pub use source::{RabbitMqSource, RabbitMqSourceConfig};
pub use survey::examine_rabbitmq;
pub use url::{RabbitMqDestination, RabbitMqUrl, RabbitMqUrlError};
