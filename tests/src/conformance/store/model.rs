//! Random histories, on the store and on the in-memory reference.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use semel_core::memory::MemoryStore;
use semel_core::{
    Admin, Cause, CheckQuery, DeadLetter, DeadLetterId, Expected, OutboxScan, Outcome, PluginName,
    Read, RecordState, Run, StateOp, Verdict, Version,
};

use super::build::*;

/// Few of everything, so that things meet.
const RECORDS: [&str; 6] = ["r0", "r1", "r2", "r3", "r4", "r5"];
const NAMES: [&str; 3] = ["x", "y", "n"];
const LANES: [&str; 2] = ["l", "m"];

/// Further on than any history gets.
const NO_VERSION: Version = 1 << 40;

/// One run, with choices that are made when it is known what is stored.
#[derive(Clone, Debug)]
struct Plan {
    record: usize,
    round: u8,
    other_body: bool,
    lane: Option<(usize, u64)>,
    verdict: u8,
    due_ms: u64,
    /// Name, and whether it is read as the batch left it or as random says.
    reads: Vec<(usize, Option<u8>)>,
    writes: Vec<(usize, u8)>,
    publishes: Vec<bool>,
    honest: bool,
    fenced: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Plan>),
    CommitAgain,
    Confirm(u8),
    Refuse(u8),
    ReplayOutgoing(u8),
    Fence(u8),
    Bury(u64),
    Replay(usize),
    Drop(usize),
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        (0..RECORDS.len(), 0..3u8, prop::bool::weighted(0.1)),
        prop::option::weighted(0.6, (0..LANES.len(), 0..6u64)),
        (0..10u8, 0..4u64),
        prop::collection::vec(
            (0..NAMES.len(), prop::option::weighted(0.2, any::<u8>())),
            0..3,
        ),
        prop::collection::vec((0..NAMES.len(), any::<u8>()), 0..3),
        prop::collection::vec(prop::bool::weighted(0.8), 0..3),
        (prop::bool::weighted(0.8), prop::bool::weighted(0.1)),
    )
        .prop_map(
            |(
                (record, round, other_body),
                lane,
                (verdict, due_ms),
                reads,
                writes,
                publishes,
                (honest, fenced),
            )| {
                Plan {
                    record,
                    round,
                    other_body,
                    lane,
                    verdict,
                    due_ms,
                    reads,
                    writes,
                    publishes,
                    honest,
                    fenced,
                }
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(plan(), 1..7).prop_map(Step::Commit),
        2 => Just(Step::CommitAgain),
        2 => any::<u8>().prop_map(Step::Confirm),
        2 => any::<u8>().prop_map(Step::Refuse),
        2 => any::<u8>().prop_map(Step::ReplayOutgoing),
        1 => any::<u8>().prop_map(Step::Fence),
        1 => (0..4u64).prop_map(Step::Bury),
        2 => (0..RECORDS.len()).prop_map(Step::Replay),
        1 => (0..RECORDS.len()).prop_map(Step::Drop),
    ]
}

/// The same answers to the same history, and the same contents at the end.
pub async fn agrees_with_the_reference(store: Arc<dyn Admin>) {
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let history = prop::collection::vec(step(), 1..25);
    for case in 0..CASES {
        let steps = history.new_tree(&mut runner).expect("a history").current();
        Both::new(&store, case).play(&steps).await;
    }
}

const CASES: u32 = 150;

/// The store and the reference, each with its own versions.
struct Both<'a> {
    store: &'a Arc<dyn Admin>,
    reference: Arc<dyn Admin>,
    /// Each case has a plugin of its own, so that one store serves them all.
    plugin: PluginName,
    /// The last batch, as sent to each.
    last: (Vec<Run>, Vec<Run>),
}

impl<'a> Both<'a> {
    fn new(store: &'a Arc<dyn Admin>, case: u32) -> Self {
        Self {
            store,
            reference: Arc::new(MemoryStore::new()),
            plugin: PluginName::new(&format!("case{case}")),
            last: Default::default(),
        }
    }

    async fn play(mut self, steps: &[Step]) {
        for (at, step) in steps.iter().enumerate() {
            self.step(step).await;
            let (store, reference) = (
                self.contents(self.store).await,
                self.contents(&self.reference).await,
            );
            assert_eq!(store, reference, "after step {at} of {steps:#?}");
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Commit(plans) => {
                let id: Vec<_> = plans.iter().map(|_| run_id()).collect();
                let ours = self.runs(self.store, plans, &id).await;
                let theirs = self.runs(&self.reference, plans, &id).await;
                self.last = (ours, theirs);
                for (at, plan) in plans.iter().enumerate() {
                    if plan.fenced {
                        self.fence(at).await;
                    }
                }
                self.commit().await;
            }
            Step::CommitAgain => self.commit().await,
            Step::Confirm(which) => {
                for store in [self.store, &self.reference] {
                    let rows = self.outbox(store).await;
                    if !rows.is_empty() {
                        let row = &rows[usize::from(*which) % rows.len()];
                        store.confirm(&[row.id]).await.unwrap();
                    }
                }
            }
            Step::Refuse(which) => {
                for store in [self.store, &self.reference] {
                    let rows = self.outbox(store).await;
                    if !rows.is_empty() {
                        let row = &rows[usize::from(*which) % rows.len()];
                        let letter = DeadLetter::undeliverable(row, "too large".to_owned(), 3);
                        store.refuse(&[letter]).await.unwrap();
                    }
                }
            }
            Step::ReplayOutgoing(which) => {
                for store in [self.store, &self.reference] {
                    let letters = store.list_dead(Some(&self.plugin), None, 99).await.unwrap();
                    let outgoing = letters.iter().filter(|letter| letter.outgoing.is_some());
                    let outgoing: Vec<_> = outgoing.collect();
                    if !outgoing.is_empty() {
                        let letter = outgoing[usize::from(*which) % outgoing.len()];
                        assert!(store.replay(&letter.id, 2).await.unwrap());
                    }
                }
            }
            Step::Fence(which) => {
                if !self.last.0.is_empty() {
                    self.fence(usize::from(*which) % self.last.0.len()).await;
                }
            }
            Step::Bury(offset) => {
                let mut letter = stray(*offset);
                letter.plugin = self.plugin.clone();
                letter.id = DeadLetterId::of_position(&self.plugin, &letter.position);
                for store in [self.store, &self.reference] {
                    store.bury(std::slice::from_ref(&letter)).await.unwrap();
                }
            }
            Step::Replay(which) => {
                let id = DeadLetterId::of_record(&self.record(*which));
                let ours = self.store.replay(&id, 2).await.unwrap();
                assert_eq!(ours, self.reference.replay(&id, 2).await.unwrap());
            }
            Step::Drop(which) => {
                let id = DeadLetterId::of_record(&self.record(*which));
                let ours = self.store.drop_dead(&id).await.unwrap();
                assert_eq!(ours, self.reference.drop_dead(&id).await.unwrap());
            }
        }
    }

    /// Fences a run of the last batch.
    async fn fence(&self, at: usize) {
        let run = &self.last.0[at];
        let ours = self.store.fence(&run.record, run.id).await.unwrap();
        let theirs = self.reference.fence(&run.record, run.id).await.unwrap();
        assert_eq!(ours, theirs, "on {run:#?}");
    }

    async fn commit(&self) {
        let ours = self.store.commit(&self.last.0).await.unwrap();
        let theirs = self.reference.commit(&self.last.1).await.unwrap();
        let forget = |outcome: &Outcome| match outcome {
            Outcome::Applied { outbox_clear, .. } => Outcome::Applied {
                version: 0,
                outbox_clear: *outbox_clear,
            },
            other => other.clone(),
        };
        let ours: Vec<_> = ours.iter().map(forget).collect();
        let theirs: Vec<_> = theirs.iter().map(forget).collect();
        assert_eq!(ours, theirs, "on {:#?}", self.last.0);
    }

    fn record(&self, which: usize) -> semel_core::RecordId {
        let mut record = record(RECORDS[which]);
        record.plugin = self.plugin.clone();
        record
    }

    fn state(&self, which: usize) -> semel_core::StateKey {
        let mut key = state(NAMES[which]);
        key.namespace = self.plugin.as_str().into();
        key
    }

    /// The planned runs as an engine of this store would send them.
    async fn runs(
        &self,
        store: &Arc<dyn Admin>,
        plans: &[Plan],
        ids: &[semel_core::RunId],
    ) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut writers: Vec<Vec<u32>> = vec![Vec::new(); NAMES.len()];
        for (index, (plan, id)) in (0..).zip(plans.iter().zip(ids)) {
            let mut run = match plan.verdict {
                0..=5 => done(RECORDS[plan.record]),
                6 | 7 => park(RECORDS[plan.record], plan.due_ms),
                8 => dead(RECORDS[plan.record], Cause::Rejected),
                _ => dead(RECORDS[plan.record], Cause::Exhausted),
            };
            run = run.of_plugin(self.plugin.as_str());
            run.id = *id;
            if plan.other_body {
                run = run.with_body(b"other");
            }
            if let Some((lane, offset)) = plan.lane {
                run = run.in_lane(LANES[lane], offset);
            }
            if plan.verdict == 7 {
                run = run.behind();
            }
            let checked = check(store, &run.record).await;
            run.bucket = checked.bucket;
            if let RecordState::Parked { version, .. } = checked.state
                && plan.honest
            {
                run.expected = Expected::Parked(version);
            }
            for (name, lie) in &plan.reads {
                let key = self.state(*name);
                let base = store.read(std::slice::from_ref(&key)).await.unwrap()[0].version;
                let mut seen = writers[*name].clone();
                let mut base: Version = base;
                match lie.map(|lie| lie % 3) {
                    Some(0) => base += NO_VERSION,
                    Some(1) => drop(seen.pop()),
                    Some(_) => seen.clear(),
                    None => {}
                }
                run.reads.push(Read { key, base, seen });
            }
            if let Verdict::Done(effects) = &mut run.verdict {
                for (name, op) in &plan.writes {
                    let key = self.state(*name);
                    if effects.writes.iter().any(|write| write.key == key) {
                        continue;
                    }
                    let op = match op % 5 {
                        0 => StateOp::Put(Bytes::from(format!("{}", i64::from(*op) - 100))),
                        1 => StateOp::Put(Bytes::from_static(b"text")),
                        2 => StateOp::Delete,
                        3 => StateOp::Add(i64::from(*op) - 128),
                        _ => StateOp::Add(i64::MAX / 3 * (i64::from(op % 3) - 1)),
                    };
                    effects.writes.push(semel_core::Write { key, op });
                    writers[*name].push(index);
                }
                for now in &plan.publishes {
                    let body = format!("{index}.{}", plan.round);
                    effects
                        .outgoing
                        .push(outgoing(&body, (!now).then_some(1_000)));
                }
            }
            runs.push(run);
        }
        runs
    }

    async fn outbox(&self, store: &Arc<dyn Admin>) -> Vec<semel_core::OutboxRow> {
        let mine: Vec<_> = (0..RECORDS.len())
            .flat_map(|which| {
                let record = self.record(which);
                (0..3).map(move |ordinal| semel_core::MessageId::derive(&record, ordinal))
            })
            .collect();
        let scan = OutboxScan {
            limit: usize::MAX,
            ..OutboxScan::default()
        };
        let mut rows = store.outbox(&scan).await.unwrap();
        rows.retain(|row| mine.contains(&row.message_id));
        rows
    }

    /// All that can be seen of the case, without versions and times of the clock.
    async fn contents(&self, store: &Arc<dyn Admin>) -> Vec<String> {
        let mut contents = Vec::new();
        for (which, record) in RECORDS.iter().enumerate() {
            let (mut state, mut row) = store.record(&self.record(which)).await.unwrap();
            let versions = (
                match &mut state {
                    RecordState::Parked { version, .. } => std::mem::take(version),
                    _ => 0,
                },
                row.as_mut()
                    .map_or(0, |row| std::mem::take(&mut row.version)),
            );
            assert_eq!(
                versions.0, versions.1,
                "a parked record bears its row's version"
            );
            contents.push(format!("{state:?} {row:?}"));
            for (lane, offset) in [(None, 0), (Some(0), 3), (Some(1), 9)] {
                let run = match lane {
                    Some(lane) => done(record).in_lane(LANES[lane], offset),
                    None => done(record),
                };
                let query = CheckQuery {
                    record: self.record(which),
                    lane: run.lane_position(),
                };
                contents.push(format!(
                    "{}",
                    store.check(&[query]).await.unwrap()[0].behind
                ));
            }
        }
        for now_ms in 0..4 {
            let due = store.due(&self.plugin, now_ms, 4).await.unwrap();
            let keys: Vec<_> = due.iter().map(|row| row.record.key.to_string()).collect();
            contents.push(format!("due {keys:?}"));
        }
        contents.push(format!("{:?}", store.parked(&self.plugin).await.unwrap()));
        for name in 0..NAMES.len() {
            let value = &store.read(&[self.state(name)]).await.unwrap()[0];
            contents.push(format!("{:?} {}", value.value, value.version == 0));
        }
        for mut letter in store.list_dead(Some(&self.plugin), None, 99).await.unwrap() {
            if let Some(row) = &mut letter.outgoing {
                row.id.version = 0;
                letter.position.offset = 0;
            }
            contents.push(format!("{letter:?}"));
        }
        for row in self.outbox(store).await {
            contents.push(format!(
                "{} {} {:?} {:?}",
                row.plugin, row.message_id, row.lane, row.outgoing
            ));
        }
        let mut stats = store.stats(&self.plugin).await.unwrap();
        stats.outbox = 0;
        contents.push(format!("{stats:?}"));
        contents
    }
}
