//! A host: everything that it forgets when it crashes.

use std::collections::BTreeMap;

use crate::{
    Cause, Ending, Expected, Message, Outcome, Park, ParkedRow, Read, RecordState, Relay,
    RelayStep, Rule, Rules, Run, RunId, StateKey, StateOp, Store, Value, Verdict, Write,
};

/// One host. A pause is no step of its own: any host may stand still while others go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// The partitions that it believes to be its own, and the next offset of each.
    pub sessions: BTreeMap<u8, u8>,
    /// Messages on their way.
    pub jobs: Vec<Job>,
    /// Runs that ended and wait for their commit, in this order.
    pub batch: Vec<Run>,
    /// Publishes the outbox.
    pub relay: Relay,
}

/// One message on its way from receive to acknowledge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job {
    /// The message.
    pub message: Message,
    /// The parked row that was taken up, or absent for what the source delivered.
    pub expected: Expected,
    /// How far it came.
    pub step: Step,
}

/// How far a message came.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// To be checked.
    Received,
    /// Its key was used by another payload: to be buried.
    Mismatched,
    /// A parked message of its lane comes first: to be parked behind it.
    Waiting,
    /// Its handler is running and has read this.
    Running(Vec<Seen>),
    /// Its run is in the batch.
    Staged,
    /// Half of its run is written. Only where a rule is missing.
    HalfWritten(Run),
    /// Its record is durable: to be acknowledged.
    Recorded,
}

/// What a handler was given for a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    /// Where it came from.
    pub read: Read,
    /// The runs whose staged writes were on top.
    pub staged: Vec<RunId>,
    /// The value.
    pub value: Value,
}

impl Job {
    /// A message that the source delivered.
    pub fn received(message: Message) -> Self {
        Self {
            message,
            expected: Expected::Absent,
            step: Step::Received,
        }
    }

    /// A parked message that was taken up.
    pub fn taken_up(row: &ParkedRow) -> Self {
        Self {
            message: row.message,
            expected: Expected::Parked {
                version: row.version,
                attempt: row.attempt,
            },
            step: Step::Running(vec![]),
        }
    }

    /// Whether the source delivered it. Only such messages are acknowledged.
    pub fn is_from_source(&self) -> bool {
        self.expected == Expected::Absent
    }

    fn is_of(&self, run: &Run) -> bool {
        self.message.is_at(&run.message) && self.expected == run.expected
    }

    fn counts_as_recorded(&self, rules: Rules<Rule>) -> bool {
        match self.step {
            Step::Recorded => true,
            Step::Staged => !rules.keep(Rule::AcknowledgedIsDurable),
            Step::Mismatched => !rules.keep(Rule::BuriedIsDurable),
            _ => false,
        }
    }
}

impl Host {
    /// Whether a crash would lose anything.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty() || self.relay.step != RelayStep::Idle
    }

    /// Messages of a partition that are not acknowledged.
    pub fn in_flight(&self, partition: u8) -> usize {
        self.source_jobs(partition).count()
    }

    /// Whether a parked row is being run.
    pub fn has_taken_up(&self) -> bool {
        self.jobs.iter().any(|job| !job.is_from_source())
    }

    /// Whether a message may run: those before it in its lane are recorded, or staged to
    /// succeed.
    pub fn may_run(&self, job: &Job, rules: Rules<Rule>) -> bool {
        !rules.keep(Rule::LaneRunsInOrder)
            || self.predecessors(job).all(|earlier| match earlier.step {
                Step::Recorded => true,
                Step::Staged => self.is_staged_to_succeed(earlier),
                _ => false,
            })
    }

    /// Whether a message may be parked behind its lane: those before it are recorded, or
    /// decided in the same batch.
    pub fn may_wait(&self, job: &Job, rules: Rules<Rule>) -> bool {
        let decided = |job: &Job| matches!(job.step, Step::Recorded | Step::Staged);
        !rules.keep(Rule::WaitingKeepsItsPlace) || self.predecessors(job).all(decided)
    }

    fn predecessors<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a Job> {
        let jobs = self.jobs.iter();
        jobs.filter(|earlier| earlier.message.precedes(&job.message))
    }

    fn is_staged_to_succeed(&self, job: &Job) -> bool {
        let mut batch = self.batch.iter();
        batch.any(|run| job.is_of(run) && matches!(run.verdict, Verdict::Done(_)))
    }

    /// Check: the record decides what becomes of the message.
    pub fn check(&mut self, job: usize, store: &Store, rules: Rules<Rule>) {
        let job = &mut self.jobs[job];
        let answer = store.check(&job.message, rules);
        let run = Step::Running(vec![]);
        job.step = match (answer.record.map(|record| &record.state), job.expected) {
            (Some(RecordState::Parked(row)), Expected::Parked { version, .. })
                if row.version == version && !answer.behind =>
            {
                run
            }
            // Whoever took up or settled the row first owns the message's fate.
            (_, Expected::Parked { .. }) => Step::Recorded,
            (None, Expected::Absent) if answer.behind => Step::Waiting,
            (None, Expected::Absent) => run,
            (Some(_), Expected::Absent) => {
                let fingerprint = answer.record.map(|record| record.fingerprint);
                let same = fingerprint == Some(job.message.fingerprint);
                match same || !rules.keep(Rule::MismatchIsBuriedByTheCheck) {
                    true => Step::Recorded,
                    false => Step::Mismatched,
                }
            }
        };
        self.forget_taken_up();
    }

    /// Run: the handler reads its next value, through the writes that are staged.
    pub fn read(&mut self, job: usize, store: &Store, rules: Rules<Rule>) {
        let key = self.next_read(&self.jobs[job]);
        let seen = key.map(|key| self.see(key, store, rules));
        if let Step::Running(reads) = &mut self.jobs[job].step {
            reads.extend(seen);
        }
    }

    /// What a running handler reads next, if it has not read everything.
    pub fn next_read(&self, job: &Job) -> Option<StateKey> {
        match &job.step {
            Step::Running(seen) => job.message.handler.reads().get(seen.len()).copied(),
            _ => None,
        }
    }

    fn see(&self, key: StateKey, store: &Store, rules: Rules<Rule>) -> Seen {
        let (base, stored) = store.read(key);
        let writers = || self.writers(key).flat_map(|(_, run)| run.verdict.writes());
        let writes = writers().filter(|write| write.key == key);
        let value = writes.fold(stored, |value, write| write.op.apply(value));
        let seen: Vec<_> = self.writers(key).map(|(index, _)| index).collect();
        let read = match seen.last() {
            Some(last) if !rules.keep(Rule::VersionsAreNotGuessed) => Read {
                key,
                base: store.sequence + 1 + last,
                seen: vec![],
            },
            _ => Read { key, base, seen },
        };
        let staged = self.writers(key).map(|(_, run)| run.id).collect();
        Seen {
            read,
            staged,
            value,
        }
    }

    /// The staged runs that write a key, by their indices in the batch.
    fn writers(&self, key: StateKey) -> impl Iterator<Item = (u8, &Run)> {
        let runs = (0..).zip(&self.batch);
        runs.filter(move |(_, run)| run.verdict.writes().iter().any(|write| write.key == key))
    }

    /// The runs through whose writes running handlers have read.
    pub fn seen_runs(&self) -> impl Iterator<Item = RunId> {
        let running = self.jobs.iter().filter_map(|job| match &job.step {
            Step::Running(seen) => Some(seen),
            _ => None,
        });
        running
            .flatten()
            .flat_map(|seen| seen.staged.iter().copied())
    }

    /// Whether a handler saw what is staged now: the batch of its reads may be gone.
    fn is_current(&self, seen: &Seen) -> bool {
        let writers = self.writers(seen.read.key).map(|(_, run)| run.id);
        writers.eq(seen.staged.iter().copied())
    }

    /// How a running handler may end now that it has read everything.
    pub fn endings(&self, job: &Job) -> Vec<Ending> {
        match &job.step {
            Step::Running(seen) if self.next_read(job).is_none() => {
                let values: Vec<_> = seen.iter().map(|seen| seen.value).collect();
                job.message.handler.endings(&values)
            }
            _ => vec![],
        }
    }

    /// The handler ended: its run is staged, unless it read what is not staged any more.
    pub fn end(
        &mut self,
        job: usize,
        ending: Ending,
        run: RunId,
        attempts: u8,
        store: &Store,
        rules: Rules<Rule>,
    ) {
        if let Step::Running(reads) = &self.jobs[job].step
            && rules.keep(Rule::StagingTestsReads)
            && !reads.iter().all(|seen| self.is_current(seen))
        {
            self.jobs[job].step = Step::Received;
            return;
        }
        let attempt = self.jobs[job].expected.attempt() + 1;
        let verdict = match ending {
            Ending::Done(writes) if !rules.keep(Rule::AdditionsAddAtTheCommit) => {
                Verdict::Done(self.sums(&writes, store, rules))
            }
            Ending::Done(writes) => Verdict::Done(writes),
            Ending::Retry if attempt < attempts => Verdict::Park(Park {
                attempt,
                behind: false,
            }),
            Ending::Retry => Verdict::Dead(Cause::Exhausted),
            Ending::Reject => Verdict::Dead(Cause::Rejected),
        };
        self.stage(job, run, verdict);
    }

    /// The message is to be parked behind its lane.
    pub fn wait(&mut self, job: usize, run: RunId) {
        let park = Park {
            attempt: 0,
            behind: true,
        };
        self.stage(job, run, Verdict::Park(park));
    }

    fn stage(&mut self, job: usize, id: RunId, verdict: Verdict) {
        let job = &mut self.jobs[job];
        let reads = match std::mem::replace(&mut job.step, Step::Staged) {
            Step::Running(seen) => seen.into_iter().map(|seen| seen.read).collect(),
            _ => vec![],
        };
        self.batch.push(Run {
            id,
            message: job.message,
            expected: job.expected,
            reads,
            verdict,
        });
    }

    fn sums(&self, writes: &[Write], store: &Store, rules: Rules<Rule>) -> Vec<Write> {
        let sum = |write: &Write| match write.op {
            StateOp::Add(_) => {
                let seen = self.see(write.key, store, rules).value;
                let op = write.op.apply(seen).map_or(StateOp::Delete, StateOp::Put);
                Write { op, ..*write }
            }
            _ => *write,
        };
        writes.iter().map(sum).collect()
    }

    /// Commit: acts on the outcomes of the batch.
    pub fn learn(&mut self, outcomes: &[Outcome], rules: Rules<Rule>) {
        for (run, outcome) in std::mem::take(&mut self.batch).into_iter().zip(outcomes) {
            let Some(job) = self.jobs.iter_mut().find(|job| job.is_of(&run)) else {
                continue;
            };
            let whole = rules.keep(Rule::EffectsWithRecord)
                && (rules.keep(Rule::OutboxWithRecord) || !run.message.sends);
            job.step = match outcome {
                Outcome::Applied if !whole && matches!(run.verdict, Verdict::Done(_)) => {
                    Step::HalfWritten(run)
                }
                Outcome::Applied | Outcome::Duplicate | Outcome::AlreadyParked => Step::Recorded,
                // A row that was taken up too early stays parked.
                Outcome::Behind if !job.is_from_source() => Step::Recorded,
                Outcome::Behind => Step::Waiting,
                // The check will say what to do.
                Outcome::Conflict | Outcome::Mismatch => Step::Received,
            };
        }
        self.forget_taken_up();
    }

    /// The commit's reply was lost: it may have been carried out, or may be yet.
    pub fn doubt(&mut self, rules: Rules<Rule>) -> Vec<Run> {
        let again = match rules.keep(Rule::UnknownIsCheckedAgain) {
            true => Step::Received,
            false => Step::Recorded,
        };
        let staged = self.jobs.iter_mut().filter(|job| job.step == Step::Staged);
        staged.for_each(|job| job.step = again.clone());
        self.forget_taken_up();
        std::mem::take(&mut self.batch)
    }

    /// Acknowledge: the end of the contiguous prefix that is recorded, if there is news.
    pub fn watermark(&self, partition: u8, rules: Rules<Rule>) -> Option<u8> {
        let recorded = |job: &&Job| job.counts_as_recorded(rules);
        let last = match rules.keep(Rule::PrefixIsAcknowledged) {
            true => self.source_jobs(partition).take_while(recorded).last(),
            false => self.source_jobs(partition).filter(recorded).last(),
        };
        last.map(|job| job.message.offset + 1)
    }

    /// What is acknowledged is done with.
    pub fn acknowledged(&mut self, partition: u8, watermark: u8, rules: Rules<Rule>) {
        self.jobs.retain(|job| {
            !(job.is_from_source()
                && job.message.partition == partition
                && job.message.offset < watermark
                && job.counts_as_recorded(rules))
        });
    }

    fn source_jobs(&self, partition: u8) -> impl Iterator<Item = &Job> {
        let jobs = self.jobs.iter();
        jobs.filter(move |job| job.is_from_source() && job.message.partition == partition)
    }

    fn forget_taken_up(&mut self) {
        let keep = |job: &Job| job.is_from_source() || job.step != Step::Recorded;
        self.jobs.retain(keep);
    }
}
