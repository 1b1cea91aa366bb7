//! Run: call the handler and turn its answer into a run that asks to be committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::config::EngineConfig;
use super::job::{Fate, Job};
use super::overlay::{Overlay, Place, Staging, place};
use super::versioning::Waiters;
use crate::crash::{CrashPoint, crash_point};
use crate::throttle::Throttle;
use crate::{
    Cause, Clock, DeadLetter, DeadLetterId, Failure, Finished, Park, ParkedRow, Run, RunContext,
    RunId, Runner, Seen, StateKey, Stats, Verdict,
};

/// Messages to be run one after the other: those of one lane, or a single one.
pub(super) type Strand = Vec<Job>;

/// What is left of a strand.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// The lane that is free again.
    pub(super) lane: Option<Place>,
    /// The entity of which the next message may run.
    pub(super) entity: Option<StateKey>,
    /// To be run again, in order, once the lane's commit is through.
    pub(super) held: Vec<Job>,
    /// To be checked again: the store did not answer.
    pub(super) aborted: Vec<Job>,
}

pub(super) struct Executor {
    pub(super) config: Arc<EngineConfig>,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) overlay: Arc<Overlay>,
    /// Messages that wait for earlier versions.
    pub(super) waiters: Waiters,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stats: Arc<Stats>,
    pub(super) runs: AtomicU64,
    /// Of lines about dropped runs, and about dead letters.
    pub(super) dropped: Throttle,
    pub(super) letters: Throttle,
}

enum Step {
    Staged { lane_goes_on: bool },
    Held(Job),
    Aborted(Job),
}

impl Executor {
    /// Runs strands beside each other; a run that waits for the store lets others go on.
    pub(super) async fn run(&self, strands: Vec<Strand>) -> Vec<Remains> {
        let strands: FuturesUnordered<_> = strands
            .into_iter()
            .map(|strand| self.run_strand(strand))
            .collect();
        strands.collect().await
    }

    async fn run_strand(&self, strand: Strand) -> Remains {
        let lane = strand.first().and_then(Job::lane_position).map(place);
        let entity = strand.first().and_then(Job::entity).cloned();
        let mut remains = Remains {
            lane,
            entity,
            ..Remains::default()
        };
        let mut jobs = strand.into_iter();
        for job in jobs.by_ref() {
            match self.run_job(job).await {
                Step::Staged { lane_goes_on: true } => {}
                Step::Staged {
                    lane_goes_on: false,
                } => break,
                Step::Held(job) => {
                    remains.held.push(job);
                    break;
                }
                Step::Aborted(job) => {
                    remains.aborted.push(job);
                    break;
                }
            }
        }
        remains.held.extend(jobs);
        remains
    }

    async fn run_job(&self, mut job: Job) -> Step {
        loop {
            if job
                .lane_position()
                .is_some_and(|lane| self.overlay.is_held(&place(lane)))
            {
                return Step::Held(job);
            }
            let (verdict, reads) = match &job.fate {
                Fate::Behind => (self.behind(&job), HashMap::new()),
                Fate::Doomed(reason) => (
                    self.dead(&job, Cause::Rejected, reason.clone(), None),
                    HashMap::new(),
                ),
                Fate::Failed(reason) => {
                    (self.retry(&job, reason.clone(), None, None), HashMap::new())
                }
                Fate::Run => match self.decide(&mut job).await {
                    Some(called) => called,
                    None => return Step::Aborted(job),
                },
            };
            let lane_goes_on = match &verdict {
                Verdict::Done(_) | Verdict::Dead(_) => true,
                Verdict::Park(park) => park.behind,
            };
            let run = self.ask(&mut job, verdict);
            match self.overlay.stage(job, run, reads) {
                Staging::Done => return Step::Staged { lane_goes_on },
                Staging::Held(job) => return Step::Held(job),
                Staging::Stale(stale) => {
                    self.stats.conflicts.add(1);
                    job = stale;
                }
            }
        }
    }

    /// Calls the handler. None if the store failed it.
    pub(super) async fn call(&self, job: &Job) -> Option<(Verdict, HashMap<StateKey, Seen>)> {
        self.stats.runs.add(1);
        let context = RunContext::new(
            job.record.clone(),
            Arc::clone(&job.message),
            job.attempt,
            Arc::clone(&self.config.grants),
            Arc::clone(&self.overlay) as _,
        );
        crash_point(CrashPoint::RunBefore);
        let Finished {
            mut context,
            answer,
        } = self.runner.run(context).await;
        crash_point(CrashPoint::RunAfter);
        if let Some(fault) = context.take_fault() {
            if let Some(held_back) = self.dropped.pass() {
                let plugin = &self.config.plugin;
                tracing::warn!(%plugin, error = %fault, held_back, "the run is dropped");
            }
            return None;
        }
        let refused = context.not_a_counter().cloned();
        let (reply, failure) = match (context.breach(), answer) {
            (Some(breach), _) => (
                None,
                Some(Failure::Trap {
                    reason: breach.to_owned(),
                    detail: None,
                }),
            ),
            (None, Ok(reply)) => (reply, None),
            (None, Err(failure)) => (None, Some(failure)),
        };
        let (reads, effects) = context.into_parts(reply);
        let verdict = match (failure, refused) {
            (Some(failure), _) => self.failed(job, failure)?,
            (None, Some(key)) => self.dead(job, Cause::Rejected, not_a_counter(&key), None),
            (None, None) => Verdict::Done(effects),
        };
        Some((verdict, reads))
    }

    fn failed(&self, job: &Job, failure: Failure) -> Option<Verdict> {
        Some(match failure {
            Failure::Reject { reason } => self.dead(job, Cause::Rejected, reason, None),
            Failure::Retry { reason, after_ms } => self.retry(job, reason, None, after_ms),
            Failure::Trap { reason, detail } => self.retry(job, reason, detail, None),
            Failure::Aborted => return None,
        })
    }

    fn retry(
        &self,
        job: &Job,
        reason: String,
        detail: Option<String>,
        after_ms: Option<u64>,
    ) -> Verdict {
        let attempt = job.attempt.saturating_add(1);
        if attempt >= self.config.retry.max_attempts {
            return self.dead(job, Cause::Exhausted, reason, detail);
        }
        let backoff = self.config.retry.delay(attempt).as_millis();
        let delay = u64::try_from(backoff)
            .unwrap_or(u64::MAX)
            .max(after_ms.unwrap_or(0));
        tracing::info!(
            plugin = %self.config.plugin, key = %job.record.key, attempt, delay_ms = delay, %reason,
            "parked"
        );
        let due_ms = self.clock.now_ms().saturating_add(delay);
        let row = Box::new(parked_row(job, attempt, due_ms, reason));
        Verdict::Park(Park { row, behind: false })
    }

    fn behind(&self, job: &Job) -> Verdict {
        let reason = "waits behind an earlier message of its lane".to_owned();
        let row = Box::new(parked_row(job, 0, self.clock.now_ms(), reason));
        Verdict::Park(Park { row, behind: true })
    }

    pub(super) fn dead(
        &self,
        job: &Job,
        cause: Cause,
        reason: String,
        detail: Option<String>,
    ) -> Verdict {
        if let Some(held_back) = self.letters.pass() {
            let (plugin, key) = (&self.config.plugin, &job.record.key);
            tracing::warn!(%plugin, %key, %reason, held_back, "dead letter: {cause}");
        }
        Verdict::Dead(Box::new(DeadLetter {
            id: DeadLetterId::of_record(&job.record),
            plugin: job.record.plugin.clone(),
            record: Some(job.record.clone()),
            cause,
            reason,
            detail,
            message: (*job.message).clone(),
            outgoing: None,
            position: job.position.clone(),
            attempts: job.attempt.saturating_add(1),
            dead_ms: self.clock.now_ms(),
        }))
    }

    fn ask(&self, job: &mut Job, verdict: Verdict) -> Run {
        let id = RunId::new(self.config.instance, self.runs.fetch_add(1, Relaxed));
        job.sent = Some(id);
        Run {
            id,
            record: job.record.clone(),
            fingerprint: job.fingerprint,
            position: job.position.clone(),
            lane: job.lane.clone(),
            expected: job.expected,
            bucket: job.bucket,
            reads: Vec::new(),
            ended_ms: self.clock.now_ms(),
            verdict,
        }
    }
}

pub(super) fn not_a_counter(key: &StateKey) -> String {
    format!(
        "the handler added to the state `{}`, which is no 64-bit decimal counter",
        key.name
    )
}

pub(super) fn parked_row(job: &Job, attempt: u32, due_ms: u64, reason: String) -> ParkedRow {
    ParkedRow {
        record: job.record.clone(),
        fingerprint: job.fingerprint,
        message: (*job.message).clone(),
        position: job.position.clone(),
        lane: job.lane.clone(),
        attempt,
        waits_since_ms: None,
        due_ms,
        reason,
        version: 0,
    }
}
