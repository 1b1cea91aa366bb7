//! The contract of [`Store`](crate::Store), on plain maps.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;

use bytes::Bytes;

use crate::decide::{self, Book, Entry, decide_with};
use crate::{
    BusinessKey, CheckQuery, Checked, DeadLetter, DeadLetterId, Fingerprint, Lane, LanePosition,
    Miss, OutboxLane, OutboxRow, OutboxScan, Outcome, ParkedRow, Partition, PluginName, RecordId,
    RecordState, RowId, Run, RunId, StateEntry, StateKey, Statement, StoreStats, Version,
    Versioned,
};

/// Everything that a store knows.
#[derive(Default)]
pub(super) struct Ledger {
    /// The last number given out.
    sequence: Version,
    /// The latest time seen: a clock that goes back does not put records into old buckets.
    time_ms: u64,
    records: BTreeMap<RecordId, Record>,
    parked: BTreeMap<RecordId, ParkedRow>,
    /// The parked rows that have a lane, in the order of their lanes.
    lanes: BTreeSet<LaneEntry>,
    dead: BTreeMap<DeadLetterId, DeadLetter>,
    state: BTreeMap<StateKey, (Version, Bytes)>,
    outbox: BTreeMap<RowId, OutboxRow>,
    outbox_lanes: BTreeSet<(OutboxLane, RowId)>,
    /// Runs that must not be committed any more, with the bucket in which they were fenced.
    fences: BTreeMap<(PluginName, RunId), u64>,
    /// Done records of buckets below these are gone. A bucket is a millisecond here.
    horizons: BTreeMap<PluginName, u64>,
}

type LaneEntry = (PluginName, Partition, Lane, u64, BusinessKey);

/// What a record bears: the run that wrote it last and that run's number.
struct Record {
    run: RunId,
    version: Version,
    fingerprint: Fingerprint,
    fate: Fate,
}

enum Fate {
    /// The row is in `Ledger::parked`.
    Parked,
    Done {
        reply: Option<Bytes>,
        bucket: u64,
    },
    Dead,
}

impl Ledger {
    pub(super) fn check(&mut self, query: &CheckQuery, now_ms: u64) -> Checked {
        let plugin = &query.record.plugin;
        let lane = query.lane.as_ref();
        Checked {
            state: self.record_state(&query.record),
            behind: lane.is_some_and(|lane| self.is_behind(plugin, lane)),
            bucket: self.bucket(plugin, now_ms),
        }
    }

    pub(super) fn read(&self, key: &StateKey) -> Versioned {
        match self.state.get(key) {
            Some((version, value)) => Versioned {
                version: *version,
                value: Some(value.clone()),
            },
            None => Versioned::default(),
        }
    }

    pub(super) fn commit(
        &mut self,
        runs: &[Run],
        now_ms: u64,
        carry_out: impl FnMut(&[Statement]) -> Option<Miss>,
    ) -> Vec<Outcome> {
        let mut book = LedgerBook {
            ledger: self,
            now_ms,
        };
        let Ok(outcomes) = decide_with(&mut book, runs, carry_out);
        outcomes
    }

    fn write_outbox(&mut self, rows: Vec<OutboxRow>) {
        for row in rows {
            if let Some(lane) = &row.lane {
                self.outbox_lanes.insert((lane.clone(), row.id));
            }
            self.outbox.insert(row.id, row);
        }
    }

    pub(super) fn bury(&mut self, letter: &DeadLetter) {
        self.dead
            .entry(letter.id.clone())
            .or_insert_with(|| letter.clone());
    }

    pub(super) fn due(&self, plugin: &PluginName, now_ms: u64, limit: usize) -> Vec<ParkedRow> {
        let mut rows: Vec<_> = self
            .heads(plugin)
            .filter(|row| row.due_ms <= now_ms)
            .collect();
        rows.sort_by_key(|row| (row.due_ms, &row.record.key));
        rows.into_iter().take(limit).cloned().collect()
    }

    pub(super) fn parked(&self, plugin: &PluginName) -> (u64, Option<u64>) {
        let first = self.heads(plugin).map(|row| row.due_ms).min();
        (self.parked_of(plugin).count() as u64, first)
    }

    pub(super) fn outbox(&self, scan: &OutboxScan) -> Vec<OutboxRow> {
        let first = scan.after.map_or(
            RowId {
                version: 0,
                ordinal: 0,
            },
            |after| RowId {
                ordinal: after.ordinal.saturating_add(1),
                ..after
            },
        );
        let Some(lane) = &scan.lane else {
            let rows = self.outbox.range(first..).take(scan.limit);
            return rows.map(|(_, row)| row.clone()).collect();
        };
        self.outbox_lanes
            .range((lane.clone(), first)..)
            .take_while(|(of, _)| of == lane)
            .take(scan.limit)
            .map(|(_, id)| self.outbox[id].clone())
            .collect()
    }

    pub(super) fn confirm(&mut self, id: &RowId) {
        if let Some(row) = self.outbox.remove(id)
            && let Some(lane) = row.lane
        {
            self.outbox_lanes.remove(&(lane, *id));
        }
    }

    pub(super) fn refuse(&mut self, letter: &DeadLetter) {
        if let Some(row) = &letter.outgoing
            && self.outbox.contains_key(&row.id)
        {
            self.confirm(&row.id);
            self.bury(letter);
        }
    }

    pub(super) fn outbox_len(&self) -> u64 {
        self.outbox.len() as u64
    }

    pub(super) fn fence(&mut self, id: &RecordId, run: RunId, now_ms: u64) -> bool {
        let done_by = match self.record_state(id) {
            RecordState::Done { run, .. } => Some(run),
            _ => None,
        };
        if done_by == Some(run) {
            return true;
        }
        let bucket = self.bucket(&id.plugin, now_ms);
        self.fences
            .entry((id.plugin.clone(), run))
            .or_insert(bucket);
        false
    }

    pub(super) fn expire(&mut self, plugin: &PluginName, retention_ms: u64, now_ms: u64) -> u64 {
        let horizon = now_ms
            .saturating_sub(retention_ms)
            .max(self.horizon(plugin));
        self.horizons.insert(plugin.clone(), horizon);
        self.fences
            .retain(|(of, _), bucket| of != plugin || *bucket >= horizon);
        let mut gone = BTreeSet::new();
        self.records.retain(|id, record| match record.fate {
            Fate::Done { bucket, .. } if id.plugin == *plugin && bucket < horizon => {
                gone.insert(bucket);
                false
            }
            _ => true,
        });
        gone.len() as u64
    }

    pub(super) fn list_state(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<StateEntry> {
        let first = StateKey {
            namespace: namespace.into(),
            name: after.unwrap_or(prefix).max(prefix).into(),
        };
        self.state
            .range(first..)
            .take_while(|(key, _)| &*key.namespace == namespace)
            .skip_while(|(key, _)| after.is_some_and(|after| &*key.name <= after))
            .take_while(|(key, _)| key.name.starts_with(prefix))
            .take(limit)
            .map(|(key, (version, value))| StateEntry {
                name: key.name.to_string(),
                version: *version,
                value: value.clone(),
            })
            .collect()
    }

    pub(super) fn record(&self, record: &RecordId) -> (RecordState, Option<ParkedRow>) {
        (self.record_state(record), self.parked.get(record).cloned())
    }

    pub(super) fn list_dead(
        &self,
        plugin: Option<&PluginName>,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Vec<DeadLetter> {
        let above = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.dead
            .range((above, Bound::Unbounded))
            .map(|(_, letter)| letter)
            .filter(|letter| plugin.is_none_or(|plugin| letter.plugin == *plugin))
            .take(limit)
            .cloned()
            .collect()
    }

    pub(super) fn dead(&self, id: &DeadLetterId) -> Option<DeadLetter> {
        self.dead.get(id).cloned()
    }

    pub(super) fn replay(&mut self, id: &DeadLetterId, now_ms: u64) -> bool {
        let Some(letter) = self.dead.get(id) else {
            return false;
        };
        if let Some(row) = letter.outgoing.clone() {
            self.write_outbox(vec![*row]);
            self.dead.remove(id);
            return true;
        }
        let Some(record) = letter.record.clone() else {
            return false;
        };
        let Some(entry) = self.records.get_mut(&record) else {
            return false;
        };
        if !matches!(entry.fate, Fate::Dead) {
            return false;
        }
        // The record still bears the run that buried it: if that commit is sent once more, it
        // must not bury the message again.
        entry.fate = Fate::Parked;
        let row = ParkedRow::replayed(&record, entry.fingerprint, letter, now_ms);
        self.dead.remove(id);
        let version = self.next_version();
        self.park(&record, row, version);
        true
    }

    pub(super) fn drop_dead(&mut self, id: &DeadLetterId) -> bool {
        self.dead.remove(id).is_some()
    }

    pub(super) fn stats(&self, plugin: &PluginName) -> StoreStats {
        let done = self
            .records
            .iter()
            .filter(|(id, record)| id.plugin == *plugin && matches!(record.fate, Fate::Done { .. }))
            .count();
        let dead = self.dead.values().filter(|letter| letter.plugin == *plugin);
        StoreStats {
            done: done as u64,
            parked: self.parked_of(plugin).count() as u64,
            dead: dead.count() as u64,
            outbox: self.outbox.len() as u64,
        }
    }

    // === details ===

    fn next_version(&mut self) -> Version {
        self.sequence += 1;
        self.sequence
    }

    fn horizon(&self, plugin: &PluginName) -> u64 {
        self.horizons.get(plugin).copied().unwrap_or(0)
    }

    /// The bucket of what is written now. Never below an earlier one, nor below the horizon:
    /// a clock that goes back can neither hide a record from rule 18 nor stop all commits.
    fn bucket(&mut self, plugin: &PluginName, now_ms: u64) -> u64 {
        self.time_ms = self.time_ms.max(now_ms);
        self.time_ms.max(self.horizon(plugin))
    }

    fn record_state(&self, id: &RecordId) -> RecordState {
        let Some(record) = self.records.get(id) else {
            return RecordState::Absent;
        };
        let fingerprint = record.fingerprint;
        match &record.fate {
            Fate::Parked => RecordState::Parked {
                fingerprint,
                version: self.parked[id].version,
            },
            Fate::Done { reply, .. } => RecordState::Done {
                fingerprint,
                run: record.run,
                reply: reply.clone(),
            },
            Fate::Dead => RecordState::Dead { fingerprint },
        }
    }

    fn is_behind(&self, plugin: &PluginName, at: &LanePosition) -> bool {
        let entry = |offset| {
            let no_key = BusinessKey::new(Bytes::new());
            let (partition, lane) = (at.partition.clone(), at.lane.clone());
            (plugin.clone(), partition, lane, offset, no_key)
        };
        let before = self.lanes.range(entry(0)..entry(at.offset));
        before.into_iter().next().is_some()
    }

    fn park(&mut self, record: &RecordId, mut row: ParkedRow, version: Version) {
        row.version = version;
        self.lanes.extend(lane_entry(&row));
        self.parked.insert(record.clone(), row);
    }

    fn unpark(&mut self, record: &RecordId) {
        if let Some(row) = self.parked.remove(record)
            && let Some(entry) = lane_entry(&row)
        {
            self.lanes.remove(&entry);
        }
    }

    fn parked_of(&self, plugin: &PluginName) -> impl Iterator<Item = &ParkedRow> {
        let first = RecordId {
            plugin: plugin.clone(),
            key: BusinessKey::new(Bytes::new()),
        };
        self.parked
            .range(first..)
            .take_while(move |(id, _)| id.plugin == *plugin)
            .map(|(_, row)| row)
    }

    /// Parked rows that wait for nothing but their time.
    fn heads(&self, plugin: &PluginName) -> impl Iterator<Item = &ParkedRow> {
        self.parked_of(plugin).filter(move |row| {
            let lane = row.lane_position();
            !lane.is_some_and(|lane| self.is_behind(plugin, &lane))
        })
    }
}

fn lane_entry(row: &ParkedRow) -> Option<LaneEntry> {
    let at = row.lane_position()?;
    let RecordId { plugin, key } = row.record.clone();
    Some((plugin, at.partition, at.lane, at.offset, key))
}

/// A ledger for a commit at a time.
struct LedgerBook<'a> {
    ledger: &'a mut Ledger,
    now_ms: u64,
}

impl Book for LedgerBook<'_> {
    type Error = Infallible;

    fn find(&mut self, id: &RecordId) -> Result<Option<Entry>, Infallible> {
        let entry = self.ledger.records.get(id).map(|record| Entry {
            run: record.run,
            version: record.version,
            fingerprint: record.fingerprint,
            parked: self.ledger.parked.get(id).map(|row| row.version),
        });
        Ok(entry)
    }

    fn horizon(&mut self, plugin: &PluginName) -> Result<u64, Infallible> {
        Ok(self.ledger.horizon(plugin))
    }

    fn is_fenced(&mut self, plugin: &PluginName, run: RunId) -> Result<bool, Infallible> {
        Ok(self.ledger.fences.contains_key(&(plugin.clone(), run)))
    }

    fn is_behind(&mut self, plugin: &PluginName, at: &LanePosition) -> Result<bool, Infallible> {
        Ok(self.ledger.is_behind(plugin, at))
    }

    fn version(&mut self, key: &StateKey) -> Result<Version, Infallible> {
        Ok(self.ledger.read(key).version)
    }

    fn value(&mut self, key: &StateKey) -> Result<Option<Bytes>, Infallible> {
        Ok(self.ledger.read(key).value)
    }

    fn is_clear(&mut self, lane: &OutboxLane, below: Version) -> Result<bool, Infallible> {
        let row = |version| {
            let id = RowId {
                version,
                ordinal: 0,
            };
            (lane.clone(), id)
        };
        let mut before = self.ledger.outbox_lanes.range(row(0)..row(below));
        Ok(before.next().is_none())
    }

    fn next_version(&mut self) -> Result<Version, Infallible> {
        Ok(self.ledger.next_version())
    }

    fn write_state(
        &mut self,
        key: &StateKey,
        version: Version,
        value: Option<Bytes>,
    ) -> Result<Version, Infallible> {
        let before = match value {
            Some(value) => self.ledger.state.insert(key.clone(), (version, value)),
            None => self.ledger.state.remove(key),
        };
        Ok(before.map_or(0, |(version, _)| version))
    }

    fn write_outbox(&mut self, rows: Vec<OutboxRow>) -> Result<(), Infallible> {
        self.ledger.write_outbox(rows);
        Ok(())
    }

    fn write_record(
        &mut self,
        run: &Run,
        version: Version,
        fate: decide::Fate,
    ) -> Result<(), Infallible> {
        let ledger = &mut *self.ledger;
        ledger.unpark(&run.record);
        let fate = match fate {
            decide::Fate::Done(reply) => Fate::Done {
                reply: reply.cloned(),
                bucket: ledger.bucket(&run.record.plugin, self.now_ms),
            },
            decide::Fate::Parked(row) => {
                ledger.park(&run.record, *row, version);
                Fate::Parked
            }
            decide::Fate::Dead(letter) => {
                ledger.dead.insert(letter.id.clone(), letter.clone());
                Fate::Dead
            }
        };
        let record = Record {
            run: run.id,
            version,
            fingerprint: run.fingerprint,
            fate,
        };
        ledger.records.insert(run.record.clone(), record);
        Ok(())
    }
}
