//! Kafka by URL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use semel_brokers::{KafkaSink, KafkaSinkConfig, KafkaSource, KafkaSourceConfig, KafkaUrl};
use semel_core::Source;

use crate::admin::redacted;
use crate::destinations::Router;

/// A source of `topics` for a plugin. `group_prefix` comes before what the URL says, and
/// `redelivery` is for how long the cluster keeps messages, if not for its default.
pub fn source(
    url: &str,
    group_prefix: Option<&str>,
    plugin: &str,
    topics: &[String],
    redelivery: Option<Duration>,
) -> Result<Arc<dyn Source>> {
    let mut url: KafkaUrl = url.parse()?;
    if let Some(prefix) = group_prefix {
        url.group = prefix.to_owned();
        // Says what is wrong with the prefix, if anything is.
        url = url.to_string().parse()?;
    }
    let config = KafkaSourceConfig {
        group: url.group_of(plugin),
        servers: url.servers,
        instance: url.instance,
        topics: topics.to_vec(),
        redelivery: redelivery.unwrap_or(KafkaSourceConfig::DEFAULT_REDELIVERY),
    };
    tracing::info!(plugin, group = config.group, "consumes as");
    Ok(Arc::new(KafkaSource::new(config)))
}

/// Destinations that are topics, by cluster.
#[derive(Default)]
pub struct Destinations {
    clusters: BTreeMap<String, BTreeMap<String, String>>,
}

impl Destinations {
    /// Adds one: `kafka://HOST:PORT/TOPIC`.
    pub fn add(&mut self, name: &str, url: &str) -> Result<()> {
        let (servers, topic) = parse(url)
            .with_context(|| format!("[destinations.{name}] `{}` can't be used", redacted(url)))?;
        let topics = self.clusters.entry(servers).or_default();
        topics.insert(name.to_owned(), topic);
        Ok(())
    }

    /// Leads them to sinks.
    pub fn add_to(self, router: &mut Router) {
        for (servers, destinations) in self.clusters {
            let names: Vec<Arc<str>> = destinations
                .keys()
                .map(|name| name.as_str().into())
                .collect();
            let config = KafkaSinkConfig {
                servers,
                destinations,
            };
            router.add(names, Arc::new(KafkaSink::new(config)));
        }
    }
}

/// The brokers' addresses and the topic of a destination's URL.
pub fn parse(url: &str) -> Result<(String, String)> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let Some((servers, topic)) = address
        .strip_prefix("kafka://")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(_, topic)| !topic.is_empty())
    else {
        bail!("it names no topic: give `kafka://HOST:PORT/TOPIC`");
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if topic.len() > 249 || !topic.chars().all(allowed) {
        bail!("`{topic}` is no name of a topic: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`");
    }
    let cluster: KafkaUrl = format!("kafka://{servers}?{query}").parse()?;
    Ok((cluster.servers, topic.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_cluster_and_a_topic() {
        let (servers, topic) = parse("kafka://a:1,b:2/points.v2?group=g").unwrap();
        assert_eq!((servers.as_str(), topic.as_str()), ("a:1,b:2", "points.v2"));
        for (url, reason) in [
            ("kafka://a:1", "names no topic"),
            ("kafka://a:1/", "names no topic"),
            ("kafka://a:1/a/b", "no name of a topic"),
            ("kafka://a/t", "no port"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_group_prefix_comes_before_the_url() {
        assert!(source("kafka://a:1?group=g", Some("h"), "p", &[], None).is_ok());
        let Err(error) = source("kafka://a:1", Some("a b"), "p", &[], None) else {
            panic!("it was opened");
        };
        assert!(error.to_string().contains("the group `a b`"), "{error}");
    }
}
