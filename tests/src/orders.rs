//! A topic of orders on a RocketMQ broker, and a consumer of what hosts publish.

use std::collections::{BTreeMap, HashSet};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use semel_brokers::{RocketMqClient, RocketMqSource, RocketMqSourceConfig};
use semel_core::{Message, Payload, Received, Source};
use semel_rocketmq_client::{
    Message as Sent, MessageBuilder, MessageQueue, Producer, ProducerSettings, SendStatus,
};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::servers::rocketmq::RocketMq;

/// How long one exchange with the broker may take.
const SEND: Duration = Duration::from_secs(5);

/// How long a producer tries: a broker that has just started may be too busy.
const ARRIVE: Duration = Duration::from_secs(30);

/// How many messages a producer sends at a time.
const BATCH: usize = 100;

/// How often what was published is looked at.
const POLL: Duration = Duration::from_millis(50);

/// What consumers have seen, copies and all.
#[derive(Default)]
struct Seen {
    messages: Vec<Message>,
    ids: HashSet<String>,
}

/// Two topics that one test has for itself, with a consumer of the second.
pub struct Orders {
    name_server: String,
    url: String,
    client: RocketMqClient,
    /// Where orders are sent. The consumer groups' prefix, too.
    pub topic: String,
    /// Where hosts publish to.
    pub published: String,
    producer: Arc<dyn Producer>,
    seen: Arc<Mutex<Seen>>,
    _consumer: AbortOnDropHandle<()>,
}

impl Orders {
    /// Topics of so many queues on the broker that the tests share.
    pub async fn new(queues: u32) -> Result<Self> {
        Self::on(RocketMq::shared().await?, queues).await
    }

    /// Topics of so many queues.
    pub async fn on(broker: &RocketMq, queues: u32) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let topic = format!("orders-{}-{number}", process::id());
        let published = format!("published-{}-{number}", process::id());
        broker.create_topic(&topic, queues).await?;
        broker.create_topic(&published, queues).await?;
        let client = RocketMqClient::start()?;
        let settings = ProducerSettings {
            name_server: broker.name_server(),
            group: format!("{topic}-producer"),
            send_timeout: SEND,
        };
        let producer = client.producer(&settings).await?;
        let config = RocketMqSourceConfig {
            name_server: broker.name_server(),
            group: format!("{published}-consumer"),
            topics: vec![published.clone()],
            redelivery: RocketMqSourceConfig::DEFAULT_REDELIVERY,
        };
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let consumer = consume(RocketMqSource::new(&client, config), Arc::clone(&seen));
        Ok(Self {
            name_server: broker.name_server(),
            url: broker.url(),
            client,
            topic,
            published,
            producer,
            seen,
            _consumer: AbortOnDropHandle::new(tokio::spawn(consumer)),
        })
    }

    /// The name server's address.
    pub fn name_server(&self) -> String {
        self.name_server.clone()
    }

    /// The sections `source`, `plugins` and `destinations` of a host's configuration, for one
    /// plugin with one destination. It ends in the section of the destination.
    pub fn configuration(&self, plugin: &str, destination: &str) -> String {
        let (url, topic, published) = (&self.url, &self.topic, &self.published);
        format!(
            "[source]\nurl = \"{url}\"\ngroup-prefix = \"{topic}\"\n\n\
             [plugins.{plugin}]\ntopics = [\"{topic}\"]\n\n\
             [destinations.{destination}]\nurl = \"{url}/{published}?group={topic}\"\n"
        )
    }

    /// Sends these bodies as any application would, to the queues in turn: each message has
    /// its own `UNIQ_KEY`, and nothing else tells it from others. Some arrive more than once
    /// where the broker does not answer in time.
    pub async fn send(&self, bodies: &[String]) -> Result<()> {
        let queues = self.producer.queues(&self.topic).await?;
        let share = bodies.len().div_ceil(queues.len()).clamp(1, BATCH);
        for (some, queue) in bodies.chunks(share).zip(queues.iter().cycle()) {
            let message = |body: &String| {
                let builder = MessageBuilder::new().topic(self.topic.clone());
                builder.body(body.clone().into_bytes()).build()
            };
            let messages = some.iter().map(message).collect::<Result<Vec<_>, _>>()?;
            self.send_to(queue, messages).await?;
        }
        Ok(())
    }

    /// Sends again what may not have arrived, as producers do.
    async fn send_to(&self, queue: &MessageQueue, messages: Vec<Sent>) -> Result<()> {
        let deadline = Instant::now() + ARRIVE;
        loop {
            let sent = self.producer.send(queue.clone(), messages.clone(), SEND);
            let failure = match sent.await {
                Ok(SendStatus::SendOk) => return Ok(()),
                Ok(status) => format!("stored with {status:?}"),
                Err(error) => format!("{error} ({:?})", error.broker_response_code()),
            };
            ensure!(
                Instant::now() < deadline,
                "the orders do not arrive: {failure}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// What consumers have seen so far, copies and all.
    pub fn seen(&self) -> Vec<Message> {
        lock(&self.seen).messages.clone()
    }

    /// The same as lines of an `--output`.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let line = |message: &Message| {
            let body: Value = serde_json::from_slice(&message.body)
                .with_context(|| format!("no JSON: {message:?}"))?;
            Ok(json!({ "id": message.id, "body": body }))
        };
        self.seen().iter().map(line).collect()
    }

    /// Waits until consumers have seen this many different messages.
    pub async fn reach(&self, messages: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = lock(&self.seen).ids.len();
            if seen >= messages {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "consumers saw {seen} of {messages} messages within {limit:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets go of the clients.
    pub async fn close(&self) {
        self.producer.shutdown().await;
        self.client.shutdown().await;
    }
}

/// Takes in all that is published, for ever.
async fn consume(source: RocketMqSource, seen: Arc<Mutex<Seen>>) {
    loop {
        let Ok(Received::Batch(deliveries)) = source.receive(1_000).await else {
            tokio::time::sleep(POLL).await;
            continue;
        };
        let mut ends = BTreeMap::new();
        for delivery in deliveries {
            if let Payload::Message(message) = delivery.payload {
                let mut seen = lock(&seen);
                seen.ids.insert(message.id.clone());
                seen.messages.push(Message::clone(&message));
            }
            ends.insert(delivery.position.partition.clone(), delivery.position);
        }
        let ends: Vec<_> = ends.into_values().collect();
        // Without it everything comes once more, and counts as copies.
        let _ = source.acknowledge(&ends).await;
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
