use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rocketmq_client_rust::{
    ClientError, ClientResult, DefaultMQProducer, LocalTransactionState, SendResult, SendStatus,
    TransactionListener,
};
use rocketmq_model::common::message::MessageTrait;
use rocketmq_model::common::message::message_accessor::MessageAccessor;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_model::common::message::message_single::Message;
use tokio::runtime::Handle;

use crate::{Producer, ProducerSettings, RocketMqClient};

/// Check-backs that are answered at a time, and that wait to be answered.
const CHECKS_AT_A_TIME: u32 = 4;
const CHECKS_WAITING: u32 = 4_096;

/// How many messages a search finds at most.
const MAX_FOUND: i32 = 32;

/// What is to become of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Consumers are to see it.
    Commit,
    /// Nobody is to see it.
    Rollback,
    /// The broker is to ask again.
    Unknown,
}

impl From<Decision> for LocalTransactionState {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Commit => Self::CommitMessage,
            Decision::Rollback => Self::RollbackMessage,
            Decision::Unknown => Self::Unknown,
        }
    }
}

/// Answers the broker's check-backs: what is to become of this half message, of whichever
/// producer of the group it is? It is called on threads that may block.
pub trait CheckBack: Send + Sync + 'static {
    /// The decision, which the broker takes as final unless it is `Unknown`.
    fn decide(&self, half: &MessageExt) -> Decision;
}

/// A half message that the broker has confirmed.
#[derive(Debug)]
pub struct HalfMessage {
    message: Message,
    sent: SendResult,
}

/// A producer of transactional messages whose local transaction happens elsewhere: half
/// messages and the ends of their transactions are sent apart.
#[async_trait]
pub trait TransactionalProducer: Producer {
    /// Sends a half message, which no consumer sees until its transaction ends in `Commit`.
    async fn prepare(
        &self,
        queue: MessageQueue,
        message: Message,
        limit: Duration,
    ) -> ClientResult<HalfMessage>;
    /// Ends transactions. It is not confirmed: the broker may have to ask back. Goes on after
    /// a failure, and gives the first.
    async fn end(&self, halves: Vec<(HalfMessage, Decision)>) -> ClientResult<()>;
    /// Messages of the topic that consumers can surely see, that bear `key` among their KEYS
    /// and were stored within the last `age`; a few dozen at most. One that was stored just
    /// now may be missed. None where the broker can't be asked.
    async fn find(&self, topic: &str, key: &str, age: Duration) -> Vec<MessageExt>;
}

impl RocketMqClient {
    /// Starts a producer of transactional messages and answers check-backs for its group on
    /// the brokers of `topics`, also those of producers that are gone.
    pub async fn transactional_producer(
        &self,
        settings: &ProducerSettings,
        topics: &[String],
        check_back: Arc<dyn CheckBack>,
    ) -> ClientResult<Arc<dyn TransactionalProducer>> {
        let producer = DefaultMQProducer::builder(self.runtime())
            .client_config(self.config_for(&settings.name_server, "-transactional"))
            .producer_group(&settings.group)
            .topics(topics.iter().map(|topic| topic.as_str().into()).collect())
            .send_msg_timeout(settings.send_timeout.as_millis() as u32)
            .retry_times_when_send_failed(0)
            .build();
        let producer: Box<dyn Startable> = Box::new(producer);
        producer.start(Arc::new(Listener(check_back))).await
    }
}

struct Listener(Arc<dyn CheckBack>);

impl TransactionListener for Listener {
    fn execute_local_transaction(
        &self,
        _message: &dyn MessageTrait,
        _argument: Option<&(dyn std::any::Any + Send + Sync)>,
    ) -> LocalTransactionState {
        LocalTransactionState::Unknown
    }

    fn check_local_transaction(&self, half: &MessageExt) -> LocalTransactionState {
        self.0.decide(half).into()
    }
}

#[async_trait]
trait Startable: Send {
    async fn start(
        self: Box<Self>,
        listener: Arc<Listener>,
    ) -> ClientResult<Arc<dyn TransactionalProducer>>;
}

#[async_trait]
impl Startable for DefaultMQProducer {
    async fn start(
        mut self: Box<Self>,
        listener: Arc<Listener>,
    ) -> ClientResult<Arc<dyn TransactionalProducer>> {
        if let Some(client) = self.default_mq_producer_impl() {
            client.set_transaction_listener(listener);
            client.init_transaction_env(CHECKS_AT_A_TIME, CHECKS_AT_A_TIME, CHECKS_WAITING)?;
        }
        DefaultMQProducer::start(&mut self).await?;
        Ok(Arc::new(*self))
    }
}

#[async_trait]
impl TransactionalProducer for DefaultMQProducer {
    async fn prepare(
        &self,
        queue: MessageQueue,
        mut message: Message,
        limit: Duration,
    ) -> ClientResult<HalfMessage> {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let group = self.producer_group().to_owned();
        MessageAccessor::put_property(&mut message, "TRAN_MSG".into(), "true".into());
        MessageAccessor::put_property(&mut message, "PGROUP".into(), group);
        let sent = self
            .send_to_queue_with_timeout(message.clone(), queue, limit)
            .await?;
        match sent {
            Some(sent) if sent.send_status == SendStatus::SendOk => {
                Ok(HalfMessage { message, sent })
            }
            Some(sent) => Err(ClientError::illegal_argument(format!(
                "the half message was stored with {:?}",
                sent.send_status
            ))),
            None => Err(ClientError::not_initialized("the producer")),
        }
    }

    async fn end(&self, halves: Vec<(HalfMessage, Decision)>) -> ClientResult<()> {
        let Some(client) = self.default_mq_producer_impl().map(Arc::clone) else {
            return Err(ClientError::not_initialized("the producer"));
        };
        let runtime = Handle::current();
        // The client's future can't be sent between threads.
        let ended = tokio::task::spawn_blocking(move || {
            let ends = async {
                let mut result = Ok(());
                for (half, decision) in &halves {
                    let end = client
                        .end_transaction(&half.message, &half.sent, (*decision).into(), None)
                        .await;
                    result = result.and(end);
                }
                result
            };
            runtime.block_on(ends)
        });
        ended
            .await
            .unwrap_or_else(|error| Err(ClientError::illegal_argument(error.to_string())))
    }

    async fn find(&self, topic: &str, key: &str, age: Duration) -> Vec<MessageExt> {
        let Some(client) = self.default_mq_producer_impl() else {
            return Vec::new();
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // The broker's clock may be ahead.
        let (begin, end) = (millis(now.saturating_sub(age)), millis(now + age));
        match client
            .query_message(topic, key, MAX_FOUND, begin, end)
            .await
        {
            Ok(found) => found.message_list().clone(),
            // That nothing was found is an error as well.
            Err(_) => Vec::new(),
        }
    }
}
