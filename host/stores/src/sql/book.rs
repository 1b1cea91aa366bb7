//! What a commit knows, read under the lock, and what it writes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use semel_core::decide::{Book, Entry, Fate};
use semel_core::{
    BusinessKey, DeadLetter, DeadLetterId, Fingerprint, LanePosition, MAX_KEY_BYTES, OutboxLane,
    OutboxRow, ParkedRow, PluginName, RecordId, Run, RunId, StateKey, StoreError, Version,
};

use super::answer::{Set, take};
use super::questions::{Questions, locked, unlock};
use super::rows::{check_length, insert_letters, insert_outbox, insert_parked};
use super::schema::{LaneId, Tables, fence_id, lane_id, outbox_lane_id, record_id, state_id};
use super::text::{Script, Words};

/// The longest name of a plugin or namespace, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 255;

pub(super) const DONE: u64 = 0;
pub(super) const PARKED: u64 = 1;
pub(super) const DEAD: u64 = 2;

/// A record as the table has it.
struct Known {
    entry: Entry,
    kind: u64,
    bucket: Option<u64>,
}

/// A record as this batch leaves it.
struct Written {
    run: RunId,
    version: Version,
    fingerprint: Fingerprint,
    fate: Kept,
}

/// What a record is from now on.
enum Kept {
    Done { reply: Option<Bytes>, bucket: u64 },
    Parked(Box<ParkedRow>),
    Dead,
}

/// A state value.
#[derive(Default)]
struct Value {
    version: Version,
    value: Option<Bytes>,
    is_stored: bool,
    is_written: bool,
}

/// The parked rows of a lane.
#[derive(Default)]
struct LaneRows {
    /// The first one of records that the batch is not about.
    others: Option<u64>,
    own: BTreeSet<(u64, BusinessKey)>,
}

/// A [`Book`] of what was found.
pub(super) struct Facts {
    version: Version,
    time_ms: u64,
    horizons: HashMap<PluginName, u64>,
    known: HashMap<RecordId, Known>,
    written: BTreeMap<RecordId, Written>,
    /// Where the parked rows of the batch's records stand in their lanes.
    places: HashMap<RecordId, (LaneId, u64)>,
    lanes: HashMap<LaneId, LaneRows>,
    /// Ids of fences.
    fences: HashSet<Vec<u8>>,
    state: HashMap<StateKey, Value>,
    /// The oldest outgoing message of a lane.
    oldest: HashMap<LaneId, Version>,
    outbox: Vec<OutboxRow>,
    letters: BTreeMap<DeadLetterId, DeadLetter>,
}

impl Facts {
    pub(super) fn new(sets: &mut [Set], asked: &Questions) -> Result<Self, StoreError> {
        let (version, time_ms) = locked(sets, asked.sequence)?;
        let mut facts = Self {
            version,
            time_ms,
            horizons: HashMap::new(),
            known: HashMap::new(),
            written: BTreeMap::new(),
            places: HashMap::new(),
            lanes: HashMap::new(),
            fences: HashSet::new(),
            state: HashMap::new(),
            oldest: HashMap::new(),
            outbox: Vec::new(),
            letters: BTreeMap::new(),
        };
        for mut row in take(sets, asked.horizons) {
            facts.horizons.insert(row.plugin()?, row.number()?);
        }
        for mut row in take(sets, asked.records) {
            let id = row.record()?;
            let kind = row.number()?;
            let entry = Entry {
                run: row.run()?,
                fingerprint: Fingerprint::from_bytes(row.id()?),
                version: row.number()?,
                parked: None,
            };
            let (bucket, parked) = (row.number_or_null()?, row.number_or_null()?);
            let entry = Entry { parked, ..entry };
            facts.known.insert(
                id,
                Known {
                    entry,
                    kind,
                    bucket,
                },
            );
        }
        for mut row in take(sets, asked.rows) {
            let id = row.record()?;
            let (lane, offset) = (row.bytes_or_null()?, row.number()?);
            if let Some(lane) = lane.and_then(|lane| lane[..].try_into().ok()) {
                facts.place(id, lane, offset);
            }
        }
        if let Some(at) = asked.lanes {
            for mut row in take(sets, at) {
                let (lane, first) = (row.id()?, row.number()?);
                facts.lanes.entry(lane).or_default().others = Some(first);
            }
        }
        for mut row in take(sets, asked.fences) {
            facts.fences.insert(row.bytes()?.to_vec());
        }
        for (at, with_value) in [(asked.versions, false), (asked.values, true)] {
            let Some(at) = at else { continue };
            for mut row in take(sets, at) {
                let key = row.state_key()?;
                let value = Value {
                    version: row.number()?,
                    value: with_value.then(|| row.bytes()).transpose()?,
                    is_stored: true,
                    is_written: false,
                };
                facts.state.insert(key, value);
            }
        }
        if let Some(at) = asked.outbox {
            for mut row in take(sets, at) {
                facts.oldest.insert(row.id()?, row.number()?);
            }
        }
        Ok(facts)
    }

    fn unplace(&mut self, id: &RecordId) {
        if let Some((lane, offset)) = self.places.remove(id)
            && let Some(rows) = self.lanes.get_mut(&lane)
        {
            rows.own.remove(&(offset, id.key.clone()));
        }
    }

    fn place(&mut self, id: RecordId, lane: LaneId, offset: u64) {
        let lane_rows = self.lanes.entry(lane).or_default();
        lane_rows.own.insert((offset, id.key.clone()));
        self.places.insert(id, (lane, offset));
    }

    fn horizon_of(&self, plugin: &PluginName) -> u64 {
        self.horizons.get(plugin).copied().unwrap_or(0)
    }

    /// Whether anything is to be written.
    pub(super) fn has_changes(&self) -> bool {
        !self.written.is_empty()
    }

    /// Writes what the batch leaves. New records are inserted and nothing else: if one of them
    /// is there after all, the unique index refuses the whole transaction.
    pub(super) fn write(&self, script: &mut Script, words: &Words, tables: &Tables) {
        let (known, fresh): (Vec<_>, Vec<_>) = self
            .written
            .iter()
            .partition(|(id, _)| self.known.contains_key(*id));
        let head = format!(
            "INSERT INTO {} (id, plugin, kind, run, fingerprint, version, bucket, parked, reply) \
             VALUES ",
            tables.record
        );
        let columns = [
            "kind",
            "run",
            "fingerprint",
            "version",
            "bucket",
            "parked",
            "reply",
        ];
        let replacing = words.or_update("id", &columns);
        for (records, tail) in [(fresh, ""), (known, &*replacing)] {
            script.insert(&head, tail, records, |row, (id, record)| {
                let (kind, bucket, parked, reply) = match &record.fate {
                    Kept::Done { reply, bucket } => (DONE, Some(*bucket), None, reply.as_ref()),
                    Kept::Parked(_) => (PARKED, None, Some(record.version), None),
                    Kept::Dead => (DEAD, None, None, None),
                };
                row.bytes(&record_id(id))
                    .bytes(id.plugin.as_str().as_bytes())
                    .number(kind)
                    .bytes(record.run.as_bytes())
                    .bytes(record.fingerprint.as_bytes())
                    .number(record.version)
                    .number_or_null(bucket)
                    .number_or_null(parked)
                    .bytes_or_null(reply.map(|reply| &reply[..]));
            });
        }
        let was_parked = |id: &RecordId| self.known.get(id).is_some_and(|it| it.kind == PARKED);
        let unparked = self
            .written
            .iter()
            .filter(|(id, record)| was_parked(id) && !matches!(record.fate, Kept::Parked(_)));
        let unparked: Vec<_> = unparked.map(|(id, _)| record_id(id)).collect();
        if !unparked.is_empty() {
            let which = words.id_in(unparked);
            script.add(&format!("DELETE FROM {} WHERE {which}", tables.parked));
        }
        let parked = self
            .written
            .values()
            .filter_map(|record| match &record.fate {
                Kept::Parked(row) => Some((&**row, record.version)),
                _ => None,
            });
        insert_parked(script, words, tables, parked);
        self.write_values(script, words, tables);
        insert_outbox(script, tables, "", &self.outbox);
        let letters = self.letters.values();
        let replacing = words.or_update("id", &["plugin", "letter"]);
        insert_letters(script, tables, &replacing, letters);
        unlock(script, tables, self.version, self.time_ms);
    }

    fn write_values(&self, script: &mut Script, words: &Words, tables: &Tables) {
        let written = self.state.iter().filter(|(_, value)| value.is_written);
        let mut written: Vec<_> = written.collect();
        written.sort_unstable_by_key(|(key, _)| *key);
        let gone = written
            .iter()
            .filter(|(_, value)| value.value.is_none() && value.is_stored);
        let gone: Vec<_> = gone.map(|(key, _)| state_id(key)).collect();
        if !gone.is_empty() {
            let which = words.id_in(gone);
            script.add(&format!("DELETE FROM {} WHERE {which}", tables.state));
        }
        let kept = written.iter().filter_map(|(key, value)| {
            let bytes = value.value.as_ref()?;
            Some((*key, value.version, bytes))
        });
        let head = format!("INSERT INTO {} (id, version, value) VALUES ", tables.state);
        let replacing = words.or_update("id", &["version", "value"]);
        script.insert(&head, &replacing, kept, |row, (key, version, value)| {
            row.bytes(&state_id(key)).number(version).bytes(value);
        });
    }
}

impl Book for Facts {
    type Error = StoreError;

    fn find(&mut self, id: &RecordId) -> Result<Option<Entry>, StoreError> {
        if let Some(written) = self.written.get(id) {
            let parked = matches!(written.fate, Kept::Parked(_));
            return Ok(Some(Entry {
                run: written.run,
                version: written.version,
                fingerprint: written.fingerprint,
                parked: parked.then_some(written.version),
            }));
        }
        let horizon = self.horizon_of(&id.plugin);
        let known = self.known.get(id);
        let known = known.filter(|it| it.bucket.is_none_or(|bucket| bucket >= horizon));
        Ok(known.map(|it| it.entry))
    }

    fn horizon(&mut self, plugin: &PluginName) -> Result<u64, StoreError> {
        Ok(self.horizon_of(plugin))
    }

    fn is_fenced(&mut self, plugin: &PluginName, run: RunId) -> Result<bool, StoreError> {
        Ok(!self.fences.is_empty() && self.fences.contains(&fence_id(plugin, run)))
    }

    fn is_behind(&mut self, plugin: &PluginName, at: &LanePosition) -> Result<bool, StoreError> {
        let Some(rows) = self.lanes.get(&lane_id(plugin, at)) else {
            return Ok(false);
        };
        let own = rows.own.first().map(|(offset, _)| *offset);
        let first = own.into_iter().chain(rows.others).min();
        Ok(first.is_some_and(|first| first < at.offset))
    }

    fn version(&mut self, key: &StateKey) -> Result<Version, StoreError> {
        Ok(self.state.get(key).map_or(0, |value| value.version))
    }

    fn value(&mut self, key: &StateKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state.get(key).and_then(|value| value.value.clone()))
    }

    fn is_clear(&mut self, lane: &OutboxLane, below: Version) -> Result<bool, StoreError> {
        let oldest = self.oldest.get(&outbox_lane_id(lane));
        Ok(oldest.is_none_or(|oldest| *oldest >= below))
    }

    fn next_version(&mut self) -> Result<Version, StoreError> {
        self.version += 1;
        Ok(self.version)
    }

    fn write_state(
        &mut self,
        key: &StateKey,
        version: Version,
        value: Option<Bytes>,
    ) -> Result<Version, StoreError> {
        check_length(
            "a state value's namespace",
            key.namespace.as_bytes(),
            MAX_NAME_BYTES,
        )?;
        check_length("a state value's name", key.name.as_bytes(), MAX_KEY_BYTES)?;
        let kept = self.state.entry(key.clone()).or_default();
        let before = kept.version;
        kept.version = if value.is_some() { version } else { 0 };
        kept.value = value;
        kept.is_written = true;
        Ok(before)
    }

    fn write_outbox(&mut self, rows: Vec<OutboxRow>) -> Result<(), StoreError> {
        for lane in rows
            .iter()
            .filter_map(|row| row.lane.as_ref().map(|l| (l, row.id)))
        {
            let (lane, id) = (outbox_lane_id(lane.0), lane.1);
            self.oldest.entry(lane).or_insert(id.version);
        }
        self.outbox.extend(rows);
        Ok(())
    }

    fn write_record(&mut self, run: &Run, version: Version, fate: Fate) -> Result<(), StoreError> {
        let id = &run.record;
        check_length(
            "a plugin's name",
            id.plugin.as_str().as_bytes(),
            MAX_NAME_BYTES,
        )?;
        check_length("a business key", id.key.as_bytes(), MAX_KEY_BYTES)?;
        self.unplace(id);
        let fate = match fate {
            Fate::Done(reply) => Kept::Done {
                reply: reply.cloned(),
                bucket: self.time_ms.max(self.horizon_of(&id.plugin)),
            },
            Fate::Parked(row) => {
                if let Some(at) = row.lane_position() {
                    self.place(id.clone(), lane_id(&id.plugin, &at), at.offset);
                }
                Kept::Parked(row)
            }
            Fate::Dead(letter) => {
                self.letters.insert(letter.id.clone(), letter.clone());
                Kept::Dead
            }
        };
        let written = Written {
            run: run.id,
            version,
            fingerprint: run.fingerprint,
            fate,
        };
        self.written.insert(id.clone(), written);
        Ok(())
    }
}
