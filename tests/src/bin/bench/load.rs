//! The messages that are measured.

use std::sync::Arc;

use semel_core::{Delivery, Message, Partition, Payload, Position};

/// Users whose balances are added to.
const USERS: usize = 1_000;

/// One message in this many repeats an earlier one, where duplicates are asked for.
const DUPLICATE_EVERY: usize = 5;

/// Messages in the order of their sending.
#[derive(Clone)]
pub struct Load {
    /// All of them.
    pub messages: Arc<[Arc<Message>]>,
    /// How many of them are no repetition.
    pub unique: usize,
}

impl Load {
    /// Messages of 100 bytes for a handler that does nothing.
    pub fn plain(count: usize) -> Self {
        let body = |number| format!("{number:0>100}");
        Self {
            messages: (0..count)
                .map(|number| message(number, body(number)))
                .collect(),
            unique: count,
        }
    }

    /// Orders, each of its own.
    pub fn orders(count: usize) -> Self {
        Self {
            messages: (0..count).map(order).collect(),
            unique: count,
        }
    }

    /// Orders of which every fifth repeats one of those before it, anywhere before.
    pub fn orders_with_duplicates(count: usize) -> Self {
        let mut random = Random(0x5eed);
        let mut unique: Vec<Arc<Message>> = Vec::new();
        let messages = (1..=count)
            .map(|turn| {
                if turn % DUPLICATE_EVERY == 0 {
                    return Arc::clone(&unique[random.below(unique.len())]);
                }
                let fresh = order(unique.len());
                unique.push(Arc::clone(&fresh));
                fresh
            })
            .collect();
        Self {
            messages,
            unique: unique.len(),
        }
    }

    /// The same messages in another order.
    pub fn shuffled(&self) -> Self {
        let mut random = Random(0x5eed);
        let mut messages = self.messages.to_vec();
        for last in (1..messages.len()).rev() {
            messages.swap(last, random.below(last + 1));
        }
        Self {
            messages: messages.into(),
            unique: self.unique,
        }
    }

    /// The messages as a source delivers them.
    pub fn deliveries(&self) -> Arc<[Delivery]> {
        let partition = Partition::new("bench");
        let delivery = |(offset, message): (u64, &Arc<Message>)| Delivery {
            position: Position {
                partition: partition.clone(),
                offset,
            },
            payload: Payload::Message(Arc::clone(message)),
        };
        (0..).zip(self.messages.iter()).map(delivery).collect()
    }
}

fn order(number: usize) -> Arc<Message> {
    let mut random = Random(number as u64);
    let (user, amount) = (random.below(USERS), random.below(50_000));
    let body = format!(r#"{{"order_id":"o-{number:08}","user":"u-{user:04}","amount":{amount}}}"#);
    message(number, body)
}

fn message(number: usize, body: String) -> Arc<Message> {
    Arc::new(Message {
        id: format!("m-{number:08}"),
        topic: "orders".into(),
        keys: Vec::new(),
        headers: Vec::new(),
        body: body.into(),
        timestamp_ms: 1_767_225_600_000,
    })
}

/// SplitMix64: the same messages in every run, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
