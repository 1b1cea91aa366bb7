//! Kafka by URL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use semel_brokers::{
    KafkaCluster, KafkaSink, KafkaSinkConfig, KafkaSource, KafkaSourceConfig, KafkaUrl,
};
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
        url = url.with_group(prefix)?;
    }
    url.cluster.check_files()?;
    let config = KafkaSourceConfig {
        group: url.group_of(plugin),
        cluster: url.cluster,
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
    clusters: BTreeMap<KafkaCluster, BTreeMap<String, String>>,
}

impl Destinations {
    /// Adds one: `kafka://HOST:PORT/TOPIC`.
    pub fn add(&mut self, name: &str, url: &str) -> Result<()> {
        let about = || format!("[destinations.{name}] `{}` can't be used", redacted(url));
        let (cluster, topic) = KafkaUrl::destination(url)
            .with_context(about)?
            .context("it names no topic: give `kafka://HOST:PORT/TOPIC`")
            .with_context(about)?;
        cluster.check_files().with_context(about)?;
        let topics = self.clusters.entry(cluster).or_default();
        topics.insert(name.to_owned(), topic);
        Ok(())
    }

    /// Leads them to sinks.
    pub fn add_to(self, router: &mut Router) {
        for (cluster, destinations) in self.clusters {
            let names: Vec<Arc<str>> = destinations
                .keys()
                .map(|name| name.as_str().into())
                .collect();
            let config = KafkaSinkConfig {
                cluster,
                destinations,
            };
            router.add(names, Arc::new(KafkaSink::new(config)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_of_a_cluster_share_a_sink() {
        let mut destinations = Destinations::default();
        for (name, url) in [
            ("a", "kafka+ssl://me:pw@h:1/t"),
            ("b", "kafka+ssl://me:pw@h:1/u?group=g"),
            ("c", "kafka://h:1/t"),
        ] {
            destinations.add(name, url).unwrap();
        }
        let mut counts: Vec<_> = destinations.clusters.values().map(BTreeMap::len).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2]);
        for (url, reason) in [
            ("kafka+ssl://me:pw@h:1", "it names no topic"),
            (
                "kafka+ssl://me:pw@h:1/t?ca=/nowhere",
                "`ca=/nowhere` can't be used",
            ),
        ] {
            let text = format!("{:#}", destinations.add("d", url).unwrap_err());
            assert!(
                text.contains("[destinations.d]") && text.contains(reason),
                "{text}"
            );
            assert!(!text.contains("pw"), "{text}");
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
