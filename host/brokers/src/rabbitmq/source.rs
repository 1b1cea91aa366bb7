use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{SelectAll, Stream, StreamExt as _, select_all};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use semel_core::{
    Clock, Delivery, Partition, Payload, Position, Received, Source, SourceError, SystemClock,
};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::link::{EXCHANGE, close, connect};
use super::message::{delivery_count, from_rabbitmq};
use super::queue;
use super::url::RabbitMqUrl;
use crate::causes::describe;

/// How long [`RabbitMqSource`] waits for a message.
const POLL: Duration = Duration::from_millis(200);

/// How many offsets there are for each millisecond: more than a channel delivers.
const OFFSETS_PER_MS: u64 = 1 << 20;

/// How many deliveries of one message are worth a warning. By default RabbitMQ 4 drops it from
/// a quorum queue after 20.
const MANY_DELIVERIES: u64 = 10;

/// What to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitMqSourceConfig {
    /// The broker.
    pub url: RabbitMqUrl,
    /// The plugin's topics, which are queues. No other plugin may have one of them: a queue
    /// hands each message to one consumer only.
    pub queues: Vec<String>,
    /// For how long messages stay in the queues, and so may be delivered, if anyone knows.
    pub redelivery: Option<Duration>,
}

/// Messages of RabbitMQ queues.
///
/// - A partition is a queue, `rabbitmq:VHOST/QUEUE`. The broker has no offsets: they are the
///   time at which the channel was opened, in milliseconds times 2^20, plus the delivery tag. So
///   they ascend, also from one channel to the next, but a message that is delivered again has
///   another one.
/// - The id is the `message-id`, and empty without one.
/// - The key is the header `semel-key` of what Semel published.
///
/// Messages are acknowledged by hand, a prefix at a time. What was not acknowledged when a
/// connection ends is delivered again, on the next one or to another host. It connects with the
/// first [`receive`](Source::receive), and again with the one after an outage.
pub struct RabbitMqSource {
    config: RabbitMqSourceConfig,
    inbox: Mutex<Inbox>,
    acknowledging: Mutex<Acknowledging>,
}

struct Inbox {
    state: State,
    /// Where the next channels' offsets start at the least.
    next_base: u64,
    warned: bool,
}

enum State {
    Idle,
    Running(Running),
    Closed,
}

struct Running {
    connection: Arc<Connection>,
    queues: Vec<Queue>,
    deliveries: SelectAll<Deliveries>,
    base: u64,
}

type Deliveries = futures::stream::BoxStream<'static, (usize, Option<lapin::Result<Raw>>)>;
type Raw = lapin::message::Delivery;

struct Queue {
    partition: Partition,
    topic: Arc<str>,
}

/// What can be acknowledged at the moment.
#[derive(Default)]
struct Acknowledging {
    base: u64,
    channels: HashMap<Partition, Tags>,
}

struct Tags {
    channel: Channel,
    delivered: u64,
    acknowledged: u64,
}

impl RabbitMqSource {
    /// A source that connects when it is first asked for messages.
    pub fn new(config: RabbitMqSourceConfig) -> Self {
        Self {
            config,
            inbox: Mutex::new(Inbox {
                state: State::Idle,
                next_base: 0,
                warned: false,
            }),
            acknowledging: Mutex::default(),
        }
    }

    fn unavailable(&self, reason: &str) -> SourceError {
        let address = self.config.url.address();
        SourceError::Unavailable(format!("RabbitMQ at {address}: {reason}"))
    }

    async fn start(&self, least_base: u64) -> Result<Running, String> {
        let url = &self.config.url;
        let connection = Arc::new(connect(url, "semel source").await?);
        let base = least_base.max(SystemClock.now_ms().saturating_mul(OFFSETS_PER_MS));
        let mut acknowledging = Acknowledging {
            base,
            channels: HashMap::new(),
        };
        let (mut queues, mut streams) = (Vec::new(), Vec::new());
        for name in &self.config.queues {
            let partition = Partition::new(&format!("rabbitmq:{}/{name}", url.vhost));
            if acknowledging.channels.contains_key(&partition) {
                continue;
            }
            // Delivery tags count each channel's messages.
            let channel = queue::open(&connection, name, url.declare).await?;
            let index = queues.len();
            let consuming = async {
                let prefetch = BasicQosOptions::default();
                channel.basic_qos(url.prefetch, prefetch).await?;
                channel
                    .basic_consume(
                        name.as_str().into(),
                        "".into(),
                        BasicConsumeOptions::default(),
                        FieldTable::default(),
                    )
                    .await
            };
            let consumer = match timeout(EXCHANGE, consuming).await {
                Ok(Ok(consumer)) => consumer,
                Ok(Err(error)) => return Err(format!("queue `{name}`: {}", describe(&error))),
                Err(_) => return Err("no answer".to_owned()),
            };
            streams.push(tagged(index, consumer));
            queues.push(Queue {
                partition: partition.clone(),
                topic: name.as_str().into(),
            });
            let tags = Tags {
                channel,
                delivered: 0,
                acknowledged: 0,
            };
            acknowledging.channels.insert(partition, tags);
        }
        *self.acknowledging.lock().await = acknowledging;
        Ok(Running {
            connection,
            queues,
            deliveries: select_all(streams),
            base,
        })
    }

    /// Takes what there is. An error says why no more will come on this connection.
    async fn fill(&self, inbox: &mut Inbox, limit: usize) -> (Vec<Delivery>, Result<(), String>) {
        let State::Running(running) = &mut inbox.state else {
            return (Vec::new(), Ok(()));
        };
        let mut batch = Vec::new();
        let mut delivered: HashMap<usize, u64> = HashMap::new();
        let mut result = Ok(());
        while batch.len() < limit {
            let next = match batch.is_empty() {
                true => timeout(POLL, running.deliveries.next()).await.ok(),
                false => running.deliveries.next().now_or_never(),
            };
            let ended = match next {
                None => break,
                Some(Some((index, Some(Ok(raw))))) => {
                    let tag = raw.delivery_tag;
                    if !inbox.warned && delivery_count(&raw) >= MANY_DELIVERIES {
                        inbox.warned = true;
                        warn_of_limit(&running.queues[index].topic, delivery_count(&raw));
                    }
                    delivered.insert(index, tag);
                    batch.push(running.queues[index].deliver(raw, running.base + tag));
                    inbox.next_base = inbox.next_base.max(running.base + tag + 1);
                    continue;
                }
                Some(Some((_, Some(Err(error))))) => describe(&error),
                Some(Some((index, None))) => {
                    let queue = &running.queues[index].topic;
                    format!("queue `{queue}`: the broker ended consuming, as when it is deleted")
                }
                Some(None) => "nothing is consumed any more".to_owned(),
            };
            result = Err(ended);
            break;
        }
        if !delivered.is_empty() {
            let mut acknowledging = self.acknowledging.lock().await;
            for (index, tag) in delivered {
                let partition = &running.queues[index].partition;
                if let Some(tags) = acknowledging.channels.get_mut(partition) {
                    tags.delivered = tag;
                }
            }
        }
        (batch, result)
    }

    /// Lets go of a connection that is of no more use.
    async fn reset(&self, inbox: &mut Inbox) {
        *self.acknowledging.lock().await = Acknowledging::default();
        if let State::Running(running) = std::mem::replace(&mut inbox.state, State::Idle)
            && running.connection.status().connected()
        {
            // Else the broker would keep what it has delivered for this consumer.
            close(&running.connection).await;
        }
    }
}

/// A consumer's messages with the index of their queue, and that of its end.
fn tagged(
    index: usize,
    consumer: impl Stream<Item = lapin::Result<Raw>> + Send + 'static,
) -> Deliveries {
    let end = futures::stream::once(async { None });
    let deliveries = consumer.map(Some).chain(end);
    deliveries.map(move |delivery| (index, delivery)).boxed()
}

fn warn_of_limit(queue: &str, count: u64) {
    tracing::warn!(
        queue,
        "a message was delivered {count} times before, as when a host dies while it holds it: a quorum queue with a `delivery-limit` (20 by default as of RabbitMQ 4) drops it when that is reached. Take the limit off: with -1 on RabbitMQ 4, and on older versions by setting none"
    );
}

impl Queue {
    fn deliver(&self, mut raw: Raw, offset: u64) -> Delivery {
        let position = Position {
            partition: self.partition.clone(),
            offset,
        };
        let body = Bytes::from(std::mem::take(&mut raw.data));
        let payload = match from_rabbitmq(&raw, body.clone(), Arc::clone(&self.topic)) {
            Ok(message) => Payload::Message(Arc::new(message)),
            Err(reason) => Payload::Malformed {
                reason: format!("{position}: {reason}"),
                raw: body,
            },
        };
        Delivery { position, payload }
    }
}

#[async_trait]
impl Source for RabbitMqSource {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let mut inbox = self.inbox.lock().await;
        match inbox.state {
            State::Running(_) => {}
            State::Closed => return Err(SourceError::Failed("it is closed".to_owned())),
            State::Idle => {
                let started = self.start(inbox.next_base).await;
                inbox.state = State::Running(started.map_err(|error| self.unavailable(&error))?);
            }
        }
        let (batch, result) = self.fill(&mut inbox, limit).await;
        match result {
            Ok(()) => Ok(Received::Batch(batch)),
            Err(reason) => {
                self.reset(&mut inbox).await;
                match batch.is_empty() {
                    true => Err(self.unavailable(&reason)),
                    // They come again, under other offsets. Next time it connects anew.
                    false => Ok(Received::Batch(batch)),
                }
            }
        }
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        let mut acknowledging = self.acknowledging.lock().await;
        let base = acknowledging.base;
        for position in positions {
            let Some(tags) = acknowledging.channels.get_mut(&position.partition) else {
                continue;
            };
            // What was delivered on an earlier channel is delivered again on this one.
            let tag = position.offset.saturating_sub(base).min(tags.delivered);
            if tag <= tags.acknowledged {
                continue;
            }
            let prefix = BasicAckOptions { multiple: true };
            match timeout(EXCHANGE, tags.channel.basic_ack(tag, prefix)).await {
                Ok(Ok(())) => tags.acknowledged = tag,
                // The channel is gone, and what it delivered will come again.
                Ok(Err(error)) => {
                    tracing::debug!(%position, "not acknowledged: {}", describe(&error));
                }
                Err(_) => return Err(self.unavailable("acknowledgements are not sent in time")),
            }
        }
        Ok(())
    }

    fn redelivery(&self) -> Option<Duration> {
        self.config.redelivery
    }

    async fn close(&self) {
        let mut inbox = self.inbox.lock().await;
        self.reset(&mut inbox).await;
        inbox.state = State::Closed;
    }
}

impl fmt::Debug for RabbitMqSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqSource")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
