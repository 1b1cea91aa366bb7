//! Brokers as they are looked at: each cluster once, with all that is used of it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use semel_brokers::{Survey, TopicRole, TopicUse};
use semel_core::Finding;
use tokio::time::timeout;

use super::{PATIENCE, silence};
use crate::admin::redacted;
use crate::brokers::{Brokers, is_http};
use crate::config::{Delivery, DestinationConfig};

#[cfg(feature = "rocketmq")]
use {
    crate::brokers::Cluster,
    semel_brokers::{RocketMqUrl, examine_rocketmq},
};

#[cfg(feature = "kafka")]
use semel_brokers::{KafkaCluster, KafkaUrl, examine_kafka};

#[cfg(feature = "rabbitmq")]
use semel_brokers::{RabbitMqDestination, RabbitMqUrl, examine_rabbitmq};

/// What is used of which broker.
#[derive(Default)]
pub struct Places {
    /// By name servers.
    #[cfg(feature = "rocketmq")]
    rocketmq: BTreeMap<String, Vec<TopicUse>>,
    #[cfg(feature = "kafka")]
    kafka: BTreeMap<KafkaCluster, Vec<TopicUse>>,
    #[cfg(feature = "rabbitmq")]
    rabbitmq: BTreeMap<RabbitMqUrl, (Vec<String>, Vec<RabbitMqDestination>)>,
}

impl Places {
    /// Adds what plugins consume at a URL.
    #[cfg_attr(
        not(any(feature = "kafka", feature = "rocketmq")),
        allow(unused_variables)
    )]
    pub fn add_source(&mut self, url: &str, topics: Vec<String>) -> Result<()> {
        let consumed = |topic| TopicUse {
            topic,
            role: TopicRole::Consumed,
        };
        match url.split_once("://") {
            #[cfg(feature = "rocketmq")]
            Some(("rocketmq", _)) => {
                let used = self.rocketmq.entry(url.parse::<RocketMqUrl>()?.name_server);
                used.or_default().extend(topics.into_iter().map(consumed));
            }
            #[cfg(feature = "kafka")]
            Some(("kafka" | "kafka+ssl", _)) => {
                let used = self.kafka.entry(url.parse::<KafkaUrl>()?.cluster);
                used.or_default().extend(topics.into_iter().map(consumed));
            }
            #[cfg(feature = "rabbitmq")]
            Some(("amqp" | "amqps", _)) => {
                self.rabbitmq
                    .entry(url.parse()?)
                    .or_default()
                    .0
                    .extend(topics);
            }
            _ => bail!("`{}` names no source", redacted(url)),
        }
        Ok(())
    }

    /// Adds where a destination leads, and says so. Its URL was found good before.
    #[cfg_attr(
        not(any(feature = "kafka", feature = "rocketmq")),
        allow(unused_variables)
    )]
    pub fn add_destination(&mut self, name: &str, to: &DestinationConfig) -> Option<Finding> {
        let url = to.url.as_str();
        if is_http(url) {
            let found = format!(
                "it may be posted to `{}`; nothing was sent there",
                redacted(url)
            );
            return Some(Finding::good(name, found));
        }
        let published = |topic| TopicUse {
            topic,
            role: match to.delivery {
                Delivery::Outbox => TopicRole::Published,
                Delivery::Transactional => TopicRole::PublishedInTransactions,
            },
        };
        match url.split_once("://") {
            #[cfg(feature = "rocketmq")]
            Some(("rocketmq", _)) => {
                let (cluster, topic) = Cluster::parse(url).ok()??;
                let used = self.rocketmq.entry(cluster.name_server).or_default();
                used.push(published(topic));
            }
            #[cfg(feature = "kafka")]
            Some(("kafka" | "kafka+ssl", _)) => {
                let (cluster, topic) = KafkaUrl::destination(url).ok()??;
                self.kafka
                    .entry(cluster)
                    .or_default()
                    .push(published(topic));
            }
            #[cfg(feature = "rabbitmq")]
            Some(("amqp" | "amqps", _)) => {
                let (broker, destination) = RabbitMqUrl::destination(url).ok()??;
                self.rabbitmq.entry(broker).or_default().1.push(destination);
            }
            _ => return None,
        }
        Some(Finding::note(
            name,
            format!("it leads to `{}`", redacted(url)),
        ))
    }

    /// Looks at all of them side by side.
    #[cfg_attr(not(feature = "rocketmq"), allow(unused_variables))]
    pub async fn examine(self, brokers: &Brokers) -> Survey {
        let mut looks: Vec<BoxFuture<'_, Survey>> = Vec::new();
        #[cfg(feature = "rocketmq")]
        for (name_server, topics) in self.rocketmq {
            let look = async move {
                match brokers.rocketmq() {
                    Ok(client) => examine_rocketmq(client, &name_server, &once(topics)).await,
                    Err(error) => of(Finding::failure("client", error.to_string())),
                }
            };
            looks.push(look.boxed());
        }
        #[cfg(feature = "kafka")]
        for (cluster, topics) in self.kafka {
            let look = async move { examine_kafka(&cluster, &once(topics)).await };
            looks.push(look.boxed());
        }
        #[cfg(feature = "rabbitmq")]
        for (url, (queues, destinations)) in self.rabbitmq {
            let look =
                async move { examine_rabbitmq(&url, &once(queues), &once(destinations)).await };
            looks.push(look.boxed());
        }
        let bounded = looks.into_iter().map(|look| async {
            let survey = timeout(PATIENCE, look).await;
            survey.unwrap_or_else(|_| of(silence("broker")))
        });
        let mut all = Survey::default();
        for survey in join_all(bounded).await {
            all.findings.extend(survey.findings);
            all.kept.extend(survey.kept);
        }
        all
    }
}

/// Each of them once: several names may lead to one place.
#[cfg(any(feature = "kafka", feature = "rabbitmq", feature = "rocketmq"))]
fn once<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all.dedup();
    all
}

fn of(finding: Finding) -> Survey {
    Survey {
        findings: vec![finding],
        ..Survey::default()
    }
}
