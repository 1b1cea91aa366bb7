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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use semel_core::{
    BusinessKey, Cause, DeadLetter, DeadLetterId, Effects, Expected, Failure, Fingerprint, Lane,
    Outcome, ParkedRow, Partition, PluginName, Position, RecordId, RecordState, Run, RunId,
    StateKey, Verdict, Version, Versioned,
};

use crate::broker;
use crate::order::Order;
use crate::plan::{Content, MAX_ATTEMPTS, PLUGIN, Plan};
use crate::promises::Promises;
use crate::serial::Serial;

/// What is wrong.
pub type Broken = String;

pub struct Oracle {
    /// What stands at each offset of each partition, in the end.
    contents: Vec<Vec<Content>>,
    orders: HashMap<Fingerprint, Order>,
    serial: Serial,
    records: BTreeMap<RecordId, Record>,
    applied: HashMap<RunId, Version>,
    fenced: HashSet<RunId>,
    /// Failures before, by the version of the parked row.
    attempts: HashMap<Version, u32>,
    /// Records of which a commit met something that is no counter.
    miscounted: HashSet<RecordId>,
    /// Records that an operator replayed: their lane's order is not promised.
    replayed: HashSet<RecordId>,
    /// Dead letters without a record, and whether they are still there.
    letters: HashMap<Position, bool>,
    /// The last offset that took effect.
    lanes: HashMap<(Partition, Lane), u64>,
    pub promises: Promises,
}

struct Record {
    fingerprint: Fingerprint,
    fate: Fate,
}

#[derive(Debug, PartialEq)]
enum Fate {
    Parked,
    Done {
        run: RunId,
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
                orders.insert(fingerprint(order), order.clone());
            }
        }
        Self {
            contents,
            orders,
            serial: Serial::default(),
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
        let mut written = Vec::new();
        for (run, outcome) in runs.iter().zip(outcomes) {
            match outcome {
                Outcome::Applied { version, .. } => match self.applied.get(&run.id) {
                    Some(before) => {
                        ensure!(before == version, "{} has two versions", run.id);
                    }
                    None => {
                        self.apply(run, *version, &mut written)?;
                        self.applied.insert(run.id, *version);
                    }
                },
                Outcome::NotACounter(_) => _ = self.miscounted.insert(run.record.clone()),
                Outcome::Duplicate => {
                    let found = self.records.get(&run.record);
                    let same = found.is_some_and(|found| {
                        found.fingerprint == run.fingerprint && found.fate != Fate::Parked
                    });
                    ensure!(same, "{} is taken for a duplicate", run.record.key);
                }
                _ => {}
            }
        }
        Ok(written)
    }

    fn apply(
        &mut self,
        run: &Run,
        version: Version,
        written: &mut Vec<StateKey>,
    ) -> Result<(), Broken> {
        let key = &run.record.key;
        ensure!(
            !self.fenced.contains(&run.id),
            "a fenced run of {key} is applied"
        );
        if let Some(found) = self.records.get(&run.record) {
            ensure!(
                found.fingerprint == run.fingerprint,
                "{key} changes its payload"
            );
            ensure!(
                found.fate == Fate::Parked,
                "{key} is {:?} and is applied again",
                found.fate
            );
        }
        let order = &self.orders[&run.fingerprint];
        let attempt = match run.expected {
            Expected::Absent => 0,
            Expected::Parked(version) => self.attempts[&version],
        };
        let expected = self.serial.handle(order, attempt);
        let fate = match &run.verdict {
            Verdict::Done(effects) => {
                ensure!(!expected.miscounts, "{key} adds to no counter");
                let Effects {
                    outgoing, reply, ..
                } = effects;
                let same = expected.answer.as_ref().ok() == reply.as_ref();
                ensure!(same, "{key} saw {reply:?}, not {:?}", expected.answer);
                ensure!(
                    *outgoing == expected.outgoing,
                    "{key} publishes {outgoing:?}"
                );
                written.extend(expected.writes.keys().map(|name| StateKey {
                    namespace: PLUGIN.into(),
                    name: name.as_str().into(),
                }));
                self.serial.apply(expected.writes);
                self.in_order(run)?;
                self.promises.promise(run.outbox_rows(version))?;
                Fate::Done { run: run.id }
            }
            Verdict::Park(park) => {
                let ParkedRow {
                    attempt: next,
                    reason,
                    ..
                } = &*park.row;
                let next = *next;
                if park.behind {
                    ensure!(!self.records.contains_key(&run.record), "{key} waits again");
                } else {
                    ensure!(next == attempt + 1, "{key} fails for the {next}th time");
                    ensure!(
                        failure(&expected.answer) == Some((reason, false)),
                        "{key} is parked: {reason}, not {:?}",
                        expected.answer
                    );
                }
                self.attempts.insert(version, next);
                Fate::Parked
            }
            Verdict::Dead(letter) => {
                let DeadLetter { cause, reason, .. } = &**letter;
                let counts = reason.contains("no 64-bit decimal counter");
                if counts {
                    let met = expected.miscounts || self.miscounted.contains(&run.record);
                    ensure!(met, "{key} is dead: {reason}");
                } else {
                    let rejected = *cause == Cause::Rejected;
                    ensure!(
                        failure(&expected.answer) == Some((reason, rejected)),
                        "{key} is dead, {cause}: {reason}, not {:?}",
                        expected.answer
                    );
                    ensure!(
                        rejected || attempt + 1 >= MAX_ATTEMPTS,
                        "{key} is given up early"
                    );
                }
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
            let expected = self.serial.state.get(&*key.name);
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
                    let found = self.records.get(&record_of(order));
                    found.is_some_and(|found| found.fingerprint != fingerprint(order))
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
            self.attempts.insert(row.version, 0);
            self.replayed.insert(record.clone());
            self.record(record)?.fate = Fate::Parked;
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

    // === source ===

    /// The broker forgets a message.
    pub fn acknowledged(&self, position: &Position) -> Result<(), Broken> {
        let recorded = match self.content(position) {
            Content::Order(order) => {
                let found = self.records.get(&record_of(order));
                found.is_some_and(|found| found.fingerprint == fingerprint(order))
            }
            Content::Keyless | Content::Malformed => false,
        };
        let recorded = recorded || self.letters.contains_key(position);
        ensure!(recorded, "{position} is acknowledged and not recorded");
        Ok(())
    }

    fn content(&self, position: &Position) -> &Content {
        &self.contents[broker::number(&position.partition)][position.offset as usize]
    }

    // === in the end ===

    /// Tests what is left when nothing is under way.
    pub fn settled(&self, found: &Leftovers) -> Result<(), Broken> {
        for (number, contents) in self.contents.iter().enumerate() {
            for offset in 0..contents.len() as u64 {
                let partition = broker::partition(number);
                self.acknowledged(&Position { partition, offset })?;
            }
        }
        let mut letters: BTreeSet<_> = self.promises.settled()?.into_iter().collect();
        for (id, record) in &self.records {
            let state = found.records.get(id).unwrap_or(&RecordState::Absent);
            let same = match (&record.fate, state) {
                (Fate::Done { run, .. }, RecordState::Done { run: by, .. }) => run == by,
                (Fate::Done { .. }, RecordState::Absent) => found.expired,
                (Fate::Dead { letter }, RecordState::Dead { .. }) => {
                    letters.extend(letter.then(|| DeadLetterId::of_record(id)));
                    true
                }
                _ => false,
            };
            ensure!(
                same,
                "{} is {state:?} in the end, not {:?}",
                id.key,
                record.fate
            );
        }
        let plugin = PluginName::new(PLUGIN);
        let kept = self.letters.iter().filter(|(_, kept)| **kept);
        letters.extend(kept.map(|(position, _)| DeadLetterId::of_position(&plugin, position)));
        ensure!(
            letters == found.letters,
            "dead letters: {:?}, not {letters:?}",
            found.letters
        );
        ensure!(self.serial.state == found.state, "state: {:?}", found.state);
        Ok(())
    }
}

/// What a store has in the end.
pub struct Leftovers {
    pub records: BTreeMap<RecordId, RecordState>,
    pub letters: BTreeSet<DeadLetterId>,
    pub state: BTreeMap<String, Bytes>,
    /// Whether done records expired.
    pub expired: bool,
}

/// The record of an order's key.
pub fn record_of(order: &Order) -> RecordId {
    RecordId {
        plugin: PluginName::new(PLUGIN),
        key: BusinessKey::new(order.key.clone().into_bytes()),
    }
}

fn fingerprint(order: &Order) -> Fingerprint {
    Fingerprint::of(&order.body())
}

/// Why a handler failed, and whether for good.
fn failure(answer: &Result<Bytes, Failure>) -> Option<(&String, bool)> {
    match answer.as_ref().err()? {
        Failure::Retry { reason, .. } | Failure::Trap { reason, .. } => Some((reason, false)),
        Failure::Reject { reason } => Some((reason, true)),
        Failure::Aborted => None,
    }
}
