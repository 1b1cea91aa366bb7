//! What sources hand over.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One header of a message. Names may repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A message, whichever broker it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The source's stable id: the same for every delivery of one send.
    pub id: String,
    /// The topic it was sent to.
    pub topic: Arc<str>,
    /// The keys that the producer gave to the broker (RocketMQ KEYS, a line's `key`).
    pub keys: Vec<String>,
    /// The producer's headers, in order.
    pub headers: Vec<Header>,
    /// The payload, as sent.
    pub body: Bytes,
    /// When the broker first took it, in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: u64,
}

impl Message {
    /// About how much memory it holds, in bytes, for back-pressure.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|h| h.name.len() + h.value.len())
            .sum();
        self.body.len() + self.id.len() + headers + 256
    }
}

/// An ordered stream of a source: a queue, a partition, a file. The name is the same on
/// every host and after every restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition(Arc<str>);

impl Partition {
    /// A partition by name, such as `rocketmq:orders/broker-a/3`.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// In which stream.
    pub partition: Partition,
    /// How far in, counted as the source counts (a file: the line, from 1).
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// What stands at one position of a source.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it stands.
    pub position: Position,
    /// What stands there.
    pub payload: Payload,
}

/// A message, or bytes that should have been one.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A message.
    Message(Arc<Message>),
    /// Bytes that the source could not read as a message. They become a dead letter.
    Malformed {
        /// What is wrong and where.
        reason: String,
        /// The bytes as found.
        raw: Bytes,
    },
}
