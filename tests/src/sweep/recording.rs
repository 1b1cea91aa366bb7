//! What a host passed on its way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use semel_core::crash::CrashPoint;

use super::Configuration;
use crate::passage::crash_point;

/// How often each crash point was passed.
pub type Hits = BTreeMap<CrashPoint, u64>;

/// What hosts pass of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// When nothing goes wrong.
    pub first: Hits,
    /// After another one was killed.
    pub recovery: Hits,
}

impl Recording {
    /// Reads what `semel-under-test` wrote: the name of a crash point a line.
    pub fn read(path: &Path) -> Result<Hits> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("there is no recording at {}", path.display()))?;
        let mut hits = BTreeMap::new();
        for line in text.lines() {
            *hits.entry(crash_point(line)?).or_default() += 1;
        }
        Ok(hits)
    }

    /// Demands that every crash point was passed but for those that the configuration can't
    /// pass, and none of those: a dead crash point tests nothing.
    pub fn covers(&self, configuration: Configuration) -> Result<()> {
        let never = configuration.never_passes();
        for point in CrashPoint::ALL {
            let passed = self.first.contains_key(point) || self.recovery.contains_key(point);
            ensure!(
                passed != never.contains(point),
                "{configuration}: the crash point {} was {}",
                point.name(),
                if passed {
                    "passed, which the list of exceptions rules out"
                } else {
                    "never passed: the workload does not reach it, or nothing does"
                }
            );
        }
        Ok(())
    }
}
