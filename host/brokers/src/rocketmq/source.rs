use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use semel_core::{Delivery, Partition, Payload, Position, Received, Source, SourceError};
use semel_rocketmq_client::{Consumer, MessageExt, MessageQueue, RocketMqClient};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connection::{Connection, EXCHANGE};
use super::cursor::{Cursor, Step};
use super::errors::describe;
use super::message::from_rocketmq;
use crate::lock::lock;

/// How long [`RocketMqSource`] waits for a message.
const POLL: Duration = Duration::from_millis(200);

/// How long nothing may come before the broker is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(3);

/// How often what is acknowledged is committed again while nothing comes, besides after an
/// outage. A broker that dies forgets the commits of the last `flushConsumerOffsetInterval`, 5
/// seconds by default.
const COMMIT_AGAIN: Duration = Duration::from_secs(30);

/// What to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketMqSourceConfig {
    /// The name servers' addresses, separated by `;`.
    pub name_server: String,
    /// The consumer group: one for each plugin, on all hosts.
    pub group: String,
    /// The plugin's topics.
    pub topics: Vec<String>,
    /// For how long the broker keeps messages, and so may deliver them again.
    pub redelivery: Duration,
}

impl RocketMqSourceConfig {
    /// The broker's `fileReservedTime`, if nobody changed it: 72 hours.
    pub const DEFAULT_REDELIVERY: Duration = Duration::from_secs(72 * 60 * 60);
}

/// Messages of RocketMQ topics, pulled by a consumer group.
///
/// - A partition is a queue, `rocketmq:TOPIC/BROKER/QUEUE`, with its offsets.
/// - The id is the property `SEMEL_ID` of what Semel published, else the client's `UNIQ_KEY`,
///   which is the same for every delivery of one send.
/// - The keys are those of `KEYS`, or the one record key of what Semel published.
/// - The headers are the user properties, by name.
/// - The timestamp is when the broker stored the message.
///
/// A group that is new starts at the first message of each queue. It connects with the first
/// [`receive`](Source::receive), and again by itself after an outage.
///
/// Prefix delivery does not rest on the client: each queue's offsets are compared with what
/// was handed over before and with what the group has committed, and where some are missing
/// the queue is read again from there. [`gaps`](Self::gaps) counts how often.
pub struct RocketMqSource {
    puller: Box<dyn Counting>,
}

trait Counting: Source {
    fn gaps(&self) -> u64;
}

struct Puller {
    connection: Connection,
    inbox: Mutex<Inbox>,
    queues: StdMutex<HashMap<Partition, MessageQueue>>,
    /// The offset after the last one acknowledged.
    acknowledged: StdMutex<HashMap<MessageQueue, i64>>,
    gaps: AtomicU64,
}

struct Inbox {
    ready: VecDeque<Delivery>,
    /// Pulled, but not checked for gaps, as the broker could not be asked.
    unchecked: Vec<Arc<MessageExt>>,
    lanes: HashMap<MessageQueue, Lane>,
    heard: Instant,
    commit_again_at: Instant,
}

/// What is known of a queue.
#[derive(Clone)]
struct Lane {
    cursor: Cursor,
    partition: Partition,
    topic: Arc<str>,
}

impl RocketMqSource {
    /// A source that connects when it is first asked for messages.
    pub fn new(client: &RocketMqClient, config: RocketMqSourceConfig) -> Self {
        let puller = Puller {
            connection: Connection::new(client, config),
            inbox: Mutex::new(Inbox {
                ready: VecDeque::new(),
                unchecked: Vec::new(),
                lanes: HashMap::new(),
                heard: Instant::now(),
                commit_again_at: Instant::now() + COMMIT_AGAIN,
            }),
            queues: StdMutex::default(),
            acknowledged: StdMutex::default(),
            gaps: AtomicU64::new(0),
        };
        Self {
            puller: Box::new(puller),
        }
    }

    /// How often messages were missing and were read again.
    pub fn gaps(&self) -> u64 {
        self.puller.gaps()
    }
}

impl fmt::Debug for RocketMqSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocketMqSource")
            .field("gaps", &self.gaps())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for RocketMqSource {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        self.puller.receive(limit).await
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        self.puller.acknowledge(positions).await
    }

    fn redelivery(&self) -> Option<Duration> {
        self.puller.redelivery()
    }

    async fn close(&self) {
        self.puller.close().await;
    }
}

impl Counting for Puller {
    fn gaps(&self) -> u64 {
        self.gaps.load(Relaxed)
    }
}

impl Puller {
    /// Commits what is acknowledged once more, where no other consumer has gone on from there.
    async fn commit_again(&self, consumer: &dyn Consumer) -> Result<(), SourceError> {
        let assigned = self.connection.ask(consumer.assigned()).await?;
        let mut offsets = lock(&self.acknowledged).clone();
        offsets.retain(|queue, _| assigned.contains(queue));
        for queue in assigned {
            let Some(&next) = offsets.get(&queue) else {
                continue;
            };
            let committed = self.committed(consumer, &queue).await?;
            let next = u64::try_from(next).unwrap_or(0);
            if committed.is_some_and(|committed| committed > next) {
                offsets.remove(&queue);
            }
        }
        self.connection.send(consumer.commit_again(offsets)).await
    }

    /// What the group has committed of a queue; none before its first commit.
    async fn committed(
        &self,
        consumer: &dyn Consumer,
        queue: &MessageQueue,
    ) -> Result<Option<u64>, SourceError> {
        let offset = self.connection.ask(consumer.committed(queue)).await?;
        Ok(u64::try_from(offset).ok())
    }

    async fn lane(
        &self,
        inbox: &mut Inbox,
        consumer: &dyn Consumer,
        queue: &MessageQueue,
    ) -> Result<Lane, SourceError> {
        if let Some(lane) = inbox.lanes.get(queue) {
            return Ok(lane.clone());
        }
        let first = match self.committed(consumer, queue).await? {
            Some(committed) => committed,
            None => {
                let offset = self.connection.ask(consumer.min_offset(queue)).await?;
                u64::try_from(offset).unwrap_or(0)
            }
        };
        let (topic, broker) = (queue.topic().as_str(), queue.broker_name().as_str());
        let partition = Partition::new(&format!("rocketmq:{topic}/{broker}/{}", queue.queue_id()));
        lock(&self.queues).insert(partition.clone(), queue.clone());
        let lane = Lane {
            cursor: Cursor::new(first),
            partition,
            topic: topic.into(),
        };
        inbox.lanes.insert(queue.clone(), lane.clone());
        Ok(lane)
    }

    /// Checks what was pulled, of one queue, and makes it ready.
    async fn admit(&self, inbox: &mut Inbox, consumer: &dyn Consumer) -> Result<(), SourceError> {
        let Some(first) = inbox.unchecked.first() else {
            return Ok(());
        };
        let queue = MessageQueue::from_parts(
            first.topic().clone(),
            first.broker_name().to_owned(),
            first.queue_id(),
        );
        let mut lane = self.lane(inbox, consumer, &queue).await?;
        let mut taken = 0;
        let mut result = Ok(());
        for message in &inbox.unchecked {
            let offset = u64::try_from(message.queue_offset()).unwrap_or(0);
            let committed = if lane.cursor.is_gap(offset) {
                match self.committed(consumer, &queue).await {
                    Ok(committed) => committed,
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            } else {
                None
            };
            match lane.cursor.step(offset, committed) {
                Step::Take => {}
                Step::TakeAfterHole(start) => tracing::warn!(
                    partition = %lane.partition,
                    "the broker has no messages from offset {start} to {}: deleted before they \
                     were consumed, as its retention says",
                    offset - 1
                ),
                Step::SeekTo(start) => {
                    self.gaps.fetch_add(1, Relaxed);
                    tracing::warn!(
                        partition = %lane.partition,
                        "the client skipped from offset {start} to {offset}; reading again"
                    );
                    self.seek(consumer, &queue, start).await;
                    taken = inbox.unchecked.len();
                    break;
                }
            }
            inbox.ready.push_back(deliver(message, &lane, offset));
            taken += 1;
        }
        inbox.lanes.insert(queue, lane);
        inbox.unchecked.drain(..taken);
        result
    }

    async fn seek(&self, consumer: &dyn Consumer, queue: &MessageQueue, start: u64) {
        let seek = async {
            let min = consumer.min_offset(queue).await?;
            let start = i64::try_from(start).unwrap_or(i64::MAX);
            consumer.seek(queue, start.max(min)).await
        };
        // Where it fails the queue is someone else's now, or the next gap seeks again.
        match timeout(2 * EXCHANGE, seek).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("seeking {queue:?}: {}", describe(&error)),
            Err(_) => tracing::debug!("seeking {queue:?}: no answer"),
        }
    }
}

fn deliver(message: &MessageExt, lane: &Lane, offset: u64) -> Delivery {
    let position = Position {
        partition: lane.partition.clone(),
        offset,
    };
    let read = from_rocketmq(message, Arc::clone(&lane.topic), || position.to_string());
    let payload = match read {
        Ok(message) => Payload::Message(Arc::new(message)),
        Err(reason) => Payload::Malformed {
            reason: format!("{position}: {reason}"),
            raw: message.body().unwrap_or_default(),
        },
    };
    Delivery { position, payload }
}

#[async_trait]
impl Source for Puller {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let mut inbox = self.inbox.lock().await;
        let consumer = self.connection.consumer().await?;
        self.admit(&mut inbox, &*consumer).await?;
        while inbox.ready.len() < limit {
            let wait = if inbox.ready.is_empty() {
                POLL
            } else {
                Duration::ZERO
            };
            let poll = consumer.poll(wait);
            // The client's own time-out has been known to hold.
            inbox.unchecked = timeout(POLL + EXCHANGE, poll).await.unwrap_or_default();
            if inbox.unchecked.is_empty() {
                break;
            }
            inbox.heard = Instant::now();
            if let Err(error) = self.admit(&mut inbox, &*consumer).await {
                if inbox.ready.is_empty() {
                    return Err(error);
                }
                break;
            }
        }
        if inbox.ready.is_empty() && inbox.heard.elapsed() > SILENCE {
            if let Err(error) = self.connection.probe(&*consumer).await {
                inbox.commit_again_at = Instant::now();
                return Err(error);
            }
            if inbox.commit_again_at <= Instant::now() {
                self.commit_again(&*consumer).await?;
                inbox.commit_again_at = Instant::now() + COMMIT_AGAIN;
            }
            inbox.heard = Instant::now();
        }
        let count = limit.min(inbox.ready.len());
        Ok(Received::Batch(inbox.ready.drain(..count).collect()))
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        let offsets: HashMap<MessageQueue, i64> = {
            let queues = lock(&self.queues);
            positions
                .iter()
                .filter_map(|position| {
                    let queue = queues.get(&position.partition)?;
                    Some((queue.clone(), i64::try_from(position.offset).ok()? + 1))
                })
                .collect()
        };
        if offsets.is_empty() {
            return Ok(());
        }
        lock(&self.acknowledged).extend(offsets.clone());
        self.connection.commit(offsets).await
    }

    fn redelivery(&self) -> Option<Duration> {
        Some(self.connection.config().redelivery)
    }

    async fn close(&self) {
        self.connection.close().await;
    }
}
