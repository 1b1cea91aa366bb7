//! What a handler asks for.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Header, StateKey, Statement};

/// The effects of one run, held back until its commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The last operation on each state key, in the order of first use.
    pub writes: Vec<Write>,
    /// Messages to publish, in order. The index is the ordinal of the message id.
    pub outgoing: Vec<Outgoing>,
    /// Statements on the user's own tables, in order.
    pub statements: Vec<Statement>,
    /// The reply, kept with the done record.
    pub reply: Option<Bytes>,
}

/// A staged write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub key: StateKey,
    /// What.
    pub op: StateOp,
}

/// An operation on a state value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateOp {
    /// Replace the value.
    Put(Bytes),
    /// Remove the value.
    Delete,
    /// Add to a counter: decimal text of a 64-bit signed integer; absent counts as 0.
    Add(i64),
}

impl StateOp {
    /// The value after this operation on `before`, or none where an addition meets something
    /// that is no counter or leaves 64 bits.
    pub fn apply(&self, before: Option<&Bytes>) -> Result<Option<Bytes>, NotACounter> {
        match self {
            Self::Put(value) => Ok(Some(value.clone())),
            Self::Delete => Ok(None),
            Self::Add(delta) => {
                let sum = counter(before)?.checked_add(*delta).ok_or(NotACounter)?;
                Ok(Some(Bytes::from(sum.to_string())))
            }
        }
    }

    /// This operation after `earlier` on the same key by the same run, as one.
    pub fn after(self, earlier: &StateOp) -> Result<StateOp, NotACounter> {
        let Self::Add(delta) = self else {
            return Ok(self);
        };
        Ok(match earlier {
            Self::Add(before) => Self::Add(before.checked_add(delta).ok_or(NotACounter)?),
            Self::Delete => Self::Put(Bytes::from(delta.to_string())),
            Self::Put(value) => Self::Put(
                Self::Add(delta)
                    .apply(Some(value))?
                    .expect("an addition leaves a value"),
            ),
        })
    }
}

/// An addition met a value that is no 64-bit decimal integer, or left that range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a 64-bit decimal counter")]
pub struct NotACounter;

fn counter(value: Option<&Bytes>) -> Result<i64, NotACounter> {
    let Some(value) = value else { return Ok(0) };
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(NotACounter)
}

/// A message that a handler asked to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The destination's name, which the operator maps to a broker's topic.
    pub destination: Arc<str>,
    /// The record key, if any.
    pub key: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// The payload.
    pub body: Bytes,
    /// Not to be delivered before this many milliseconds after the commit.
    pub delay_ms: Option<u64>,
}
