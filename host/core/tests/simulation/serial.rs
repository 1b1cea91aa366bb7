//! The state as it must be: orders handled one after the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use semel_core::{Failure, NotACounter, Outgoing, PluginName, StateKey, StateOp, Versioning};

use crate::oracle::Broken;
use crate::order::{Order, View, handle};
use crate::plan::PLUGIN;

/// The state after all that was committed so far. The last version of a thing stands under its
/// name with a `#` before it.
pub struct Serial {
    pub state: BTreeMap<String, Bytes>,
    versioning: Option<Versioning>,
}

/// What handling an order comes to.
#[derive(Default)]
pub struct Expected {
    /// It is not newer than what was applied: nothing is done.
    pub stale: bool,
    /// Earlier versions may come yet.
    pub early: bool,
    pub failure: Option<Failure>,
    pub reply: Option<Bytes>,
    /// Whether an addition meets something that is no counter.
    pub miscounts: bool,
    pub writes: BTreeMap<String, Option<Bytes>>,
    pub outgoing: Vec<Outgoing>,
}

impl Expected {
    /// Tests why the handler fails, and whether for good.
    pub fn fails(&self, why: &str, for_good: bool) -> Result<(), Broken> {
        let failed = match &self.failure {
            Some(Failure::Retry { reason, .. } | Failure::Trap { reason, .. }) => {
                Some((&**reason, false))
            }
            Some(Failure::Reject { reason }) => Some((&**reason, true)),
            Some(Failure::Aborted) | None => None,
        };
        ensure!(
            failed == Some((why, for_good)),
            "`{why}`, not {:?}",
            self.failure
        );
        Ok(())
    }
}

impl Serial {
    pub fn new(versioning: Option<Versioning>) -> Self {
        Self {
            state: BTreeMap::new(),
            versioning,
        }
    }

    /// What the order would do now.
    pub fn handle(&self, order: &Order, attempt: u32) -> Expected {
        let Some(rules) = &self.versioning else {
            return self.call(order, attempt);
        };
        let entity = format!("#{}", order.item);
        let last = self.state.get(&entity).map(|last| number(last));
        if last.is_some_and(|last| order.version <= last) {
            return Expected {
                stale: true,
                ..Expected::default()
            };
        }
        let next = last.map(|last| last + 1).or(rules.first);
        let mut expected = self.call(order, attempt);
        expected.early = next.is_some_and(|next| order.version > next);
        let version = order.version.to_string().into();
        expected.writes.insert(entity, Some(version));
        expected
    }

    fn call(&self, order: &Order, attempt: u32) -> Expected {
        let mut draft = Draft {
            state: &self.state,
            ops: BTreeMap::new(),
            outgoing: Vec::new(),
            miscounts: false,
        };
        let answer = handle(&mut draft, order, attempt).now_or_never();
        let answer = answer.expect("a map never waits");
        let mut expected = Expected {
            outgoing: draft.outgoing,
            miscounts: draft.miscounts,
            ..Expected::default()
        };
        match answer {
            Ok(reply) => expected.reply = Some(reply),
            Err(failure) => expected.failure = Some(failure),
        }
        for (name, op) in draft.ops {
            match op.apply(self.state.get(&name)) {
                Ok(value) => _ = expected.writes.insert(name, value),
                Err(NotACounter) => expected.miscounts = true,
            }
        }
        expected
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

fn number(text: &[u8]) -> u64 {
    let text = std::str::from_utf8(text).expect("a version is text");
    text.parse().expect("a version is a number")
}

/// Where the store keeps what [`Serial`] keeps under a name.
pub fn state_key(name: &str) -> StateKey {
    let plugin = PluginName::new(PLUGIN);
    match name.strip_prefix('#') {
        Some(entity) => StateKey {
            namespace: Versioning::namespace(&plugin),
            name: entity.into(),
        },
        None => StateKey {
            namespace: PLUGIN.into(),
            name: name.into(),
        },
    }
}

/// The other way round.
pub fn serial_name(key: &StateKey) -> String {
    match &*key.namespace == PLUGIN {
        true => key.name.to_string(),
        false => format!("#{}", key.name),
    }
}
