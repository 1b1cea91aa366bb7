//! The contract of `Store::commit` and its like, inside one write transaction.

use std::collections::HashMap;
use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use semel_core::{
    Cause, DeadLetter, DeadLetterId, Effects, Lane, Outcome, Park, ParkedRow, Partition,
    PluginName, Read, RecordId, RowId, Run, RunId, StateKey, StateOp, Verdict, Version,
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

/// What earlier runs of a batch left for the later ones.
#[derive(Default)]
struct Batch {
    /// Lanes in which a run was not carried through.
    held: HashMap<(PluginName, Partition, Lane), Hold>,
    /// The values written: the version before the batch and the runs that wrote.
    written: HashMap<StateKey, (Version, Vec<u32>)>,
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
        let mut batch = Batch::default();
        let mut outcomes = Vec::with_capacity(runs.len());
        for (index, run) in (0..).zip(runs) {
            let outcome = match self.judge(run, &batch)? {
                Some(outcome) => outcome,
                None => self.apply(run, index, &mut batch)?,
            };
            if let Some(lane) = &run.lane
                && let Some(hold) = hold(run, &outcome)
            {
                let held = batch.held.entry(lane_of(run, lane)).or_insert(hold);
                *held = hold.max(*held);
            }
            outcomes.push(outcome);
        }
        self.has_runs = true;
        Ok(outcomes)
    }

    /// Tests 1 to 8 of `Store::commit`: the outcome, unless the run is to be applied.
    fn judge(&mut self, run: &Run, batch: &Batch) -> Result<Option<Outcome>, Broken> {
        let record = self.find(&run.record)?;
        if let Some(record) = &record {
            if record.run == run.id {
                return Ok(Some(Outcome::Applied {
                    version: record.version,
                    outbox_clear: self.outbox.is_clear(run, record.version)?,
                }));
            }
            if record.fingerprint != run.fingerprint {
                return Ok(Some(Outcome::Mismatch));
            }
            if !matches!(record.fate, StoredFate::Parked(_)) {
                return Ok(Some(Outcome::Duplicate));
            }
        }
        let plugin = &run.record.plugin;
        let buckets = self.buckets.get(plugin);
        if buckets.is_some_and(|buckets| run.bucket < buckets.horizon_ms)
            || self.fences.has(plugin, run.id)?
        {
            return Ok(Some(Outcome::Conflict));
        }
        if let Some(lane) = &run.lane
            && let Some(hold) = batch.held.get(&lane_of(run, lane))
            && !(is_waiting(&run.verdict) && *hold == Hold::Parked)
        {
            return Ok(Some(Outcome::Conflict));
        }
        if is_conditional(&run.verdict) && StoredRecord::expected(record.as_ref()) != run.expected {
            return Ok(Some(Outcome::AlreadyParked));
        }
        if !is_waiting(&run.verdict)
            && let Some(lane) = run.lane_position()
            && self.parked.is_behind(&run.record.plugin, &lane)?
        {
            return Ok(Some(Outcome::Behind));
        }
        for read in &run.reads {
            if !self.stands(read, batch)? {
                return Ok(Some(Outcome::Conflict));
            }
        }
        self.find_bad_sum(run)
    }

    fn find_bad_sum(&self, run: &Run) -> Result<Option<Outcome>, Broken> {
        let Verdict::Done(effects) = &run.verdict else {
            return Ok(None);
        };
        for write in &effects.writes {
            if !matches!(write.op, StateOp::Add(_)) {
                continue;
            }
            let stored = self.state.get(state_key(&write.key).as_bytes())?;
            if after(&write.op, stored.as_ref().map(|stored| stored.value()))?.is_err() {
                return Ok(Some(Outcome::NotACounter(write.key.clone())));
            }
        }
        Ok(None)
    }

    /// Step 9 of `Store::commit`.
    fn apply(&mut self, run: &Run, index: u32, batch: &mut Batch) -> Result<Outcome, Broken> {
        self.sequence += 1;
        let version = self.sequence;
        if self.any_record {
            self.parked.remove(&run.record)?;
        }
        let fate = match &run.verdict {
            Verdict::Done(effects) => {
                self.write_state(effects, version, index, batch)?;
                self.outbox.publish(run, effects, version)?;
                StoredFate::Done(effects.reply.clone())
            }
            Verdict::Park(Park { row, .. }) => {
                let mut row = (**row).clone();
                row.version = version;
                self.parked.insert(&run.record, &row)?;
                StoredFate::Parked(version)
            }
            Verdict::Dead(letter) => {
                let blob = encode(&**letter);
                self.dead.insert(letter.id.as_str(), &*blob)?;
                StoredFate::Dead
            }
        };
        self.write_record(
            &run.record,
            &StoredRecord {
                run: run.id,
                version,
                fingerprint: run.fingerprint,
                fate,
            },
        )?;
        Ok(Outcome::Applied {
            version,
            outbox_clear: self.outbox.is_clear(run, version)?,
        })
    }

    fn write_state(
        &mut self,
        effects: &Effects,
        version: Version,
        index: u32,
        batch: &mut Batch,
    ) -> Result<(), Broken> {
        for write in &effects.writes {
            let key = state_key(&write.key);
            let value = match &write.op {
                StateOp::Put(value) => Some(value.clone()),
                op => {
                    let stored = self.state.get(key.as_bytes())?;
                    after(op, stored.as_ref().map(|stored| stored.value()))?
                        .expect("additions were tested before")
                }
            };
            let before = match value {
                Some(value) => {
                    state_value(version, &value, &mut self.scratch);
                    self.state.insert(key.as_bytes(), &*self.scratch)?
                }
                None => self.state.remove(key.as_bytes())?,
            };
            let base = match before {
                Some(before) => split_state_value(before.value())?.0,
                None => 0,
            };
            let written = batch.written.entry(write.key.clone());
            let (_, runs) = written.or_insert((base, Vec::new()));
            if runs.last() != Some(&index) {
                runs.push(index);
            }
        }
        Ok(())
    }

    fn write_record(&mut self, id: &RecordId, record: &StoredRecord) -> Result<(), Broken> {
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
        let record = self.find(id)?;
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
            self.outbox.restore(row)?;
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
        self.write_record(id, &record)?;
        self.dead.remove(letter.id.as_str())?;
        Ok(true)
    }

    pub(super) fn drop_dead(&mut self, id: &DeadLetterId) -> Result<bool, Broken> {
        Ok(self.dead.remove(id.as_str())?.is_some())
    }

    // === details ===

    fn find(&mut self, id: &RecordId) -> Result<Option<StoredRecord>, Broken> {
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

    fn stands(&self, read: &Read, batch: &Batch) -> Result<bool, Broken> {
        if let Some((base, runs)) = batch.written.get(&read.key) {
            return Ok(*base == read.base && *runs == read.seen);
        }
        let version = match self.state.get(state_key(&read.key).as_bytes())? {
            Some(stored) => split_state_value(stored.value())?.0,
            None => 0,
        };
        Ok(version == read.base && read.seen.is_empty())
    }
}

/// What an operation makes of a stored state value.
#[allow(clippy::type_complexity)]
fn after(
    op: &StateOp,
    stored: Option<&[u8]>,
) -> Result<Result<Option<bytes::Bytes>, semel_core::NotACounter>, Broken> {
    let before = match stored {
        Some(stored) => Some(bytes::Bytes::copy_from_slice(split_state_value(stored)?.1)),
        None => None,
    };
    Ok(op.apply(before.as_ref()))
}

fn lane_of(run: &Run, lane: &Lane) -> (PluginName, Partition, Lane) {
    let partition = run.position.partition.clone();
    (run.record.plugin.clone(), partition, lane.clone())
}

/// Whether the message is only parked because its lane's predecessor is.
fn is_waiting(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Park(Park { behind: true, .. }))
}

/// Whether the verdict holds only if the record is as the check found it.
fn is_conditional(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Done(_) => false,
        Verdict::Park(_) => true,
        Verdict::Dead(letter) => letter.cause == Cause::Exhausted,
    }
}

/// Why later runs of a lane are not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    /// A run of it was parked: those that wait may be parked behind it.
    Parked,
    /// A run of it is recorded nowhere, so nothing may go or wait before it.
    Refused,
}

/// Whether later runs of the lane are held after this outcome.
fn hold(run: &Run, outcome: &Outcome) -> Option<Hold> {
    match outcome {
        Outcome::Duplicate => None,
        Outcome::Applied { .. } => matches!(run.verdict, Verdict::Park(_)).then_some(Hold::Parked),
        _ => Some(Hold::Refused),
    }
}
