//! The protocol, from receive to acknowledge.
//!
//! ```text
//! receive → key → check → run → commit → acknowledge        (relay: outbox → brokers)
//! ```
//!
//! | step | module | rule |
//! |---|---|---|
//! | receive, key | [`intake`] | nothing is acknowledged yet; no key, no run |
//! | check | [`check`] | done, dead and parked messages are dropped; without an answer nothing runs |
//! | run | [`execute`] through [`overlay`], [`versioning`] | effects are staged, reads remembered; stale messages have none |
//! | commit | [`mod@commit`] | one durable transaction for the whole batch decides each run |
//! | settle | [`settle`] | who waits at the source hears what became of the message |
//! | acknowledge | [`acknowledge`] | only the contiguous prefix, only what is recorded |
//!
//! An engine serves one plugin from one source. Two engines that run the same message, on one
//! host or on two, are harmless: whose commit comes first wins. So there are no claims, leases
//! or locks here, and a crash at any point leaves nothing to clean up.

mod acknowledge;
mod budget;
mod cache;
mod check;
mod commit;
mod config;
mod execute;
mod intake;
mod job;
mod overlay;
mod pending;
mod queue;
mod settle;
mod stats;
mod versioning;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::crash::{CrashPoint, crash_point};
use crate::throttle::Throttle;
use crate::{Disposition, Partition, Position, Settlement, SourceError, StoreError};
use acknowledge::Watermarks;
use budget::Budget;
use check::{Checker, Finding};
use execute::{Executor, Remains, Strand};
use intake::{Arrivals, Intake};
use job::{Job, Origin};
use overlay::{Overlay, Place};
use pending::{Pending, Progress};
use queue::Queue;
use settle::of_duplicate;
use versioning::Waiters;

pub use config::{EngineConfig, EngineParts, FlowLimits, RetryPolicy};
pub use stats::{Counter, Latency, Stats, StatsSnapshot};

/// How often the store is asked for parked messages that are due. Another host may have parked
/// them, so an engine can't know.
const WAKE_INTERVAL: Duration = Duration::from_millis(500);
/// Parked messages taken up at once.
const WAKE_LIMIT: usize = 256;
/// How often done records are expired.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(600);
/// How long a shutdown waits for runs and commits in flight. What is cut off is redelivered.
const DRAIN_TIME: Duration = Duration::from_secs(20);
/// How often an engine that has nothing else to do asks whether messages are parked still.
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);
/// How long after a commit of unknown outcome the next one is sent, at first; it doubles with
/// each further one, up to 64 times this.
const COMMIT_PAUSE: Duration = Duration::from_millis(50);
/// How long after a failed acknowledgement the next one is sent.
const ACKNOWLEDGE_PAUSE: Duration = Duration::from_secs(1);

/// Why an engine stopped before its source ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store can't go on.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source can't go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The host stood still, or could not go on, for so long that done records may have expired:
    /// what it holds can't be told from new messages. Started again, it receives what is due.
    #[error(
        "messages were held for {limit:?}, half of the retention, without being handled: start again"
    )]
    Overslept {
        /// Half of the retention.
        limit: Duration,
    },
    /// A bug: a task of the engine panicked.
    #[error("a task of the engine panicked")]
    Panicked(#[from] JoinError),
}

/// Consumes messages for one plugin; see the [module's documentation](self).
pub struct Engine {
    config: Arc<EngineConfig>,
    parts: EngineParts,
    overlay: Arc<Overlay>,
    executor: Arc<Executor>,
    budget: Arc<Budget>,
    queue: Queue,
    marks: Watermarks,
    pending: Pending,
    /// Jobs that tasks are running.
    running: usize,
    /// Whether that is one which is to run alone, from its start to its commit.
    exclusive: bool,
    wants_settlements: bool,
    settlements: Vec<Settlement>,
    unacknowledged: BTreeMap<Partition, u64>,
    acknowledge_at: Instant,
    commit_at: Instant,
    commit_pause: Duration,
    wake_at: Instant,
    settle_at: Instant,
    expire_at: Instant,
}

/// How far an engine has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The source goes on.
    Consuming,
    /// The source ended; what is under way goes on.
    Finishing,
    /// Nothing is left to do.
    Finished,
}

impl Engine {
    /// An engine that has not started.
    pub fn new(config: EngineConfig, parts: EngineParts) -> Self {
        let config = Arc::new(config);
        let overlay = Arc::new(Overlay::new(
            Arc::clone(&parts.store),
            config.flow.cached_values,
        ));
        let executor = Arc::new(Executor {
            config: Arc::clone(&config),
            runner: Arc::clone(&parts.runner),
            overlay: Arc::clone(&overlay),
            waiters: Waiters::new(&config.flow),
            clock: Arc::clone(&parts.clock),
            stats: Arc::clone(&parts.stats),
            runs: AtomicU64::new(0),
            dropped: Throttle::default(),
            letters: Throttle::default(),
        });
        let budget = Arc::new(Budget::new(
            config.flow.in_flight,
            config.flow.in_flight_bytes,
        ));
        let now = Instant::now();
        let wants_settlements = parts.source.wants_settlements();
        Self {
            config,
            parts,
            overlay,
            executor,
            budget,
            queue: Queue::default(),
            marks: Watermarks::default(),
            pending: Pending::default(),
            running: 0,
            exclusive: false,
            wants_settlements,
            settlements: Vec::new(),
            unacknowledged: BTreeMap::new(),
            acknowledge_at: now,
            commit_at: now,
            commit_pause: COMMIT_PAUSE,
            wake_at: now,
            settle_at: now,
            expire_at: now,
        }
    }

    /// Consumes until the source ends (and, if so configured, parked messages are settled) or
    /// `shutdown` is cancelled; then what is in flight is finished, within a bound.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let (sender, mut arrivals) = mpsc::channel(1);
        let intake = Intake {
            config: Arc::clone(&self.config),
            source: Arc::clone(&self.parts.source),
            checker: self.checker(),
            budget: Arc::clone(&self.budget),
            relay: self.parts.relay.clone(),
            letters: Throttle::default(),
            arrivals: sender,
        };
        let mut intake = AbortOnDropHandle::new(tokio::spawn(intake.run()));
        let consumed = tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            Err(error) = flatten(&mut intake) => Err(error),
            consumed = self.consume(&mut arrivals) => consumed,
        };
        intake.abort();
        consumed?;
        if tokio::time::timeout(DRAIN_TIME, self.drain())
            .await
            .is_err()
        {
            tracing::warn!("shutdown does not wait longer; unfinished messages are redelivered");
        }
        self.parts.source.close().await;
        Ok(())
    }

    async fn consume(
        &mut self,
        arrivals: &mut mpsc::Receiver<Arrivals>,
    ) -> Result<(), EngineError> {
        let mut phase = Phase::Consuming;
        while phase != Phase::Finished {
            self.dispatch();
            self.start_commit();
            self.start_settle();
            self.start_acknowledge();
            self.start_timers();
            if phase == Phase::Finishing && self.is_quiet() {
                if !self.config.wait_for_parked {
                    return Ok(());
                }
                self.start_settling();
            }
            let timer = self.next_timer(phase);
            // In a fixed order, so that a simulated run can be repeated. What arrives is bounded
            // by the budget, so it can't crowd out the rest.
            tokio::select! {
                biased;
                Some(arrived) = arrivals.recv(), if phase == Phase::Consuming => match arrived {
                    Arrivals::Batch { positions, recorded, jobs } => {
                        positions.iter().for_each(|position| self.marks.begin(position));
                        recorded.iter().for_each(|settled| self.marks.finish(&settled.position));
                        if self.wants_settlements {
                            self.settlements.extend(recorded);
                        }
                        jobs.into_iter().for_each(|job| self.queue.admit(job));
                    }
                    Arrivals::End => phase = Phase::Finishing,
                },
                progress = self.pending.next(&self.overlay) => match progress {
                    Progress::Settled(parked) => phase = self.settled(parked)?,
                    progress => self.advance(progress)?,
                },
                () = sleep_until(timer) => {}
            }
        }
        Ok(())
    }

    /// Finishes what is running and acknowledges it. What has not started is dropped.
    async fn drain(&mut self) -> Result<(), EngineError> {
        loop {
            self.queue = Queue::default();
            self.pending.drop_optional();
            self.start_commit();
            self.start_settle();
            self.start_acknowledge();
            let working = self.running > 0
                || self.pending.is_committing()
                || self.pending.is_settling()
                || self.pending.is_acknowledging();
            if !working && self.unacknowledged.is_empty() {
                return Ok(());
            }
            if working {
                let progress = self.pending.next(&self.overlay).await;
                self.advance(progress)?;
            } else {
                sleep_until(self.acknowledge_at).await;
            }
        }
    }

    fn advance(&mut self, progress: Progress) -> Result<(), EngineError> {
        match progress {
            Progress::Staged | Progress::Told | Progress::Settled(_) => {}
            Progress::Ran(ran) => {
                let (jobs, remains) = ran?;
                self.running -= jobs;
                self.ran(remains);
            }
            Progress::Committed(batch, outcomes) => self.committed(batch, outcomes)?,
            Progress::Rechecked(lane, findings) => self.rechecked(lane, findings?),
            Progress::Acknowledged(positions, result) => self.acknowledged(positions, result),
            Progress::Due(rows) => self.due(rows)?,
            Progress::Expired(Err(error)) if !error.is_transient() => return Err(error.into()),
            Progress::Expired(_) => {}
        }
        Ok(())
    }

    // === run ===

    /// Gives the workers what may run now, as far as the next batch has room.
    fn dispatch(&mut self) {
        for (lane, jobs) in self.queue.take_broken(&self.overlay) {
            self.recheck(Some(lane), jobs);
        }
        if self.run_alone() {
            return;
        }
        while self.pending.tasks.len() < self.config.flow.concurrency {
            let room = self
                .config
                .flow
                .batch
                .saturating_sub(self.running + self.overlay.len());
            let idle = self.config.flow.concurrency - self.pending.tasks.len();
            let strands = match room {
                0 => return,
                room => self.queue.next_task(room, idle, &self.overlay),
            };
            if strands.is_empty() {
                // A lane may have come to a message that is to run alone.
                self.run_alone();
                return;
            }
            self.spawn(strands);
        }
    }

    /// Begins to run a message that is to run alone, if there is one and nothing else runs. The
    /// answer is whether nothing else may begin to: such a message waits for that, or runs, or is
    /// being committed.
    fn run_alone(&mut self) -> bool {
        let idle = self.running == 0 && self.overlay.len() == 0 && !self.pending.is_committing();
        if !idle {
            return self.exclusive || self.queue.has_contended();
        }
        let next = self.queue.next_contended(&self.overlay);
        self.exclusive = next.is_some();
        if let Some(strand) = next {
            self.spawn(vec![strand]);
        }
        self.exclusive
    }

    fn spawn(&mut self, strands: Vec<Strand>) {
        let jobs: usize = strands.iter().map(Vec::len).sum();
        self.running += jobs;
        let executor = Arc::clone(&self.executor);
        let task = async move { (jobs, executor.run(strands).await) };
        self.pending.tasks.spawn_on(task, &self.parts.workers);
    }

    fn ran(&mut self, remains: Vec<Remains>) {
        for strand in remains {
            for job in strand.held {
                self.queue.enqueue(job);
            }
            if let Some(entity) = strand.entity {
                self.queue.release_entity(entity);
            }
            match strand.lane {
                // The lane stays busy until its aborted message is checked.
                Some(lane) if !strand.aborted.is_empty() => {
                    self.recheck(Some(lane), strand.aborted);
                }
                Some(lane) => self.queue.release_lane(&lane),
                None => self.recheck(None, strand.aborted),
            }
        }
    }

    // === check, again ===

    fn recheck(&mut self, lane: Option<Place>, jobs: Vec<Job>) {
        if jobs.is_empty() {
            if let Some(lane) = lane {
                self.queue.release_lane(&lane);
            }
            return;
        }
        let checker = self.checker();
        self.pending
            .rechecks
            .push(Box::pin(async move { (lane, checker.check(jobs).await) }));
    }

    fn rechecked(&mut self, lane: Option<Place>, findings: Vec<Finding>) {
        for finding in findings {
            match finding {
                Finding::Run(job) if job.leads => self.queue.enqueue(job),
                Finding::Run(job) => self.queue.admit(job),
                Finding::Recorded(job, disposition) => {
                    self.note(&job, || disposition);
                    self.record(job, None);
                }
            }
        }
        if let Some(lane) = lane {
            self.queue.release_lane(&lane);
        }
    }

    /// A message's record is durable. Those of the same key and payload that arrived meanwhile
    /// are duplicates, if it is known what became of it; else the store is asked.
    fn record(&mut self, job: Job, disposition: Option<Disposition>) {
        let followers = self.queue.finish(&job);
        self.waits_no_longer(&job);
        if job.origin == Origin::Parked {
            // Its successors in the lane may be free now.
            self.wake_at = Instant::now();
        }
        let (same, other): (Vec<_>, Vec<_>) = followers
            .into_iter()
            .partition(|follower| disposition.is_some() && follower.fingerprint == job.fingerprint);
        self.release(&job);
        if let Some(disposition) = &disposition {
            self.note(&job, || disposition.clone());
        }
        for follower in same {
            self.parts.stats.duplicates.add(1);
            if let Some(first) = &disposition {
                self.note(&follower, || of_duplicate(first));
            }
            self.release(&follower);
        }
        self.recheck(None, other);
    }

    fn release(&mut self, job: &Job) {
        self.budget.release(job.message.size());
        if job.origin == Origin::Source {
            self.marks.finish(&job.position);
        }
    }

    // === acknowledge ===

    fn start_acknowledge(&mut self) {
        if self.marks.moved() {
            for Position { partition, offset } in self.marks.take() {
                self.unacknowledged.insert(partition, offset);
            }
        }
        let waiting = self.pending.is_acknowledging() || Instant::now() < self.acknowledge_at;
        if waiting || self.unacknowledged.is_empty() {
            return;
        }
        let positions = std::mem::take(&mut self.unacknowledged).into_iter();
        let positions: Vec<_> = positions
            .map(|(partition, offset)| Position { partition, offset })
            .collect();
        let source = Arc::clone(&self.parts.source);
        self.pending.acknowledge = Some(Box::pin(async move {
            crash_point(CrashPoint::AcknowledgeBefore);
            let result = source.acknowledge(&positions).await;
            crash_point(CrashPoint::AcknowledgeAfter);
            (positions, result)
        }));
    }

    fn acknowledged(&mut self, positions: Vec<Position>, result: Result<(), SourceError>) {
        let Err(error) = result else { return };
        tracing::warn!(%error, "an acknowledgement failed");
        self.acknowledge_at = Instant::now() + ACKNOWLEDGE_PAUSE;
        for Position { partition, offset } in positions {
            // What was recorded since lies further on.
            self.unacknowledged.entry(partition).or_insert(offset);
        }
    }

    fn checker(&self) -> Checker {
        Checker {
            store: Arc::clone(&self.parts.store),
            clock: Arc::clone(&self.parts.clock),
            retention: self.config.retention,
            stats: Arc::clone(&self.parts.stats),
        }
    }
}

async fn flatten(task: &mut AbortOnDropHandle<Result<(), EngineError>>) -> Result<(), EngineError> {
    task.await?
}
