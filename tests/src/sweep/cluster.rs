//! A broker of either kind, as trials use it.

use anyhow::Result;

use crate::servers::kafka::Kafka;
use crate::servers::rocketmq::RocketMq;

/// The servers themselves.
pub enum Cluster {
    /// Apache RocketMQ.
    RocketMq(RocketMq),
    /// Apache Kafka.
    Kafka(Kafka),
}

impl Cluster {
    /// Creates a topic and waits until clients can use it.
    pub async fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        match self {
            Self::RocketMq(server) => server.create_topic(topic, partitions).await,
            Self::Kafka(server) => {
                let partitions = i32::try_from(partitions)?;
                server.create_topic(topic, partitions).await
            }
        }
    }

    /// The offset behind the last message of a partition.
    pub async fn end_of(&self, topic: &str, partition: u32) -> Result<u64> {
        match self {
            Self::RocketMq(server) => server.end_of(topic, partition),
            Self::Kafka(server) => server.end_of(topic, i32::try_from(partition)?).await,
        }
    }

    /// The offset that a group consumes next of a partition; none before it committed any.
    pub async fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<u64>> {
        match self {
            Self::RocketMq(server) => server.committed(group, topic, partition),
            Self::Kafka(server) => {
                let partition = i32::try_from(partition)?;
                server.committed(group, topic, partition).await
            }
        }
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        match self {
            Self::RocketMq(server) => server.kill(),
            Self::Kafka(server) => server.kill(),
        }
    }

    /// Starts it again, after [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        match self {
            Self::RocketMq(server) => server.restart().await,
            Self::Kafka(server) => server.restart().await,
        }
    }
}
