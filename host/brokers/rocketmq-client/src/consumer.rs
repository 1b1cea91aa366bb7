use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rocketmq_client_rust::{ClientOptions, ClientResult, DefaultLitePullConsumer};
use rocketmq_model::common::consumer::consume_from_where::ConsumeFromWhere;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_queue::MessageQueue;

use crate::RocketMqClient;

/// How a consumer of a group pulls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// The name servers' addresses, separated by `;`.
    pub name_server: String,
    /// The consumer group. A new one starts at the first message of each queue.
    pub group: String,
    /// How many messages are pulled at a time.
    pub pull_batch: i32,
    /// How many messages of a queue wait in the client at most.
    pub queue_messages: i64,
    /// How many mebibytes of a queue wait in the client at most.
    pub queue_mib: i32,
    /// How long the broker holds a request while a queue is empty.
    pub suspend: Duration,
}

/// A consumer of a group that pulls and commits by hand.
///
/// The client's own methods are called by their full names, as some are called the same.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Subscribes, starts, and asks for the topics' queues: a consumer starts without a
    /// broker too.
    async fn start(&self, topics: &[String]) -> ClientResult<()>;
    /// Messages of one queue, or none within `wait`.
    async fn poll(&self, wait: Duration) -> Vec<Arc<MessageExt>>;
    /// Pulls from `offset` next.
    async fn seek(&self, queue: &MessageQueue, offset: i64) -> ClientResult<()>;
    /// Commits the offsets of the next messages to consume. It is not confirmed.
    async fn commit(&self, offsets: HashMap<MessageQueue, i64>);
    /// Commits offsets that were committed before once more.
    async fn commit_again(&self, offsets: HashMap<MessageQueue, i64>);
    /// The queues that this consumer has now.
    async fn assigned(&self) -> ClientResult<HashSet<MessageQueue>>;
    /// What this consumer has committed of a queue since it has it, or else the group; -1 where
    /// nothing is committed yet.
    async fn committed(&self, queue: &MessageQueue) -> ClientResult<i64>;
    /// The offset of the first message that the broker still has.
    async fn min_offset(&self, queue: &MessageQueue) -> ClientResult<i64>;
    /// Asks a broker that this consumer has a queue of, or else the name server.
    async fn probe(&self, topic: Option<&String>) -> ClientResult<()>;
    /// Leaves the group.
    async fn shutdown(&self);
}

impl RocketMqClient {
    /// A consumer that has not started.
    pub fn consumer(&self, settings: &ConsumerSettings) -> ClientResult<Arc<dyn Consumer>> {
        let client = self.config_for(&settings.name_server, "");
        let consumer = DefaultLitePullConsumer::builder(self.runtime())
            .client_options(ClientOptions::legacy(client))
            .consumer_group(&settings.group)
            .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
            .auto_commit(false)
            .pull_batch_size(settings.pull_batch)
            .pull_threshold_for_queue(settings.queue_messages)
            .pull_threshold_size_for_queue(settings.queue_mib)
            .consume_max_span(2 * settings.queue_messages)
            .pull_time_delay_millis_when_cache_flow_control(5)
            .broker_suspend_max_time_millis(settings.suspend.as_millis() as u64)
            .build()?;
        Ok(Arc::new(consumer))
    }
}

#[async_trait]
impl Consumer for DefaultLitePullConsumer {
    async fn start(&self, topics: &[String]) -> ClientResult<()> {
        for topic in topics {
            self.subscribe(topic).await?;
        }
        DefaultLitePullConsumer::start(self).await?;
        for topic in topics {
            self.fetch_message_queues(topic).await?;
        }
        Ok(())
    }

    async fn poll(&self, wait: Duration) -> Vec<Arc<MessageExt>> {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.poll_with_timeout_zero_copy(wait).await
    }

    async fn seek(&self, queue: &MessageQueue, offset: i64) -> ClientResult<()> {
        DefaultLitePullConsumer::seek(self, queue, offset).await
    }

    async fn commit(&self, offsets: HashMap<MessageQueue, i64>) {
        self.commit_with_map(offsets, true).await;
    }

    async fn commit_again(&self, offsets: HashMap<MessageQueue, i64>) {
        // The client does not send an offset that is the one it sent last.
        let before = offsets
            .iter()
            .map(|(queue, next)| (queue.clone(), next - 1));
        self.commit_with_map(before.collect(), true).await;
        self.commit_with_map(offsets, true).await;
    }

    async fn assigned(&self) -> ClientResult<HashSet<MessageQueue>> {
        self.assignment().await
    }

    async fn committed(&self, queue: &MessageQueue) -> ClientResult<i64> {
        DefaultLitePullConsumer::committed(self, queue).await
    }

    async fn min_offset(&self, queue: &MessageQueue) -> ClientResult<i64> {
        DefaultLitePullConsumer::min_offset(self, queue).await
    }

    async fn probe(&self, topic: Option<&String>) -> ClientResult<()> {
        let assigned = self.assignment().await?;
        if let Some(queue) = assigned.iter().next() {
            self.max_offset(queue).await?;
        } else if let Some(topic) = topic {
            self.fetch_message_queues(topic).await?;
        }
        Ok(())
    }

    async fn shutdown(&self) {
        DefaultLitePullConsumer::shutdown(self).await;
    }
}
