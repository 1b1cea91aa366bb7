//! What there is to say of a cluster and its topics. They are only read.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::{Metadata, MetadataTopic};
use semel_core::Finding;
use tokio::task::spawn_blocking;

use super::cluster::KafkaCluster;
use super::errors::describe;
use super::observer::Observer;
use crate::survey::{Survey, TopicRole, TopicUse};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// How long an event is waited for that is about to come.
const EVENT: Duration = Duration::from_millis(100);

/// Looks at a cluster and at topics of it.
pub async fn examine_kafka(cluster: &KafkaCluster, topics: &[TopicUse]) -> Survey {
    let asked = {
        let config = cluster.client_config();
        spawn_blocking(move || {
            let client: BaseConsumer<Observer> = config
                .create_with_context(Observer::default())
                .map_err(|error| describe(&error))?;
            // Of all topics: to ask for one might create it.
            let metadata = client.fetch_metadata(None, REQUEST);
            metadata.map_err(|error| {
                // What its threads heard of it is told to whom asks for events, of which there
                // is no other here.
                let _ = client.poll(EVENT);
                let trouble = client.context().take_trouble();
                trouble.unwrap_or_else(|| describe(&error))
            })
        })
    };
    let metadata = match asked.await {
        Ok(Ok(metadata)) => metadata,
        Ok(Err(reason)) => return Survey::unreachable(reason),
        Err(error) => return Survey::unreachable(error),
    };
    let brokers = metadata.brokers().len();
    let mut survey = Survey::default();
    survey.findings.push(match brokers {
        1 => Finding::note(
            "broker",
            "one broker answers: there is no other to take over",
        ),
        _ => Finding::good("broker", format!("brokers: {brokers}")),
    });
    survey
        .findings
        .push(Finding::unchecked("clock", "Kafka does not tell its time"));
    let settings = settings(cluster, &metadata, topics).await;
    for used in topics {
        let subject = format!("topic {}", used.topic);
        let Some(topic) = found(&metadata, &used.topic) else {
            let create = format!(
                "create it with `kafka-topics.sh --create --topic {}`",
                used.topic
            );
            let missing = Finding::failure(subject, "it does not exist, or may not be seen");
            survey.findings.push(missing.advise(create));
            continue;
        };
        survey.findings.extend(copies(&subject, topic));
        match settings.as_ref().map(|settings| settings.get(&used.topic)) {
            Ok(Some(settings)) => {
                survey
                    .findings
                    .extend(judged(&subject, settings, topic, used.role));
                if used.role == TopicRole::Consumed {
                    survey.kept.insert(used.topic.clone(), kept(settings));
                }
            }
            Ok(None) => survey.findings.push(Finding::unchecked(
                subject,
                "this user may not ask for its settings (DescribeConfigs)",
            )),
            Err(reason) => survey.findings.push(Finding::unchecked(subject, reason)),
        }
    }
    survey
}

fn found<'m>(metadata: &'m Metadata, topic: &str) -> Option<&'m MetadataTopic> {
    let mut topics = metadata.topics().iter();
    topics.find(|found| found.name() == topic && found.error().is_none())
}

type Settings = HashMap<String, String>;

/// The settings of those topics that there are, by their names.
async fn settings(
    cluster: &KafkaCluster,
    metadata: &Metadata,
    topics: &[TopicUse],
) -> Result<HashMap<String, Settings>, String> {
    let there: Vec<_> = topics
        .iter()
        .filter(|used| found(metadata, &used.topic).is_some())
        .map(|used| ResourceSpecifier::Topic(&used.topic))
        .collect();
    if there.is_empty() {
        return Ok(HashMap::new());
    }
    let admin: AdminClient<Observer> = cluster
        .client_config()
        .create_with_context(Observer::default())
        .map_err(|error| describe(&error))?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    let described = admin.describe_configs(&there, &options).await;
    let described = described.map_err(|error| describe(&error))?.into_iter();
    Ok(described.flatten().filter_map(by_name).collect())
}

fn by_name(resource: ConfigResource) -> Option<(String, Settings)> {
    let rdkafka::admin::OwnedResourceSpecifier::Topic(topic) = resource.specifier else {
        return None;
    };
    let entries = resource.entries.into_iter();
    let settings = entries.filter_map(|entry| Some((entry.name, entry.value?)));
    Some((topic, settings.collect()))
}

/// Where the partitions are.
fn copies(subject: &str, topic: &MetadataTopic) -> Vec<Finding> {
    let partitions = topic.partitions();
    let count = partitions.len();
    let copies = partitions.iter().map(|p| p.replicas().len()).min();
    let orphans = partitions.iter().filter(|p| p.leader() < 0).count();
    let behind = partitions
        .iter()
        .filter(|p| p.isr().len() < p.replicas().len());
    let mut findings = vec![match copies.unwrap_or(0) {
        0 | 1 => Finding::warning(
            subject,
            format!(
                "partitions: {count}, of one copy each, so that what a broker's disk loses is lost"
            ),
        )
        .advise("give it a replication factor of 3"),
        copies => Finding::good(
            subject,
            format!("partitions: {count}, of {copies} copies each"),
        ),
    }];
    if orphans > 0 {
        findings.push(
            Finding::failure(subject, format!("partitions without a leader: {orphans}"))
                .advise("start the brokers that have them"),
        );
    }
    match behind.count() {
        0 => {}
        behind => findings.push(
            Finding::warning(
                subject,
                format!("partitions of which copies are not in sync: {behind}"),
            )
            .advise("see to the brokers that lag or are down"),
        ),
    }
    findings
}

/// What its settings mean.
fn judged(
    subject: &str,
    settings: &Settings,
    topic: &MetadataTopic,
    role: TopicRole,
) -> Vec<Finding> {
    let value = |name: &str| settings.get(name).map_or("", String::as_str);
    let smallest = |count: fn(&rdkafka::metadata::MetadataPartition) -> usize| {
        topic.partitions().iter().map(count).min().unwrap_or(0)
    };
    let least = value("min.insync.replicas").parse().unwrap_or(1);
    let mut findings = Vec::new();
    if smallest(|partition| partition.isr().len()) < least {
        findings.push(
            Finding::failure(
                subject,
                format!("fewer copies are in sync than its `min.insync.replicas` of {least} wants, so that nothing can be published"),
            )
            .advise("start the brokers that are down, or give it more copies"),
        );
    } else if least == 1 && smallest(|partition| partition.replicas().len()) > 1 {
        findings.push(
            Finding::warning(
                subject,
                "its `min.insync.replicas` is 1: a message counts as kept when one broker has it",
            )
            .advise("set it to 2, with 3 copies"),
        );
    }
    if value("unclean.leader.election.enable") == "true" {
        findings.push(
            Finding::warning(
                subject,
                "its `unclean.leader.election.enable` is true: a broker that lacks messages may take over",
            )
            .advise("set it to false"),
        );
    }
    if role == TopicRole::Consumed && value("cleanup.policy").contains("compact") {
        findings.push(
            Finding::warning(
                subject,
                "its `cleanup.policy` has `compact`: an older message of a record key may be gone before it is handled",
            )
            .advise("set it to `delete`, unless the newest message of a key is enough"),
        );
    }
    findings
}

/// For how long its messages are kept.
fn kept(settings: &Settings) -> Duration {
    let value = |name: &str| settings.get(name).map_or("", String::as_str);
    if !value("cleanup.policy").contains("delete") {
        return Duration::MAX;
    }
    let milliseconds = value("retention.ms").parse().ok();
    milliseconds.map_or(Duration::MAX, Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_deleted_is_kept_for_ever() {
        let kept = |policy: &str, retention: &str| {
            let pairs = [("cleanup.policy", policy), ("retention.ms", retention)];
            kept(&pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into())
        };
        assert_eq!(kept("delete", "60000"), Duration::from_secs(60));
        assert_eq!(kept("compact,delete", "60000"), Duration::from_secs(60));
        assert_eq!(kept("delete", "-1"), Duration::MAX);
        assert_eq!(kept("compact", "60000"), Duration::MAX);
    }
}
