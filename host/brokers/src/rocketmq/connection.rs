use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use semel_core::SourceError;
use semel_rocketmq_client::{
    ClientResult, Consumer, ConsumerSettings, MessageQueue, RocketMqClient,
};
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::errors::describe;
use super::source::RocketMqSourceConfig;

/// The longest that any one exchange with the broker may take.
pub(super) const EXCHANGE: Duration = Duration::from_secs(5);

/// How long starting may take.
const START: Duration = Duration::from_secs(15);

/// How long the broker holds a request while a queue is empty. Shutting down takes up to
/// this time.
const SUSPEND: Duration = Duration::from_secs(2);

/// How long shutting down may take.
const CLOSE: Duration = Duration::from_secs(8);

/// How many messages are pulled at a time. The broker's
/// `maxTransferCountOnMessageInMemory` (32 by default) bounds it too.
const PULL_BATCH: i32 = 512;

/// How many messages, and mebibytes, of a queue wait here at most.
const QUEUE_MESSAGES: i64 = 4096;
const QUEUE_MIB: i32 = 16;

/// A consumer that starts when it is first needed. Each exchange with its broker is bounded.
pub(super) struct Connection {
    client: RocketMqClient,
    config: RocketMqSourceConfig,
    state: RwLock<State>,
}

enum State {
    Idle,
    Running(Arc<dyn Consumer>),
    Closed,
}

impl Connection {
    pub(super) fn new(client: &RocketMqClient, config: RocketMqSourceConfig) -> Self {
        Self {
            client: client.clone(),
            config,
            state: RwLock::new(State::Idle),
        }
    }

    pub(super) fn config(&self) -> &RocketMqSourceConfig {
        &self.config
    }

    /// The consumer, which is started unless it runs.
    pub(super) async fn consumer(&self) -> Result<Arc<dyn Consumer>, SourceError> {
        if let State::Running(consumer) = &*self.state.read().await {
            return Ok(Arc::clone(consumer));
        }
        let mut state = self.state.write().await;
        match &*state {
            State::Running(consumer) => return Ok(Arc::clone(consumer)),
            State::Closed => return Err(SourceError::Failed("it is closed".to_owned())),
            State::Idle => {}
        }
        let settings = ConsumerSettings {
            name_server: self.config.name_server.clone(),
            group: self.config.group.clone(),
            pull_batch: PULL_BATCH,
            queue_messages: QUEUE_MESSAGES,
            queue_mib: QUEUE_MIB,
            suspend: SUSPEND,
        };
        let consumer = self.client.consumer(&settings).map_err(|error| {
            let (group, reason) = (&self.config.group, describe(&error));
            SourceError::Failed(format!("RocketMQ group {group}: {reason}"))
        })?;
        let started = consumer.start(&self.config.topics);
        let error = match timeout(START, started).await {
            Ok(Ok(())) => {
                *state = State::Running(Arc::clone(&consumer));
                return Ok(consumer);
            }
            Ok(Err(error)) => describe(&error),
            Err(_) => "no answer".to_owned(),
        };
        let _ = timeout(CLOSE, consumer.shutdown()).await;
        Err(self.unavailable(&error))
    }

    /// Waits for an answer of the broker.
    pub(super) async fn ask<T>(
        &self,
        answer: impl Future<Output = ClientResult<T>>,
    ) -> Result<T, SourceError> {
        match timeout(EXCHANGE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.unavailable(&describe(&error))),
            Err(_) => Err(self.unavailable("no answer")),
        }
    }

    /// Waits until offsets are sent, which is not answered.
    pub(super) async fn send(&self, commit: impl Future<Output = ()>) -> Result<(), SourceError> {
        timeout(EXCHANGE, commit)
            .await
            .map_err(|_| self.unavailable("the commit of offsets was not sent in time"))
    }

    /// Whether a broker answers, asked after a silence.
    pub(super) async fn probe(&self, consumer: &dyn Consumer) -> Result<(), SourceError> {
        self.ask(consumer.probe(self.config.topics.first())).await
    }

    /// Commits offsets, unless no consumer runs.
    pub(super) async fn commit(
        &self,
        offsets: HashMap<MessageQueue, i64>,
    ) -> Result<(), SourceError> {
        match &*self.state.read().await {
            State::Running(consumer) => self.send(consumer.commit(offsets)).await,
            State::Idle | State::Closed => Ok(()),
        }
    }

    /// Leaves the group, for good.
    pub(super) async fn close(&self) {
        let before = std::mem::replace(&mut *self.state.write().await, State::Closed);
        if let State::Running(consumer) = before
            && timeout(CLOSE, consumer.shutdown()).await.is_err()
        {
            tracing::debug!(group = %self.config.group, "the consumer did not stop in time");
        }
    }

    fn unavailable(&self, reason: &str) -> SourceError {
        let servers = &self.config.name_server;
        SourceError::Unavailable(format!("RocketMQ at {servers}: {reason}"))
    }
}
