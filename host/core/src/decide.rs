//! The decision of [`Store::commit`](crate::Store::commit): which runs of a batch are applied.
//!
//! It is pure: what it must know and what it leaves behind stand behind a [`Book`]. A store
//! that can run Rust in its transaction lends it one, and has the protocol's rules from here
//! and not from a copy.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    AfterMiss, Cause, DeadLetter, Effects, Expected, Fingerprint, Lane, LanePosition, Miss,
    OutboxLane, OutboxRow, Outcome, Park, ParkedRow, Partition, PluginName, Read, RecordId, Run,
    RunId, StateKey, StateOp, Statement, Verdict, Version,
};

/// What a commit looks up and writes. Whatever was written is found by later look-ups. Nobody
/// else may write to it from the first look-up to the end of the transaction.
pub trait Book {
    /// Why a look-up or a write may fail.
    type Error;

    /// A record. One that is done and expired is not there.
    fn find(&mut self, id: &RecordId) -> Result<Option<Entry>, Self::Error>;

    /// Done records and checks of buckets below this do not count any more.
    fn horizon(&mut self, plugin: &PluginName) -> Result<u64, Self::Error>;

    /// Whether a run must not be committed any more.
    fn is_fenced(&mut self, plugin: &PluginName, run: RunId) -> Result<bool, Self::Error>;

    /// Whether a parked row of the plugin, partition and lane has a smaller offset.
    fn is_behind(&mut self, plugin: &PluginName, at: &LanePosition) -> Result<bool, Self::Error>;

    /// The version of a state value; 0 if it isn't there.
    fn version(&mut self, key: &StateKey) -> Result<Version, Self::Error>;

    /// A state value. Only asked of keys that an addition writes to.
    fn value(&mut self, key: &StateKey) -> Result<Option<Bytes>, Self::Error>;

    /// Whether no outgoing message of the lane below this version waits.
    fn is_clear(&mut self, lane: &OutboxLane, below: Version) -> Result<bool, Self::Error>;

    /// The next number of the store's sequence.
    fn next_version(&mut self) -> Result<Version, Self::Error>;

    /// Keeps a value, or removes it. Returns the version that it had; 0 if it wasn't there.
    fn write_state(
        &mut self,
        key: &StateKey,
        version: Version,
        value: Option<Bytes>,
    ) -> Result<Version, Self::Error>;

    /// Keeps outgoing messages.
    fn write_outbox(&mut self, rows: Vec<OutboxRow>) -> Result<(), Self::Error>;

    /// Keeps a record in place of what there was of it, also of its parked row.
    fn write_record(&mut self, run: &Run, version: Version, fate: Fate) -> Result<(), Self::Error>;
}

/// What a record bears: the run that wrote it last and that run's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The run.
    pub run: RunId,
    /// Its number.
    pub version: Version,
    /// Of the message.
    pub fingerprint: Fingerprint,
    /// The version of the parked row, unless the record is done or dead.
    pub parked: Option<Version>,
}

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate<'a> {
    /// Done, with a reply or without.
    Done(Option<&'a Bytes>),
    /// Parked. The row bears the version that it is written with.
    Parked(Box<ParkedRow>),
    /// Dead, with the letter to keep.
    Dead(&'a DeadLetter),
}

/// Why later runs of a lane are not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    /// A run of it was parked: those that wait may be parked behind it.
    Parked,
    /// A run of it is recorded nowhere, so nothing may go or wait before it.
    Refused,
}

/// Decides about the runs of a batch in order, and writes what is applied. The outcomes are in
/// the order of the runs. For stores that keep no tables of the user's.
pub fn decide<B: Book>(book: &mut B, runs: &[Run]) -> Result<Vec<Outcome>, B::Error> {
    decide_with(book, runs, |_| Some(no_tables()))
}

/// What becomes of statements where the store keeps no tables of the user's.
pub fn no_tables() -> Miss {
    Miss {
        reason: "the store keeps no tables for statements".to_owned(),
        then: AfterMiss::Retry,
    }
}

/// As [`decide`], where `carry_out` carries out the statements of a run, all or none, or says how
/// they missed.
pub fn decide_with<B: Book>(
    book: &mut B,
    runs: &[Run],
    mut carry_out: impl FnMut(&[Statement]) -> Option<Miss>,
) -> Result<Vec<Outcome>, B::Error> {
    let mut decision = Decision::default();
    for run in runs {
        let outcome = match decision.judge(book, run)? {
            Some(outcome) => outcome,
            None if run.statements().is_empty() => decision.apply(book, run)?,
            None => match carry_out(run.statements()) {
                Some(miss) => Outcome::Missed(miss),
                None => decision.apply(book, run)?,
            },
        };
        decision.note(run, outcome);
    }
    Ok(decision.into_outcomes())
}

/// The decision about a batch, run by run: each is [judged](Self::judge), [applied](Self::apply)
/// if nothing stands against it, and what became of it is [noted](Self::note).
#[derive(Debug, Default)]
pub struct Decision {
    outcomes: Vec<Outcome>,
    /// Lanes in which a run was not carried through.
    held: HashMap<(PluginName, Partition, Lane), Hold>,
    /// The values written: the version before the batch and the runs that wrote.
    written: HashMap<StateKey, (Version, Vec<u32>)>,
}

impl Decision {
    /// Tests 1 to 8 of [`Store::commit`](crate::Store::commit): the outcome, unless the run may
    /// be applied.
    pub fn judge<B: Book>(&self, book: &mut B, run: &Run) -> Result<Option<Outcome>, B::Error> {
        let plugin = &run.record.plugin;
        let entry = book.find(&run.record)?;
        if let Some(entry) = &entry {
            if entry.run == run.id {
                return applied(book, run, entry.version).map(Some);
            }
            if entry.fingerprint != run.fingerprint {
                return Ok(Some(Outcome::Mismatch));
            }
            if entry.parked.is_none() {
                return Ok(Some(Outcome::Duplicate));
            }
        }
        if run.bucket < book.horizon(plugin)? || book.is_fenced(plugin, run.id)? {
            return Ok(Some(Outcome::Conflict));
        }
        if let Some(lane) = &run.lane
            && let Some(hold) = self.held.get(&lane_of(run, lane))
            && !(is_waiting(&run.verdict) && *hold == Hold::Parked)
        {
            return Ok(Some(Outcome::Conflict));
        }
        let parked = entry.and_then(|entry| entry.parked);
        let found = parked.map_or(Expected::Absent, Expected::Parked);
        if is_conditional(&run.verdict) && found != run.expected {
            return Ok(Some(Outcome::AlreadyParked));
        }
        if !is_waiting(&run.verdict)
            && let Some(at) = run.lane_position()
            && book.is_behind(plugin, &at)?
        {
            return Ok(Some(Outcome::Behind));
        }
        for read in &run.reads {
            if !self.stands(book, read)? {
                return Ok(Some(Outcome::Conflict));
            }
        }
        if let Verdict::Done(effects) = &run.verdict {
            return find_bad_sum(book, effects);
        }
        Ok(None)
    }

    /// Step 10 of [`Store::commit`](crate::Store::commit), but for statements on the user's own
    /// tables, which are carried out by then.
    pub fn apply<B: Book>(&mut self, book: &mut B, run: &Run) -> Result<Outcome, B::Error> {
        let version = book.next_version()?;
        let fate = match &run.verdict {
            Verdict::Done(effects) => {
                self.write_state(book, effects, version)?;
                book.write_outbox(run.outbox_rows(version))?;
                Fate::Done(effects.reply.as_ref())
            }
            Verdict::Park(Park { row, .. }) => {
                let mut row = row.clone();
                row.version = version;
                Fate::Parked(row)
            }
            Verdict::Dead(letter) => Fate::Dead(letter),
        };
        book.write_record(run, version, fate)?;
        applied(book, run, version)
    }

    /// Learns what became of a run. The next one is judged after that.
    pub fn note(&mut self, run: &Run, outcome: Outcome) {
        if let Some(lane) = &run.lane
            && let Some(hold) = hold(run, &outcome)
        {
            let held = self.held.entry(lane_of(run, lane)).or_insert(hold);
            *held = hold.max(*held);
        }
        self.outcomes.push(outcome);
    }

    /// The outcomes, in the order of the runs.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    fn stands<B: Book>(&self, book: &mut B, read: &Read) -> Result<bool, B::Error> {
        Ok(match self.written.get(&read.key) {
            Some((base, runs)) => *base == read.base && *runs == read.seen,
            None => read.seen.is_empty() && book.version(&read.key)? == read.base,
        })
    }

    fn write_state<B: Book>(
        &mut self,
        book: &mut B,
        effects: &Effects,
        version: Version,
    ) -> Result<(), B::Error> {
        let index = u32::try_from(self.outcomes.len()).expect("a batch fits 32 bits");
        for write in &effects.writes {
            let before = match write.op {
                StateOp::Add(_) => book.value(&write.key)?,
                StateOp::Put(_) | StateOp::Delete => None,
            };
            let after = write.op.apply(before.as_ref());
            let after = after.expect("additions were tested before");
            let base = book.write_state(&write.key, version, after)?;
            let written = self.written.entry(write.key.clone());
            let (_, runs) = written.or_insert((base, Vec::new()));
            if runs.last() != Some(&index) {
                runs.push(index);
            }
        }
        Ok(())
    }
}

fn find_bad_sum<B: Book>(book: &mut B, effects: &Effects) -> Result<Option<Outcome>, B::Error> {
    for write in &effects.writes {
        if matches!(write.op, StateOp::Add(_)) {
            let before = book.value(&write.key)?;
            if write.op.apply(before.as_ref()).is_err() {
                return Ok(Some(Outcome::NotACounter(write.key.clone())));
            }
        }
    }
    Ok(None)
}

fn applied<B: Book>(book: &mut B, run: &Run, version: Version) -> Result<Outcome, B::Error> {
    let outbox_clear = match published_lane(run) {
        Some(lane) => book.is_clear(&lane, version)?,
        None => true,
    };
    Ok(Outcome::Applied {
        version,
        outbox_clear,
    })
}

/// The lane that a run publishes in, if it publishes in one.
pub fn published_lane(run: &Run) -> Option<OutboxLane> {
    let Verdict::Done(effects) = &run.verdict else {
        return None;
    };
    let at_once = effects.outgoing.iter().any(|out| out.delay_ms.is_none());
    let lane = run.lane.as_ref().filter(|_| at_once)?;
    Some(OutboxLane {
        plugin: run.record.plugin.clone(),
        lane: lane.clone(),
    })
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

/// Whether later runs of the lane are held after this outcome.
fn hold(run: &Run, outcome: &Outcome) -> Option<Hold> {
    match outcome {
        Outcome::Duplicate => None,
        Outcome::Applied { .. } => matches!(run.verdict, Verdict::Park(_)).then_some(Hold::Parked),
        _ => Some(Hold::Refused),
    }
}
