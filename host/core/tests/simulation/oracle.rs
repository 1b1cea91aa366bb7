//! The invariants, tested at each step that the world outside can see.
//!
//! 1. What is acknowledged is recorded: done, parked or dead.
//! 2. At most one run of a key is applied, and its effects are applied whole.
//! 3. Nothing is published that was not committed.
//! 4. Runs commit as if they had run one after the other, in the order of their commits, whatever
//!    became of them.
//! 5. One message id has one content.
//! 6. Nothing runs without a check (see [`crate::life::OrderRunner`]).
//! 7. In a lane, effects follow the order of arrival, and first publications that of the effects.
//! 8. Nothing is lost: in the end every message is recorded, nothing is parked, and everything
//!    outgoing was published, or refused and kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use semel_core::{
    Cause, DeadLetter, Effects, Expected, Fingerprint, Lane, Outcome, Park, ParkedRow, Partition,
    Position, RecordId, Run, RunId, StateKey, Verdict, Version, Versioned,
};

use crate::broker;
use crate::order::Order;
use crate::plan::{MAX_ATTEMPTS, Plan};
use crate::promises::Promises;
use crate::script::Content;
use crate::serial::{Expected as Handled, Serial, serial_name, state_key};

/// What is wrong.
pub type Broken = String;

pub struct Oracle {
    /// What stands at each offset of each partition, in the end.
    pub contents: Vec<Vec<Content>>,
    orders: HashMap<Fingerprint, Order>,
    pub serial: Serial,
    /// Whether no version may be skipped.
    complete: bool,
    /// The state that the present transaction wrote.
    written: Vec<StateKey>,
    pub records: BTreeMap<RecordId, Record>,
    applied: HashMap<RunId, Version>,
    fenced: HashSet<RunId>,
    /// Failures before, by the version of the parked row.
    attempts: HashMap<Version, u32>,
    /// Records of which a commit met something that is no counter.
    miscounted: HashSet<RecordId>,
    /// Records that an operator replayed: their lane's order is not promised.
    replayed: HashSet<RecordId>,
    /// Dead letters without a record, and whether they are still there.
    pub letters: HashMap<Position, bool>,
    /// The last offset that took effect.
    lanes: HashMap<(Partition, Lane), u64>,
    pub promises: Promises,
}

pub struct Record {
    pub fingerprint: Fingerprint,
    pub fate: Fate,
}

#[derive(Debug, PartialEq)]
pub enum Fate {
    Parked {
        version: Version,
    },
    Done {
        run: RunId,
        reply: Option<Bytes>,
    },
    /// With a letter, unless the operator dropped it.
    Dead {
        letter: bool,
    },
}

/// What a run asked for and got, in a line.
pub fn describe(run: &Run, outcome: &Outcome) -> String {
    let verdict = match &run.verdict {
        Verdict::Done(_) => "done",
        Verdict::Park(park) if park.behind => "behind",
        Verdict::Park(_) => "parked",
        Verdict::Dead(_) => "dead",
    };
    let Run {
        record, position, ..
    } = run;
    format!("{} of {position} {verdict}: {outcome:?}", record.key)
}

impl Oracle {
    pub fn new(plan: &Plan) -> Self {
        let mut contents = vec![Vec::new(); plan.partitions];
        let mut orders = HashMap::new();
        for sent in &plan.sent {
            contents[sent.partition].push(sent.content.clone());
            if let Content::Order(order) = &sent.content {
                orders.insert(order.fingerprint(), order.clone());
            }
        }
        Self {
            contents,
            orders,
            serial: Serial::new(plan.versioning.clone()),
            complete: plan.complete,
            written: Vec::new(),
            records: BTreeMap::new(),
            applied: HashMap::new(),
            fenced: HashSet::new(),
            attempts: HashMap::new(),
            miscounted: HashSet::new(),
            replayed: HashSet::new(),
            letters: HashMap::new(),
            lanes: HashMap::new(),
            promises: Promises::default(),
        }
    }

    // === store ===

    /// A transaction was carried out. Gives the state that it wrote.
    pub fn committed(
        &mut self,
        runs: &[Run],
        outcomes: &[Outcome],
    ) -> Result<Vec<StateKey>, Broken> {
        ensure!(runs.len() == outcomes.len(), "a run without an outcome");
        for (run, outcome) in runs.iter().zip(outcomes) {
            match outcome {
                Outcome::Applied { version, .. } => match self.applied.get(&run.id) {
                    Some(before) => {
                        ensure!(before == version, "{} has two versions", run.id);
                    }
                    None => {
                        self.apply(run, *version)?;
                        self.applied.insert(run.id, *version);
                    }
                },
                Outcome::NotACounter(_) => _ = self.miscounted.insert(run.record.clone()),
                Outcome::Duplicate => {
                    let found = self.records.get(&run.record);
                    let same = found.is_some_and(|found| {
                        found.fingerprint == run.fingerprint
                            && !matches!(found.fate, Fate::Parked { .. })
                    });
                    ensure!(same, "{} is taken for a duplicate", run.record.key);
                }
                _ => {}
            }
        }
        Ok(std::mem::take(&mut self.written))
    }

    fn apply(&mut self, run: &Run, version: Version) -> Result<(), Broken> {
        let key = &run.record.key;
        ensure!(
            !self.fenced.contains(&run.id),
            "a fenced run of {key} is applied"
        );
        let present = match self.records.get(&run.record) {
            None => Expected::Absent,
            Some(found) => {
                ensure!(
                    found.fingerprint == run.fingerprint,
                    "{key} changes its payload"
                );
                match found.fate {
                    Fate::Parked { version } => Expected::Parked(version),
                    _ => return Err(format!("{key} is {:?} and is applied again", found.fate)),
                }
            }
        };
        // A failure counts only for the row of which it is one.
        let counts = match &run.verdict {
            Verdict::Done(_) => false,
            Verdict::Park(_) => true,
            Verdict::Dead(letter) => letter.cause == Cause::Exhausted,
        };
        ensure!(
            !counts || run.expected == present,
            "{key} fails as {:?}, and is {present:?}",
            run.expected
        );
        let order = &self.orders[&run.fingerprint];
        let attempt = match run.expected {
            Expected::Absent => 0,
            Expected::Parked(version) => self.attempts[&version],
        };
        let expected = self.serial.handle(order, attempt);
        let fate = match &run.verdict {
            Verdict::Done(effects) => {
                self.done(run, effects, expected, version)?;
                Fate::Done {
                    run: run.id,
                    reply: effects.reply.clone(),
                }
            }
            Verdict::Park(park) => {
                self.parked(run, park, expected, attempt)?;
                self.attempts.insert(version, park.row.attempt);
                Fate::Parked { version }
            }
            Verdict::Dead(letter) => {
                self.dead(run, letter, expected, attempt)?;
                Fate::Dead { letter: true }
            }
        };
        let record = Record {
            fingerprint: run.fingerprint,
            fate,
        };
        self.records.insert(run.record.clone(), record);
        Ok(())
    }

    fn done(
        &mut self,
        run: &Run,
        effects: &Effects,
        expected: Handled,
        version: Version,
    ) -> Result<(), Broken> {
        let key = &run.record.key;
        let Effects {
            outgoing, reply, ..
        } = effects;
        ensure!(!expected.miscounts, "{key} adds to no counter");
        ensure!(expected.failure.is_none(), "{key}: {:?}", expected.failure);
        ensure!(
            *reply == expected.reply,
            "{key}: {reply:?}, not {:?}",
            expected.reply
        );
        ensure!(
            *outgoing == expected.outgoing,
            "{key} publishes {outgoing:?}"
        );
        ensure!(
            !(self.complete && expected.stale),
            "a version before {key} was skipped"
        );
        self.written
            .extend(expected.writes.keys().map(|name| state_key(name)));
        self.serial.apply(expected.writes);
        self.promises.promise(run.outbox_rows(version))?;
        self.in_order(run)
    }

    fn parked(
        &self,
        run: &Run,
        park: &Park,
        expected: Handled,
        attempt: u32,
    ) -> Result<(), Broken> {
        let key = &run.record.key;
        let row = &park.row;
        if park.behind {
            ensure!(!self.records.contains_key(&run.record), "{key} waits again");
        } else if row.waits_since_ms.is_some() {
            ensure!(expected.early, "{key} waits for no earlier version");
            ensure!(
                row.attempt == attempt,
                "waiting counts as an attempt of {key}"
            );
        } else {
            ensure!(
                row.attempt == attempt + 1,
                "{key} fails for the {}th time",
                row.attempt
            );
            expected.fails(&row.reason, false)?;
        }
        Ok(())
    }

    fn dead(
        &self,
        run: &Run,
        letter: &DeadLetter,
        expected: Handled,
        attempt: u32,
    ) -> Result<(), Broken> {
        let key = &run.record.key;
        let DeadLetter { cause, reason, .. } = letter;
        if reason.contains("no 64-bit decimal counter") {
            let met = expected.miscounts || self.miscounted.contains(&run.record);
            ensure!(met, "{key} is dead: {reason}");
            return Ok(());
        }
        let rejected = *cause == Cause::Rejected;
        ensure!(
            rejected || attempt + 1 >= MAX_ATTEMPTS,
            "{key} is given up early"
        );
        expected.fails(reason, rejected)
    }

    fn in_order(&mut self, run: &Run) -> Result<(), Broken> {
        if let Some(lane) = run.lane_position()
            && !self.replayed.contains(&run.record)
        {
            let before = self.lanes.insert((lane.partition, lane.lane), lane.offset);
            ensure!(
                before.is_none_or(|before| before < run.position.offset),
                "{} takes effect after {before:?} of its lane",
                run.position
            );
        }
        Ok(())
    }

    /// What the store has after a transaction must be what one-at-a-time execution has.
    pub fn compare(&mut self, keys: &[StateKey], values: &[Versioned]) -> Result<(), Broken> {
        for (key, found) in keys.iter().zip(values) {
            let expected = self.serial.state.get(&serial_name(key));
            ensure!(
                found.value.as_ref() == expected,
                "{} is {:?}, not {expected:?}",
                key.name,
                found.value
            );
        }
        Ok(())
    }

    pub fn buried(&mut self, letters: &[DeadLetter]) -> Result<(), Broken> {
        for letter in letters {
            let rightly = match (self.content(&letter.position), letter.cause) {
                (Content::Keyless, Cause::NoKey) | (Content::Malformed, Cause::Malformed) => true,
                (Content::Order(order), Cause::Mismatch) => {
                    let found = self.records.get(&order.record());
                    found.is_some_and(|found| found.fingerprint != order.fingerprint())
                }
                _ => false,
            };
            ensure!(rightly, "{} is buried: {}", letter.position, letter.reason);
            self.letters.insert(letter.position.clone(), true);
        }
        Ok(())
    }

    pub fn fenced(&mut self, run: RunId, done: bool) -> Result<(), Broken> {
        ensure!(
            !done || self.applied.contains_key(&run),
            "{run} is not done"
        );
        if !done {
            self.fenced.insert(run);
        }
        Ok(())
    }

    // === operator ===

    /// A dead letter is parked again as `row`, or a refused message is back in the outbox.
    pub fn replayed(&mut self, letter: &DeadLetter, row: Option<ParkedRow>) -> Result<(), Broken> {
        if let Some(outgoing) = &letter.outgoing {
            self.promises.replayed(outgoing);
        }
        if let (Some(record), Some(row)) = (&letter.record, row) {
            let version = row.version;
            self.attempts.insert(version, 0);
            self.replayed.insert(record.clone());
            self.record(record)?.fate = Fate::Parked { version };
        }
        Ok(())
    }

    pub fn dropped(&mut self, letter: &DeadLetter) -> Result<(), Broken> {
        match (&letter.outgoing, &letter.record) {
            (Some(outgoing), _) => self.promises.dropped(outgoing),
            (None, Some(record)) => self.record(record)?.fate = Fate::Dead { letter: false },
            (None, None) => _ = self.letters.insert(letter.position.clone(), false),
        }
        Ok(())
    }

    fn record(&mut self, id: &RecordId) -> Result<&mut Record, Broken> {
        self.records
            .get_mut(id)
            .ok_or_else(|| format!("a letter for {}, which has no record", id.key))
    }

    /// What was sent to a position.
    pub fn content(&self, position: &Position) -> &Content {
        &self.contents[broker::number(&position.partition)][position.offset as usize]
    }
}
