//! Orders for the test plugin `tally`, and what they must come to, reckoned outside of the
//! system.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use semel_core::{Cause, OutboxRow};
use serde::{Deserialize, Serialize};

use crate::outgoing;
use crate::poster::Series;

/// Failures after which an order is a dead letter: `max-attempts` of the configuration.
pub const MAX_ATTEMPTS: u32 = 3;

/// What to generate.
#[derive(Clone, Debug)]
pub struct OrdersConfig {
    /// Orders, each with a key of its own; messages are 45 % more.
    pub orders: usize,
    /// Users, each with a lane of its own.
    pub users: usize,
    /// Whether some outgoing messages are such as a broker refuses.
    pub wide: bool,
    /// What the keys begin with, so that trials can share a topic for what they publish.
    pub prefix: String,
    /// The same seed gives the same orders.
    pub seed: u64,
}

/// Messages in the order in which they are sent, and what they must come to.
#[derive(Clone, Debug)]
pub struct Orders {
    /// What is sent.
    pub messages: Vec<OrderMessage>,
    /// What it must come to, for each plugin.
    pub books: Books,
}

/// One message of the topic `orders`.
#[derive(Clone, Debug)]
pub struct OrderMessage {
    /// The producer's message id.
    pub id: String,
    /// Whose lane it belongs to. Those of a user are sent to one partition.
    pub user: String,
    /// The payload.
    pub body: String,
}

impl OrderMessage {
    /// The message as a producer sends it.
    pub fn row(&self, destination: &str) -> OutboxRow {
        let row = outgoing::row("producer", self.id.clone(), destination, self.body.clone());
        outgoing::in_lane(row, &self.user)
    }
}

/// What a plugin must make of the orders.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// By business key.
    pub entries: BTreeMap<String, BookEntry>,
    /// The keys that take effect, by user, in the order in which they must where the plugin
    /// has lanes.
    pub histories: BTreeMap<String, Vec<String>>,
    /// Letters that end no record, by cause and body: how many there must be.
    pub letters: BTreeMap<(String, String), usize>,
}

/// What must become of a key.
#[derive(Clone, Debug)]
pub struct BookEntry {
    /// Why it must be dead; none for a key that must be done.
    pub dead: Option<Cause>,
    /// What it must publish, by ordinal.
    pub publish: Vec<Publication>,
    /// The body of the first message with this key: later ones count as the same or another.
    body: String,
}

/// One outgoing message, as an order asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publication {
    /// At once.
    Now,
    /// After so many milliseconds.
    Later(u64),
    /// In a way that RocketMQ refuses.
    Wide,
}

/// The payload.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    user: String,
    fails: u32,
    reject: bool,
    publish: Vec<Publication>,
}

impl Order {
    fn dead(&self) -> Option<Cause> {
        match self {
            Self { reject: true, .. } => Some(Cause::Rejected),
            Self { fails, .. } if *fails >= MAX_ATTEMPTS => Some(Cause::Exhausted),
            _ => None,
        }
    }

    /// The `number`th order: every kind comes round.
    fn generate(number: usize, config: &OrdersConfig, random: &mut StdRng) -> Self {
        let publish = match number % 10 {
            1 => vec![Publication::Now; 2],
            3 => vec![Publication::Later(random.random_range(20..150))],
            5 => Vec::new(),
            7 if config.wide => vec![Publication::Now, Publication::Wide],
            _ => vec![Publication::Now],
        };
        Self {
            id: Some(format!("{}-o{number:04}", config.prefix)),
            user: format!(
                "{}-u{:02}",
                config.prefix,
                random.random_range(0..config.users)
            ),
            fails: match number % 20 {
                4 | 13 => 1,
                9 => MAX_ATTEMPTS,
                _ => 0,
            },
            reject: number % 12 == 6,
            publish,
        }
    }
}

impl Orders {
    /// Generates orders: of each 100, 30 come twice, half of those under another message id;
    /// 10 come with another payload too, and 5 messages have no key.
    pub fn generate(config: &OrdersConfig) -> Self {
        let mut random = StdRng::seed_from_u64(config.seed);
        let originals: Vec<Order> = (0..config.orders)
            .map(|number| Order::generate(number, config, &mut random))
            .collect();
        let share = |percent: usize| (config.orders * percent).div_ceil(100);
        let mut copies: Vec<Order> = Vec::new();
        for _ in 0..share(10) {
            copies.extend(originals.choose(&mut random).cloned().map(|mut order| {
                order.publish.push(Publication::Now);
                order
            }));
        }
        for _ in 0..share(5) {
            copies.extend(originals.choose(&mut random).cloned().map(|mut order| {
                order.id = None;
                order
            }));
        }
        let mut messages: Vec<OrderMessage> = Vec::new();
        for order in originals.iter().chain(&copies) {
            let body = serde_json::to_string(order).expect("an order has a JSON form");
            messages.push(OrderMessage {
                id: format!("m-{}", messages.len()),
                user: order.user.clone(),
                body,
            });
        }
        for number in 0..share(30) {
            let mut copy = messages[random.random_range(0..config.orders)].clone();
            if number % 2 == 0 {
                copy.id = format!("r-{number}");
            }
            messages.push(copy);
        }
        messages.shuffle(&mut random);
        let mut books = Books::default();
        for message in &messages {
            books.enter(message);
        }
        Self { messages, books }
    }

    /// The messages for a topic of each of these plugins: those of a user in order.
    pub fn series(&self, plugins: &[&str]) -> Vec<Series> {
        let mut all: BTreeMap<(&str, &str), Series> = BTreeMap::new();
        for plugin in plugins {
            for OrderMessage { user, body, .. } in &self.messages {
                let series = all.entry((plugin, user)).or_insert_with(|| Series {
                    topic: (*plugin).to_owned(),
                    bodies: Vec::new(),
                });
                series.bodies.push(body.clone());
            }
        }
        all.into_values().collect()
    }

    /// The messages as lines that `semel run --input` reads.
    pub fn json_lines(&self) -> String {
        let line = |OrderMessage { id, body, .. }: &OrderMessage| {
            format!("{{\"topic\":\"orders\",\"id\":\"{id}\",\"body\":{body}}}\n")
        };
        self.messages.iter().map(line).collect()
    }
}

impl Books {
    /// Enters a message. The first of a key decides what becomes of it.
    fn enter(&mut self, OrderMessage { body, .. }: &OrderMessage) {
        let order: Order = serde_json::from_str(body).expect("it was written as an order");
        let dead = order.dead();
        let Some(id) = order.id else {
            return self.expect_letter(Cause::NoKey, body);
        };
        match self.entries.entry(id.clone()) {
            Entry::Occupied(first) if first.get().body == *body => {}
            Entry::Occupied(_) => self.expect_letter(Cause::Mismatch, body),
            Entry::Vacant(vacant) => {
                vacant.insert(BookEntry {
                    dead,
                    publish: order.publish,
                    body: body.clone(),
                });
                if dead.is_none() {
                    self.histories.entry(order.user).or_default().push(id);
                }
            }
        }
    }

    fn expect_letter(&mut self, cause: Cause, body: &str) {
        let letter = (cause.to_string(), body.to_owned());
        *self.letters.entry(letter).or_default() += 1;
    }

    /// Falsifies an entry, to see an audit fail: the first key that is done must be dead.
    pub fn tamper(&mut self) {
        let mut entries = self.entries.values_mut();
        if let Some(entry) = entries.find(|entry| entry.dead.is_none()) {
            entry.dead = Some(Cause::Rejected);
        }
    }

    /// How many outgoing messages consumers must come to see. `refuses` says whether wide ones
    /// are refused.
    pub fn published(&self, refuses: bool) -> usize {
        let done = self.entries.values().filter(|entry| entry.dead.is_none());
        done.flat_map(|entry| &entry.publish)
            .filter(|how| !(refuses && **how == Publication::Wide))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> OrdersConfig {
        OrdersConfig {
            orders: 100,
            users: 9,
            wide: true,
            prefix: "t".to_owned(),
            seed: 7,
        }
    }

    #[test]
    fn every_kind_of_message_is_there() {
        let Orders { messages, books } = Orders::generate(&config());
        assert_eq!((messages.len(), books.entries.len()), (145, 100));
        let count = |cause| {
            let entries = books.entries.values();
            entries.filter(|entry| entry.dead == cause).count()
        };
        assert!(count(None) > 80 && count(Some(Cause::Rejected)) > 5);
        assert!(count(Some(Cause::Exhausted)) > 3);
        let letters = |cause: Cause| -> usize {
            let of_cause = books
                .letters
                .iter()
                .filter(|((c, _), _)| *c == cause.to_string());
            of_cause.map(|(_, count)| count).sum()
        };
        assert_eq!(letters(Cause::NoKey), 5);
        assert!(letters(Cause::Mismatch) >= 10);
        assert!(books.published(true) < books.published(false));
    }

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        let lines = |config: &OrdersConfig| Orders::generate(config).json_lines();
        assert_eq!(lines(&config()), lines(&config()));
        let other = OrdersConfig {
            seed: 8,
            ..config()
        };
        assert_ne!(lines(&config()), lines(&other));
    }
}
