use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use rdkafka::Message as _;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use semel_core::{Delivery, Partition, Payload, Position, Received, Source, SourceError};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::cluster::KafkaCluster;
use super::errors::{describe, is_outage};
use super::message::from_kafka;
use super::observer::Observer;
use super::topics::partitions;
use crate::lock::lock;

/// How long [`KafkaSource`] waits for a message.
const POLL: Duration = Duration::from_millis(200);

/// The longest that any one exchange with the cluster may take.
const EXCHANGE: Duration = Duration::from_secs(5);

/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(8);

/// How long nothing may come before the cluster is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(3);

/// After how long the group takes a silent host for dead. The client's own thread is what is
/// heard, whatever the handlers do. A static member has the time to start again.
const SESSION_MS: &str = "10000";
const STATIC_SESSION_MS: &str = "30000";

/// How many messages, and KiB, wait here at most.
const QUEUE_MESSAGES: &str = "10000";
const QUEUE_KIB: &str = "16384";

/// What to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSourceConfig {
    /// The cluster.
    pub cluster: KafkaCluster,
    /// The consumer group: one for each plugin, on all hosts.
    pub group: String,
    /// This host's name as a static member of the group, if it is to be one.
    pub instance: Option<String>,
    /// The plugin's topics.
    pub topics: Vec<String>,
    /// For how long the cluster keeps messages, and so may deliver them again.
    pub redelivery: Duration,
}

impl KafkaSourceConfig {
    /// The broker's `log.retention.hours`, if nobody changed it: 7 days.
    pub const DEFAULT_REDELIVERY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
}

/// Messages of Kafka topics, read by a consumer group.
///
/// - A partition is one of Kafka's, `kafka:TOPIC/PARTITION`, with its offsets.
/// - The id is the header `semel-id` of what Semel published, else the position, which is the
///   same for every delivery.
/// - The key is the record key.
/// - The timestamp is the record's: its producer's clock, or the broker's, as the topic says.
///
/// A group that is new starts at the first message of each partition. Only what is acknowledged
/// is committed, and each commit is waited for. Partitions move cooperatively: those that stay
/// go on while others move. What is on its way from one that is revoked is not waited for; its
/// new consumer finds what was recorded.
///
/// It connects with the first [`receive`](Source::receive), and again by itself after an
/// outage.
pub struct KafkaSource {
    config: KafkaSourceConfig,
    state: StdMutex<State>,
    inbox: Mutex<Inbox>,
    /// One commit at a time, also where one outlasts its caller's patience.
    committing: Arc<Mutex<()>>,
}

type Client = StreamConsumer<Observer>;

enum State {
    Idle,
    Running(Arc<Client>),
    Closed,
}

struct Inbox {
    partitions: HashMap<String, Topic>,
    /// What went wrong behind messages that were handed over.
    trouble: Option<SourceError>,
    heard: Instant,
    /// Whether the cluster has answered since the consumer was started.
    reached: bool,
}

struct Topic {
    name: Arc<str>,
    partitions: HashMap<i32, Partition>,
}

impl KafkaSource {
    /// A source that connects when it is first asked for messages.
    pub fn new(config: KafkaSourceConfig) -> Self {
        Self {
            config,
            state: StdMutex::new(State::Idle),
            inbox: Mutex::new(Inbox {
                partitions: HashMap::new(),
                trouble: None,
                heard: Instant::now(),
                reached: false,
            }),
            committing: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn consumer(&self) -> Result<Arc<Client>, SourceError> {
        let mut state = self.state();
        match &*state {
            State::Running(consumer) => return Ok(Arc::clone(consumer)),
            State::Closed => return Err(SourceError::Failed("it is closed".to_owned())),
            State::Idle => {}
        }
        let consumer = self.start().map_err(|error| {
            let group = &self.config.group;
            SourceError::Failed(format!("Kafka group {group}: {}", describe(&error)))
        })?;
        let consumer = Arc::new(consumer);
        *state = State::Running(Arc::clone(&consumer));
        Ok(consumer)
    }

    /// A consumer that has not spoken to anyone yet.
    fn start(&self) -> Result<Client, KafkaError> {
        let mut config = self.config.cluster.client_config();
        config
            .set("group.id", &self.config.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_MS)
            .set("queued.min.messages", QUEUE_MESSAGES)
            .set("queued.max.messages.kbytes", QUEUE_KIB);
        if let Some(instance) = &self.config.instance {
            config
                .set("group.instance.id", instance)
                .set("session.timeout.ms", STATIC_SESSION_MS);
        }
        let consumer: Client = config.create_with_context(Observer::default())?;
        let topics: HashSet<&str> = self.config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&Vec::from_iter(topics))?;
        Ok(consumer)
    }

    fn unavailable(&self, reason: &str) -> SourceError {
        let servers = self.config.cluster.servers();
        SourceError::Unavailable(format!("Kafka at {servers}: {reason}"))
    }

    /// Whether the cluster answers, and has the topics. Else it says what is wrong.
    async fn probe(&self, consumer: &Arc<Client>) -> Result<(), String> {
        for topic in &self.config.topics {
            let (asked, name) = (Arc::clone(consumer), topic.clone());
            let found = spawn_blocking(move || partitions(asked.client(), &name, EXCHANGE)).await;
            let error = match found {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => describe(&error),
                Err(error) => error.to_string(),
            };
            return Err(format!("topic `{topic}`: {error}"));
        }
        Ok(())
    }

    /// Asks whether the cluster is there. What comes in place of an answer is handed over.
    async fn ask(
        &self,
        consumer: &Arc<Client>,
        inbox: &mut Inbox,
        limit: usize,
    ) -> Result<Vec<Delivery>, SourceError> {
        inbox.trouble = None;
        let Err(unanswered) = self.probe(consumer).await else {
            return Ok(Vec::new());
        };
        // The client keeps to itself who did not let it in until it is listened to.
        let batch = self.fill(consumer, inbox, limit).await;
        if !batch.is_empty() {
            return Ok(batch);
        }
        inbox.trouble = None;
        let why = consumer.context().take_trouble();
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        Err(self.unavailable(&format!("{unanswered}{why}")))
    }

    /// What an error in the stream of messages means. None if it needs no mention.
    fn trouble(&self, error: &KafkaError) -> Option<SourceError> {
        let reason = describe(error);
        match error {
            KafkaError::MessageConsumptionFatal(_) => Some(SourceError::Failed(format!(
                "Kafka group {}: {reason}{}",
                self.config.group,
                match &self.config.instance {
                    Some(instance) => format!("; no other host may be the instance `{instance}`"),
                    None => String::new(),
                }
            ))),
            KafkaError::MessageConsumption(RDKafkaErrorCode::PollExceeded) => {
                // Consuming was suspended, as while the store is down. It joins again by itself.
                tracing::info!(
                    group = self.config.group,
                    "left the group while nothing was consumed; joins it again"
                );
                None
            }
            _ => Some(self.unavailable(&reason)),
        }
    }

    async fn fill(&self, consumer: &Client, inbox: &mut Inbox, limit: usize) -> Vec<Delivery> {
        let mut batch = Vec::new();
        while batch.len() < limit {
            let next = match batch.is_empty() && inbox.trouble.is_none() {
                true => timeout(POLL, consumer.recv()).await.ok(),
                false => consumer.recv().now_or_never(),
            };
            match next {
                None => break,
                Some(Ok(message)) => {
                    inbox.trouble = None;
                    batch.push(inbox.deliver(&message));
                }
                Some(Err(error)) => {
                    inbox.trouble = self.trouble(&error);
                    // The client queues one for each attempt to connect. They are told as one:
                    // what comes behind them would have to wait for as many pauses.
                    if !matches!(error, KafkaError::MessageConsumption(code) if is_outage(code)) {
                        break;
                    }
                }
            }
        }
        batch
    }
}

impl Inbox {
    fn deliver(&mut self, received: &rdkafka::message::BorrowedMessage<'_>) -> Delivery {
        let name = received.topic();
        if !self.partitions.contains_key(name) {
            let topic = Topic {
                name: name.into(),
                partitions: HashMap::new(),
            };
            self.partitions.insert(name.to_owned(), topic);
        }
        let topic = self
            .partitions
            .get_mut(name)
            .expect("it was put there if it was missing");
        let number = received.partition();
        let partition = topic.partitions.entry(number);
        let partition =
            partition.or_insert_with(|| Partition::new(&format!("kafka:{name}/{number}")));
        let position = Position {
            partition: partition.clone(),
            offset: u64::try_from(received.offset()).unwrap_or_default(),
        };
        let read = from_kafka(received, Arc::clone(&topic.name), || position.to_string());
        let payload = match read {
            Ok(message) => Payload::Message(Arc::new(message)),
            Err(reason) => Payload::Malformed {
                reason: format!("{position}: {reason}"),
                raw: Bytes::copy_from_slice(received.payload().unwrap_or_default()),
            },
        };
        Delivery { position, payload }
    }
}

/// The topic and the number of a partition, from its name.
fn topic_and_number(partition: &Partition) -> Option<(String, i32)> {
    let (topic, number) = partition
        .as_str()
        .strip_prefix("kafka:")?
        .rsplit_once('/')?;
    Some((topic.to_owned(), number.parse().ok()?))
}

#[async_trait]
impl Source for KafkaSource {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let mut inbox = self.inbox.lock().await;
        let consumer = self.consumer()?;
        if let Some(trouble) = inbox.trouble.take() {
            return Err(trouble);
        }
        let mut batch = self.fill(&consumer, &mut inbox, limit).await;
        if batch.is_empty()
            && inbox.reached
            && let Some(trouble) = inbox.trouble.take()
        {
            return Err(trouble);
        }
        let asks = batch.is_empty() && (!inbox.reached || inbox.heard.elapsed() > SILENCE);
        if asks {
            batch = self.ask(&consumer, &mut inbox, limit).await?;
        }
        if asks || !batch.is_empty() {
            inbox.reached = true;
            inbox.heard = Instant::now();
        }
        Ok(Received::Batch(batch))
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        let consumer = match &*self.state() {
            State::Running(consumer) => Arc::clone(consumer),
            State::Idle | State::Closed => return Ok(()),
        };
        self.commit(consumer, positions).await
    }

    fn redelivery(&self) -> Option<Duration> {
        Some(self.config.redelivery)
    }

    async fn close(&self) {
        let before = std::mem::replace(&mut *self.state(), State::Closed);
        if let State::Running(consumer) = before {
            // Leaves the group, unless as a static member.
            let left = spawn_blocking(move || drop(consumer));
            if timeout(CLOSE, left).await.is_err() {
                tracing::debug!(group = %self.config.group, "the consumer did not stop in time");
            }
        }
    }
}

impl KafkaSource {
    async fn commit(
        &self,
        consumer: Arc<Client>,
        positions: &[Position],
    ) -> Result<(), SourceError> {
        let mut offsets = TopicPartitionList::new();
        for position in positions {
            // Another host goes on with a partition that was revoked, and commits for itself.
            let Some(partition) = topic_and_number(&position.partition)
                .filter(|partition| consumer.context().has(partition))
            else {
                continue;
            };
            let next = i64::try_from(position.offset).unwrap_or(i64::MAX - 1) + 1;
            offsets
                .add_partition_offset(&partition.0, partition.1, Offset::Offset(next))
                .map_err(|error| self.unavailable(&describe(&error)))?;
        }
        if offsets.count() == 0 {
            return Ok(());
        }
        let commit = async {
            let turn = Arc::clone(&self.committing).lock_owned().await;
            spawn_blocking(move || {
                let committed = consumer.commit(&offsets, CommitMode::Sync);
                drop(turn);
                committed
            })
            .await
        };
        let reason = match timeout(EXCHANGE, commit).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(error))) => describe(&error),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        // Also in a rebalance: by the time it is tried again, it is known whose they are.
        Err(self.unavailable(&format!("offsets are not committed: {reason}")))
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *self.state(), State::Closed);
        if let State::Running(consumer) = before
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // Leaving the group waits for an answer.
            runtime.spawn_blocking(move || drop(consumer));
        }
    }
}
