use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::time::sleep;

use crate::lock::lock;

/// How far the client's threads may be behind an answer.
const MOMENT: Duration = Duration::from_millis(100);

/// Hears from a client's threads which partitions it has, and what goes wrong. Its copies hear the
/// same.
#[derive(Clone, Default)]
pub(super) struct Observer {
    heard: Arc<Mutex<Heard>>,
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

    /// The last thing that went wrong since the last call, if any did: the client's threads know
    /// more of an outage than that nobody answers.
    pub(super) fn take_trouble(&self) -> Option<String> {
        self.heard().trouble.take()
    }

    /// The same, and waits a moment for it: the client's threads may be about to say it.
    pub(super) async fn take_trouble_soon(&self) -> Option<String> {
        let deadline = Instant::now() + MOMENT;
        loop {
            let trouble = self.take_trouble();
            if trouble.is_some() || Instant::now() > deadline {
                return trouble;
            }
            sleep(MOMENT / 10).await;
        }
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
        let trouble = &mut self.heard().trouble;
        // It follows upon the reason why the last of them is.
        let all_down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if !all_down || trouble.is_none() {
            *trouble = Some(reason.to_owned());
        }
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
