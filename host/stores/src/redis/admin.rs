//! What operators look at and change.

use async_trait::async_trait;
use bytes::Bytes;
use redis::FromRedisValue;
use semel_core::{
    Admin, DeadLetter, DeadLetterId, Fingerprint, ParkedRow, PluginName, RecordId, RecordState,
    StateEntry, StateKey, Store, StoreError, StoreStats,
};

use super::keys::bound;
use super::record::{Stored, latest};
use super::{RedisStore, broken, decoded, next, next_era};
use crate::codec::encode;

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
        if let Some(row) = &letter.outgoing {
            return self.replay_outgoing(id, row).await;
        }
        let Some(record) = &letter.record else {
            return Ok(false);
        };
        // The fingerprint that counts is the record's.
        let fingerprint = Fingerprint::from_bytes([0; 16]);
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
