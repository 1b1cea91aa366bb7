//! A cluster with a topic for each trial, and a consumer of all that trials publish.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use semel_brokers::{
    KafkaCluster, KafkaSink, KafkaSinkConfig, KafkaSource, KafkaSourceConfig, RabbitMqDestination,
    RabbitMqSink, RabbitMqSinkConfig, RabbitMqSource, RabbitMqSourceConfig, RabbitMqUrl,
    RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource, RocketMqSourceConfig,
};
use semel_core::{Payload, Received, Sink, Source};
use tokio_util::task::AbortOnDropHandle;

use super::books::OrderMessage;
use super::cluster::Cluster;
use super::found::{PLUGINS, Published, Tallied};
use crate::proxy::Proxy;
use crate::servers::kafka::Kafka;
use crate::servers::rabbitmq::RabbitMq;
use crate::servers::rocketmq::{FORGETFUL, RocketMq};

/// Where every trial's hosts publish to.
const PUBLISHED: &str = "published";

/// For how many trials one cluster has topics.
const TOPICS: usize = 4_096;

/// How long a broker may take until messages that it confirmed are in their queues.
const INDEXING: Duration = Duration::from_secs(30);

/// The broker tells clients that it is here, where the proxy listens, and listens itself at
/// 127.0.0.1.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A cluster, a producer and a consumer.
pub struct Broker {
    /// The cluster itself.
    pub cluster: tokio::sync::Mutex<Cluster>,
    /// Its URL.
    pub url: String,
    /// Where replies of the broker can be lost, if it was started for that.
    pub proxy: Option<Proxy>,
    /// Whether its consumers are in groups.
    has_groups: bool,
    places: AtomicUsize,
    producer: Arc<dyn Sink>,
    consumed: Arc<Mutex<HashMap<String, Vec<Published>>>>,
    source: Arc<dyn Source>,
    consumer: AbortOnDropHandle<()>,
    client: Option<RocketMqClient>,
}

/// Where the messages of one trial are.
#[derive(Clone, Debug)]
pub struct Topics {
    /// A name that no other trial has.
    pub name: String,
    /// The topic of each plugin; they may have one together.
    topics: HashMap<&'static str, Topic>,
}

impl Topics {
    /// What a plugin consumes.
    pub fn of(&self, plugin: &str) -> &Topic {
        self.topics.get(plugin).expect("every plugin has one")
    }
}

/// A topic that one trial has for itself.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// The offset behind the last message of each queue.
    ends: Vec<u64>,
}

impl Broker {
    /// Starts Kafka.
    pub async fn kafka() -> Result<Self> {
        let cluster = Kafka::start().await?;
        let producer = KafkaSink::new(KafkaSinkConfig {
            cluster: KafkaCluster::at(cluster.servers()),
            destinations: destinations(),
        });
        let source = KafkaSource::new(KafkaSourceConfig {
            cluster: KafkaCluster::at(cluster.servers()),
            group: "audit".to_owned(),
            instance: None,
            topics: vec![PUBLISHED.to_owned()],
            redelivery: KafkaSourceConfig::DEFAULT_REDELIVERY,
        });
        let url = cluster.url();
        let cluster = Cluster::Kafka(cluster);
        cluster.create_topic(PUBLISHED).await?;
        Ok(Self::of(cluster, url, Arc::new(producer), source))
    }

    /// Starts RabbitMQ; with a proxy, its hosts come through that.
    pub async fn rabbitmq(with_proxy: bool) -> Result<Self> {
        let mut cluster = RabbitMq::start().await?;
        cluster.watch_backlogs()?;
        let direct = format!("{}/%2f", cluster.url());
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.port()));
        let proxy = match with_proxy {
            true => Some(Proxy::start(SocketAddr::from((PROXY, 0)), server).await?),
            false => None,
        };
        let hosts = proxy.as_ref().map_or(server, Proxy::address);
        let url = direct.replace(&server.to_string(), &hosts.to_string());
        let cluster = Cluster::RabbitMq(cluster);
        let queue = |name: String| {
            let queue = RabbitMqDestination {
                exchange: String::new(),
                routing_key: name.clone(),
            };
            (name, queue)
        };
        let queues = (0..TOPICS).flat_map(|number| cluster.topics(&place(number)));
        let direct: RabbitMqUrl = direct.parse()?;
        let producer = RabbitMqSink::new(RabbitMqSinkConfig {
            url: direct.clone(),
            destinations: queues.map(queue).collect(),
        });
        let source = RabbitMqSource::new(RabbitMqSourceConfig {
            url: direct,
            queues: vec![PUBLISHED.to_owned()],
            redelivery: None,
        });
        cluster.create_topic(PUBLISHED).await?;
        Ok(Self {
            proxy,
            has_groups: false,
            ..Self::of(cluster, url, Arc::new(producer), source)
        })
    }

    /// Starts RocketMQ.
    pub async fn start() -> Result<Self> {
        Self::with(RocketMq::start_with(&FORGETFUL).await?, None).await
    }

    /// Starts RocketMQ, whose clients come through a proxy.
    pub async fn behind_proxy() -> Result<Self> {
        let address = format!("brokerIP1={PROXY}");
        let settings = [&FORGETFUL[..], &[address.as_str()]].concat();
        let cluster = RocketMq::start_with(&settings).await?;
        let port = cluster.broker_port();
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let proxy = Proxy::start(SocketAddr::from((PROXY, port)), server).await?;
        Self::with(cluster, Some(proxy)).await
    }

    async fn with(cluster: RocketMq, proxy: Option<Proxy>) -> Result<Self> {
        let client = RocketMqClient::start()?;
        let producer = RocketMqSink::new(
            &client,
            RocketMqSinkConfig {
                name_server: cluster.name_server(),
                producer_group: "orders".to_owned(),
                destinations: destinations(),
            },
        );
        let source = RocketMqSource::new(
            &client,
            RocketMqSourceConfig {
                name_server: cluster.name_server(),
                group: "audit".to_owned(),
                topics: vec![PUBLISHED.to_owned()],
                redelivery: RocketMqSourceConfig::DEFAULT_REDELIVERY,
            },
        );
        let url = cluster.url();
        let cluster = Cluster::RocketMq(cluster);
        cluster.create_topic(PUBLISHED).await?;
        Ok(Self {
            proxy,
            client: Some(client),
            ..Self::of(cluster, url, Arc::new(producer), source)
        })
    }

    fn of(cluster: Cluster, url: String, producer: Arc<dyn Sink>, source: impl Source) -> Self {
        let (source, consumed) = (Arc::new(source), Arc::default());
        let consumer = tokio::spawn(consume(Arc::clone(&source), Arc::clone(&consumed)));
        Self {
            url,
            cluster: tokio::sync::Mutex::new(cluster),
            proxy: None,
            has_groups: true,
            places: AtomicUsize::new(0),
            producer,
            consumed,
            source,
            consumer: AbortOnDropHandle::new(consumer),
            client: None,
        }
    }

    /// Sends messages to topics of their own: those of a user to one queue, in order.
    pub async fn send(&self, messages: &[OrderMessage]) -> Result<Topics> {
        let name = place(self.places.fetch_add(1, Relaxed));
        let topics = self.cluster.lock().await.topics(&name);
        let mut sent = HashMap::new();
        for topic in topics {
            let ends = self.send_to(&topic, messages).await?;
            sent.insert(topic, ends);
        }
        let cluster = self.cluster.lock().await;
        let topic = |plugin| {
            let name = cluster.topic(&name, plugin);
            let ends = sent[&name].clone();
            (plugin, Topic { name, ends })
        };
        Ok(Topics {
            topics: PLUGINS.into_iter().map(topic).collect(),
            name,
        })
    }

    /// Sends messages to a new topic. The answer is where its queues end then.
    async fn send_to(&self, topic: &str, messages: &[OrderMessage]) -> Result<Vec<u64>> {
        self.cluster.lock().await.create_topic(topic).await?;
        let rows: Vec<_> = messages.iter().map(|message| message.row(topic)).collect();
        for result in self.producer.publish(&rows).await {
            result.with_context(|| format!("sending orders to {topic}"))?;
        }
        self.ends(topic, messages.len() as u64).await
    }

    /// The offsets behind the last of so many messages. The broker takes a moment to have them
    /// all in its queues.
    async fn ends(&self, topic: &str, messages: u64) -> Result<Vec<u64>> {
        let deadline = Instant::now() + INDEXING;
        loop {
            let ends = self.cluster.lock().await.ends(topic).await;
            match ends {
                Ok(ends) if ends.iter().sum::<u64>() == messages => return Ok(ends),
                _ => ensure!(
                    Instant::now() < deadline,
                    "of {messages} messages {topic} has {ends:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A host's configuration to consume these topics, with groups of their own, and to publish
    /// to consumers.
    pub fn configuration(&self, Topics { name, .. }: &Topics) -> String {
        let url = &self.url;
        let (group_prefix, group) = match self.has_groups {
            true => (
                format!("group-prefix = \"{name}\"\n"),
                format!("?group={name}"),
            ),
            false => (String::new(), String::new()),
        };
        format!(
            "\n[source]\nurl = \"{url}\"\n{group_prefix}\n\
             [destinations.tallied]\nurl = \"{url}/{PUBLISHED}{group}\"\n"
        )
    }

    /// How many messages a plugin's hosts have not acknowledged.
    pub async fn behind(&self, topics: &Topics, plugin: &str) -> u64 {
        let cluster = self.cluster.lock().await;
        let (group, topic) = (format!("{}-{plugin}", topics.name), topics.of(plugin));
        let mut behind = 0;
        for (queue, &end) in (0..).zip(&topic.ends) {
            // A broker that is down is asked again.
            let in_queue = cluster.behind(&group, &topic.name, queue, end).await;
            behind += in_queue.unwrap_or(end);
        }
        behind
    }

    /// What hosts have published so far of orders whose keys begin with `prefix`, by queue.
    pub fn published(&self, prefix: &str) -> Vec<Published> {
        let consumed = self.consumed.lock().unwrap_or_else(PoisonError::into_inner);
        consumed.get(prefix).cloned().unwrap_or_default()
    }

    /// Lets go of the clients, which would wait for a cluster that is gone. The cluster ends with
    /// this value.
    pub async fn close(&self) {
        self.consumer.abort();
        self.source.close().await;
        self.producer.close().await;
        if let Some(client) = &self.client {
            client.shutdown().await;
        }
    }
}

/// Every trial's topic, under its own name.
fn destinations() -> BTreeMap<String, String> {
    let topics = (0..TOPICS).map(place);
    topics.map(|topic| (topic.clone(), topic)).collect()
}

/// The name of one trial's topics.
fn place(number: usize) -> String {
    format!("orders-{number}")
}

/// Takes in all that is published, for ever.
async fn consume(source: Arc<impl Source>, consumed: Arc<Mutex<HashMap<String, Vec<Published>>>>) {
    loop {
        let Ok(Received::Batch(deliveries)) = source.receive(1_000).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut ends = BTreeMap::new();
        for delivery in deliveries {
            let Payload::Message(message) = delivery.payload else {
                continue;
            };
            let position = delivery.position;
            if let Ok(body) = serde_json::from_slice::<Tallied>(&message.body) {
                let prefix = body.id.split('-').next().unwrap_or_default().to_owned();
                let published = Published {
                    message_id: message.id.clone(),
                    stream: position.partition.to_string(),
                    body,
                };
                let mut consumed = consumed.lock().unwrap_or_else(PoisonError::into_inner);
                consumed.entry(prefix).or_default().push(published);
            }
            ends.insert(position.partition.clone(), position);
        }
        // What is consumed once more is recognised by its id.
        let ends: Vec<_> = ends.into_values().collect();
        let _ = source.acknowledge(&ends).await;
    }
}
