//! Orders for the example `points`: duplicated, resent and shuffled.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use semel_core::OutboxRow;

use crate::ledger::Ledger;
use crate::outgoing;

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadConfig {
    /// Messages, duplicates included.
    pub messages: usize,
    /// How many of 100 messages are duplicates.
    pub duplicates_percent: usize,
    /// Users that orders are spread over.
    pub users: usize,
    /// The same seed gives the same messages.
    pub seed: u64,
}

impl Default for WorkloadConfig {
    fn default() -> Self {
        Self {
            messages: 100_000,
            duplicates_percent: 30,
            users: 1_000,
            seed: 1,
        }
    }
}

/// One message of the topic `orders`.
#[derive(Clone, Debug)]
pub struct OrderMessage {
    /// The producer's message id.
    pub id: String,
    /// The payload.
    pub body: String,
}

impl OrderMessage {
    /// The message as a producer sends it.
    pub fn row(&self, destination: &str) -> OutboxRow {
        outgoing::row("producer", self.id.clone(), destination, self.body.clone())
    }
}

/// Messages in the order in which they are sent, and what they must come to.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What is sent.
    pub messages: Vec<OrderMessage>,
    /// What it must come to.
    pub ledger: Ledger,
}

impl Workload {
    /// Generates messages. Of the duplicates, half are redeliveries, equal in every byte, and
    /// half are resends: the same payload under a new message id.
    pub fn generate(config: WorkloadConfig) -> Self {
        let mut random = StdRng::seed_from_u64(config.seed);
        let duplicates = config.messages * config.duplicates_percent.min(99) / 100;
        let unique = config.messages - duplicates;
        let mut ledger = Ledger::default();
        let mut messages = Vec::with_capacity(config.messages);
        for number in 0..unique {
            let order = format!("o-{number:07}");
            let user = format!("user-{:04}", random.random_range(0..config.users.max(1)));
            // Some orders are too small to bring a point.
            let amount = random.random_range(0..20_000);
            ledger.add_order(&order, &user, amount / 100);
            messages.push(OrderMessage {
                id: format!("m-{number:07}"),
                body: format!(r#"{{"order_id":"{order}","user":"{user}","amount":{amount}}}"#),
            });
        }
        for number in 0..duplicates {
            let mut copy = messages[random.random_range(0..unique)].clone();
            if number % 2 == 0 {
                copy.id = format!("r-{number:07}");
            }
            messages.push(copy);
        }
        messages.shuffle(&mut random);
        ledger.sent = messages.len();
        Self { messages, ledger }
    }

    /// The messages as lines that `semel run --input` reads.
    pub fn json_lines(&self) -> String {
        let mut lines = String::with_capacity(self.messages.len() * 110);
        for message in &self.messages {
            let (id, body) = (&message.id, &message.body);
            // Writing to a string does not fail.
            let _ = writeln!(lines, r#"{{"topic":"orders","id":"{id}","body":{body}}}"#);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn duplicates_have_the_payload_of_an_order() {
        let config = WorkloadConfig {
            messages: 1_000,
            ..WorkloadConfig::default()
        };
        let workload = Workload::generate(config);
        let bodies: HashSet<_> = workload.messages.iter().map(|m| &m.body).collect();
        let ids: HashSet<_> = workload.messages.iter().map(|m| &m.id).collect();
        assert_eq!(workload.messages.len(), 1_000);
        assert_eq!(bodies.len(), 700);
        assert_eq!(ids.len(), 700 + 150);
        assert_eq!(workload.ledger.orders(), 700);
        assert_eq!(
            workload.json_lines(),
            Workload::generate(config).json_lines()
        );
    }
}
