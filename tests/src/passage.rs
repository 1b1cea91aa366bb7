//! A host's way through its crash points.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use semel_core::crash::CrashPoint;

/// Where `semel-under-test` kills itself with SIGKILL: passages, separated by commas.
pub const CRASH_AT: &str = "SEMEL_CRASH_AT";

/// Where it stops itself with SIGSTOP: passages, separated by commas.
pub const PAUSE_AT: &str = "SEMEL_PAUSE_AT";

/// The file to which it adds the name of each crash point that it passes, one a line.
pub const RECORD: &str = "SEMEL_CRASH_RECORD";

/// The `hit`th time (from 1) that a host passes a crash point. Written `commit.after:3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Passage {
    /// Where.
    pub point: CrashPoint,
    /// Which time.
    pub hit: u64,
}

impl Passage {
    /// Reads a list with commas.
    pub fn list(text: &str) -> Result<Vec<Self>> {
        text.split(',').map(str::parse).collect()
    }
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.point.name(), self.hit)
    }
}

impl FromStr for Passage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = || format!("`{text}` is no passage such as `commit.after:3`");
        let (name, hit) = text.split_once(':').with_context(form)?;
        let hit: u64 = hit.parse().with_context(form)?;
        Ok(Self {
            point: crash_point(name)?,
            hit: Some(hit).filter(|hit| *hit > 0).with_context(form)?,
        })
    }
}

/// The crash point of this name.
pub fn crash_point(name: &str) -> Result<CrashPoint> {
    let mut all = CrashPoint::ALL.iter().copied();
    all.find(|point| point.name() == name)
        .with_context(|| format!("there is no crash point `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_are_read_as_they_are_written() {
        let list = Passage::list("commit.after:3,wake.before:12").unwrap();
        let text: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["commit.after:3", "wake.before:12"]);
        for wrong in [
            "commit.after",
            "commit.after:0",
            "commit.after:x",
            "lunch:1",
            "",
        ] {
            assert!(wrong.parse::<Passage>().is_err(), "{wrong}");
        }
    }
}
