//! The state as it must be: orders handled one after the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use semel_core::{Failure, NotACounter, Outgoing, StateOp};

use crate::order::{Order, View, handle};

/// The state after all that was committed so far.
#[derive(Default)]
pub struct Serial {
    pub state: BTreeMap<String, Bytes>,
}

/// What handling an order comes to.
pub struct Expected {
    pub answer: Result<Bytes, Failure>,
    /// Whether an addition meets something that is no counter.
    pub miscounts: bool,
    pub writes: BTreeMap<String, Option<Bytes>>,
    pub outgoing: Vec<Outgoing>,
}

impl Serial {
    /// What the order would do now.
    pub fn handle(&self, order: &Order, attempt: u32) -> Expected {
        let mut draft = Draft {
            state: &self.state,
            ops: BTreeMap::new(),
            outgoing: Vec::new(),
            miscounts: false,
        };
        let answer = handle(&mut draft, order, attempt)
            .now_or_never()
            .expect("a map never waits");
        let Draft {
            ops,
            outgoing,
            mut miscounts,
            ..
        } = draft;
        let mut writes = BTreeMap::new();
        for (name, op) in ops {
            match op.apply(self.state.get(&name)) {
                Ok(value) => _ = writes.insert(name, value),
                Err(NotACounter) => miscounts = true,
            }
        }
        Expected {
            answer,
            miscounts,
            writes,
            outgoing,
        }
    }

    pub fn apply(&mut self, writes: BTreeMap<String, Option<Bytes>>) {
        for (name, value) in writes {
            match value {
                Some(value) => self.state.insert(name, value),
                None => self.state.remove(&name),
            };
        }
    }
}

struct Draft<'s> {
    state: &'s BTreeMap<String, Bytes>,
    ops: BTreeMap<String, StateOp>,
    outgoing: Vec<Outgoing>,
    miscounts: bool,
}

impl Draft<'_> {
    fn write(&mut self, name: &str, op: StateOp) {
        let op = match self.ops.get(name) {
            Some(earlier) => op.after(earlier),
            None => Ok(op),
        };
        match op {
            Ok(op) => _ = self.ops.insert(name.to_owned(), op),
            Err(NotACounter) => self.miscounts = true,
        }
    }
}

impl View for Draft<'_> {
    async fn get(&mut self, name: &str) -> Result<Option<Bytes>, Failure> {
        let stored = self.state.get(name).cloned();
        Ok(match self.ops.get(name) {
            Some(op) => op.apply(stored.as_ref()).unwrap_or(stored),
            None => stored,
        })
    }

    fn put(&mut self, name: &str, value: Bytes) {
        self.write(name, StateOp::Put(value));
    }

    fn delete(&mut self, name: &str) {
        self.write(name, StateOp::Delete);
    }

    fn add(&mut self, name: &str, delta: i64) {
        self.write(name, StateOp::Add(delta));
    }

    fn publish(&mut self, outgoing: Outgoing) {
        self.outgoing.push(outgoing);
    }
}
