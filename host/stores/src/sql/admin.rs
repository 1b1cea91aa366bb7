//! What operators look at and change.

use async_trait::async_trait;
use semel_core::{
    Admin, DeadLetter, DeadLetterId, Fingerprint, ParkedRow, PluginName, RecordId, RecordState,
    StateEntry, StoreError, StoreStats,
};

use super::answer::{Cells, take, unexpected};
use super::book::{DEAD, DONE, PARKED};
use super::questions::{lock, locked, unlock};
use super::rows::{insert_outbox, insert_parked};
use super::schema::record_id;
use super::server::{Failure, Patience};
use super::text::{limit, signed};
use super::{SqlStore, parked_row};
use crate::codec::CompositeKey;

#[async_trait]
impl Admin for SqlStore {
    async fn list_state(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        rows: usize,
    ) -> Result<Vec<StateEntry>, StoreError> {
        let words = self.server.words();
        let id = |name: &[u8]| {
            let id = CompositeKey::new(namespace.as_bytes()).last(name);
            words.bytes(id.as_bytes())
        };
        let first = match after {
            Some(after) if after >= prefix => format!("> {}", id(after.as_bytes())),
            _ => format!(">= {}", id(prefix.as_bytes())),
        };
        // No name holds this byte, as it is in no UTF-8 text.
        let end = id(&[prefix.as_bytes(), &[0xff]].concat());
        let ask = self.server.ask_text(format!(
            "SELECT id, version, value FROM {} WHERE id {first} AND id < {end} ORDER BY id \
             LIMIT {}",
            self.tables.state,
            limit(rows)
        ));
        let mut sets = self.server.inside(ask).await?;
        let entry = |mut row: Cells| {
            Ok(StateEntry {
                name: row.state_key()?.name.to_string(),
                version: row.number()?,
                value: row.bytes()?,
            })
        };
        take(&mut sets, 0).into_iter().map(entry).collect()
    }

    async fn record(
        &self,
        record: &RecordId,
    ) -> Result<(RecordState, Option<ParkedRow>), StoreError> {
        let row = format!(
            "SELECT version, content FROM {} WHERE {}",
            self.tables.parked,
            self.server.words().id_in([record_id(record)])
        );
        let ids = [record];
        let look_up = self.look_up(&ids, Some(row));
        let mut found = self.server.inside(look_up).await?;
        let row = found.extra.first_mut().map(parked_row).transpose()?;
        Ok((found.state(record), row))
    }

    async fn list_dead(
        &self,
        plugin: Option<&PluginName>,
        after: Option<&DeadLetterId>,
        rows: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let words = self.server.words();
        let mut conditions = String::from("1 = 1");
        if let Some(plugin) = plugin {
            let plugin = words.bytes(plugin.as_str().as_bytes());
            conditions.push_str(&format!(" AND plugin = {plugin}"));
        }
        if let Some(after) = after {
            let after = words.bytes(after.as_str().as_bytes());
            conditions.push_str(&format!(" AND id > {after}"));
        }
        let ask = self.server.ask_text(format!(
            "SELECT letter FROM {} WHERE {conditions} ORDER BY id LIMIT {}",
            self.tables.dead,
            limit(rows)
        ));
        let mut sets = self.server.inside(ask).await?;
        let mut rows = take(&mut sets, 0);
        rows.iter_mut()
            .map(|row| row.decoded("dead letter"))
            .collect()
    }

    async fn dead(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, StoreError> {
        let ask = self.server.ask_text(self.ask_letter(id));
        let mut sets = self.server.inside(ask).await?;
        let mut rows = take(&mut sets, 0);
        let row = rows.first_mut();
        row.map(|row| row.decoded("dead letter")).transpose()
    }

    async fn replay(&self, id: &DeadLetterId, now_ms: u64) -> Result<bool, StoreError> {
        let replay = async {
            let mut patience = Patience::default();
            loop {
                match self.try_replay(id, now_ms).await {
                    Ok(replayed) => return Ok(replayed),
                    Err(failure) => patience.after(failure).await?,
                }
            }
        };
        self.server.inside(replay).await
    }

    async fn drop_dead(&self, id: &DeadLetterId) -> Result<bool, StoreError> {
        let drop = async {
            let mut conversation = self.server.converse().await?;
            let sets = conversation.run_last(self.delete_letter(id)).await?;
            conversation.end();
            Ok(sets.first().is_some_and(|set| set.changed > 0))
        };
        self.server.inside(drop).await.map_err(Failure::into_error)
    }

    async fn stats(&self, plugin: &PluginName) -> Result<StoreStats, StoreError> {
        let tables = &self.tables;
        let name = self.server.words().bytes(plugin.as_str().as_bytes());
        let mut script = self.server.script();
        script.add(&format!(
            "SELECT COUNT(*) FROM {} WHERE plugin = {name} AND kind = {DONE} AND bucket >= \
             COALESCE((SELECT h.bucket FROM {} AS h WHERE h.plugin = {name}), 0)",
            tables.record, tables.horizon
        ));
        for table in [&tables.parked, &tables.dead] {
            script.add(&format!(
                "SELECT COUNT(*) FROM {table} WHERE plugin = {name}"
            ));
        }
        script.add(&format!("SELECT COUNT(*) FROM {}", tables.outbox));
        let mut sets = self.server.inside(self.server.ask(script)).await?;
        let mut count = |at| {
            let mut rows = take(&mut sets, at);
            rows.first_mut().ok_or_else(unexpected)?.number()
        };
        Ok(StoreStats {
            done: count(0)?,
            parked: count(1)?,
            dead: count(2)?,
            outbox: count(3)?,
        })
    }
}

impl SqlStore {
    fn ask_letter(&self, id: &DeadLetterId) -> String {
        let id = self.server.words().bytes(id.as_str().as_bytes());
        format!("SELECT letter FROM {} WHERE id = {id}", self.tables.dead)
    }

    fn delete_letter(&self, id: &DeadLetterId) -> String {
        let id = self.server.words().bytes(id.as_str().as_bytes());
        format!("DELETE FROM {} WHERE id = {id}", self.tables.dead)
    }

    async fn try_replay(&self, id: &DeadLetterId, now_ms: u64) -> Result<bool, Failure> {
        let words = self.server.words();
        let tables = &self.tables;
        let mut conversation = self.server.converse().await?;
        let mut script = self.server.script();
        script.add(words.begin);
        let sequence = script.add(&lock(words, tables));
        let letter = script.add(&format!("{} FOR UPDATE", self.ask_letter(id)));
        let mut sets = conversation.run_all(script).await?;
        let (version, time_ms) = locked(&mut sets, sequence)?;
        let mut rows = take(&mut sets, letter);
        let Some(row) = rows.first_mut() else {
            return Ok(false);
        };
        let letter: DeadLetter = row.decoded("dead letter")?;
        let mut script = self.server.script();
        script.add(&self.delete_letter(id));
        if let Some(row) = &letter.outgoing {
            let leaving = words.or_leave("version, ordinal");
            insert_outbox(&mut script, tables, &leaving, std::slice::from_ref(&**row));
            script.add("COMMIT");
            conversation.commit(script).await?;
            return Ok(true);
        }
        let Some(record) = &letter.record else {
            return Ok(false);
        };
        let this_record = words.id_in([record_id(record)]);
        let ask = format!(
            "SELECT fingerprint FROM {} WHERE {this_record} AND kind = {DEAD}",
            tables.record
        );
        let mut sets = conversation.run(ask).await?;
        let mut rows = take(&mut sets, 0);
        let Some(row) = rows.first_mut() else {
            return Ok(false);
        };
        let fingerprint = Fingerprint::from_bytes(row.id()?);
        let version = version + 1;
        let parked = ParkedRow::replayed(record, fingerprint, &letter, now_ms);
        insert_parked(&mut script, words, tables, [(&parked, version)].into_iter());
        // The record still bears the run that buried it: if that commit is sent once more, it
        // must not bury the message again.
        script.add(&format!(
            "UPDATE {} SET kind = {PARKED}, parked = {} WHERE {this_record}",
            tables.record,
            signed(version)
        ));
        unlock(&mut script, tables, version, time_ms);
        conversation.commit(script).await?;
        Ok(true)
    }
}
