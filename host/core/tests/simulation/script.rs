//! What the producers send: orders of which several share a key, and some bad input.

use std::collections::HashMap;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::order::{End, Order, Step};
use crate::plan::{PICKY, TRANSACTIONAL};

/// A message that a producer sends.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: u64,
    pub partition: usize,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Order(Order),
    /// A message without a business key.
    Keyless,
    /// Bytes that are no message.
    Malformed,
}

/// What the messages of a run have in common.
pub struct Script {
    pub partitions: usize,
    pub lanes: bool,
    pub complete: bool,
    /// The last is sent after so many milliseconds.
    pub span: u64,
}

/// Versions of one thing that are sent, at most.
const VERSIONS: u64 = 6;

impl Script {
    pub fn write(&self, rng: &mut StdRng) -> Vec<Sent> {
        let keys = *[3, 12, 40].choose(rng).expect("not empty");
        let oddities = !self.complete && rng.random_bool(0.4);
        let mut orders: HashMap<u64, (usize, Order)> = HashMap::new();
        let mut sent: Vec<_> = (0..rng.random_range(1..=40))
            .map(|index| {
                let anywhere = rng.random_range(0..self.partitions);
                if oddities && rng.random_bool(0.1) {
                    let odd = [Content::Keyless, Content::Malformed];
                    return self.send(rng, anywhere, odd[index % 2].clone());
                }
                let key = rng.random_range(0..keys);
                let (home, model) = orders
                    .entry(key)
                    .or_insert_with(|| (anywhere, self.order(rng, key)));
                let mut order = model.clone();
                if oddities && rng.random_bool(0.15) {
                    order.tag += 2 * index;
                }
                // Equal keys are in one lane; where there are lanes, also in one partition.
                let partition = if self.lanes { *home } else { anywhere };
                self.send(rng, partition, Content::Order(order))
            })
            .collect();
        if self.complete {
            // Every version below one that is sent.
            for key in 0..orders.keys().max().copied().unwrap_or(0) {
                let partition = rng.random_range(0..self.partitions);
                let order = match orders.get(&key) {
                    Some((_, order)) => order.clone(),
                    None => self.order(rng, key),
                };
                sent.push(self.send(rng, partition, Content::Order(order)));
            }
        }
        sent.sort_by_key(|sent| sent.at);
        sent
    }

    fn send(&self, rng: &mut StdRng, partition: usize, content: Content) -> Sent {
        Sent {
            at: rng.random_range(0..=self.span),
            partition,
            content,
        }
    }

    fn order(&self, rng: &mut StdRng, key: u64) -> Order {
        let (item, version) = match self.complete {
            true => (key / VERSIONS, 1 + key % VERSIONS),
            false => (rng.random_range(0..3), rng.random_range(0..VERSIONS)),
        };
        let failures = match self.complete {
            true => &[0, 0, 1, 2][..],
            false => &[0, 0, 0, 0, 0, 0, 1, 2, 9],
        };
        Order {
            key: format!("k{key}"),
            lane: format!("l{}", rng.random_range(0..3)),
            item: format!("i{item}"),
            version,
            tag: rng.random_range(0..2),
            steps: (0..rng.random_range(0..4))
                .map(|_| self.step(rng))
                .collect(),
            failures: *failures.choose(rng).expect("not empty"),
            end: match rng.random_range(0..20) {
                0 if !self.complete => End::Reject,
                1 | 2 if !self.complete => End::RejectIfOdd,
                _ => End::Succeed,
            },
        }
    }

    fn step(&self, rng: &mut StdRng) -> Step {
        let name = |rng: &mut StdRng, names: &[&str]| {
            let name = names.choose(rng).expect("not empty");
            (*name).to_owned()
        };
        match rng.random_range(0..12) {
            0..4 => Step::Move {
                from: name(rng, &["a", "b", "c"]),
                to: name(rng, &["a", "b", "c"]),
                amount: rng.random_range(1..9),
            },
            4 => Step::Bump {
                name: name(rng, &["a", "n"]),
                by: rng.random_range(-3..9),
            },
            // What it meets may be no counter.
            5 if !self.complete => Step::Bump {
                name: "t".to_owned(),
                by: 1,
            },
            6 => Step::Note {
                name: name(rng, &["t", "u"]),
            },
            7 => Step::Erase {
                name: name(rng, &["b", "n", "t", "u"]),
            },
            8 => Step::Look {
                name: name(rng, &["a", "n", "t", "u"]),
            },
            _ => Step::Tell {
                to: name(rng, &["out", "out", PICKY, TRANSACTIONAL]),
                delay_ms: rng.random_bool(0.15).then(|| rng.random_range(0..900)),
            },
        }
    }
}
