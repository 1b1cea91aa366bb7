//! The store: everything durable, and the one transaction that decides.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Cause, Expected, Fingerprint, Key, Message, Outcome, Park, Place, Read, Rule, Rules, Run,
    RunId, StateKey, StateOp, Value, Verdict, Version, Write,
};

/// Each method is one linearizable transaction, durable when it returns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    /// The last number given out.
    pub sequence: Version,
    /// One record per business key; those that are absent are not here.
    pub records: BTreeMap<Key, Record>,
    /// Messages whose key was used by another payload.
    pub mismatches: BTreeSet<Message>,
    /// What handlers keep. What is absent is not here.
    pub state: BTreeMap<StateKey, (Version, u8)>,
    /// Outgoing messages by the commit that wrote them.
    pub outbox: BTreeMap<Version, OutboxRow>,
    /// What was written, in order. No rule looks at it; the invariants do.
    pub history: Vec<Event>,
}

/// What a record bears.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The run that wrote it last.
    pub run: RunId,
    /// Of the message that it is about.
    pub fingerprint: Fingerprint,
    /// What became of that message.
    pub state: RecordState,
}

/// The state of one business key. `Done` and `Dead` are terminal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RecordState {
    /// Waiting to be run again.
    Parked(ParkedRow),
    /// Its effects are applied.
    Done,
    /// A dead letter; `None` after the operator dropped it.
    Dead(Option<Message>),
}

/// A message that waits in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParkedRow {
    /// The message.
    pub message: Message,
    /// How many runs failed so far.
    pub attempt: u8,
    /// The write that put it here.
    pub version: Version,
}

/// An outgoing message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboxRow {
    /// The message whose handler sent it.
    pub message: Message,
    /// What it says: runs that read different things say different things.
    pub body: RunId,
}

/// Something that was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A run was applied in this commit.
    Applied(Version, Run),
    /// A dead letter was replayed.
    Replayed(Version, Key),
}

/// The answer to a check.
#[derive(Clone, Debug)]
pub struct Checked<'a> {
    /// The record, if there is one.
    pub record: Option<&'a Record>,
    /// Whether a parked message of the same place has a smaller offset.
    pub behind: bool,
}

/// What earlier runs of a batch left for the later ones.
#[derive(Default)]
struct Batch {
    /// Lanes in which a run was refused.
    held: BTreeSet<Place>,
    /// The values written: the version before the batch and the runs that wrote.
    written: BTreeMap<StateKey, (Version, Vec<u8>)>,
}

impl Store {
    /// Looks up a message's record and lane.
    pub fn check(&self, message: &Message, rules: Rules<Rule>) -> Checked<'_> {
        Checked {
            record: self.records.get(&message.key),
            behind: self.is_behind(message, rules),
        }
    }

    /// Looks up a value.
    pub fn read(&self, key: StateKey) -> (Version, Value) {
        match self.state.get(&key) {
            Some(&(version, value)) => (version, Some(value)),
            None => (0, None),
        }
    }

    /// Applies runs in order, in one transaction.
    pub fn commit(&mut self, runs: &[Run], rules: Rules<Rule>) -> Vec<Outcome> {
        let mut batch = Batch::default();
        let mut outcomes = Vec::with_capacity(runs.len());
        for (index, run) in (0..).zip(runs) {
            let outcome = match self.judge(run, &batch, rules) {
                Ok(()) => self.apply(run, index, &mut batch, rules),
                Err(outcome) => outcome,
            };
            if outcome == Outcome::Duplicate && !rules.keep(Rule::RowsOfTheWinner) {
                self.overwrite_row(run);
            }
            if !matches!(outcome, Outcome::Applied | Outcome::Duplicate) {
                batch.held.extend(run.message.place());
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// The first test that fails decides.
    fn judge(&self, run: &Run, batch: &Batch, rules: Rules<Rule>) -> Result<(), Outcome> {
        if let Some(record) = self.records.get(&run.message.key) {
            self.judge_record(run, record, rules)?;
        }
        let waiting = run.verdict.is_waiting();
        let held = match waiting {
            false => rules.keep(Rule::RefusalHoldsTheLane),
            true => rules.keep(Rule::RefusalHoldsTheWaiting),
        };
        if held
            && run
                .message
                .place()
                .is_some_and(|place| batch.held.contains(&place))
        {
            return Err(Outcome::Conflict);
        }
        if compares(&run.verdict, rules) && !self.is_found(run, rules) {
            return Err(Outcome::AlreadyParked);
        }
        if !waiting && rules.keep(Rule::CommitTestsLane) && self.is_behind(&run.message, rules) {
            return Err(Outcome::Behind);
        }
        if !tested_reads(run, rules).all(|read| self.stands(read, batch, rules)) {
            return Err(Outcome::Conflict);
        }
        Ok(())
    }

    /// The check's tests again, now that they count.
    fn judge_record(&self, run: &Run, record: &Record, rules: Rules<Rule>) -> Result<(), Outcome> {
        if record.run == run.id && rules.keep(Rule::OwnRunIsRecognised) {
            return Err(Outcome::Applied);
        }
        let same = record.fingerprint == run.message.fingerprint;
        let tested = match record.state {
            RecordState::Parked(_) if same => false,
            RecordState::Parked(_) => rules.keep(Rule::CommitTestsParkedPayload),
            RecordState::Done => rules.keep(Rule::CommitTestsDone),
            RecordState::Dead(_) => rules.keep(Rule::CommitTestsDead),
        };
        match tested {
            false => Ok(()),
            true if same || !rules.keep(Rule::CommitTestsPayload) => Err(Outcome::Duplicate),
            true => Err(Outcome::Mismatch),
        }
    }

    /// Whether the record is as the check found it.
    fn is_found(&self, run: &Run, rules: Rules<Rule>) -> bool {
        match (run.expected, self.parked(run.message.key)) {
            (Expected::Absent, None) => true,
            (Expected::Parked { attempt, .. }, Some(row))
                if !rules.keep(Rule::VersionsAreUnique) =>
            {
                attempt == row.attempt
            }
            (Expected::Parked { version, .. }, Some(row)) => version == row.version,
            _ => false,
        }
    }

    /// Whether a value is still what the handler saw.
    fn stands(&self, read: &Read, batch: &Batch, rules: Rules<Rule>) -> bool {
        if !rules.keep(Rule::VersionsAreNotGuessed) {
            return read.base == self.read(read.key).0;
        }
        match batch.written.get(&read.key) {
            Some((base, runs)) => {
                *base == read.base
                    && (*runs == read.seen || !rules.keep(Rule::OverlayReadsAreTested))
            }
            None => {
                self.read(read.key).0 == read.base
                    && (read.seen.is_empty() || !rules.keep(Rule::OverlayReadsAreTested))
            }
        }
    }

    /// All of it together, or nothing.
    fn apply(&mut self, run: &Run, index: u8, batch: &mut Batch, rules: Rules<Rule>) -> Outcome {
        self.sequence += 1;
        self.history
            .push(Event::Applied(self.sequence, run.clone()));
        if let Verdict::Done(writes) = &run.verdict {
            for &write in writes {
                self.write(write, index, batch, rules);
            }
            if run.message.sends && rules.keep(Rule::OutboxWithRecord) {
                self.send(run);
            }
            if !rules.keep(Rule::EffectsWithRecord) {
                return Outcome::Applied;
            }
        }
        self.record(run, rules);
        Outcome::Applied
    }

    /// What [`apply`](Self::apply) left out, in a transaction of its own.
    pub fn write_rest(&mut self, run: &Run, rules: Rules<Rule>) {
        match rules.keep(Rule::EffectsWithRecord) {
            true => self.send(run),
            false => self.record(run, rules),
        }
    }

    fn overwrite_row(&mut self, loser: &Run) {
        for row in self.outbox.values_mut() {
            if row.message.key == loser.message.key {
                row.body = loser.id;
            }
        }
    }

    fn record(&mut self, run: &Run, rules: Rules<Rule>) {
        let parked = self.parked(run.message.key);
        let state = match run.verdict {
            Verdict::Done(_) if !rules.keep(Rule::DoneDeletesTheRow) && parked.is_some() => return,
            Verdict::Done(_) => RecordState::Done,
            Verdict::Dead(_) => RecordState::Dead(Some(run.message)),
            Verdict::Park(Park { attempt, .. }) => RecordState::Parked(ParkedRow {
                message: run.message,
                attempt,
                version: self.sequence,
            }),
        };
        let record = Record {
            run: run.id,
            fingerprint: run.message.fingerprint,
            state,
        };
        self.records.insert(run.message.key, record);
    }

    fn send(&mut self, run: &Run) {
        let row = OutboxRow {
            message: run.message,
            body: run.id,
        };
        self.outbox.insert(self.sequence, row);
    }

    fn write(&mut self, write: Write, index: u8, batch: &mut Batch, rules: Rules<Rule>) {
        let (before, value) = self.read(write.key);
        let after = write.op.apply(value);
        let version = match write.op {
            StateOp::Add(_) if !rules.keep(Rule::AdditionsBumpTheVersion) => before,
            _ if !rules.keep(Rule::VersionsNeverRestart) => before + 1,
            _ => self.sequence,
        };
        match after {
            Some(value) => self.state.insert(write.key, (version, value)),
            None => self.state.remove(&write.key),
        };
        let (_, runs) = batch.written.entry(write.key).or_insert((before, vec![]));
        if runs.last() != Some(&index) {
            runs.push(index);
        }
    }

    /// Keeps a dead letter that ends no record.
    pub fn bury(&mut self, message: Message) {
        self.mismatches.insert(message);
    }

    /// Parked rows that may be taken up.
    pub fn due(&self, rules: Rules<Rule>) -> impl Iterator<Item = &ParkedRow> {
        self.rows().filter(move |row| {
            let waits = row.attempt == 0 && row.message.lane.is_some();
            !self.is_behind(&row.message, rules) && (!waits || rules.keep(Rule::WaitingIsTakenUp))
        })
    }

    /// The operator has a dead letter run again: due at once, without a lane.
    pub fn replay(&mut self, key: Key) {
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        let RecordState::Dead(Some(message)) = record.state else {
            return;
        };
        self.sequence += 1;
        // The record still bears the run that buried it: should that commit be sent again, it
        // must not bury the message again.
        record.state = RecordState::Parked(ParkedRow {
            message: Message {
                lane: None,
                ..message
            },
            attempt: 0,
            version: self.sequence,
        });
        self.history.push(Event::Replayed(self.sequence, key));
    }

    /// The operator drops a dead letter.
    pub fn drop_dead(&mut self, key: Key, rules: Rules<Rule>) {
        if !rules.keep(Rule::DroppedLeavesATombstone) {
            self.records.remove(&key);
        } else if let Some(record) = self.records.get_mut(&key) {
            record.state = RecordState::Dead(None);
        }
    }

    /// The parked row of a key.
    pub fn parked(&self, key: Key) -> Option<&ParkedRow> {
        match &self.records.get(&key)?.state {
            RecordState::Parked(row) => Some(row),
            _ => None,
        }
    }

    fn rows(&self) -> impl Iterator<Item = &ParkedRow> {
        self.records.keys().filter_map(|&key| self.parked(key))
    }

    fn is_behind(&self, message: &Message, rules: Rules<Rule>) -> bool {
        let dead = self.records.values().any(|record| match &record.state {
            RecordState::Dead(Some(dead)) => dead.precedes(message),
            _ => false,
        });
        self.rows().any(|row| row.message.precedes(message))
            || dead && !rules.keep(Rule::DeadLetterFreesTheLane)
    }
}

/// Whether the verdict holds only if the record is as the check found it.
fn compares(verdict: &Verdict, rules: Rules<Rule>) -> bool {
    match verdict {
        Verdict::Park(_) => rules.keep(Rule::ParkingCompares),
        Verdict::Dead(Cause::Exhausted) => rules.keep(Rule::ExhaustionCompares),
        Verdict::Done(_) | Verdict::Dead(Cause::Rejected) => false,
    }
}

/// The reads that must still stand: all of them, whatever the verdict.
fn tested_reads(run: &Run, rules: Rules<Rule>) -> impl Iterator<Item = &Read> {
    let verdict = match run.verdict {
        Verdict::Done(_) => true,
        Verdict::Park(_) => rules.keep(Rule::ParkingTestsReads),
        Verdict::Dead(_) => rules.keep(Rule::RejectionTestsReads),
    };
    let is_written = |key| match &run.verdict {
        Verdict::Done(writes) => writes.iter().any(|write| write.key == key),
        _ => true,
    };
    run.reads.iter().filter(move |read| {
        verdict
            && rules.keep(Rule::ReadsAreTested)
            && (rules.keep(Rule::UnwrittenReadsAreTested) || is_written(read.key))
    })
}
