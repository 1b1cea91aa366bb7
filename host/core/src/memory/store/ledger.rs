//! The contract of [`Store`](crate::Store), on plain maps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;

use crate::{
    BusinessKey, Cause, CheckQuery, Checked, DeadLetter, DeadLetterId, Effects, Expected,
    Fingerprint, Lane, LanePosition, OutboxLane, OutboxRow, OutboxScan, Outcome, Park, ParkedRow,
    Partition, PluginName, Read, RecordId, RecordState, RowId, Run, RunId, StateEntry, StateKey,
    StoreStats, Verdict, Version, Versioned,
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

/// What earlier runs of a batch left for the later ones.
#[derive(Default)]
struct Batch {
    /// Lanes in which a run was not carried through.
    held: HashMap<(PluginName, Partition, Lane), Hold>,
    /// The values written: the version before the batch and the runs that wrote.
    written: HashMap<StateKey, (Version, Vec<u32>)>,
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

    pub(super) fn commit(&mut self, runs: &[Run], now_ms: u64) -> Vec<Outcome> {
        let mut batch = Batch::default();
        let mut outcomes = Vec::with_capacity(runs.len());
        for (index, run) in (0..).zip(runs) {
            let outcome = match self.judge(run, &batch) {
                Ok(()) => self.apply(run, index, &mut batch, now_ms),
                Err(outcome) => outcome,
            };
            if let Some(lane) = &run.lane
                && let Some(hold) = hold(run, &outcome)
            {
                let held = batch.held.entry(lane_of(run, lane)).or_insert(hold);
                *held = hold.max(*held);
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Tests 1 to 8 of [`Store::commit`](crate::Store::commit).
    fn judge(&self, run: &Run, batch: &Batch) -> Result<(), Outcome> {
        let record = self.records.get(&run.record);
        if let Some(record) = record {
            if record.run == run.id {
                return Err(Outcome::Applied {
                    version: record.version,
                    outbox_clear: self.is_outbox_clear(run, record.version),
                });
            }
            if record.fingerprint != run.fingerprint {
                return Err(Outcome::Mismatch);
            }
            if !matches!(record.fate, Fate::Parked) {
                return Err(Outcome::Duplicate);
            }
        }
        let fence = (run.record.plugin.clone(), run.id);
        if run.bucket < self.horizon(&run.record.plugin) || self.fences.contains_key(&fence) {
            return Err(Outcome::Conflict);
        }
        if let Some(lane) = &run.lane
            && let Some(hold) = batch.held.get(&lane_of(run, lane))
            && !(is_waiting(&run.verdict) && *hold == Hold::Parked)
        {
            return Err(Outcome::Conflict);
        }
        if is_conditional(&run.verdict) && self.found(&run.record) != run.expected {
            return Err(Outcome::AlreadyParked);
        }
        if !is_waiting(&run.verdict)
            && let Some(lane) = run.lane_position()
            && self.is_behind(&run.record.plugin, &lane)
        {
            return Err(Outcome::Behind);
        }
        if !run.reads.iter().all(|read| self.stands(read, batch)) {
            return Err(Outcome::Conflict);
        }
        if let Verdict::Done(effects) = &run.verdict {
            self.sums_up(effects)?;
        }
        Ok(())
    }

    /// Step 9 of [`Store::commit`](crate::Store::commit).
    fn apply(&mut self, run: &Run, index: u32, batch: &mut Batch, now_ms: u64) -> Outcome {
        let version = self.next_version();
        self.unpark(&run.record);
        let fate = match &run.verdict {
            Verdict::Done(effects) => {
                self.write_state(effects, version, index, batch);
                self.write_outbox(run.outbox_rows(version));
                Fate::Done {
                    reply: effects.reply.clone(),
                    bucket: self.bucket(&run.record.plugin, now_ms),
                }
            }
            Verdict::Park(Park { row, .. }) => {
                self.park(&run.record, (**row).clone(), version);
                Fate::Parked
            }
            Verdict::Dead(letter) => {
                self.dead.insert(letter.id.clone(), (**letter).clone());
                Fate::Dead
            }
        };
        let record = Record {
            run: run.id,
            version,
            fingerprint: run.fingerprint,
            fate,
        };
        self.records.insert(run.record.clone(), record);
        Outcome::Applied {
            version,
            outbox_clear: self.is_outbox_clear(run, version),
        }
    }

    fn write_state(&mut self, effects: &Effects, version: Version, index: u32, batch: &mut Batch) {
        for write in &effects.writes {
            let before = self.read(&write.key);
            let after = write
                .op
                .apply(before.value.as_ref())
                .expect("additions were tested before");
            match after {
                Some(value) => self.state.insert(write.key.clone(), (version, value)),
                None => self.state.remove(&write.key),
            };
            let written = batch.written.entry(write.key.clone());
            let (_, runs) = written.or_insert((before.version, Vec::new()));
            if runs.last() != Some(&index) {
                runs.push(index);
            }
        }
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

    /// A record that is neither done nor dead, as a check gives it to a run.
    fn found(&self, id: &RecordId) -> Expected {
        self.parked
            .get(id)
            .map_or(Expected::Absent, |row| Expected::Parked(row.version))
    }

    fn stands(&self, read: &Read, batch: &Batch) -> bool {
        match batch.written.get(&read.key) {
            Some((base, runs)) => *base == read.base && *runs == read.seen,
            None => self.read(&read.key).version == read.base && read.seen.is_empty(),
        }
    }

    fn sums_up(&self, effects: &Effects) -> Result<(), Outcome> {
        for write in &effects.writes {
            let before = self.read(&write.key).value;
            if write.op.apply(before.as_ref()).is_err() {
                return Err(Outcome::NotACounter(write.key.clone()));
            }
        }
        Ok(())
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

    fn is_outbox_clear(&self, run: &Run, version: Version) -> bool {
        let Some(lane) = outbox_lane(run).filter(|_| publishes_in_lane(run)) else {
            return true;
        };
        let row = |version| {
            let id = RowId {
                version,
                ordinal: 0,
            };
            (lane.clone(), id)
        };
        let before = self.outbox_lanes.range(row(0)..row(version));
        before.into_iter().next().is_none()
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

fn lane_of(run: &Run, lane: &Lane) -> (PluginName, Partition, Lane) {
    let partition = run.position.partition.clone();
    (run.record.plugin.clone(), partition, lane.clone())
}

fn outbox_lane(run: &Run) -> Option<OutboxLane> {
    run.lane.as_ref().map(|lane| OutboxLane {
        plugin: run.record.plugin.clone(),
        lane: lane.clone(),
    })
}

fn publishes_in_lane(run: &Run) -> bool {
    match &run.verdict {
        Verdict::Done(effects) => effects.outgoing.iter().any(|out| out.delay_ms.is_none()),
        Verdict::Park(_) | Verdict::Dead(_) => false,
    }
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
