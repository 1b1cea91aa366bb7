use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::lock::lock;

/// Hears from a client's threads which partitions it has, and what goes wrong.
#[derive(Default)]
pub(super) struct Observer {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    assigned: HashSet<(String, i32)>,
    trouble: Option<String>,
}

impl Observer {
    /// Whether a partition is this consumer's at the moment.
    pub(super) fn has(&self, partition: &(String, i32)) -> bool {
        self.heard().assigned.contains(partition)
    }

    /// The last thing that went wrong since the last call, if any did.
    pub(super) fn take_trouble(&self) -> Option<String> {
        self.heard().trouble.take()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }
}

impl ClientContext for Observer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, "{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        self.heard().trouble = Some(reason.to_owned());
    }
}

impl ConsumerContext for Observer {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // What is on its way from a revoked partition is not waited for: its records are the
        // store's, and whoever gets the partition finds them there.
        if let Rebalance::Revoke(partitions) = rebalance {
            let names = names(partitions);
            tracing::debug!(partitions = ?names, "revoked");
            let assigned = &mut self.heard().assigned;
            for name in &names {
                assigned.remove(name);
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let names = names(partitions);
                tracing::debug!(partitions = ?names, "assigned");
                self.heard().assigned.extend(names);
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => self.heard().trouble = Some(error.to_string()),
        }
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<(String, i32)> {
    partitions
        .elements()
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect()
}
