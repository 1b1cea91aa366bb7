//! Brokers by URL, and the clients that a host's sources and sinks share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use semel_core::{Sink, Source, Store, Transactions};

use crate::admin::redacted;
use crate::config::{Delivery, DestinationConfig};
use crate::destinations::Router;
use crate::transactions::combined;

#[cfg(feature = "http")]
use crate::{config::HttpDestinationOptions, http};

#[cfg(feature = "kafka")]
use crate::kafka;
#[cfg(feature = "rabbitmq")]
use crate::rabbitmq;

#[cfg(feature = "rocketmq")]
use {
    anyhow::Context,
    semel_brokers::{
        RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource, RocketMqSourceConfig,
        RocketMqTransactionalSink, RocketMqTransactions, RocketMqTransactionsConfig, RocketMqUrl,
    },
    std::sync::{Mutex, OnceLock, PoisonError},
};

/// What is connected to. Clients are started when they are first needed.
#[derive(Default)]
pub struct Brokers {
    #[cfg(feature = "rocketmq")]
    rocketmq: OnceLock<RocketMqClient>,
    /// One for each cluster with transactional destinations.
    #[cfg(feature = "rocketmq")]
    transactions: Mutex<Vec<Arc<RocketMqTransactions>>>,
}

/// The topics of one cluster's destinations, by name.
#[derive(Default)]
struct Topics {
    all: BTreeMap<String, String>,
    /// Those of them that are published to in transactions.
    transactional: BTreeMap<String, String>,
}

impl Brokers {
    /// A source of `topics` for a plugin. `group_prefix` comes before what the URL says, and
    /// `redelivery` is for how long the broker keeps messages, if not for its default.
    #[cfg_attr(
        not(any(feature = "kafka", feature = "rocketmq")),
        allow(unused_variables)
    )]
    pub fn source(
        &self,
        url: &str,
        group_prefix: Option<&str>,
        plugin: &str,
        topics: &[String],
        redelivery: Option<Duration>,
    ) -> Result<Arc<dyn Source>> {
        match url.split_once("://") {
            #[cfg(feature = "rocketmq")]
            Some(("rocketmq", _)) => {
                let mut url: RocketMqUrl = url.parse()?;
                if let Some(prefix) = group_prefix {
                    url.group = prefix.to_owned();
                    // Says what is wrong with the prefix, if anything is.
                    url = url.to_string().parse()?;
                }
                let config = RocketMqSourceConfig {
                    group: url.group_of(plugin),
                    name_server: url.name_server,
                    topics: topics.to_vec(),
                    redelivery: redelivery.unwrap_or(RocketMqSourceConfig::DEFAULT_REDELIVERY),
                };
                tracing::info!(plugin, group = config.group, "consumes as");
                Ok(Arc::new(RocketMqSource::new(self.rocketmq()?, config)))
            }
            #[cfg(feature = "kafka")]
            Some(("kafka" | "kafka+ssl", _)) => {
                kafka::source(url, group_prefix, plugin, topics, redelivery)
            }
            #[cfg(feature = "rabbitmq")]
            Some(("amqp" | "amqps", _)) => rabbitmq::source(url, topics, redelivery),
            _ => bail!(
                "`{}` names no source: give `rocketmq://HOST:PORT`, `kafka://HOST:PORT` or `amqp://HOST:PORT`, or `http://127.0.0.1:PORT` to listen there",
                redacted(url)
            ),
        }
    }

    /// A router for destinations by name.
    pub fn router<'c>(
        &self,
        destinations: impl Iterator<Item = (&'c str, &'c DestinationConfig)>,
    ) -> Result<Router> {
        let mut clusters: BTreeMap<Cluster, Topics> = BTreeMap::new();
        #[cfg(feature = "kafka")]
        let mut kafka = kafka::Destinations::default();
        #[cfg(feature = "rabbitmq")]
        let mut rabbitmq = rabbitmq::Destinations::default();
        let mut posted = Vec::new();
        for (name, config) in destinations {
            let DestinationConfig {
                url,
                delivery,
                http,
            } = config;
            ensure!(
                *delivery == Delivery::Outbox || !url.starts_with("kafka"),
                "[destinations.{name}] Kafka can't deliver with `delivery = \"transactional\"`: its transactions end with their producer, and nobody is asked what became of the store's commit, so a crash between the two would lose messages or show those of runs that never were. Leave it out: the outbox loses none, and docs/kafka.md says more"
            );
            ensure!(
                *delivery == Delivery::Outbox || url.starts_with("rocketmq://"),
                "[destinations.{name}] only RocketMQ has `delivery = \"transactional\"`: leave it out for `{}`",
                redacted(url)
            );
            if is_http(url) {
                posted.push((name, config));
                continue;
            }
            ensure!(
                http.is_none(),
                "[destinations.{name}.http] goes for `https://` URLs only: take it out for `{}`",
                redacted(url)
            );
            match url.split_once("://") {
                #[cfg(feature = "kafka")]
                Some(("kafka" | "kafka+ssl", _)) => {
                    kafka.add(name, url)?;
                    continue;
                }
                #[cfg(feature = "rabbitmq")]
                Some(("amqp" | "amqps", _)) => {
                    rabbitmq.add(name, url)?;
                    continue;
                }
                _ => {}
            }
            let Some((cluster, topic)) = Cluster::parse(url)? else {
                bail!(
                    "[destinations.{name}] `{}` names neither a topic nor a server: give `rocketmq://HOST:PORT/TOPIC`, `kafka://HOST:PORT/TOPIC`, `amqp://HOST:PORT/VHOST/QUEUE` or `https://HOST/PATH`",
                    redacted(url)
                );
            };
            let topics = clusters.entry(cluster).or_default();
            if *delivery == Delivery::Transactional {
                topics.transactional.insert(name.to_owned(), topic.clone());
            }
            topics.all.insert(name.to_owned(), topic);
        }
        let mut router = Router::default();
        for (cluster, topics) in clusters {
            let names: Vec<Arc<str>> = topics.all.keys().map(|name| name.as_str().into()).collect();
            router.add(names, self.sink(cluster, topics)?);
        }
        #[cfg(feature = "kafka")]
        kafka.add_to(&mut router);
        #[cfg(feature = "rabbitmq")]
        rabbitmq.add_to(&mut router);
        add_posted(&mut router, posted)?;
        Ok(router)
    }

    /// Starts the transactions of the routers' destinations, if any are transactional. Brokers
    /// that ask what became of one are answered from `store` from now on.
    #[cfg(feature = "rocketmq")]
    pub async fn start_transactions(
        &self,
        store: &Arc<dyn Store>,
    ) -> Option<Arc<dyn Transactions>> {
        let mut started: Vec<Arc<dyn Transactions>> = Vec::new();
        for transactions in self.transactions() {
            transactions.start(Arc::clone(store)).await;
            started.push(transactions);
        }
        combined(started)
    }

    /// Without RocketMQ there are none.
    #[cfg(not(feature = "rocketmq"))]
    pub async fn start_transactions(&self, _: &Arc<dyn Store>) -> Option<Arc<dyn Transactions>> {
        combined(Vec::new())
    }

    /// Stops all clients, after the sources and sinks are closed.
    pub async fn shutdown(&self) {
        #[cfg(feature = "rocketmq")]
        if let Some(client) = self.rocketmq.get() {
            for transactions in self.transactions() {
                transactions.close().await;
            }
            client.shutdown().await;
        }
    }

    #[cfg(feature = "rocketmq")]
    fn transactions(&self) -> Vec<Arc<RocketMqTransactions>> {
        let transactions = self.transactions.lock();
        transactions.unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(feature = "rocketmq")]
    fn sink(&self, cluster: Cluster, topics: Topics) -> Result<Arc<dyn Sink>> {
        let client = self.rocketmq()?;
        let config = RocketMqSinkConfig {
            producer_group: format!("{}-relay", cluster.group),
            name_server: cluster.name_server.clone(),
            destinations: topics.all,
        };
        let sink = Arc::new(RocketMqSink::new(client, config));
        if topics.transactional.is_empty() {
            return Ok(sink);
        }
        let config = RocketMqTransactionsConfig {
            producer_group: format!("{}-transactions", cluster.group),
            name_server: cluster.name_server,
            destinations: topics.transactional,
        };
        let transactions = Arc::new(RocketMqTransactions::new(client, config));
        self.transactions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&transactions));
        Ok(Arc::new(RocketMqTransactionalSink::new(transactions, sink)))
    }

    #[cfg(not(feature = "rocketmq"))]
    fn sink(&self, cluster: Cluster, _: Topics) -> Result<Arc<dyn Sink>> {
        match cluster {}
    }

    /// The client of all RocketMQ clusters, started if it is not yet.
    #[cfg(feature = "rocketmq")]
    pub fn rocketmq(&self) -> Result<&RocketMqClient> {
        if let Some(client) = self.rocketmq.get() {
            return Ok(client);
        }
        let client = RocketMqClient::start()?;
        Ok(self.rocketmq.get_or_init(|| client))
    }
}

/// Whether a URL is of HTTP.
pub fn is_http(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| matches!(&*scheme.to_ascii_lowercase(), "http" | "https"))
}

/// Whether a URL is of RabbitMQ.
pub fn is_amqp(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| matches!(scheme, "amqp" | "amqps"))
}

/// Adds the destinations that messages are posted to. Each has a sink of its own. Responses go
/// to destinations that are there already.
#[cfg(feature = "http")]
fn add_posted(router: &mut Router, posted: Vec<(&str, &DestinationConfig)>) -> Result<()> {
    let defaults = HttpDestinationOptions::default();
    let sinks = posted
        .into_iter()
        .map(|(name, DestinationConfig { url, http, .. })| {
            let sink = http::sink(name, url, http.as_ref().unwrap_or(&defaults), router)?;
            Ok((Arc::from(name), sink))
        });
    for (name, sink) in sinks.collect::<Result<Vec<(Arc<str>, _)>>>()? {
        router.add([name], sink);
    }
    Ok(())
}

#[cfg(not(feature = "http"))]
fn add_posted(_: &mut Router, posted: Vec<(&str, &DestinationConfig)>) -> Result<()> {
    match posted.first() {
        None => Ok(()),
        Some((name, _)) => bail!("[destinations.{name}] this host was built without HTTP"),
    }
}

/// What destinations of one sink have in common.
#[cfg(feature = "rocketmq")]
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cluster {
    /// The name servers' addresses, separated by `;`.
    pub name_server: String,
    group: String,
}

#[cfg(not(feature = "rocketmq"))]
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cluster {}

impl Cluster {
    /// Takes a destination's URL apart: `rocketmq://HOST:PORT/TOPIC`. None where there is no
    /// topic or the scheme is not known.
    #[cfg(feature = "rocketmq")]
    pub fn parse(url: &str) -> Result<Option<(Self, String)>> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let Some((servers, topic)) = address
            .strip_prefix("rocketmq://")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(_, topic)| !topic.is_empty())
        else {
            return Ok(None);
        };
        let cluster: RocketMqUrl = format!("rocketmq://{servers}?{query}")
            .parse()
            .with_context(|| format!("the destination `{}` can't be used", redacted(url)))?;
        let cluster = Self {
            name_server: cluster.name_server,
            group: cluster.group,
        };
        Ok(Some((cluster, topic.to_owned())))
    }

    #[cfg(not(feature = "rocketmq"))]
    fn parse(_: &str) -> Result<Option<(Self, String)>> {
        Ok(None)
    }
}

#[cfg(all(test, feature = "rocketmq"))]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_cluster_and_a_topic() {
        let (cluster, topic) = Cluster::parse("rocketmq://a:1,b:2/points?group=g")
            .unwrap()
            .unwrap();
        assert_eq!((topic.as_str(), cluster.group.as_str()), ("points", "g"));
        assert_eq!(cluster.name_server, "a:1;b:2");
        for url in ["rocketmq://a:1", "rocketmq://a:1/", "kafka://a:1/t", "t"] {
            assert_eq!(Cluster::parse(url).unwrap(), None, "{url}");
        }
        assert!(Cluster::parse("rocketmq://a/t").is_err());
    }

    #[test]
    fn only_rocketmq_is_transactional() {
        let config = DestinationConfig {
            url: "https://example.org/hook".to_owned(),
            delivery: Delivery::Transactional,
            http: None,
        };
        let Err(error) = Brokers::default().router([("hook", &config)].into_iter()) else {
            panic!("it was opened");
        };
        let text = error.to_string();
        assert!(
            text.contains("[destinations.hook]") && text.contains("only RocketMQ"),
            "{text}"
        );
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn kafka_says_why_it_is_not_transactional() {
        let config = DestinationConfig {
            url: "kafka://127.0.0.1:9092/points".to_owned(),
            delivery: Delivery::Transactional,
            http: None,
        };
        let Err(error) = Brokers::default().router([("points", &config)].into_iter()) else {
            panic!("it was opened");
        };
        let text = error.to_string();
        assert!(
            text.contains("[destinations.points]") && text.contains("nobody is asked"),
            "{text}"
        );
    }

    #[test]
    fn a_source_that_is_not_known_is_refused() {
        let brokers = Brokers::default();
        let Err(error) = brokers.source("nats://me:pw@h", None, "p", &[], None) else {
            panic!("it was opened");
        };
        let text = error.to_string();
        assert!(
            text.contains("rocketmq://HOST:PORT") && !text.contains("pw"),
            "{text}"
        );
    }
}
