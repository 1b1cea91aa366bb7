//! Brokers by URL, and the clients that a host's sources and sinks share.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use semel_core::{Sink, Source};

use crate::admin::redacted;
use crate::destinations::Router;

#[cfg(feature = "rocketmq")]
use {
    anyhow::Context,
    semel_brokers::{
        RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource, RocketMqSourceConfig,
        RocketMqUrl,
    },
    std::sync::OnceLock,
};

/// What is connected to. Clients are started when they are first needed.
#[derive(Default)]
pub struct Brokers {
    #[cfg(feature = "rocketmq")]
    rocketmq: OnceLock<RocketMqClient>,
}

impl Brokers {
    /// A source of `topics` for a plugin. `group_prefix` comes before what the URL says.
    #[cfg_attr(not(feature = "rocketmq"), allow(unused_variables))]
    pub fn source(
        &self,
        url: &str,
        group_prefix: Option<&str>,
        plugin: &str,
        topics: &[String],
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
                };
                tracing::info!(plugin, group = config.group, "consumes as");
                Ok(Arc::new(RocketMqSource::new(self.rocketmq()?, config)))
            }
            _ => bail!(
                "`{}` names no source: give `rocketmq://HOST:PORT`",
                redacted(url)
            ),
        }
    }

    /// A router for destinations with their URLs.
    pub fn router<'u>(
        &self,
        destinations: impl Iterator<Item = (&'u str, &'u str)>,
    ) -> Result<Router> {
        let mut clusters: BTreeMap<Cluster, BTreeMap<String, String>> = BTreeMap::new();
        for (name, url) in destinations {
            let Some((cluster, topic)) = Cluster::parse(url)? else {
                bail!(
                    "[destinations.{name}] `{}` names no topic: give `rocketmq://HOST:PORT/TOPIC`",
                    redacted(url)
                );
            };
            clusters
                .entry(cluster)
                .or_default()
                .insert(name.to_owned(), topic);
        }
        let mut router = Router::default();
        for (cluster, topics) in clusters {
            let names: Vec<Arc<str>> = topics.keys().map(|name| name.as_str().into()).collect();
            router.add(names, self.sink(cluster, topics)?);
        }
        Ok(router)
    }

    /// Stops all clients, after the sources and sinks are closed.
    pub async fn shutdown(&self) {
        #[cfg(feature = "rocketmq")]
        if let Some(client) = self.rocketmq.get() {
            client.shutdown().await;
        }
    }

    #[cfg(feature = "rocketmq")]
    fn sink(&self, cluster: Cluster, topics: BTreeMap<String, String>) -> Result<Arc<dyn Sink>> {
        let config = RocketMqSinkConfig {
            producer_group: format!("{}-relay", cluster.group),
            name_server: cluster.name_server,
            destinations: topics,
        };
        Ok(Arc::new(RocketMqSink::new(self.rocketmq()?, config)))
    }

    #[cfg(not(feature = "rocketmq"))]
    fn sink(&self, cluster: Cluster, _: BTreeMap<String, String>) -> Result<Arc<dyn Sink>> {
        match cluster {}
    }

    #[cfg(feature = "rocketmq")]
    fn rocketmq(&self) -> Result<&RocketMqClient> {
        if let Some(client) = self.rocketmq.get() {
            return Ok(client);
        }
        let client = RocketMqClient::start()?;
        Ok(self.rocketmq.get_or_init(|| client))
    }
}

/// What destinations of one sink have in common.
#[cfg(feature = "rocketmq")]
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cluster {
    name_server: String,
    group: String,
}

#[cfg(not(feature = "rocketmq"))]
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cluster {}

impl Cluster {
    /// Takes a destination's URL apart: `rocketmq://HOST:PORT/TOPIC`. None where there is no
    /// topic or the scheme is not known.
    #[cfg(feature = "rocketmq")]
    fn parse(url: &str) -> Result<Option<(Self, String)>> {
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
    fn a_source_that_is_not_known_is_refused() {
        let brokers = Brokers::default();
        let Err(error) = brokers.source("amqp://me:pw@h", None, "p", &[]) else {
            panic!("it was opened");
        };
        let text = error.to_string();
        assert!(
            text.contains("rocketmq://HOST:PORT") && !text.contains("pw"),
            "{text}"
        );
    }
}
