//! Check: one batched look-up decides which messages run.

use std::sync::Arc;
use std::time::Duration;

use super::EngineError;
use super::job::{Fate, Job, Origin};
use crate::crash::{CrashPoint, crash_point};
use crate::{
    Cause, CheckQuery, Checked, Clock, DeadLetter, DeadLetterId, Disposition, Expected,
    RecordState, Stats, Store, StoreError,
};

/// What the check found about a message.
#[derive(Debug)]
pub(super) enum Finding {
    /// It is to be run (or parked, or buried; see [`Fate`]).
    Run(Job),
    /// Its record is durable; there is nothing left to do but to acknowledge.
    Recorded(Job, Disposition),
}

pub(super) struct Checker {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retention: Duration,
    pub(super) stats: Arc<Stats>,
}

impl Checker {
    /// Looks up all jobs at once. While the store is out of service this waits, and nothing
    /// is run: without a check nothing ever is.
    pub(super) async fn check(&self, jobs: Vec<Job>) -> Result<Vec<Finding>, EngineError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let query = |job: &Job| CheckQuery {
            record: job.record.clone(),
            lane: job.lane_position(),
        };
        let queries: Vec<_> = jobs.iter().map(query).collect();
        crash_point(CrashPoint::CheckBefore);
        let answers = persist("check", || self.store.check(&queries)).await?;
        crash_point(CrashPoint::CheckAfter);
        self.test_age(&jobs, &answers)?;
        let mut letters = Vec::new();
        let findings = jobs.into_iter().zip(answers);
        let findings = findings
            .map(|(job, answer)| self.judge(job, answer, &mut letters))
            .collect();
        self.bury(letters).await?;
        Ok(findings)
    }

    /// A message without a record is new, unless this host has had it for so long that the record
    /// may have come and gone meanwhile. Half the retention leaves room for clocks that differ.
    fn test_age(&self, jobs: &[Job], answers: &[Checked]) -> Result<(), EngineError> {
        let now_ms = self.clock.now_ms();
        let limit = self.retention / 2;
        let overslept = jobs.iter().zip(answers).any(|(job, answer)| {
            let age = Duration::from_millis(now_ms.saturating_sub(job.since_ms));
            answer.state == RecordState::Absent && age >= limit
        });
        match overslept {
            true => Err(EngineError::Overslept { limit }),
            false => Ok(()),
        }
    }

    /// Keeps dead letters that end no record, before their messages count as recorded.
    pub(super) async fn bury(&self, letters: Vec<DeadLetter>) -> Result<(), EngineError> {
        if letters.is_empty() {
            return Ok(());
        }
        crash_point(CrashPoint::BuryBefore);
        persist("bury", || self.store.bury(&letters)).await?;
        crash_point(CrashPoint::BuryAfter);
        let mismatches = letters
            .iter()
            .filter(|letter| letter.cause == Cause::Mismatch)
            .count();
        self.stats.mismatches.add(mismatches as u64);
        self.stats.dead.add(letters.len() as u64);
        Ok(())
    }

    fn judge(&self, mut job: Job, answer: Checked, letters: &mut Vec<DeadLetter>) -> Finding {
        job.bucket = answer.bucket;
        let same = answer.state.fingerprint() == Some(job.fingerprint);
        match (answer.state, job.origin) {
            (RecordState::Absent, Origin::Source) => {
                job.expected = Expected::Absent;
                job.fate = match job.fate {
                    fate @ Fate::Doomed(_) => fate,
                    _ if answer.behind => Fate::Behind,
                    fate @ Fate::Failed(_) => fate,
                    Fate::Run | Fate::Behind => Fate::Run,
                };
                Finding::Run(job)
            }
            (RecordState::Done { run, reply, .. }, _) if job.sent == Some(run) => {
                job.count_done(&self.stats);
                let duplicate = false;
                Finding::Recorded(job, Disposition::Done { reply, duplicate })
            }
            // Whoever took up or settled the row first owns the message's fate.
            (RecordState::Parked { version, .. }, Origin::Parked)
                if job.expected == Expected::Parked(version) && !answer.behind =>
            {
                Finding::Run(job)
            }
            (state, Origin::Parked) => Finding::Recorded(job, disposition(state)),
            (state, Origin::Source) if same => {
                self.stats.duplicates.add(1);
                Finding::Recorded(job, disposition(state))
            }
            (_, Origin::Source) => {
                let letter = self.mismatch(&job);
                let disposition = Disposition::Dead {
                    cause: Some(letter.cause),
                    reason: Some(letter.reason.clone()),
                };
                letters.push(letter);
                Finding::Recorded(job, disposition)
            }
        }
    }

    fn mismatch(&self, job: &Job) -> DeadLetter {
        DeadLetter {
            id: DeadLetterId::of_position(&job.record.plugin, &job.position),
            plugin: job.record.plugin.clone(),
            record: None,
            cause: Cause::Mismatch,
            reason: format!(
                "the key `{}` was already used by a message with another payload",
                job.record.key
            ),
            detail: None,
            message: (*job.message).clone(),
            outgoing: None,
            position: job.position.clone(),
            attempts: 0,
            dead_ms: self.clock.now_ms(),
        }
    }
}

/// What became of a message that finds this record of an earlier delivery.
fn disposition(state: RecordState) -> Disposition {
    match state {
        RecordState::Done { reply, .. } => Disposition::Done {
            reply,
            duplicate: true,
        },
        RecordState::Absent | RecordState::Parked { .. } => Disposition::Parked,
        RecordState::Dead { .. } => Disposition::Dead {
            cause: None,
            reason: None,
        },
    }
}

/// Asks the store again and again while it is out of service.
pub(super) async fn persist<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T, EngineError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, retry_in = ?pause, "{what}: consuming is suspended");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
