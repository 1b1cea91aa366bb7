//! The client behind trait objects.
//!
//! Its futures nest so deeply that the compiler takes minutes to see that they are `Send`
//! wherever they are awaited. Here it has to see it once for each method.
//!
//! The client's own methods are called by their full names, as some are called the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rocketmq_client_rust::{ClientResult, DefaultLitePullConsumer, DefaultMQProducer, SendStatus};
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_model::common::message::message_single::Message;

/// What the source needs of a consumer.
#[async_trait]
pub(super) trait Consumer: Send + Sync {
    /// Subscribes, starts, and asks for the topics' queues: a consumer starts without a
    /// broker too.
    async fn start(&self, topics: &[String]) -> ClientResult<()>;
    async fn poll(&self, wait: Duration) -> Vec<Arc<MessageExt>>;
    async fn seek(&self, queue: &MessageQueue, offset: i64) -> ClientResult<()>;
    async fn commit(&self, offsets: HashMap<MessageQueue, i64>);
    /// -1 where nothing is committed yet.
    async fn committed(&self, queue: &MessageQueue) -> ClientResult<i64>;
    async fn min_offset(&self, queue: &MessageQueue) -> ClientResult<i64>;
    /// Asks a broker that this consumer has a queue of, or else the name server.
    async fn probe(&self, topic: Option<&String>) -> ClientResult<()>;
    async fn shutdown(&self);
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

/// What the sink needs of a producer.
#[async_trait]
pub(super) trait Producer: Send + Sync {
    /// The queues of a topic that can be written to.
    async fn queues(&self, topic: &str) -> ClientResult<Vec<MessageQueue>>;
    /// Sends messages to a queue, together. One alone may be compressed and may be delayed.
    async fn send(
        &self,
        queue: MessageQueue,
        messages: Vec<Message>,
        limit: Duration,
    ) -> ClientResult<SendStatus>;
    async fn shutdown(&self);
}

/// Starts a producer.
#[async_trait]
pub(super) trait Startable: Send {
    async fn start(self: Box<Self>) -> ClientResult<Arc<dyn Producer>>;
}

#[async_trait]
impl Startable for DefaultMQProducer {
    async fn start(mut self: Box<Self>) -> ClientResult<Arc<dyn Producer>> {
        DefaultMQProducer::start(&mut self).await?;
        Ok(Arc::new(*self))
    }
}

#[async_trait]
impl Producer for DefaultMQProducer {
    async fn queues(&self, topic: &str) -> ClientResult<Vec<MessageQueue>> {
        match self.default_mq_producer_impl() {
            Some(client) => client.fetch_publish_message_queues(&topic.into()).await,
            None => Ok(Vec::new()),
        }
    }

    async fn send(
        &self,
        queue: MessageQueue,
        mut messages: Vec<Message>,
        limit: Duration,
    ) -> ClientResult<SendStatus> {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let Some(last) = messages.pop() else {
            return Ok(SendStatus::SendOk);
        };
        if messages.is_empty() {
            let sent = self.send_to_queue_with_timeout(last, queue, limit).await?;
            return Ok(sent.map_or(SendStatus::FlushDiskTimeout, |sent| sent.send_status));
        }
        messages.push(last);
        let sent = self.send_batch_to_queue_with_timeout(messages, queue, limit);
        Ok(sent.await?.send_status)
    }

    async fn shutdown(&self) {
        // Clones share the connection, and shutting down wants one of its own.
        DefaultMQProducer::shutdown(&mut self.clone()).await;
    }
}
