//! The contract of `Store::commit` and its like, inside one write transaction.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use semel_core::decide::{Book, Entry, Fate, decide};
use semel_core::{
    DeadLetter, DeadLetterId, LanePosition, OutboxLane, OutboxRow, Outcome, ParkedRow, PluginName,
    RecordId, RowId, Run, RunId, StateKey, Version,
};

use super::Broken;
use super::buckets::{AllBuckets, Bucket, PluginBuckets};
use super::fences::FenceTable;
use super::outbox::OutboxTables;
use super::parked::ParkedTables;
use super::tables::{
    BUCKETS, DEAD, HORIZONS, META, RECORDS, STATE, StoredFate, StoredRecord, find, record_key,
    split_state_value, state_key, state_value,
};
use crate::codec::{decode, encode};

type Blobs<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// The store inside a write transaction.
pub(super) struct Ledger<'t> {
    transaction: &'t WriteTransaction,
    now_ms: u64,
    sequence: Version,
    buckets: Arc<AllBuckets>,
    buckets_changed: bool,
    /// The done records of the plugins that this transaction met, newest bucket first.
    done: HashMap<PluginName, Vec<Blobs<'t>>>,
    state: Blobs<'t>,
    records: Blobs<'t>,
    /// Whether any record is parked or dead: most stores can skip that look-up.
    any_record: bool,
    parked: ParkedTables<'t>,
    dead: Table<'t, &'static str, &'static [u8]>,
    outbox: OutboxTables<'t>,
    fences: FenceTable<'t>,
    /// Whether runs were committed.
    has_runs: bool,
    scratch: Vec<u8>,
}

/// What a transaction leaves in memory once it is durable.
pub(super) struct Left {
    pub(super) sequence: Version,
    pub(super) buckets: Arc<AllBuckets>,
    pub(super) buckets_changed: bool,
    pub(super) has_runs: bool,
}

impl<'t> Ledger<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        now_ms: u64,
        sequence: Version,
        buckets: Arc<AllBuckets>,
    ) -> Result<Self, Broken> {
        let records = transaction.open_table(RECORDS)?;
        let any_record = !records.is_empty()?;
        Ok(Self {
            transaction,
            now_ms,
            sequence,
            buckets,
            buckets_changed: false,
            done: HashMap::new(),
            state: transaction.open_table(STATE)?,
            any_record,
            records,
            parked: ParkedTables::open(transaction)?,
            dead: transaction.open_table(DEAD)?,
            outbox: OutboxTables::open(transaction)?,
            fences: FenceTable::open(transaction)?,
            has_runs: false,
            scratch: Vec::new(),
        })
    }

    /// Ends the work: the transaction can be committed after this.
    pub(super) fn close(self) -> Result<Left, Broken> {
        let mut meta = self.transaction.open_table(META)?;
        meta.insert("sequence", self.sequence)?;
        Ok(Left {
            sequence: self.sequence,
            buckets: self.buckets,
            buckets_changed: self.buckets_changed,
            has_runs: self.has_runs,
        })
    }

    pub(super) fn commit(&mut self, runs: &[Run]) -> Result<Vec<Outcome>, Broken> {
        let outcomes = decide(self, runs)?;
        self.has_runs = true;
        Ok(outcomes)
    }

    fn store(&mut self, id: &RecordId, record: &StoredRecord) -> Result<(), Broken> {
        let mut value = std::mem::take(&mut self.scratch);
        record.write(&mut value);
        if matches!(record.fate, StoredFate::Done(_)) {
            self.open_done(&id.plugin, true)?[0].insert(id.key.as_bytes(), &*value)?;
            if self.any_record {
                self.records.remove(record_key(id).as_bytes())?;
            }
        } else {
            self.records.insert(record_key(id).as_bytes(), &*value)?;
            self.any_record = true;
        }
        self.scratch = value;
        Ok(())
    }

    pub(super) fn bury(&mut self, letters: &[DeadLetter]) -> Result<(), Broken> {
        for letter in letters {
            if self.dead.get(letter.id.as_str())?.is_none() {
                let blob = encode(letter);
                self.dead.insert(letter.id.as_str(), &*blob)?;
            }
        }
        Ok(())
    }

    pub(super) fn confirm(&mut self, rows: &[RowId]) -> Result<(), Broken> {
        for id in rows {
            self.outbox.remove(*id)?;
        }
        Ok(())
    }

    pub(super) fn refuse(&mut self, letters: &[DeadLetter]) -> Result<(), Broken> {
        for letter in letters {
            if let Some(row) = &letter.outgoing
                && self.outbox.remove(row.id)?
            {
                self.bury(std::slice::from_ref(letter))?;
            }
        }
        Ok(())
    }

    pub(super) fn fence(&mut self, id: &RecordId, run: RunId) -> Result<bool, Broken> {
        let record = self.record(id)?;
        if record.is_some_and(|record| record.run == run && record.is_done()) {
            return Ok(true);
        }
        let buckets = self.buckets.get(&id.plugin);
        let time_ms = buckets.map_or(self.now_ms, |buckets| buckets.time_at(self.now_ms));
        self.fences.insert(&id.plugin, run, time_ms)?;
        Ok(false)
    }

    pub(super) fn expire(
        &mut self,
        plugin: &PluginName,
        retention_ms: u64,
        now_ms: u64,
    ) -> Result<u64, Broken> {
        let mut index = self.transaction.open_table(BUCKETS)?;
        let all = Arc::make_mut(&mut self.buckets);
        let buckets = all.entry(plugin.clone()).or_default();
        buckets.width_ms = (retention_ms / 2).max(1);
        let horizon_ms = now_ms.saturating_sub(retention_ms);
        if horizon_ms > buckets.horizon_ms {
            buckets.horizon_ms = horizon_ms;
            let mut horizons = self.transaction.open_table(HORIZONS)?;
            horizons.insert(plugin.as_str(), horizon_ms)?;
        }
        // A retention that was shortened also shortens the bucket that is open.
        let latest_end = self.now_ms.saturating_add(buckets.width_ms);
        if let Some(newest) = buckets.live.first_mut()
            && newest.end_ms > latest_end
        {
            newest.end_ms = latest_end;
            index.insert(newest.key(plugin).as_bytes(), latest_end)?;
        }
        let horizon_ms = buckets.horizon_ms;
        let (gone, live): (Vec<Bucket>, Vec<Bucket>) = std::mem::take(&mut buckets.live)
            .into_iter()
            .partition(|bucket| bucket.end_ms <= horizon_ms);
        buckets.live = live;
        self.buckets_changed = true;
        // A table that is open can't be deleted.
        self.done.remove(plugin);
        for bucket in &gone {
            index.remove(bucket.key(plugin).as_bytes())?;
            self.transaction.delete_table(bucket.table())?;
        }
        self.fences.expire(plugin, horizon_ms)?;
        Ok(gone.len() as u64)
    }

    pub(super) fn replay(&mut self, id: &DeadLetterId, now_ms: u64) -> Result<bool, Broken> {
        let letter: DeadLetter = match self.dead.get(id.as_str())? {
            Some(blob) => decode("dead letter", blob.value())?,
            None => return Ok(false),
        };
        if let Some(row) = &letter.outgoing {
            self.outbox.insert(row)?;
            self.dead.remove(letter.id.as_str())?;
            return Ok(true);
        }
        let Some(id) = &letter.record else {
            return Ok(false);
        };
        let record = find(&self.records, record_key(id).as_bytes())?;
        let Some(mut record) = record.filter(|record| matches!(record.fate, StoredFate::Dead))
        else {
            return Ok(false);
        };
        self.sequence += 1;
        let mut row = ParkedRow::replayed(id, record.fingerprint, &letter, now_ms);
        row.version = self.sequence;
        // The record still bears the run that buried it: if that commit is sent once more, it
        // must not bury the message again.
        record.fate = StoredFate::Parked(row.version);
        self.parked.insert(id, &row)?;
        self.store(id, &record)?;
        self.dead.remove(letter.id.as_str())?;
        Ok(true)
    }

    pub(super) fn drop_dead(&mut self, id: &DeadLetterId) -> Result<bool, Broken> {
        Ok(self.dead.remove(id.as_str())?.is_some())
    }

    // === details ===

    fn record(&mut self, id: &RecordId) -> Result<Option<StoredRecord>, Broken> {
        if self.any_record
            && let Some(record) = find(&self.records, record_key(id).as_bytes())?
        {
            return Ok(Some(record));
        }
        for table in self.open_done(&id.plugin, false)? {
            if let Some(record) = find(table, id.key.as_bytes())? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The plugin's done records, newest bucket first. `to_write`: the first of them is open
    /// at this time.
    fn open_done(
        &mut self,
        plugin: &PluginName,
        to_write: bool,
    ) -> Result<&mut Vec<Blobs<'t>>, Broken> {
        if !self.done.contains_key(plugin) {
            let live = self.buckets.get(plugin).map(|buckets| &buckets.live);
            let tables: Result<Vec<_>, _> = live
                .into_iter()
                .flatten()
                .map(|bucket| self.transaction.open_table(bucket.table()))
                .collect();
            self.done.insert(plugin.clone(), tables?);
        }
        let tables = self
            .done
            .get_mut(plugin)
            .expect("it was put there if missing");
        let is_open = |buckets: &PluginBuckets| buckets.is_open_at(self.now_ms);
        if to_write && !self.buckets.get(plugin).is_some_and(is_open) {
            let all = Arc::make_mut(&mut self.buckets);
            let buckets = all.entry(plugin.clone()).or_default();
            let bucket = buckets.open_at(plugin, self.now_ms);
            tables.insert(0, self.transaction.open_table(bucket.table())?);
            let mut index = self.transaction.open_table(BUCKETS)?;
            index.insert(bucket.key(plugin).as_bytes(), bucket.end_ms)?;
            self.buckets_changed = true;
        }
        Ok(tables)
    }
}

impl Book for Ledger<'_> {
    type Error = Broken;

    fn find(&mut self, id: &RecordId) -> Result<Option<Entry>, Broken> {
        let record = self.record(id)?;
        Ok(record.map(|record| Entry {
            run: record.run,
            version: record.version,
            fingerprint: record.fingerprint,
            parked: match record.fate {
                StoredFate::Parked(version) => Some(version),
                StoredFate::Done(_) | StoredFate::Dead => None,
            },
        }))
    }

    fn horizon(&mut self, plugin: &PluginName) -> Result<u64, Broken> {
        let buckets = self.buckets.get(plugin);
        Ok(buckets.map_or(0, |buckets| buckets.horizon_ms))
    }

    fn is_fenced(&mut self, plugin: &PluginName, run: RunId) -> Result<bool, Broken> {
        self.fences.has(plugin, run)
    }

    fn is_behind(&mut self, plugin: &PluginName, at: &LanePosition) -> Result<bool, Broken> {
        self.parked.is_behind(plugin, at)
    }

    fn version(&mut self, key: &StateKey) -> Result<Version, Broken> {
        let stored = self.state.get(state_key(key).as_bytes())?;
        version_of(stored.as_ref().map(|stored| stored.value()))
    }

    fn value(&mut self, key: &StateKey) -> Result<Option<Bytes>, Broken> {
        let Some(stored) = self.state.get(state_key(key).as_bytes())? else {
            return Ok(None);
        };
        let (_, value) = split_state_value(stored.value())?;
        Ok(Some(Bytes::copy_from_slice(value)))
    }

    fn is_clear(&mut self, lane: &OutboxLane, below: Version) -> Result<bool, Broken> {
        self.outbox.is_clear(lane, below)
    }

    fn next_version(&mut self) -> Result<Version, Broken> {
        self.sequence += 1;
        Ok(self.sequence)
    }

    fn write_state(
        &mut self,
        key: &StateKey,
        version: Version,
        value: Option<Bytes>,
    ) -> Result<Version, Broken> {
        let key = state_key(key);
        let before = match value {
            Some(value) => {
                state_value(version, &value, &mut self.scratch);
                self.state.insert(key.as_bytes(), &*self.scratch)?
            }
            None => self.state.remove(key.as_bytes())?,
        };
        version_of(before.as_ref().map(|before| before.value()))
    }

    fn write_outbox(&mut self, rows: Vec<OutboxRow>) -> Result<(), Broken> {
        rows.iter().try_for_each(|row| self.outbox.insert(row))
    }

    fn write_record(&mut self, run: &Run, version: Version, fate: Fate) -> Result<(), Broken> {
        if self.any_record {
            self.parked.remove(&run.record)?;
        }
        let fate = match fate {
            Fate::Done(reply) => StoredFate::Done(reply.cloned()),
            Fate::Parked(row) => {
                self.parked.insert(&run.record, &row)?;
                StoredFate::Parked(version)
            }
            Fate::Dead(letter) => {
                let blob = encode(letter);
                self.dead.insert(letter.id.as_str(), &*blob)?;
                StoredFate::Dead
            }
        };
        let record = StoredRecord {
            run: run.id,
            version,
            fingerprint: run.fingerprint,
            fate,
        };
        self.store(&run.record, &record)
    }
}

/// The version of a stored state value; 0 if it isn't there.
fn version_of(stored: Option<&[u8]>) -> Result<Version, Broken> {
    match stored {
        Some(stored) => Ok(split_state_value(stored)?.0),
        None => Ok(0),
    }
}
