use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use semel_brokers::{
    KafkaCluster, KafkaSink, KafkaSinkConfig, RabbitMqSink, RabbitMqSinkConfig, RabbitMqUrl,
    RocketMqClient, RocketMqSink, RocketMqSinkConfig,
};
use semel_core::{OutboxRow, Sink};

use super::{Servers, SourceKind};
use crate::poster::{Poster, Series};
use crate::servers::free_ports;
use crate::workload::OrderMessage;

/// The partitions or queues of a topic. A queue of RabbitMQ is one.
const PARTITIONS: u32 = 4;

/// How many messages are sent at a time.
const CHUNK: usize = 1_000;

/// How long a broker may refuse messages before that is an error.
const ARRIVE: Duration = Duration::from_secs(30);

/// The name of the sink's one destination.
const ORDERS: &str = "orders";

/// The input of a host that reads a file.
pub(super) const INPUT: &str = "orders.jsonl";

/// Where the orders of one run come from.
pub(super) enum Feed {
    File,
    Http { port: u16, poster: Option<Poster> },
    Topic(Topic),
}

/// A topic of its own, and a producer for it.
pub(super) struct Topic {
    source: SourceKind,
    url: String,
    name: String,
    sink: Arc<dyn Sink>,
    client: Option<RocketMqClient>,
}

impl Feed {
    /// An empty one. `name` is one that no other has.
    pub(super) async fn new(source: SourceKind, name: &str, servers: &Servers) -> Result<Self> {
        let partitions = i32::try_from(PARTITIONS)?;
        let mut client = None;
        let (url, sink): (String, Arc<dyn Sink>) = match source {
            SourceKind::File => return Ok(Self::File),
            SourceKind::Http => {
                return Ok(Self::Http {
                    port: free_ports(&[0])?,
                    poster: None,
                });
            }
            SourceKind::RocketMq => {
                let broker = servers.rocketmq().await?;
                broker.create_topic(name, PARTITIONS).await?;
                let config = RocketMqSinkConfig {
                    name_server: broker.name_server(),
                    producer_group: format!("{name}-producer"),
                    destinations: BTreeMap::from([(ORDERS.to_owned(), name.to_owned())]),
                };
                let client = client.insert(RocketMqClient::start()?);
                (broker.url(), Arc::new(RocketMqSink::new(client, config)))
            }
            SourceKind::Kafka => {
                let broker = servers.kafka().await?;
                broker.create_topic(name, partitions).await?;
                let config = KafkaSinkConfig {
                    cluster: KafkaCluster::at(broker.servers()),
                    destinations: BTreeMap::from([(ORDERS.to_owned(), name.to_owned())]),
                };
                (broker.url(), Arc::new(KafkaSink::new(config)))
            }
            SourceKind::RabbitMq => {
                let broker = servers.rabbitmq().await?;
                broker.declare_queue(name).await?;
                let url = format!("{}/%2f", broker.url());
                let (address, queue) = RabbitMqUrl::destination(&format!("{url}/{name}"))?
                    .context("a queue is a destination")?;
                let config = RabbitMqSinkConfig {
                    url: address,
                    destinations: BTreeMap::from([(ORDERS.to_owned(), queue)]),
                };
                (url, Arc::new(RabbitMqSink::new(config)))
            }
        };
        Ok(Self::Topic(Topic {
            source,
            url,
            name: name.to_owned(),
            sink,
            client,
        }))
    }

    /// The host's configuration.
    pub(super) fn configuration(&self) -> String {
        match self {
            Self::File => String::new(),
            Self::Http { port, .. } => {
                format!("[source]\nurl = \"http://127.0.0.1:{port}\"\n")
            }
            Self::Topic(Topic {
                source, url, name, ..
            }) => {
                let group = match source {
                    SourceKind::RabbitMq => String::new(),
                    _ => format!("group-prefix = \"{name}\"\n"),
                };
                format!(
                    "[source]\nurl = \"{url}\"\n{group}\n\
                     [plugins.points]\ntopics = [\"{name}\"]\n"
                )
            }
        }
    }

    /// Sends messages. Those for a file are the caller's to write; those over HTTP are only
    /// begun with, as they are done when the host is.
    pub(super) async fn send(&mut self, messages: &[OrderMessage]) -> Result<()> {
        match self {
            Self::File => Ok(()),
            Self::Http { port, poster } => {
                let alone = |message: &OrderMessage| Series {
                    topic: ORDERS.to_owned(),
                    bodies: vec![message.body.clone()],
                };
                *poster = Some(Poster::start(*port, messages.iter().map(alone))?);
                Ok(())
            }
            Self::Topic(topic) => topic.send(messages).await,
        }
    }

    /// Lets go of the connections.
    pub(super) async fn close(self) {
        if let Self::Topic(topic) = self {
            topic.sink.close().await;
            if let Some(client) = topic.client {
                client.shutdown().await;
            }
        }
    }
}

impl Topic {
    /// Sends each message until the broker has confirmed it, as a producer does.
    async fn send(&self, messages: &[OrderMessage]) -> Result<()> {
        for chunk in messages.chunks(CHUNK) {
            let mut rows: Vec<OutboxRow> =
                chunk.iter().map(|message| message.row(ORDERS)).collect();
            let deadline = Instant::now() + ARRIVE;
            while !rows.is_empty() {
                let mut results = self.sink.publish(&rows).await.into_iter();
                let mut failure = None;
                rows.retain(|_| match results.next() {
                    Some(Err(error)) => {
                        failure = Some(error);
                        true
                    }
                    _ => false,
                });
                if let Some(error) = failure {
                    ensure!(Instant::now() < deadline, "sending orders: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Ok(())
    }
}
