//! Check: one batched look-up decides which messages run.

use std::sync::Arc;
use std::time::Duration;

use super::EngineError;
use super::job::{Fate, Job, Origin};
use crate::{
    Cause, CheckQuery, Checked, Clock, DeadLetter, DeadLetterId, Expected, RecordState, Stats,
    Store, StoreError,
};

/// What the check found about a message.
#[derive(Debug)]
pub(super) enum Finding {
    /// It is to be run (or parked, or buried; see [`Fate`]).
    Run(Job),
    /// Its record is durable; there is nothing left to do but to acknowledge.
    Recorded(Job),
}

pub(super) struct Checker {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
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
        let answers = persist("check", || self.store.check(&queries)).await?;
        let mut letters = Vec::new();
        let findings = jobs.into_iter().zip(answers);
        let findings = findings
            .map(|(job, answer)| self.judge(job, answer, &mut letters))
            .collect();
        self.bury(letters).await?;
        Ok(findings)
    }

    /// Keeps dead letters that end no record, before their messages count as recorded.
    pub(super) async fn bury(&self, letters: Vec<DeadLetter>) -> Result<(), EngineError> {
        if letters.is_empty() {
            return Ok(());
        }
        persist("bury", || self.store.bury(&letters)).await?;
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
                    Fate::Doomed(reason) => Fate::Doomed(reason),
                    _ if answer.behind => Fate::Behind,
                    _ => Fate::Run,
                };
                Finding::Run(job)
            }
            (RecordState::Done { run, .. }, _) if job.sent == Some(run) => {
                self.stats.applied.add(1);
                Finding::Recorded(job)
            }
            // Whoever took up or settled the row first owns the message's fate.
            (RecordState::Parked { version, .. }, Origin::Parked)
                if job.expected == Expected::Parked(version) && !answer.behind =>
            {
                Finding::Run(job)
            }
            (_, Origin::Parked) => Finding::Recorded(job),
            (_, Origin::Source) if same => {
                self.stats.duplicates.add(1);
                Finding::Recorded(job)
            }
            (_, Origin::Source) => {
                letters.push(self.mismatch(&job));
                Finding::Recorded(job)
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
            position: job.position.clone(),
            attempts: 0,
            dead_ms: self.clock.now_ms(),
        }
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
