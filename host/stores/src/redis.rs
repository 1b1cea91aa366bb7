//! The store on a Redis server, shared by any number of hosts.
//!
//! A batch is one call of a script, which Redis runs alone, so it is atomic. It is as durable
//! as the server's `appendonly` and `appendfsync` make it.

mod admin;
mod batch;
mod client;
mod keys;
mod open;
mod outbox;
mod pack;
mod record;
mod survey;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{FromRedisValue, Value};
use semel_core::decide::no_tables;
use semel_core::{
    CheckQuery, Checked, DeadLetter, Finding, OutboxRow, OutboxScan, Outcome, ParkedRow,
    PluginName, RecordId, RecordState, RowId, Run, RunId, StateKey, Store, StoreError, Versioned,
};
use serde::de::DeserializeOwned;

use self::batch::{Call, outcomes};
use self::client::{Client, Script};
use self::keys::{Keys, bound, lane};
use self::record::{Stored, latest};
use crate::OpenError;
use crate::codec::{CodecError, damaged, decode, encode};

/// The retention of plugins for which none was told.
const DEFAULT_RETENTION_MS: u64 = 7 * 24 * 3_600_000;

/// No retention is longer: a century.
const MAX_RETENTION_MS: u64 = 100 * 365 * 24 * 3_600_000;

/// How much longer than its retention the server keeps a done record, or a fence, which no
/// longer counts.
const EXPIRY_MARGIN_MS: u64 = 60_000;

/// A store on a Redis server.
pub struct RedisStore {
    client: Client,
    keys: Keys,
    commit: Script,
    confirm: Script,
    expire: Script,
    replay: Script,
    replay_outgoing: Script,
    refuse: Script,
    fence: Script,
}

impl RedisStore {
    /// Opens the store on the server at `redis://HOST:PORT/DB`, or `rediss://…` with TLS.
    /// Settings may follow after a `?`, joined by `&`:
    ///
    /// - `prefix=NAME`: what all keys begin with, so that several stores may share a database;
    ///   `semel` if not given.
    /// - `wait=N`: a commit is answered when N replicas have it too.
    /// - `ca=FILE`: the certificate authority to check the server with, in PEM; the well-known
    ///   ones if not given.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        open::open(url).await
    }

    /// Looks at the server and at what waits there. See [`examine`](crate::examine).
    pub(crate) async fn examine(url: &str, plugins: &[PluginName]) -> Vec<Finding> {
        survey::examine(url, plugins).await
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// A plugin's time, as the server tells it.
#[derive(Clone, Copy)]
struct Era {
    /// Done records before this do not count.
    visible_ms: u64,
    /// The bucket of what is checked now.
    bucket: u64,
}

impl Era {
    fn at(now_ms: u64, kept: Option<&str>) -> Result<Self, CodecError> {
        let mut numbers = [DEFAULT_RETENTION_MS, 0, 0];
        if let Some(kept) = kept {
            for (number, text) in numbers.iter_mut().zip(kept.split(' ')) {
                let bad = |_| damaged("horizon", "it is no number");
                *number = text.parse().map_err(bad)?;
            }
        }
        let [retention_ms, visible_ms, oldest_check_ms] = numbers;
        let visible_ms = visible_ms.max(now_ms.saturating_sub(retention_ms));
        Ok(Self {
            visible_ms,
            bucket: now_ms.max(visible_ms).max(oldest_check_ms),
        })
    }
}

impl RedisStore {
    /// Asks for a plugin's time. Whatever is looked up after it is at least as new.
    fn ask_era(&self, ask: &mut redis::Pipeline, plugin: &PluginName) {
        ask.cmd("TIME");
        ask.cmd("HGET")
            .arg(self.keys.horizons())
            .arg(plugin.as_str());
    }

    async fn rows(
        &self,
        plugin: &PluginName,
        keys: &[Bytes],
    ) -> Result<Vec<ParkedRow>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = redis::cmd("MGET");
        for key in keys {
            let key = semel_core::BusinessKey::new(key.clone());
            let plugin = plugin.clone();
            ask.arg(self.keys.record(&RecordId { plugin, key }));
        }
        let records: Vec<Option<Bytes>> = self.client.look_up(&ask).await?;
        let mut rows = Vec::with_capacity(records.len());
        for record in records.iter().flatten() {
            rows.extend(
                Stored::parse(record)
                    .and_then(|record| record.row())
                    .map_err(broken)?,
            );
        }
        Ok(rows)
    }
}

fn broken(error: CodecError) -> StoreError {
    StoreError::failed(format!("Redis: {error}"))
}

/// The next answer of several.
fn next<T: FromRedisValue>(answers: &mut impl Iterator<Item = Value>) -> Result<T, StoreError> {
    let missing = || StoreError::failed("Redis gave too few answers");
    let answer = answers.next().ok_or_else(missing)?;
    T::from_redis_value(answer).map_err(|error| {
        StoreError::failed(format!("Redis gave an answer that makes no sense: {error}"))
    })
}

fn next_era(answers: &mut impl Iterator<Item = Value>) -> Result<Era, StoreError> {
    let (seconds, micros): (u64, u64) = next(answers)?;
    let kept: Option<String> = next(answers)?;
    Era::at(seconds * 1_000 + micros / 1_000, kept.as_deref()).map_err(broken)
}

fn decoded<T: DeserializeOwned>(what: &'static str, blob: &[u8]) -> Result<T, StoreError> {
    decode(what, blob).map_err(broken)
}

#[async_trait]
impl Store for RedisStore {
    async fn check(&self, queries: &[CheckQuery]) -> Result<Vec<Checked>, StoreError> {
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        let mut plugins: Vec<&PluginName> = Vec::new();
        for query in queries {
            if !plugins.contains(&&query.record.plugin) {
                plugins.push(&query.record.plugin);
            }
        }
        // The time first: what is committed after it is not older.
        let mut ask = redis::pipe();
        for plugin in &plugins {
            self.ask_era(&mut ask, plugin);
        }
        ask.cmd("MGET");
        for query in queries {
            ask.arg(self.keys.record(&query.record));
        }
        for query in queries {
            if let Some(at) = &query.lane {
                let lane = lane(&query.record.plugin, at);
                let offset = at.offset.to_be_bytes();
                ask.cmd("ZRANGEBYLEX")
                    .arg(self.keys.lanes())
                    .arg(bound(b'[', &[&lane]))
                    .arg(bound(b'(', &[&lane, &offset]))
                    .arg("LIMIT")
                    .arg(0)
                    .arg(1);
            }
        }
        let mut answers = self.client.look_up_all(&ask).await?.into_iter();
        let mut eras = Vec::with_capacity(plugins.len());
        for plugin in &plugins {
            eras.push((*plugin, next_era(&mut answers)?));
        }
        let records: Vec<Option<Bytes>> = next(&mut answers)?;
        let mut checked = Vec::with_capacity(queries.len());
        for (query, record) in queries.iter().zip(records) {
            let era = eras
                .iter()
                .find(|(plugin, _)| **plugin == query.record.plugin);
            let Some((_, era)) = era else { continue };
            let state = match record {
                Some(record) => Stored::parse(&record)
                    .and_then(|record| record.state(era.visible_ms))
                    .map_err(broken)?,
                None => RecordState::Absent,
            };
            let before: Vec<Bytes> = match &query.lane {
                Some(_) => next(&mut answers)?,
                None => Vec::new(),
            };
            checked.push(Checked {
                state,
                behind: !before.is_empty(),
                bucket: era.bucket,
            });
        }
        Ok(checked)
    }

    async fn read(&self, keys: &[StateKey]) -> Result<Vec<Versioned>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = redis::cmd("MGET");
        for key in keys {
            ask.arg(self.keys.state(key));
        }
        let values: Vec<Option<Bytes>> = self.client.look_up(&ask).await?;
        values
            .into_iter()
            .map(|value| value.map_or(Ok(Versioned::default()), versioned))
            .collect()
    }

    async fn commit(&self, runs: &[Run]) -> Result<Vec<Outcome>, StoreError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        if runs.iter().any(|run| !run.statements().is_empty()) {
            return Err(StoreError::failed(no_tables().reason));
        }
        let call = Call::new(&self.keys, runs);
        let answer: Vec<u64> = self
            .client
            .run(&self.commit, &call.keys, &[&call.batch])
            .await?;
        outcomes(runs, &answer)
            .ok_or_else(|| StoreError::failed("Redis answered a commit with nonsense"))
    }

    async fn bury(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut write = redis::pipe();
        for letter in letters {
            let id = letter.id.as_str();
            write
                .cmd("HSETNX")
                .arg(self.keys.dead())
                .arg(id)
                .arg(encode(letter));
            write.cmd("ZADD").arg(self.keys.dead_ids()).arg(0).arg(id);
        }
        self.client.change(&write).await?;
        Ok(())
    }

    async fn due(
        &self,
        plugin: &PluginName,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<ParkedRow>, StoreError> {
        let mut ask = redis::cmd("ZRANGEBYSCORE");
        ask.arg(self.keys.due(plugin))
            .arg("-inf")
            .arg(latest(now_ms))
            .arg("LIMIT")
            .arg(0)
            .arg(limit);
        let keys: Vec<Bytes> = self.client.look_up(&ask).await?;
        self.rows(plugin, &keys).await
    }

    async fn parked(&self, plugin: &PluginName) -> Result<(u64, Option<u64>), StoreError> {
        let mut ask = redis::pipe();
        ask.cmd("HGET").arg(self.keys.counts()).arg(plugin.as_str());
        ask.cmd("ZRANGE")
            .arg(self.keys.due(plugin))
            .arg(0)
            .arg(0)
            .arg("WITHSCORES");
        let mut answers = self.client.look_up_all(&ask).await?.into_iter();
        let count: Option<u64> = next(&mut answers)?;
        let first: Vec<(Bytes, f64)> = next(&mut answers)?;
        Ok((
            count.unwrap_or(0),
            first.first().map(|(_, due)| *due as u64),
        ))
    }

    async fn outbox(&self, scan: &OutboxScan) -> Result<Vec<OutboxRow>, StoreError> {
        self.scan_outbox(scan).await
    }

    async fn confirm(&self, rows: &[RowId]) -> Result<(), StoreError> {
        self.confirm_outgoing(rows).await
    }

    async fn refuse(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        self.refuse_outgoing(letters).await
    }

    async fn outbox_len(&self) -> Result<u64, StoreError> {
        let mut ask = redis::cmd("ZCARD");
        ask.arg(self.keys.outbox());
        self.client.look_up(&ask).await
    }

    async fn fence(&self, record: &RecordId, run: RunId) -> Result<bool, StoreError> {
        // This time is not before that of the run's check, so the fence outlives the check.
        let mut ask = redis::pipe();
        self.ask_era(&mut ask, &record.plugin);
        let era = next_era(&mut self.client.look_up_all(&ask).await?.into_iter())?;
        let keys = [self.keys.record(record), self.keys.fences(&record.plugin)];
        let time = era.bucket.to_string();
        let args: [&[u8]; 2] = [run.as_bytes(), time.as_bytes()];
        let done: u64 = self.client.run(&self.fence, &keys, &args).await?;
        Ok(done == 1)
    }

    /// The server deletes expired records by itself, so no buckets are counted.
    async fn expire(
        &self,
        plugin: &PluginName,
        retention: Duration,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let retention_ms = retention_ms.min(MAX_RETENTION_MS).to_string();
        let (now_ms, default_ms) = (latest(now_ms).to_string(), DEFAULT_RETENTION_MS.to_string());
        let margin_ms = EXPIRY_MARGIN_MS.to_string();
        self.client
            .run(
                &self.expire,
                &[self.keys.horizons(), self.keys.fences(plugin)],
                &[
                    plugin.as_str().as_bytes(),
                    retention_ms.as_bytes(),
                    now_ms.as_bytes(),
                    default_ms.as_bytes(),
                    margin_ms.as_bytes(),
                ],
            )
            .await
    }
}

/// A state value: version in 8 bytes, then the value.
fn versioned(stored: Bytes) -> Result<Versioned, StoreError> {
    let version = stored
        .first_chunk::<8>()
        .ok_or_else(|| broken(damaged("state value", "it is too short")))?;
    Ok(Versioned {
        version: u64::from_be_bytes(*version),
        value: Some(stored.slice(8..)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plugins_pattern_does_not_match_anothers_records() {
        let keys = Keys::new("semel");
        let pattern = keys.records_of(&PluginName::new("a*"));
        assert!(pattern.ends_with(b"a\\**"));
        // The name's length comes before it.
        assert!(
            !keys
                .records_of(&PluginName::new("a"))
                .ends_with(&pattern[pattern.len() - 5..])
        );
    }

    #[test]
    fn an_era_never_goes_below_what_was_kept() {
        let era = Era::at(1_000, Some("100 950 1200")).unwrap();
        assert_eq!((era.visible_ms, era.bucket), (950, 1_200));
        let era = Era::at(5_000, Some("100 950 1200")).unwrap();
        assert_eq!((era.visible_ms, era.bucket), (4_900, 5_000));
        assert!(Era::at(1, Some("x 1 2")).is_err());
    }
}
