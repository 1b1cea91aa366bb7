//! What the simulated handler is asked to do, and the handler.
//!
//! The same code runs in two places: in the engine, against a [`RunContext`], and in the oracle,
//! one order after the other on a plain map. Whatever the engine commits must be what the oracle
//! comes to.

use std::fmt::Write;

use bytes::Bytes;
use semel_core::{BusinessKey, Failure, Fingerprint, Outgoing, PluginName, RecordId, RunContext};
use serde::{Deserialize, Serialize};

use crate::plan::PLUGIN;

/// A message's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub key: String,
    pub lane: String,
    /// It is this version of that thing.
    pub item: String,
    pub version: u64,
    /// Tells payloads of one key apart.
    pub tag: usize,
    pub steps: Vec<Step>,
    /// Fails this many times before it goes on.
    pub failures: u32,
    pub end: End,
}

impl Order {
    /// The record of its key.
    pub fn record(&self) -> RecordId {
        RecordId {
            plugin: PluginName::new(PLUGIN),
            key: BusinessKey::new(self.key.clone().into_bytes()),
        }
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.body())
    }

    pub fn body(&self) -> Bytes {
        serde_json::to_vec(self).expect("an order is JSON").into()
    }
}

/// One thing that a handler does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// From one account to another: two reads, two writes.
    Move {
        from: String,
        to: String,
        amount: i64,
    },
    /// Adds without reading.
    Bump {
        name: String,
        by: i64,
    },
    /// Writes without reading; what it writes is no counter.
    Note {
        name: String,
    },
    Erase {
        name: String,
    },
    Look {
        name: String,
    },
    /// Publishes all that was seen so far.
    Tell {
        to: String,
        delay_ms: Option<u64>,
    },
}

/// How an order that is past its failures ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Succeed,
    Reject,
    /// Rejects if the first account is odd: whether it does depends on what it read.
    RejectIfOdd,
}

/// What a handler works on.
pub trait View: Send {
    fn get(&mut self, name: &str) -> impl Future<Output = Result<Option<Bytes>, Failure>> + Send;
    fn put(&mut self, name: &str, value: Bytes);
    fn delete(&mut self, name: &str);
    fn add(&mut self, name: &str, delta: i64);
    fn publish(&mut self, outgoing: Outgoing);
}

/// Handles an order; the reply is all that was seen.
pub async fn handle(view: &mut impl View, order: &Order, attempt: u32) -> Result<Bytes, Failure> {
    let mut seen = order.key.clone();
    for step in &order.steps {
        match step {
            Step::Move { from, to, amount } => {
                let left = number(view, from, &mut seen).await?;
                view.put(from, (left - amount).to_string().into());
                let right = number(view, to, &mut seen).await?;
                view.put(to, (right + amount).to_string().into());
            }
            Step::Bump { name, by } => view.add(name, *by),
            Step::Note { name } => view.put(name, order.key.clone().into()),
            Step::Erase { name } => view.delete(name),
            Step::Look { name } => {
                look(view, name, &mut seen).await?;
            }
            Step::Tell { to, delay_ms } => view.publish(Outgoing {
                destination: to.as_str().into(),
                key: None,
                headers: Vec::new(),
                body: seen.clone().into(),
                delay_ms: *delay_ms,
            }),
        }
    }
    let reason = format!("{seen} failed");
    if attempt < order.failures {
        return Err(match order.tag % 2 {
            0 => Failure::Retry {
                reason,
                after_ms: None,
            },
            _ => Failure::Trap {
                reason,
                detail: None,
            },
        });
    }
    let rejects = match order.end {
        End::Succeed => false,
        End::Reject => true,
        End::RejectIfOdd => number(view, "a", &mut seen).await? % 2 != 0,
    };
    if rejects {
        return Err(Failure::Reject { reason });
    }
    Ok(seen.into())
}

async fn look(
    view: &mut impl View,
    name: &str,
    seen: &mut String,
) -> Result<Option<Bytes>, Failure> {
    let value = view.get(name).await?;
    let text = value.as_deref().map_or("-".into(), String::from_utf8_lossy);
    write!(seen, " {name}={text}").expect("a string takes everything");
    Ok(value)
}

async fn number(view: &mut impl View, name: &str, seen: &mut String) -> Result<i64, Failure> {
    let value = look(view, name, seen).await?;
    let text = value.as_deref().map(String::from_utf8_lossy);
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

impl View for RunContext {
    async fn get(&mut self, name: &str) -> Result<Option<Bytes>, Failure> {
        RunContext::get(self, name)
            .await
            .map_err(|_| Failure::Aborted)
    }

    fn put(&mut self, name: &str, value: Bytes) {
        RunContext::put(self, name, value).expect("within the limits");
    }

    fn delete(&mut self, name: &str) {
        RunContext::delete(self, name).expect("within the limits");
    }

    fn add(&mut self, name: &str, delta: i64) {
        RunContext::add(self, name, delta).expect("within the limits");
    }

    fn publish(&mut self, outgoing: Outgoing) {
        RunContext::publish(self, outgoing).expect("granted and within the limits");
    }
}
