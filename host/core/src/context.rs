//! What a handler can do while it runs.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::identity::{derive_hex, record_hasher};
use crate::{
    Effects, Message, MessageId, OnMiss, Outgoing, QueryError, QueryLimits, RecordId, Seen,
    Snapshot, SqlAccess, SqlError, SqlRows, SqlValue, StateKey, StateOp, Statement, StoreError,
    Write,
};

/// What one run may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of values, outgoing messages, statements and reply together.
    pub effect_bytes: usize,
    /// Writes, outgoing messages and statements together.
    pub effects: usize,
    /// Bytes of one state key.
    pub state_key_bytes: usize,
    /// Distinct state keys read, and queries.
    pub reads: usize,
    /// Rows and bytes that one query may give.
    pub query: QueryLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            effect_bytes: 4 << 20,
            effects: 1_000,
            state_key_bytes: 1_024,
            reads: 10_000,
            query: QueryLimits {
                rows: 10_000,
                bytes: 4 << 20,
            },
        }
    }
}

/// An effect was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EffectError {
    /// The operator has not granted it.
    #[error("denied")]
    Denied,
    /// The run has used up its limit.
    #[error("limit exceeded")]
    LimitExceeded,
}

/// The run must end at once: the host can't answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the run is aborted by the host")]
pub struct Aborted;

/// Everything that one run may see and do. A [`Runner`] maps the contract's imports to it.
#[derive(Debug)]
pub struct RunContext {
    record: RecordId,
    message: Arc<Message>,
    attempt: u32,
    grants: Arc<Grants>,
    snapshot: Arc<dyn Snapshot>,
    reads: HashMap<StateKey, Seen>,
    writes: Vec<Write>,
    written: HashMap<StateKey, usize>,
    outgoing: Vec<Outgoing>,
    statements: Vec<Statement>,
    queries: usize,
    effect_bytes: usize,
    random_calls: u64,
    fault: Option<StoreError>,
    breach: Option<&'static str>,
    not_a_counter: Option<StateKey>,
}

/// What the operator gives a plugin: the same for all its runs.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// The namespace of its state.
    pub namespace: Arc<str>,
    /// Destinations that it may publish to; none means any.
    pub destinations: Option<Vec<Arc<str>>>,
    /// The user's tables, as far as the plugin may use them.
    pub sql: Option<Arc<dyn SqlAccess>>,
    /// Configuration values by name.
    pub config: HashMap<String, String>,
    /// What a run may use up.
    pub limits: Limits,
}

impl RunContext {
    /// A run of the handler on `message`, for `record`, with `attempt` failures before.
    pub fn new(
        record: RecordId,
        message: Arc<Message>,
        attempt: u32,
        grants: Arc<Grants>,
        snapshot: Arc<dyn Snapshot>,
    ) -> Self {
        Self {
            record,
            message,
            attempt,
            grants,
            snapshot,
            reads: HashMap::new(),
            writes: Vec::new(),
            written: HashMap::new(),
            outgoing: Vec::new(),
            statements: Vec::new(),
            queries: 0,
            effect_bytes: 0,
            random_calls: 0,
            fault: None,
            breach: None,
            not_a_counter: None,
        }
    }

    /// The message.
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// The record that the run is for.
    pub fn record(&self) -> &RecordId {
        &self.record
    }

    /// Failures before this run.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// `state.get`: this run's own write, or what an earlier read of this run saw, or the
    /// snapshot's value.
    pub async fn get(&mut self, name: &str) -> Result<Option<Bytes>, Aborted> {
        let key = self.state_key(name);
        match self.known(&key) {
            Some(value) => value,
            None => {
                let seen = match self.snapshot.peek(&key) {
                    Some(seen) => Ok(seen),
                    None => self.snapshot.get(&key).await,
                };
                self.remember(key, seen)
            }
        }
    }

    /// As [`get`](Self::get), where the value is at hand without waiting.
    pub fn try_get(&mut self, name: &str) -> Option<Result<Option<Bytes>, Aborted>> {
        let key = self.state_key(name);
        if let Some(value) = self.known(&key) {
            return Some(value);
        }
        let seen = self.snapshot.peek(&key)?;
        Some(self.remember(key, Ok(seen)))
    }

    /// `state.put`.
    pub fn put(&mut self, name: &str, value: Bytes) -> Result<(), EffectError> {
        self.write(name, value.len(), StateOp::Put(value))
    }

    /// `state.delete`.
    pub fn delete(&mut self, name: &str) -> Result<(), EffectError> {
        self.write(name, 0, StateOp::Delete)
    }

    /// `state.add`.
    pub fn add(&mut self, name: &str, delta: i64) -> Result<(), EffectError> {
        self.write(name, 8, StateOp::Add(delta))
    }

    /// `outbox.publish`: the id that consumers will see.
    pub fn publish(&mut self, outgoing: Outgoing) -> Result<MessageId, EffectError> {
        if let Some(granted) = &self.grants.destinations
            && !granted.contains(&outgoing.destination)
        {
            return Err(EffectError::Denied);
        }
        let headers: usize = outgoing
            .headers
            .iter()
            .map(|h| h.name.len() + h.value.len())
            .sum();
        let key = outgoing.key.as_ref().map_or(0, Bytes::len);
        self.charge(outgoing.body.len() + headers + key)?;
        let ordinal = u32::try_from(self.outgoing.len()).map_err(|_| EffectError::LimitExceeded)?;
        self.outgoing.push(outgoing);
        Ok(MessageId::derive(&self.record, ordinal))
    }

    /// `sql.execute`.
    pub fn execute(
        &mut self,
        text: &str,
        parameters: Vec<SqlValue>,
        rows: Option<u64>,
        on_miss: OnMiss,
    ) -> Result<(), SqlError> {
        let bytes = parameters.iter().map(SqlValue::size).sum::<usize>();
        let statement = self.sql()?.statement(text, parameters, rows, on_miss)?;
        self.charge(bytes + statement.text.len())
            .map_err(|_| SqlError::LimitExceeded)?;
        self.statements.push(statement);
        Ok(())
    }

    /// `sql.query`.
    pub async fn query(
        &mut self,
        text: &str,
        parameters: Vec<SqlValue>,
    ) -> Result<Result<SqlRows, SqlError>, Aborted> {
        if self.fault.is_some() || self.breach.is_some() {
            return Err(Aborted);
        }
        let limits = &self.grants.limits;
        if self.queries >= limits.reads {
            self.breach = Some("the handler asks too many queries");
            return Err(Aborted);
        }
        self.queries += 1;
        let sql = match self.sql() {
            Ok(sql) => Arc::clone(sql),
            Err(denied) => return Ok(Err(denied)),
        };
        match sql.query(text, parameters, limits.query).await {
            Ok(rows) => Ok(Ok(rows)),
            Err(QueryError::Refused(error)) => Ok(Err(error)),
            Err(QueryError::Store(fault)) => {
                self.fault = Some(fault);
                Err(Aborted)
            }
        }
    }

    /// `context.config`.
    pub fn config(&self, name: &str) -> Option<&str> {
        self.grants.config.get(name).map(String::as_str)
    }

    /// `context.idempotency-key`.
    pub fn idempotency_key(&self, label: &str) -> String {
        derive_hex("semel idempotency key", &self.record, label.as_bytes())
    }

    /// `context.random`: fills `out` with bytes that depend on the record and on how many
    /// calls came before.
    pub fn random(&mut self, out: &mut [u8]) {
        record_hasher("semel random", &self.record)
            .update(&self.random_calls.to_be_bytes())
            .finalize_xof()
            .fill(out);
        self.random_calls += 1;
    }

    /// Whether a reply of this size is within the limits.
    pub fn allows_reply(&self, bytes: usize) -> bool {
        self.effect_bytes.saturating_add(bytes) <= self.grants.limits.effect_bytes
    }

    /// Why the run was aborted.
    pub fn take_fault(&mut self) -> Option<StoreError> {
        self.fault.take()
    }

    /// The limit for which the run was aborted.
    pub fn breach(&self) -> Option<&'static str> {
        self.breach
    }

    /// A counter that could not be added to within the run.
    pub fn not_a_counter(&self) -> Option<&StateKey> {
        self.not_a_counter.as_ref()
    }

    /// Takes it apart: what was read, and the effects with `reply`.
    pub fn into_parts(self, reply: Option<Bytes>) -> (HashMap<StateKey, Seen>, Effects) {
        let effects = Effects {
            writes: self.writes,
            outgoing: self.outgoing,
            statements: self.statements,
            reply,
        };
        (self.reads, effects)
    }

    fn sql(&self) -> Result<&Arc<dyn SqlAccess>, SqlError> {
        self.grants.sql.as_ref().ok_or_else(|| {
            let plugin = &self.record.plugin;
            SqlError::Denied(format!(
                "the operator grants no table: it takes [plugins.{plugin}.sql], with `select`, \
                 `insert`, `update` and `delete`, and a store in a database"
            ))
        })
    }

    fn state_key(&self, name: &str) -> StateKey {
        StateKey {
            namespace: Arc::clone(&self.grants.namespace),
            name: name.into(),
        }
    }

    /// The value by what this run did so far. A counter that was added to is not known until
    /// its base is read.
    fn known(&self, key: &StateKey) -> Option<Result<Option<Bytes>, Aborted>> {
        if self.fault.is_some() || self.breach.is_some() {
            return Some(Err(Aborted));
        }
        let own = self.written.get(key).map(|&at| &self.writes[at].op);
        match own {
            Some(StateOp::Put(value)) => Some(Ok(Some(value.clone()))),
            Some(StateOp::Delete) => Some(Ok(None)),
            Some(StateOp::Add(_)) | None => {
                let seen = self.reads.get(key)?;
                Some(Ok(self.through_own(key, seen.value.clone())))
            }
        }
    }

    fn remember(
        &mut self,
        key: StateKey,
        seen: Result<Seen, StoreError>,
    ) -> Result<Option<Bytes>, Aborted> {
        if self.reads.len() >= self.grants.limits.reads {
            self.breach = Some("the handler reads too many state keys");
            return Err(Aborted);
        }
        match seen {
            Ok(seen) => {
                let value = self.through_own(&key, seen.value.clone());
                self.reads.insert(key, seen);
                Ok(value)
            }
            Err(fault) => {
                self.fault = Some(fault);
                Err(Aborted)
            }
        }
    }

    /// A read value with this run's own addition on top. One that is no counter is left as it
    /// is: the commit refuses it.
    fn through_own(&self, key: &StateKey, value: Option<Bytes>) -> Option<Bytes> {
        match self.written.get(key) {
            Some(&at) => self.writes[at].op.apply(value.as_ref()).unwrap_or(value),
            None => value,
        }
    }

    fn write(&mut self, name: &str, bytes: usize, op: StateOp) -> Result<(), EffectError> {
        if name.len() > self.grants.limits.state_key_bytes {
            return Err(EffectError::LimitExceeded);
        }
        self.charge(bytes + name.len())?;
        let key = self.state_key(name);
        match self.written.get(&key) {
            Some(&at) => match op.after(&self.writes[at].op) {
                Ok(op) => self.writes[at].op = op,
                Err(_) => self.not_a_counter = Some(key),
            },
            None => {
                self.written.insert(key.clone(), self.writes.len());
                self.writes.push(Write { key, op });
            }
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), EffectError> {
        let limits = &self.grants.limits;
        let total = self.effect_bytes.saturating_add(bytes);
        let effects = self.writes.len() + self.outgoing.len() + self.statements.len();
        if total > limits.effect_bytes || effects >= limits.effects {
            return Err(EffectError::LimitExceeded);
        }
        self.effect_bytes = total;
        Ok(())
    }
}
