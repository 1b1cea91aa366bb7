//! Commit: one durable transaction for all that is staged decides each run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::job::{Fate, Job, Origin};
use super::overlay::{Staged, lane_goes_on, place};
use super::{COMMIT_PAUSE, Engine, EngineError, execute};
use crate::crash::{CrashPoint, crash_point};
use crate::{Disposition, OutboxRow, Outcome, StoreError, Verdict};

impl Engine {
    /// Sends everything that is staged, unless a commit is under way: while one is being
    /// written, the next one gathers.
    pub(super) fn start_commit(&mut self) {
        let waiting = self.pending.is_committing() || Instant::now() < self.commit_at;
        if waiting || self.overlay.len() == 0 {
            return;
        }
        let batch = self.overlay.take_batch();
        self.parts.stats.commits.add(1);
        let store = Arc::clone(&self.parts.store);
        let transactions = self.parts.transactions.clone();
        self.pending.commit = Some(Box::pin(async move {
            let (jobs, runs): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|staged| (staged.job, staged.run))
                .unzip();
            let prepared = match &transactions {
                Some(transactions) => {
                    crash_point(CrashPoint::PrepareBefore);
                    let prepared = transactions.prepare(&runs).await;
                    crash_point(CrashPoint::PrepareAfter);
                    Some(prepared)
                }
                None => None,
            };
            crash_point(CrashPoint::CommitBefore);
            let outcomes = store.commit(&runs).await;
            crash_point(CrashPoint::CommitAfter);
            // Where the outcomes are unknown, the broker has to ask.
            if let (Some(prepared), Ok(outcomes)) = (prepared, &outcomes) {
                let applied = |outcome| matches!(outcome, &Outcome::Applied { .. });
                let applied: Vec<bool> = outcomes.iter().map(applied).collect();
                crash_point(CrashPoint::EndBefore);
                prepared.end(&applied).await;
                crash_point(CrashPoint::EndAfter);
            }
            let batch = jobs
                .into_iter()
                .zip(runs)
                .map(|(job, run)| Staged { job, run })
                .collect();
            (batch, outcomes)
        }));
    }

    pub(super) fn committed(
        &mut self,
        batch: Vec<Staged>,
        outcomes: Result<Vec<Outcome>, StoreError>,
    ) -> Result<(), EngineError> {
        self.overlay.settle(&batch, outcomes.as_deref().ok());
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) if error.is_transient() => {
                let retry_in = self.commit_pause;
                tracing::warn!(%error, runs = batch.len(), ?retry_in, "a commit's outcome is unknown");
                self.commit_at = Instant::now() + retry_in;
                self.commit_pause = (retry_in * 2).min(COMMIT_PAUSE * 64);
                self.unknown(batch);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.commit_pause = COMMIT_PAUSE;
        // First of all: what is decided makes room in flight, and intake, on another thread, must
        // see by then whether the outbox is full.
        self.offer(&batch, &outcomes);
        let mut again = Vec::new();
        for (staged, outcome) in batch.into_iter().zip(outcomes) {
            let lane = staged.job.lane_position().map(place);
            match &lane {
                Some(lane) if lane_goes_on(&staged.run, &outcome) => self.queue.wake_lane(lane),
                Some(lane) => self.queue.break_lane(lane),
                None => {}
            }
            if let Some(job) = self.decided(staged, outcome, &mut again) {
                match lane {
                    Some(_) => self.queue.enqueue(job),
                    None => again.push(job),
                }
            }
        }
        self.recheck(None, again);
        Ok(())
    }

    /// Acts on one outcome. Gives the job back if it is to be run again; those in `again` are
    /// only to be checked.
    fn decided(&mut self, staged: Staged, outcome: Outcome, again: &mut Vec<Job>) -> Option<Job> {
        let Staged { mut job, run } = staged;
        let stats = Arc::clone(&self.parts.stats);
        match (outcome, &run.verdict) {
            (Outcome::Applied { .. }, Verdict::Done(effects)) => {
                job.count_done(&stats);
                stats.latency.record(job.received.elapsed());
                let reply = effects.reply.clone();
                let duplicate = false;
                let applied = job.revision.clone();
                self.record(job, Some(Disposition::Done { reply, duplicate }));
                self.follow(applied.as_ref());
                None
            }
            (Outcome::Applied { .. }, Verdict::Dead(letter)) => {
                stats.dead.add(1);
                let disposition = Disposition::Dead {
                    cause: Some(letter.cause),
                    reason: Some(letter.reason.clone()),
                };
                self.record(job, Some(disposition));
                None
            }
            (Outcome::Applied { version, .. }, Verdict::Park(park)) => {
                stats.parkings.add(1);
                let delay = park.row.due_ms.saturating_sub(self.parts.clock.now_ms());
                let due = Instant::now() + Duration::from_millis(delay);
                self.wake_at = self.wake_at.min(due);
                let waiter = park.row.waits_since_ms.map(|since| (job.clone(), since));
                self.record(job, Some(Disposition::Parked));
                if let Some((job, since_ms)) = waiter {
                    self.waits(job, since_ms, version);
                }
                None
            }
            // Whoever waits is to hear what became of the first delivery: the check knows.
            (Outcome::Duplicate | Outcome::AlreadyParked, _) if self.wants_settlements => {
                match job.origin {
                    Origin::Source => again.push(job),
                    Origin::Parked => self.record(job, None),
                }
                None
            }
            // The row that was found owns the message's fate.
            (Outcome::Duplicate | Outcome::AlreadyParked, _) => {
                if job.origin == Origin::Source {
                    stats.duplicates.add(1);
                }
                self.record(job, Some(Disposition::Parked));
                None
            }
            // A row that was taken up too early stays parked.
            (Outcome::Behind, _) if job.origin == Origin::Parked => {
                self.record(job, None);
                None
            }
            (Outcome::Behind, _) => {
                job.fate = Fate::Behind;
                Some(job)
            }
            (Outcome::NotACounter(key), _) => {
                job.fate = Fate::Doomed(execute::not_a_counter(&key));
                Some(job)
            }
            (Outcome::Missed(miss), _) => {
                job.missed(miss);
                stats.conflicts.add(1);
                Some(job)
            }
            (Outcome::Conflict, _) => {
                stats.conflicts.add(1);
                Some(job)
            }
            // The check will say so too, and bury it.
            (Outcome::Mismatch, _) => Some(job),
        }
    }

    /// Leaves the rows of applied runs to the relay. Messages that went out as half messages are
    /// left to its sweep, as consumers have them most likely.
    fn offer(&self, batch: &[Staged], outcomes: &[Outcome]) {
        let transactions = self.parts.transactions.as_ref();
        let is_half = |row: &OutboxRow| {
            transactions.is_some_and(|transactions| transactions.covers(&row.outgoing.destination))
        };
        let (mut rows, mut left) = (Vec::new(), 0);
        for (staged, outcome) in batch.iter().zip(outcomes) {
            let Outcome::Applied {
                version,
                outbox_clear,
            } = outcome
            else {
                continue;
            };
            let new = staged.run.outbox_rows(*version);
            let (halves, plain): (Vec<_>, Vec<_>) = new.into_iter().partition(is_half);
            // Those of its lane come after the half messages.
            let clear = *outbox_clear && halves.is_empty();
            rows.extend(plain.into_iter().map(|row| (row, clear)));
            left += halves.len();
        }
        self.parts.relay.offer(rows, left);
    }

    /// The commit may have been carried out, or may be yet: check again, then run again.
    fn unknown(&mut self, batch: Vec<Staged>) {
        let (laned, free): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|staged| staged.job)
            .partition(|job| job.lane.is_some());
        for job in laned {
            if let Some(lane) = job.lane_position().map(place) {
                self.queue.break_lane(&lane);
            }
            self.queue.enqueue(job);
        }
        self.recheck(None, free);
        self.parts.relay.sweep();
    }
}
