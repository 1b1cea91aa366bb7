use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use semel_core::{OutboxRow, Sink, SinkError};
use tokio::sync::{Mutex, RwLock};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::cluster::KafkaCluster;
use super::errors::{describe, is_outage, is_refusal};
use super::message::to_headers;
use super::observer::Observer;
use super::partitioner::partition_of;
use super::topics::partitions;
use crate::strands::{Failure, publish_strands};

/// How long a message may wait for its confirmation, in milliseconds.
const SEND_MS: &str = "10000";

/// How long one request to a broker may take, in milliseconds.
const REQUEST_MS: &str = "5000";

/// How much longer than the client's own limit a send is waited for.
const SEND: Duration = Duration::from_secs(15);

/// The longest that asking for a topic, or closing, may take.
const EXCHANGE: Duration = Duration::from_secs(5);

/// How long a topic's number of partitions is used before it is asked for again.
const AGE: Duration = Duration::from_secs(30);

/// How many messages are under way at a time.
const IN_FLIGHT: usize = 1024;

/// The largest batch and the largest message that are sent, in bytes. Whether a message is too
/// large is the topic's to say (`max.message.bytes`); a broker reads no more than 100 MiB.
const BATCH_BYTES: &str = "524288";
const MESSAGE_BYTES: &str = "100000000";

/// What may wait in the client, in KiB.
const QUEUE_KIB: &str = "131072";

/// Where to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSinkConfig {
    /// The cluster.
    pub cluster: KafkaCluster,
    /// The topic of each destination's name.
    pub destinations: BTreeMap<String, String>,
}

/// Publishes to Kafka topics, as an idempotent producer that waits for all replicas in sync.
///
/// Rows of a lane go to one partition, each when the one before is confirmed; the partition is
/// the one that other producers choose for a record key with the lane's text. Rows without a
/// lane go by their record key, those without a key anywhere. The order of a lane does not
/// outlast a change of the topic's number of partitions.
///
/// The message id is the header `semel-id`, by which a consumer knows a message that was
/// published twice: the client's own idempotence ends with its process.
///
/// It connects with the first row. Kafka keeps nothing back, so a row with a delay waits in the
/// store.
pub struct KafkaSink {
    config: KafkaSinkConfig,
    state: Mutex<State>,
    topics: Mutex<HashMap<String, (i32, Instant)>>,
    /// Held together by those who send, and alone by one that must be the only one in its batch.
    batches: RwLock<()>,
}

#[derive(Clone)]
struct Client {
    producer: FutureProducer<Observer>,
    /// A copy of the producer's, which keeps its own to itself.
    observer: Observer,
}

impl Client {
    /// An error in a line, with the reason for an outage.
    async fn explain(&self, error: &KafkaError) -> String {
        let text = describe(error);
        if error
            .rdkafka_error_code()
            .is_some_and(|code| !is_outage(code))
        {
            return text;
        }
        match self.observer.take_trouble_soon().await {
            Some(why) => format!("{text} ({why})"),
            None => text,
        }
    }
}

enum State {
    Idle,
    Running(Client),
    Closed,
}

impl KafkaSink {
    /// A sink that connects when it is first given a row.
    pub fn new(config: KafkaSinkConfig) -> Self {
        Self {
            config,
            state: Mutex::new(State::Idle),
            topics: Mutex::default(),
            batches: RwLock::default(),
        }
    }

    async fn client(&self) -> Result<Client, SinkError> {
        let mut state = self.state.lock().await;
        if let State::Running(client) = &*state {
            let Some((_, reason)) = client.producer.client().fatal_error() else {
                return Ok(client.clone());
            };
            // Such a producer sends nothing any more. A new one is as good as a new process.
            tracing::warn!(reason, "the Kafka producer failed and is started anew");
            let State::Running(failed) = std::mem::replace(&mut *state, State::Idle) else {
                return Err(self.unavailable(&reason));
            };
            spawn_blocking(move || drop(failed));
        }
        if matches!(*state, State::Closed) {
            return Err(self.unavailable("the sink is closed"));
        }
        let mut config = self.config.cluster.client_config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", SEND_MS)
            .set("request.timeout.ms", REQUEST_MS)
            .set("linger.ms", "1")
            .set("batch.size", BATCH_BYTES)
            .set("message.max.bytes", MESSAGE_BYTES)
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            // As the Java client has it.
            .set("partitioner", "murmur2_random");
        let observer = Observer::default();
        let producer = config
            .create_with_context(observer.clone())
            .map_err(|error| self.unavailable(&describe(&error)))?;
        let client = Client { producer, observer };
        *state = State::Running(client.clone());
        Ok(client)
    }

    fn unavailable(&self, reason: &str) -> SinkError {
        let servers = self.config.cluster.servers();
        SinkError::Unavailable(format!("Kafka at {servers}: {reason}"))
    }

    /// How many partitions a topic has.
    async fn partitions(&self, client: &Client, topic: &str) -> Result<i32, Failure> {
        let mut known = self.topics.lock().await;
        if let Some((count, since)) = known.get(topic)
            && since.elapsed() < AGE
        {
            return Ok(*count);
        }
        let (asked, name) = (client.producer.clone(), topic.to_owned());
        let found = spawn_blocking(move || partitions(asked.client(), &name, EXCHANGE)).await;
        let error = match found {
            Ok(Ok(count)) => {
                known.insert(topic.to_owned(), (count, Instant::now()));
                return Ok(count);
            }
            Ok(Err(error)) => error,
            Err(_) => KafkaError::Canceled,
        };
        known.remove(topic);
        drop(known);
        let reason = client.explain(&error).await;
        Err(self.failure(&error, &format!("topic `{topic}`: {reason}")))
    }

    /// An operator can mend most failures: they keep a message waiting.
    fn failure(&self, error: &KafkaError, reason: &str) -> Failure {
        let outage = error.rdkafka_error_code().is_none_or(is_outage);
        Failure {
            error: self.unavailable(reason),
            outage,
        }
    }

    async fn publish_row(&self, row: &OutboxRow) -> Result<(), Failure> {
        let destination = &row.outgoing.destination;
        let Some(topic) = self.config.destinations.get(&**destination) else {
            let error = SinkError::Unmapped(destination.to_string());
            return Err(Failure::single(error));
        };
        let client = self.client().await.map_err(Failure::outage)?;
        let partition = match &row.lane {
            Some(lane) => {
                let count = self.partitions(&client, topic).await?;
                Some(partition_of(lane.lane.as_bytes(), count))
            }
            None => {
                self.partitions(&client, topic).await?;
                None
            }
        };
        let sent = {
            let _together = self.batches.read().await;
            self.send(&client, row, topic, partition).await
        };
        let sent = match sent {
            // A batch is turned down as a whole. Who is the reason shows when each is alone.
            Err(Sent::Failed(error)) if error.rdkafka_error_code().is_some_and(is_refusal) => {
                let _alone = self.batches.write().await;
                self.send(&client, row, topic, partition).await
            }
            sent => sent,
        };
        match sent {
            Ok(()) => Ok(()),
            Err(Sent::Refused(error)) => Err(Failure::single(error)),
            Err(Sent::Failed(error)) => {
                let reason = client.explain(&error).await;
                let reason = format!("topic `{topic}`: {reason}");
                if error.rdkafka_error_code().is_some_and(is_refusal) {
                    return Err(Failure::single(SinkError::Refused(reason)));
                }
                // It may have other partitions now, or be gone.
                self.topics.lock().await.remove(topic);
                Err(self.failure(&error, &reason))
            }
        }
    }

    async fn send(
        &self,
        client: &Client,
        row: &OutboxRow,
        topic: &str,
        partition: Option<i32>,
    ) -> Result<(), Sent> {
        let outgoing = &row.outgoing;
        let headers = to_headers(row).map_err(Sent::Refused)?;
        let mut record = FutureRecord::<[u8], [u8]>::to(topic)
            .payload(&outgoing.body)
            .headers(headers);
        if let Some(key) = &outgoing.key {
            record = record.key(key);
        }
        if let Some(partition) = partition {
            record = record.partition(partition);
        }
        match timeout(SEND, client.producer.send(record, EXCHANGE)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(Sent::Failed(error)),
            Err(_) => Err(Sent::Failed(KafkaError::MessageProduction(
                RDKafkaErrorCode::MessageTimedOut,
            ))),
        }
    }
}

/// Why a message was not sent.
enum Sent {
    /// It can't be, by anyone.
    Refused(SinkError),
    Failed(KafkaError),
}

#[async_trait]
impl Sink for KafkaSink {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        publish_strands(rows, IN_FLIGHT, |row| self.publish_row(row)).await
    }

    async fn close(&self) {
        let before = std::mem::replace(&mut *self.state.lock().await, State::Closed);
        if let State::Running(client) = before {
            let flushed = spawn_blocking(move || client.producer.flush(EXCHANGE));
            if !matches!(timeout(2 * EXCHANGE, flushed).await, Ok(Ok(Ok(())))) {
                tracing::debug!("the producer did not stop in time");
            }
        }
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
