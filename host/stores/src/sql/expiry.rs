//! What is forgotten, and what is fenced until then.

use std::time::{Duration, Instant};

use semel_core::{PluginName, RecordId, RecordState, RunId, StoreError};

use super::SqlStore;
use super::answer::take;
use super::questions::{lock, locked, unlock};
use super::schema::{fence_id, record_id};
use super::server::{Failure, Patience};
use super::text::signed;

/// Rows that are deleted in a transaction, which takes a few milliseconds.
const CHUNK: usize = 1_000;

/// How long a call deletes rows. They do not count any more, so the rest can wait.
const PATIENCE: Duration = Duration::from_secs(120);

impl SqlStore {
    pub(super) async fn fence_run(
        &self,
        record: &RecordId,
        run: RunId,
    ) -> Result<bool, StoreError> {
        let mut patience = Patience::default();
        loop {
            match self.try_fence(record, run).await {
                Ok(done) => return Ok(done),
                Err(failure) => patience.after(failure).await?,
            }
        }
    }

    async fn try_fence(&self, id: &RecordId, run: RunId) -> Result<bool, Failure> {
        let words = self.server.words();
        let plugin = words.bytes(id.plugin.as_str().as_bytes());
        let mut conversation = self.server.converse().await?;
        let mut script = self.server.script();
        script.add(words.begin);
        let sequence = script.add(&lock(words, &self.tables));
        let horizons = script.add(&format!(
            "SELECT bucket FROM {} WHERE plugin = {plugin}",
            self.tables.horizon
        ));
        let records = script.add(&format!(
            "SELECT kind, run, fingerprint, bucket, parked, reply FROM {} WHERE {}",
            self.tables.record,
            words.id_in([record_id(id)])
        ));
        let mut sets = conversation.run_all(script).await?;
        let (version, time_ms) = locked(&mut sets, sequence)?;
        let horizon = match take(&mut sets, horizons).first_mut() {
            Some(row) => row.number()?,
            None => 0,
        };
        let state = match take(&mut sets, records).first_mut() {
            Some(row) => super::record_state(row, horizon)?,
            None => RecordState::Absent,
        };
        if matches!(state, RecordState::Done { run: by, .. } if by == run) {
            conversation.run("ROLLBACK".to_owned()).await?;
            conversation.end();
            return Ok(true);
        }
        let mut script = self.server.script();
        let head = format!(
            "INSERT INTO {} (id, plugin, bucket) VALUES ",
            self.tables.fence
        );
        let leaving = words.or_leave("id");
        script.insert(&head, &leaving, [()], |row, ()| {
            row.bytes(&fence_id(&id.plugin, run))
                .bytes(id.plugin.as_str().as_bytes())
                .number(time_ms.max(horizon));
        });
        unlock(&mut script, &self.tables, version, time_ms);
        conversation.commit(script).await?;
        Ok(false)
    }

    pub(super) async fn expire_records(
        &self,
        plugin: &PluginName,
        retention: Duration,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let horizon = now_ms.saturating_sub(retention_ms);
        let mut patience = Patience::default();
        loop {
            match self.try_move_horizon(plugin, horizon).await {
                Ok(()) => break,
                Err(failure) => patience.after(failure).await?,
            }
        }
        let end = Instant::now() + PATIENCE;
        let mut chunks = 0;
        for table in [&self.tables.record, &self.tables.fence] {
            let mut patience = Patience::default();
            while Instant::now() < end {
                match self.try_delete_chunk(table, plugin).await {
                    Ok(0) => break,
                    Ok(deleted) => {
                        chunks += u64::from(table == &self.tables.record);
                        patience = Patience::default();
                        if deleted < CHUNK as u64 {
                            break;
                        }
                    }
                    Err(failure) => patience.after(failure).await?,
                }
            }
        }
        Ok(chunks)
    }

    /// In a transaction of its own: from here on, older records and checks do not count.
    async fn try_move_horizon(&self, plugin: &PluginName, horizon: u64) -> Result<(), Failure> {
        let words = self.server.words();
        let mut conversation = self.server.converse().await?;
        let mut script = self.server.script();
        script.add(words.begin);
        let sequence = script.add(&lock(words, &self.tables));
        let kept = script.add(&self.ask_horizon(plugin));
        let mut sets = conversation.run_all(script).await?;
        let (version, time_ms) = locked(&mut sets, sequence)?;
        let kept = match take(&mut sets, kept).first_mut() {
            Some(row) => row.number()?,
            None => 0,
        };
        let mut script = self.server.script();
        let head = format!(
            "INSERT INTO {} (plugin, bucket) VALUES ",
            self.tables.horizon
        );
        let replacing = words.or_update("plugin", &["bucket"]);
        script.insert(&head, &replacing, [()], |row, ()| {
            row.bytes(plugin.as_str().as_bytes())
                .number(horizon.max(kept));
        });
        unlock(&mut script, &self.tables, version, time_ms);
        conversation.commit(script).await
    }

    /// Under the lock, as a commit may write a record anew that expired.
    async fn try_delete_chunk(&self, table: &str, plugin: &PluginName) -> Result<u64, Failure> {
        let words = self.server.words();
        let mut conversation = self.server.converse().await?;
        let mut script = self.server.script();
        script.add(words.begin);
        script.add(&lock(words, &self.tables));
        let horizon = script.add(&self.ask_horizon(plugin));
        let mut sets = conversation.run_all(script).await?;
        let horizon = match take(&mut sets, horizon).first_mut() {
            Some(row) => row.number()?,
            None => 0,
        };
        let condition = format!(
            "plugin = {} AND bucket < {}",
            words.bytes(plugin.as_str().as_bytes()),
            signed(horizon)
        );
        let mut script = self.server.script();
        let delete = script.add(&(words.delete_some)(table, &condition, CHUNK));
        script.add("COMMIT");
        let sets = conversation.run_all(script).await?;
        conversation.end();
        Ok(sets.get(delete).map_or(0, |set| set.changed))
    }

    fn ask_horizon(&self, plugin: &PluginName) -> String {
        format!(
            "SELECT bucket FROM {} WHERE plugin = {}",
            self.tables.horizon,
            self.server.words().bytes(plugin.as_str().as_bytes())
        )
    }
}
