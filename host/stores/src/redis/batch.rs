//! A batch of runs as the commit script takes it, and its answer.

use std::collections::HashMap;
use std::sync::Arc;

use semel_core::{
    Cause, Expected, OutboxLane, Outcome, Outgoing, Park, PluginName, RecordId, RowId, Run,
    StateKey, StateOp, Verdict,
};
use serde::Serialize;

use super::keys::{Keys, lane, outbox_lane};
use super::pack::Pack;
use super::record::{DEAD, DONE, DONE_WITH_REPLY, PARKED, latest};
use super::{DEFAULT_RETENTION_MS, EXPIRY_MARGIN_MS};
use crate::codec::encode;

/// What a script is called with.
pub(super) struct Call {
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) batch: Vec<u8>,
}

/// An [`OutboxRow`](semel_core::OutboxRow) as [`Run::outbox_rows`] makes it, without a copy of
/// the message. Same form; the id is that of the script's making.
#[derive(Serialize)]
struct NewOutboxRow<'a> {
    id: RowId,
    plugin: &'a PluginName,
    message_id: semel_core::MessageId,
    lane: Option<&'a OutboxLane>,
    due_ms: u64,
    outgoing: &'a Outgoing,
}

/// Things that are named once and then meant by their number, from 1.
struct Numbered<T> {
    numbers: HashMap<T, usize>,
    in_order: Vec<T>,
}

impl<T: Clone + Eq + std::hash::Hash> Numbered<T> {
    fn new() -> Self {
        Self {
            numbers: HashMap::new(),
            in_order: Vec::new(),
        }
    }

    fn number(&mut self, thing: &T) -> usize {
        if let Some(&number) = self.numbers.get(thing) {
            return number;
        }
        self.in_order.push(thing.clone());
        self.numbers.insert(thing.clone(), self.in_order.len());
        self.in_order.len()
    }
}

/// What the runs are about.
struct Index {
    plugins: Numbered<PluginName>,
    records: Numbered<RecordId>,
    states: Numbered<StateKey>,
    /// What the script must know of each stored value, by number.
    needs: Vec<u8>,
    namespaces: Numbered<Arc<str>>,
}

/// A blind write needs nothing, a read its version, an addition the value.
const NOTHING: u8 = 0;
const VERSION: u8 = 1;
const VALUE: u8 = 2;

impl Index {
    fn state(&mut self, key: &StateKey, needs: u8) -> u64 {
        let number = self.states.number(key);
        self.needs.resize(self.states.in_order.len(), NOTHING);
        let known = &mut self.needs[number - 1];
        *known = needs.max(*known);
        number as u64
    }
}

impl Call {
    /// Packs a batch.
    pub(super) fn new(keys: &Keys, runs: &[Run]) -> Self {
        let mut index = Index {
            plugins: Numbered::new(),
            records: Numbered::new(),
            states: Numbered::new(),
            needs: Vec::new(),
            namespaces: Numbered::new(),
        };
        let mut packed_runs = Pack::default();
        packed_runs.array(runs.len());
        for run in runs {
            pack_run(&mut packed_runs, run, &mut index);
        }
        let mut all = keys.fixed().to_vec();
        all.extend(index.records.in_order.iter().map(|id| keys.record(id)));
        all.extend(index.states.in_order.iter().map(|key| keys.state(key)));

        let mut batch = Pack::default();
        batch.array(6);
        for record in &index.records.in_order {
            index.plugins.number(&record.plugin);
        }
        batch.array(index.plugins.in_order.len());
        for plugin in &index.plugins.in_order {
            all.extend([keys.due(plugin), keys.fences(plugin)]);
            let due = all.len() as u64 - 1;
            batch.array(2).bytes(plugin.as_str().as_bytes()).number(due);
        }
        batch.array(index.records.in_order.len());
        for record in &index.records.in_order {
            let plugin = index.plugins.number(&record.plugin) as u64;
            batch.array(2).number(plugin).bytes(record.key.as_bytes());
        }
        let names_at = all.len();
        batch.array(index.states.in_order.len());
        for (key, needs) in index.states.in_order.iter().zip(&index.needs) {
            let names = names_at + index.namespaces.number(&key.namespace);
            batch
                .array(3)
                .number(u64::from(*needs))
                .number(names as u64)
                .bytes(key.name.as_bytes());
        }
        let namespaces = &index.namespaces.in_order;
        all.extend(namespaces.iter().map(|namespace| keys.names(namespace)));
        let mut batch = batch.into_bytes();
        batch.extend_from_slice(&packed_runs.into_bytes());
        let mut settings = Pack::default();
        settings
            .number(DEFAULT_RETENTION_MS)
            .number(EXPIRY_MARGIN_MS);
        batch.extend_from_slice(&settings.into_bytes());
        Self { keys: all, batch }
    }
}

fn pack_run(pack: &mut Pack, run: &Run, index: &mut Index) {
    let plugin = &run.record.plugin;
    let at = run.lane_position();
    pack.array(15)
        .number(index.records.number(&run.record) as u64);
    let (kind, waits) = match &run.verdict {
        Verdict::Done(effects) if effects.reply.is_some() => (DONE_WITH_REPLY, false),
        Verdict::Done(_) => (DONE, false),
        Verdict::Park(Park { behind, .. }) => (PARKED, *behind),
        Verdict::Dead(_) => (DEAD, false),
    };
    pack.bytes_of(&[&[kind], run.id.as_bytes(), run.fingerprint.as_bytes()]);
    pack.number(run.bucket);
    let conditional = match &run.verdict {
        Verdict::Done(_) => false,
        Verdict::Park(_) => true,
        Verdict::Dead(letter) => letter.cause == Cause::Exhausted,
    };
    match run.expected {
        _ if !conditional => pack.minus_one(),
        Expected::Absent => pack.number(0),
        Expected::Parked(version) => pack.number(version),
    };
    match &at {
        Some(at) => pack
            .bytes(&lane(plugin, at))
            .bytes(&at.offset.to_be_bytes()),
        None => pack.bytes(b"").bytes(b""),
    };
    pack.number(u64::from(waits));
    let seen: usize = run.reads.iter().map(|read| 3 + read.seen.len()).sum();
    pack.array(seen);
    for read in &run.reads {
        pack.number(index.state(&read.key, VERSION))
            .number(read.base)
            .number(read.seen.len() as u64);
        for run in &read.seen {
            pack.number(u64::from(*run));
        }
    }
    match &run.verdict {
        Verdict::Done(effects) => {
            pack.array(3 * effects.writes.len());
            for write in &effects.writes {
                let needs = match write.op {
                    StateOp::Put(_) | StateOp::Delete => NOTHING,
                    StateOp::Add(_) => VALUE,
                };
                pack.number(index.state(&write.key, needs));
                match &write.op {
                    StateOp::Put(value) => pack.number(0).bytes(value),
                    StateOp::Delete => pack.number(1).bytes(b""),
                    StateOp::Add(delta) => pack.number(2).bytes(delta.to_string().as_bytes()),
                };
            }
            pack_outgoing(pack, run, &effects.outgoing);
            pack.bytes(effects.reply.as_deref().unwrap_or_default());
            pack.bytes(b"").bytes(b"").bytes(b"");
        }
        Verdict::Park(Park { row, .. }) => {
            pack.array(0).bytes(b"").array(0);
            pack.bytes(&encode(&**row));
            pack.bytes(&latest(row.due_ms).to_be_bytes());
            match row.lane_position() {
                Some(at) => pack
                    .bytes(&lane(plugin, &at))
                    .bytes(&at.offset.to_be_bytes()),
                None => pack.bytes(b"").bytes(&[0; 8]),
            };
        }
        Verdict::Dead(letter) => {
            pack.array(0).bytes(b"").array(0);
            pack.bytes(&encode(&**letter));
            pack.bytes(letter.id.as_str().as_bytes());
            pack.bytes(b"").bytes(b"");
        }
    }
}

/// The lane that the run publishes in, or nothing, and its messages.
fn pack_outgoing(pack: &mut Pack, run: &Run, outgoing: &[Outgoing]) {
    let lane = run.lane.as_ref().map(|lane| OutboxLane {
        plugin: run.record.plugin.clone(),
        lane: lane.clone(),
    });
    let in_lane = outgoing.iter().any(|out| out.delay_ms.is_none());
    match lane.as_ref().filter(|_| in_lane) {
        Some(lane) => pack.bytes(&outbox_lane(&lane.plugin, &lane.lane)),
        None => pack.bytes(b""),
    };
    pack.array(2 * outgoing.len());
    for (ordinal, outgoing) in (0..).zip(outgoing) {
        let lane = lane.as_ref().filter(|_| outgoing.delay_ms.is_none());
        let delayed = |ms| run.ended_ms.saturating_add(ms);
        let row = NewOutboxRow {
            id: RowId {
                version: 0,
                ordinal,
            },
            plugin: &run.record.plugin,
            message_id: semel_core::MessageId::derive(&run.record, ordinal),
            lane,
            due_ms: outgoing.delay_ms.map_or(0, delayed),
            outgoing,
        };
        pack.number(u64::from(lane.is_some())).bytes(&encode(&row));
    }
}

/// The script's answer, or none where it makes no sense.
pub(super) fn outcomes(runs: &[Run], answer: &[u64]) -> Option<Vec<Outcome>> {
    let (pairs, rest) = answer.as_chunks::<2>();
    if pairs.len() != runs.len() || !rest.is_empty() {
        return None;
    }
    let outcomes = runs.iter().zip(pairs).map(|(run, &[code, number])| {
        Some(match code {
            0 | 1 => Outcome::Applied {
                version: number,
                outbox_clear: code == 0,
            },
            2 => Outcome::Duplicate,
            3 => Outcome::Mismatch,
            4 => Outcome::AlreadyParked,
            5 => Outcome::Behind,
            6 => Outcome::Conflict,
            7 => match &run.verdict {
                Verdict::Done(effects) => {
                    let write = effects.writes.get(usize::try_from(number).ok()?)?;
                    Outcome::NotACounter(write.key.clone())
                }
                Verdict::Park(_) | Verdict::Dead(_) => return None,
            },
            _ => return None,
        })
    });
    outcomes.collect()
}
