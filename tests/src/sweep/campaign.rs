//! Many trials, side by side.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::stream::{StreamExt, TryStreamExt, iter};
use semel_core::crash::CrashPoint;

use super::recording::Hits;
use super::{Configuration, Fault, Recording, Report, Surroundings, Trial, Verdict};
use crate::passage::Passage;

/// Trials on the same servers, with the same orders.
#[derive(Clone)]
pub struct Campaign {
    /// On what.
    pub configuration: Configuration,
    /// The servers.
    pub surroundings: Arc<Surroundings>,
    /// Makes the orders.
    pub seed: u64,
    /// Trials at a time.
    pub jobs: usize,
    /// Whether to falsify the books, to see the audits fail.
    pub tamper: bool,
}

impl Campaign {
    /// A trial of it.
    pub fn trial(&self, fault: Fault) -> Trial {
        Trial {
            configuration: self.configuration,
            fault,
            seed: self.seed,
            tamper: self.tamper,
            keep: false,
        }
    }

    /// Records what hosts pass, and demands that it is all that they can.
    pub async fn record(&self, report: &mut Report) -> Result<(Recording, Verdict)> {
        let verdict = self.recorded(Fault::None, report).await?;
        let mut recording = Recording {
            first: verdict.passed.clone(),
            recovery: Hits::new(),
        };
        // Late enough for there to be something to recover from, half messages for one, unless
        // the broker was too slow to take any.
        for hit in [4, 6, 8] {
            let point = CrashPoint::CommitBefore;
            let killed = Fault::Recover(Passage { point, hit });
            let recovery = self.recorded(killed, report).await?;
            for (point, hits) in recovery.passed {
                let most = recording.recovery.entry(point).or_default();
                *most = hits.max(*most);
            }
            if recording.covers(self.configuration).is_ok() {
                break;
            }
        }
        recording.covers(self.configuration)?;
        Ok((recording, verdict))
    }

    async fn recorded(&self, fault: Fault, report: &mut Report) -> Result<Verdict> {
        let trial = self.trial(fault);
        let verdict = run(trial.clone(), Arc::clone(&self.surroundings)).await?;
        report.add(&trial, &verdict);
        let (configuration, fault) = (self.configuration, &trial.fault);
        if !self.tamper {
            ensure!(
                verdict.flaws.is_empty(),
                "{configuration}: {fault}: {:#?}",
                verdict.flaws
            );
        }
        Ok(verdict)
    }

    /// Runs a trial for each fault, and tells of each as it ends.
    pub async fn run(
        &self,
        faults: Vec<Fault>,
        mut tell: impl FnMut(&Trial, &Verdict),
    ) -> Result<()> {
        let trials = iter(faults).map(|fault| {
            let trial = self.trial(fault);
            let surroundings = Arc::clone(&self.surroundings);
            async move {
                run(trial.clone(), surroundings)
                    .await
                    .map(|verdict| (trial, verdict))
            }
        });
        let mut trials = trials.buffer_unordered(self.jobs.max(1));
        while let Some((trial, verdict)) = trials.try_next().await? {
            tell(&trial, &verdict);
        }
        Ok(())
    }
}

async fn run(trial: Trial, surroundings: Arc<Surroundings>) -> Result<Verdict> {
    let (configuration, fault) = (trial.configuration, trial.fault.clone());
    let ran = tokio::task::spawn_blocking(move || trial.run(&surroundings)).await?;
    ran.with_context(|| format!("{configuration}: {fault}"))
}
