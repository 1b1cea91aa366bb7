use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rocketmq_client_rust::{ClientResult, DefaultMQProducer, SendStatus};
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_model::common::message::message_single::Message;

use crate::RocketMqClient;

/// How a producer sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// The name servers' addresses, separated by `;`.
    pub name_server: String,
    /// The producer group.
    pub group: String,
    /// How long a send may take.
    pub send_timeout: Duration,
}

/// A producer that never sends anything twice by itself: a send that may have gone through is
/// repeated by whoever knows the order of messages.
#[async_trait]
pub trait Producer: Send + Sync {
    /// The queues of a topic that can be written to.
    async fn queues(&self, topic: &str) -> ClientResult<Vec<MessageQueue>>;
    /// Sends messages to a queue, together. One alone may be compressed and may be delayed.
    async fn send(
        &self,
        queue: MessageQueue,
        messages: Vec<Message>,
        limit: Duration,
    ) -> ClientResult<SendStatus>;
    /// Lets go of connections.
    async fn shutdown(&self);
}

impl RocketMqClient {
    /// Starts a producer.
    pub async fn producer(&self, settings: &ProducerSettings) -> ClientResult<Arc<dyn Producer>> {
        let producer = DefaultMQProducer::builder(self.runtime())
            .client_config(self.config_for(&settings.name_server, ""))
            .producer_group(&settings.group)
            .send_msg_timeout(settings.send_timeout.as_millis() as u32)
            .retry_times_when_send_failed(0)
            .build();
        let producer: Box<dyn Startable> = Box::new(producer);
        producer.start().await
    }
}

#[async_trait]
trait Startable: Send {
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
