//! What a commit asks a database, with the lock of all commits first.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use semel_core::decide::published_lane;
use semel_core::{
    PluginName, RecordId, Run, RunId, StateKey, StateOp, StoreError, Verdict, Version,
};

use super::answer::{Set, take};
use super::schema::{LaneId, Tables, fence_id, lane_id, outbox_lane_id, record_id, state_id};
use super::text::{Script, Words, signed};

/// The questions about a batch, and which answer is to which.
pub(super) struct Questions {
    pub(super) sequence: usize,
    pub(super) horizons: usize,
    pub(super) records: usize,
    pub(super) rows: usize,
    pub(super) lanes: Option<usize>,
    pub(super) fences: usize,
    pub(super) versions: Option<usize>,
    pub(super) values: Option<usize>,
    pub(super) outbox: Option<usize>,
}

impl Questions {
    /// Asks, with the lock first: each later statement sees all that earlier holders wrote.
    pub(super) fn ask(script: &mut Script, words: &Words, tables: &Tables, runs: &[Run]) -> Self {
        let of = Subjects::of(runs);
        let names = of.plugins.iter().map(|plugin| plugin.as_str().as_bytes());
        let its_records = words.id_in(of.records.iter().map(record_id));
        let fences = of.fences.iter();
        let fences = fences.map(|(plugin, run)| fence_id(plugin, *run));
        let (values, versions): (Vec<_>, Vec<_>) = of.state.iter().partition(|(_, value)| **value);
        script.add(words.begin);
        let sequence = script.add(&lock(words, tables));
        let horizons = script.add(&format!(
            "SELECT plugin, bucket FROM {} WHERE plugin IN {}",
            tables.horizon,
            words.list(names)
        ));
        let records = script.add(&format!(
            "SELECT id, kind, run, fingerprint, version, bucket, parked FROM {} WHERE {}",
            tables.record, its_records
        ));
        let rows = script.add(&format!(
            "SELECT id, lane, pos FROM {} WHERE {}",
            tables.parked, its_records
        ));
        // Its own rows may go in this batch, so only the others' first one is settled.
        let lanes = (!of.lanes.is_empty()).then(|| {
            script.add(&format!(
                "SELECT lane, MIN(pos) FROM {} WHERE lane IN {} AND NOT ({}) GROUP BY lane",
                tables.parked,
                words.list(of.lanes.iter().map(|lane| &lane[..])),
                its_records
            ))
        });
        let fences = script.add(&format!(
            "SELECT id FROM {} WHERE {}",
            tables.fence,
            words.id_in(fences)
        ));
        let mut state = |columns: &str, keys: Vec<(&StateKey, &bool)>| {
            (!keys.is_empty()).then(|| {
                script.add(&format!(
                    "SELECT id, {columns} FROM {} WHERE {}",
                    tables.state,
                    words.id_in(keys.iter().map(|(key, _)| state_id(key)))
                ))
            })
        };
        let versions = state("version", versions);
        let values = state("version, value", values);
        let outbox = (!of.outbox_lanes.is_empty()).then(|| {
            script.add(&format!(
                "SELECT lane, MIN(version) FROM {} WHERE lane IN {} GROUP BY lane",
                tables.outbox,
                words.list(of.outbox_lanes.iter().map(|lane| &lane[..]))
            ))
        });
        Self {
            sequence,
            horizons,
            records,
            rows,
            lanes,
            fences,
            versions,
            values,
            outbox,
        }
    }
}

/// What the runs of a batch are about.
#[derive(Default)]
struct Subjects {
    plugins: BTreeSet<PluginName>,
    records: BTreeSet<RecordId>,
    lanes: HashSet<LaneId>,
    fences: BTreeSet<(PluginName, RunId)>,
    /// Whether the value is needed, or only its version.
    state: BTreeMap<StateKey, bool>,
    outbox_lanes: HashSet<LaneId>,
}

impl Subjects {
    fn of(runs: &[Run]) -> Self {
        let mut of = Self::default();
        for run in runs {
            let plugin = &run.record.plugin;
            of.plugins.insert(plugin.clone());
            of.records.insert(run.record.clone());
            of.fences.insert((plugin.clone(), run.id));
            let at = run.lane_position();
            of.lanes.extend(at.map(|at| lane_id(plugin, &at)));
            for read in &run.reads {
                of.state.entry(read.key.clone()).or_default();
            }
            if let Verdict::Done(effects) = &run.verdict {
                for write in &effects.writes {
                    let value = of.state.entry(write.key.clone()).or_default();
                    *value |= matches!(write.op, StateOp::Add(_));
                }
            }
            let lane = published_lane(run);
            of.outbox_lanes.extend(lane.as_ref().map(outbox_lane_id));
        }
        of
    }
}

/// Takes the lock of all commits: version, time and the server's time.
pub(super) fn lock(words: &Words, tables: &Tables) -> String {
    format!(
        "SELECT version, bucket, {} FROM {} WHERE id = 1 FOR UPDATE",
        words.now_ms, tables.sequence
    )
}

/// What [`lock`] answers: the last version, and the store's time, which never goes back.
pub(super) fn locked(sets: &mut [Set], at: usize) -> Result<(Version, u64), StoreError> {
    let mut rows = take(sets, at);
    let row = rows.first_mut().ok_or_else(|| {
        StoreError::failed(
            "the database: the store's sequence is gone: restore its tables from a backup",
        )
    })?;
    let (version, bucket, now_ms) = (row.number()?, row.number()?, row.number()?);
    Ok((version, bucket.max(now_ms)))
}

/// Notes version and time, and commits.
pub(super) fn unlock(script: &mut Script, tables: &Tables, version: Version, time_ms: u64) {
    script.add(&format!(
        "UPDATE {} SET version = {}, bucket = {} WHERE id = 1",
        tables.sequence,
        signed(version),
        signed(time_ms)
    ));
    script.add("COMMIT");
}
