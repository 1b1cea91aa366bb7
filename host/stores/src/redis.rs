//! The store on a Redis server, shared by any number of hosts.
//!
//! A batch is one call of a script, which Redis runs alone, so it is atomic. It is as durable
//! as the server's `appendonly` and `appendfsync` make it.

mod batch;
mod client;
mod keys;
mod open;
mod pack;
mod record;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{FromRedisValue, Value};
use semel_core::{
    Admin, CheckQuery, Checked, DeadLetter, DeadLetterId, OutboxRow, OutboxScan, Outcome,
    ParkedRow, PluginName, RecordId, RecordState, RowId, Run, StateEntry, StateKey, Store,
    StoreError, StoreStats, Versioned,
};
use serde::de::DeserializeOwned;

use self::batch::{Call, outcomes};
use self::client::{Client, Script};
use self::keys::{Keys, bound, lane, outbox_lane, parse_row_id, row_id};
use self::record::{Stored, latest};
use crate::OpenError;
use crate::codec::{CodecError, damaged, decode, encode};

/// The retention of plugins for which none was told.
const DEFAULT_RETENTION_MS: u64 = 7 * 24 * 3_600_000;

/// No retention is longer: a century.
const MAX_RETENTION_MS: u64 = 100 * 365 * 24 * 3_600_000;

/// How much longer than its retention the server keeps a done record, which no longer counts.
const EXPIRY_MARGIN_MS: u64 = 60_000;

/// A store on a Redis server.
pub struct RedisStore {
    client: Client,
    keys: Keys,
    commit: Script,
    confirm: Script,
    expire: Script,
    replay: Script,
}

impl RedisStore {
    /// Opens the store on the server at `redis://HOST:PORT/DB`. Settings may follow after a
    /// `?`, joined by `&`:
    ///
    /// - `prefix=NAME`: what all keys begin with, so that several stores may share a database;
    ///   `semel` if not given.
    /// - `wait=N`: a commit is answered when N replicas have it too.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        open::open(url).await
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
        let [retention_ms, visible_ms, fence_ms] = numbers;
        let visible_ms = visible_ms.max(now_ms.saturating_sub(retention_ms));
        Ok(Self {
            visible_ms,
            bucket: now_ms.max(visible_ms).max(fence_ms),
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
                let offset = latest(at.offset).to_be_bytes();
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
        if scan.limit == 0 {
            return Ok(Vec::new());
        }
        let first = scan.after.map_or([0; 12], |after| {
            row_id(RowId {
                ordinal: after.ordinal.saturating_add(1),
                ..after
            })
        });
        let limit = i64::try_from(scan.limit).unwrap_or(i64::MAX);
        let members: Vec<Bytes> = match &scan.lane {
            None => {
                let mut ask = redis::cmd("ZRANGEBYLEX");
                ask.arg(self.keys.outbox())
                    .arg(bound(b'[', &[&first]))
                    .arg("+")
                    .arg("LIMIT")
                    .arg(0)
                    .arg(limit);
                self.client.look_up(&ask).await?
            }
            Some(lane) => {
                let prefix = outbox_lane(&lane.plugin, &lane.lane);
                let mut ask = redis::cmd("ZRANGEBYLEX");
                ask.arg(self.keys.outbox_lanes())
                    .arg(bound(b'[', &[&prefix, &first]))
                    .arg(bound(b'(', &[&prefix, &[0xff; 13]]))
                    .arg("LIMIT")
                    .arg(0)
                    .arg(limit);
                let entries: Vec<Bytes> = self.client.look_up(&ask).await?;
                if entries.is_empty() {
                    return Ok(Vec::new());
                }
                let mut ask = redis::pipe();
                for entry in &entries {
                    let id = entry.get(prefix.len()..).unwrap_or_default();
                    ask.cmd("ZRANGEBYLEX")
                        .arg(self.keys.outbox())
                        .arg(bound(b'[', &[id]))
                        .arg(bound(b'(', &[id, &[0xff]]))
                        .arg("LIMIT")
                        .arg(0)
                        .arg(1);
                }
                let answers = self.client.look_up_all(&ask).await?;
                let mut members = Vec::with_capacity(answers.len());
                for answer in answers {
                    let found = Vec::<Bytes>::from_redis_value(answer);
                    let bad = |error| StoreError::failed(format!("Redis: {error}"));
                    members.extend(found.map_err(bad)?);
                }
                members
            }
        };
        members.iter().map(|member| outbox_row(member)).collect()
    }

    async fn confirm(&self, rows: &[RowId]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.iter().map(|row| row_id(*row)).collect();
        let ids: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
        let keys = [self.keys.outbox(), self.keys.outbox_lanes()];
        for ids in ids.chunks(4_000) {
            self.client.run::<u64>(&self.confirm, &keys, ids).await?;
        }
        Ok(())
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
        self.client
            .run(
                &self.expire,
                &[self.keys.horizons()],
                &[
                    plugin.as_str().as_bytes(),
                    retention_ms.as_bytes(),
                    now_ms.as_bytes(),
                    default_ms.as_bytes(),
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

/// A member of the outbox: row id, length of lane, lane, message.
fn outbox_row(member: &[u8]) -> Result<OutboxRow, StoreError> {
    let cut_short = || broken(damaged("outgoing message", "it is cut short"));
    let (id, rest) = parse_row_id(member).ok_or_else(cut_short)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
    let blob = usize::try_from(u32::from_be_bytes(*length))
        .ok()
        .and_then(|lane| rest.get(lane..))
        .ok_or_else(cut_short)?;
    let row: OutboxRow = decoded("outgoing message", blob)?;
    Ok(OutboxRow { id, ..row })
}

#[async_trait]
impl Admin for RedisStore {
    async fn list_state(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreError> {
        let first = match after {
            Some(after) if after >= prefix => bound(b'(', &[after.as_bytes()]),
            _ => bound(b'[', &[prefix.as_bytes()]),
        };
        let mut ask = redis::cmd("ZRANGEBYLEX");
        ask.arg(self.keys.names(namespace))
            .arg(first)
            // No name holds this byte, as it is in no UTF-8 text.
            .arg(bound(b'(', &[prefix.as_bytes(), &[0xff]]))
            .arg("LIMIT")
            .arg(0)
            .arg(i64::try_from(limit).unwrap_or(i64::MAX));
        let names: Vec<String> = self.client.look_up(&ask).await?;
        let keys: Vec<_> = names
            .iter()
            .map(|name| StateKey {
                namespace: namespace.into(),
                name: name.as_str().into(),
            })
            .collect();
        let values = self.read(&keys).await?;
        let entries = names.into_iter().zip(values).filter_map(|(name, stored)| {
            stored.value.map(|value| StateEntry {
                name,
                version: stored.version,
                value,
            })
        });
        Ok(entries.collect())
    }

    async fn record(
        &self,
        record: &RecordId,
    ) -> Result<(RecordState, Option<ParkedRow>), StoreError> {
        let mut ask = redis::pipe();
        self.ask_era(&mut ask, &record.plugin);
        ask.cmd("GET").arg(self.keys.record(record));
        let mut answers = self.client.look_up_all(&ask).await?.into_iter();
        let era = next_era(&mut answers)?;
        let Some(stored) = next::<Option<Bytes>>(&mut answers)? else {
            return Ok((RecordState::Absent, None));
        };
        let stored = Stored::parse(&stored).map_err(broken)?;
        let state = stored.state(era.visible_ms).map_err(broken)?;
        Ok((state, stored.row().map_err(broken)?))
    }

    async fn list_dead(
        &self,
        plugin: Option<&PluginName>,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        const PAGE: usize = 200;
        let mut first = match after {
            Some(after) => bound(b'(', &[after.as_str().as_bytes()]),
            None => b"-".to_vec(),
        };
        let mut letters = Vec::new();
        while letters.len() < limit {
            let mut ask = redis::cmd("ZRANGEBYLEX");
            ask.arg(self.keys.dead_ids()).arg(&first).arg("+");
            ask.arg("LIMIT").arg(0).arg(PAGE);
            let ids: Vec<String> = self.client.look_up(&ask).await?;
            let Some(last) = ids.last() else { break };
            first = bound(b'(', &[last.as_bytes()]);
            let mut ask = redis::cmd("HMGET");
            ask.arg(self.keys.dead()).arg(&ids);
            let blobs: Vec<Option<Bytes>> = self.client.look_up(&ask).await?;
            for blob in blobs.iter().flatten() {
                let letter: DeadLetter = decoded("dead letter", blob)?;
                if plugin.is_none_or(|plugin| letter.plugin == *plugin) {
                    letters.push(letter);
                }
            }
        }
        letters.truncate(limit);
        Ok(letters)
    }

    async fn dead(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, StoreError> {
        let mut ask = redis::cmd("HGET");
        ask.arg(self.keys.dead()).arg(id.as_str());
        let blob: Option<Bytes> = self.client.look_up(&ask).await?;
        blob.map(|blob| decoded("dead letter", &blob)).transpose()
    }

    async fn replay(&self, id: &DeadLetterId, now_ms: u64) -> Result<bool, StoreError> {
        let Some(letter) = self.dead(id).await? else {
            return Ok(false);
        };
        let Some(record) = &letter.record else {
            return Ok(false);
        };
        // The fingerprint that counts is the record's.
        let fingerprint = semel_core::Fingerprint::from_bytes([0; 16]);
        let row = encode(&ParkedRow::replayed(record, fingerprint, &letter, now_ms));
        let due = latest(now_ms);
        let due_text = due.to_string();
        let keys = [
            self.keys.sequence(),
            self.keys.counts(),
            self.keys.dead(),
            self.keys.dead_ids(),
            self.keys.record(record),
            self.keys.due(&record.plugin),
        ];
        let args: [&[u8]; 6] = [
            id.as_str().as_bytes(),
            record.plugin.as_str().as_bytes(),
            record.key.as_bytes(),
            due_text.as_bytes(),
            &due.to_be_bytes(),
            &row,
        ];
        let replayed: u64 = self.client.run(&self.replay, &keys, &args).await?;
        Ok(replayed == 1)
    }

    async fn drop_dead(&self, id: &DeadLetterId) -> Result<bool, StoreError> {
        let mut write = redis::pipe();
        write.cmd("HDEL").arg(self.keys.dead()).arg(id.as_str());
        write.cmd("ZREM").arg(self.keys.dead_ids()).arg(id.as_str());
        let gone: u64 = next(&mut self.client.change(&write).await?.into_iter())?;
        Ok(gone == 1)
    }

    async fn stats(&self, plugin: &PluginName) -> Result<StoreStats, StoreError> {
        let mut ask = redis::pipe();
        self.ask_era(&mut ask, plugin);
        ask.cmd("ZCARD").arg(self.keys.outbox());
        let mut answers = self.client.look_up_all(&ask).await?.into_iter();
        let era = next_era(&mut answers)?;
        let outbox = next(&mut answers)?;
        let mut done = std::collections::HashSet::new();
        let mut cursor = 0;
        loop {
            let mut ask = redis::cmd("SCAN");
            ask.arg(cursor)
                .arg("MATCH")
                .arg(self.keys.records_of(plugin))
                .arg("COUNT")
                .arg(1_000);
            let (at, keys): (u64, Vec<Bytes>) = self.client.look_up(&ask).await?;
            let mut ask = redis::pipe();
            for key in &keys {
                // All of a done record but its reply.
                ask.cmd("GETRANGE").arg(&key[..]).arg(0).arg(48);
            }
            if !keys.is_empty() {
                // A scan may give a key twice.
                for (key, record) in keys.into_iter().zip(self.client.look_up_all(&ask).await?) {
                    let record = Bytes::from_redis_value(record).unwrap_or_default();
                    if Stored::parse(&record).is_ok_and(|record| record.is_done(era.visible_ms)) {
                        done.insert(key);
                    }
                }
            }
            cursor = at;
            if cursor == 0 {
                break;
            }
        }
        Ok(StoreStats {
            done: done.len() as u64,
            parked: self.parked(plugin).await?.0,
            dead: self.list_dead(Some(plugin), None, usize::MAX).await?.len() as u64,
            outbox,
        })
    }
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
