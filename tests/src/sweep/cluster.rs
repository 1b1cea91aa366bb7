//! A broker of any kind, as trials use it.

use anyhow::Result;

use super::found::PLUGINS;
use crate::servers::kafka::Kafka;
use crate::servers::rabbitmq::RabbitMq;
use crate::servers::rocketmq::RocketMq;

/// The servers themselves.
pub enum Cluster {
    /// Apache RocketMQ.
    RocketMq(RocketMq),
    /// Apache Kafka.
    Kafka(Kafka),
    /// RabbitMQ.
    RabbitMq(RabbitMq),
}

impl Cluster {
    /// The topic that a plugin has the messages of a trial from.
    pub fn topic(&self, name: &str, plugin: &str) -> String {
        match self {
            Self::RocketMq(_) | Self::Kafka(_) => name.to_owned(),
            // A queue hands each message to one consumer.
            Self::RabbitMq(_) => format!("{name}-{plugin}"),
        }
    }

    /// Every topic with the messages of a trial.
    pub fn topics(&self, name: &str) -> Vec<String> {
        let mut topics = PLUGINS.map(|plugin| self.topic(name, plugin)).to_vec();
        topics.dedup();
        topics
    }

    /// How many queues a topic has.
    fn queues(&self) -> u32 {
        match self {
            Self::RocketMq(_) | Self::Kafka(_) => 2,
            Self::RabbitMq(_) => 1,
        }
    }

    /// Creates a topic and waits until clients can use it.
    pub async fn create_topic(&self, topic: &str) -> Result<()> {
        let queues = self.queues();
        match self {
            Self::RocketMq(server) => server.create_topic(topic, queues).await,
            Self::Kafka(server) => server.create_topic(topic, i32::try_from(queues)?).await,
            Self::RabbitMq(server) => server.declare_queue(topic).await,
        }
    }

    /// The offset behind the last message of each queue of a topic that nobody consumes yet.
    pub async fn ends(&self, topic: &str) -> Result<Vec<u64>> {
        let mut ends = Vec::new();
        for queue in 0..self.queues() {
            ends.push(match self {
                Self::RocketMq(server) => server.end_of(topic, queue)?,
                Self::Kafka(server) => server.end_of(topic, i32::try_from(queue)?).await?,
                Self::RabbitMq(server) => server.backlog(topic)?,
            });
        }
        Ok(ends)
    }

    /// How many messages of a queue with this end a group has not acknowledged.
    pub async fn behind(&self, group: &str, topic: &str, queue: u32, end: u64) -> Result<u64> {
        let committed = match self {
            Self::RocketMq(server) => server.committed(group, topic, queue)?,
            Self::Kafka(server) => {
                server
                    .committed(group, topic, i32::try_from(queue)?)
                    .await?
            }
            Self::RabbitMq(server) => return server.backlog(topic),
        };
        Ok(end.saturating_sub(committed.unwrap_or(0)))
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        match self {
            Self::RocketMq(server) => server.kill(),
            Self::Kafka(server) => server.kill(),
            Self::RabbitMq(server) => server.kill(),
        }
    }

    /// Starts it again, after [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        match self {
            Self::RocketMq(server) => server.restart().await,
            Self::Kafka(server) => server.restart().await,
            Self::RabbitMq(server) => server.restart().await,
        }
    }
}
