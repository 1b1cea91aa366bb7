//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use indicatif::HumanCount;
use semel_core::StatsSnapshot;
use serde::Serialize;

/// A run of the host from start to end.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Over all plugins.
    #[serde(flatten)]
    pub totals: Counts,
    /// Outgoing messages that a broker or file confirmed.
    pub published: u64,
    /// Outgoing messages that a broker refused. They are dead letters.
    pub undeliverable: u64,
    /// Outgoing messages that are committed and wait to be published.
    pub unpublished: u64,
    /// What the input held; nothing where messages came from a broker.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputCounts>,
    /// From start to end, loading included.
    pub seconds: f64,
    /// Whether a signal ended the run before its input did.
    pub interrupted: bool,
    /// By plugin name.
    pub plugins: BTreeMap<String, Counts>,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Deliveries. A message that two plugins handle counts twice.
    pub received: u64,
    /// Messages whose effects were applied, those that were parked before included.
    pub applied: u64,
    /// Messages that were known already.
    pub duplicates: u64,
    /// Messages that were not newer than what was applied of their entity.
    pub stale: u64,
    /// Messages that wait in the store to be run again, at the end.
    pub parked: u64,
    /// Messages that became dead letters, mismatches included.
    pub dead: u64,
    /// Dead letters whose key had been used with another payload.
    pub mismatches: u64,
    /// Times that a parked message was taken up again.
    pub retried: u64,
    /// Handler calls that came to nothing as a value they read had changed.
    pub conflicts: u64,
    /// Handler calls.
    pub runs: u64,
    /// Durable commits.
    pub commits: u64,
    /// From receive to the commit's end: what half of the messages did not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p50_ms: Option<f64>,
    /// The same for 99 of 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p99_ms: Option<f64>,
}

/// What an input held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InputCounts {
    /// Lines that are not blank.
    pub lines: u64,
    /// Lines whose topic no plugin handles.
    pub unrouted: u64,
    /// Lines that are no messages.
    pub malformed: u64,
}

impl Counts {
    /// Of one engine, with what is left parked in the store.
    pub fn new(stats: StatsSnapshot, parked: u64) -> Self {
        Self {
            received: stats.received,
            applied: stats.applied,
            duplicates: stats.duplicates,
            stale: stats.stale,
            parked,
            dead: stats.dead,
            mismatches: stats.mismatches,
            retried: stats.woken,
            conflicts: stats.conflicts,
            runs: stats.runs,
            commits: stats.commits,
            latency_p50_ms: None,
            latency_p99_ms: None,
        }
    }

    /// With quantiles of the latency, where there are any.
    pub fn with_latency(mut self, p50: Option<Duration>, p99: Option<Duration>) -> Self {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1_000.0;
        self.latency_p50_ms = p50.map(milliseconds);
        self.latency_p99_ms = p99.map(milliseconds);
        self
    }

    /// The sum of two. Quantiles don't add up, so a sum has none.
    pub fn plus(self, other: &Self) -> Self {
        Self {
            received: self.received + other.received,
            applied: self.applied + other.applied,
            duplicates: self.duplicates + other.duplicates,
            stale: self.stale + other.stale,
            parked: self.parked + other.parked,
            dead: self.dead + other.dead,
            mismatches: self.mismatches + other.mismatches,
            retried: self.retried + other.retried,
            conflicts: self.conflicts + other.conflicts,
            runs: self.runs + other.runs,
            commits: self.commits + other.commits,
            latency_p50_ms: None,
            latency_p99_ms: None,
        }
    }
}

/// For people. What is zero and need not be is left out.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        let rate = totals.received as f64 / self.seconds.max(0.001);
        let ended = if self.interrupted {
            "Interrupted"
        } else {
            "Done"
        };
        writeln!(
            f,
            "{ended} after {:.2} s: {} messages received, {} a second.",
            self.seconds,
            HumanCount(totals.received),
            HumanCount(rate as u64),
        )?;
        let input = self.input.unwrap_or_default();
        let always = [
            ("applied", totals.applied, ""),
            ("duplicates", totals.duplicates, "known already, dropped"),
            ("published", self.published, ""),
        ];
        let sometimes = [
            ("stale", totals.stale, "a newer version was applied before"),
            ("parked", totals.parked, "wait in the store to be run again"),
            ("dead", totals.dead, "see `semel dead list`"),
            (
                "mismatches",
                totals.mismatches,
                "of the dead: their key had another payload",
            ),
            ("retried", totals.retried, "parked messages taken up again"),
            ("conflicts", totals.conflicts, "runs in vain, repeated"),
            (
                "undeliverable",
                self.undeliverable,
                "refused by a broker: see `semel dead list`",
            ),
            (
                "unpublished",
                self.unpublished,
                "wait in the store to be published",
            ),
            (
                "unrouted",
                input.unrouted,
                "lines with a topic that no plugin handles",
            ),
            (
                "malformed",
                input.malformed,
                "of the dead: lines that are no messages",
            ),
        ];
        let sometimes = sometimes.into_iter().filter(|(_, count, _)| *count > 0);
        for (name, count, remark) in always.into_iter().chain(sometimes) {
            let line = format!(
                "  {name:<13} {:>12}  {remark}",
                HumanCount(count).to_string()
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        if self.plugins.len() > 1 {
            for (name, counts) in &self.plugins {
                writeln!(
                    f,
                    "  {name}: {} received, {} applied, {} duplicates, {} stale, {} parked, {} dead",
                    HumanCount(counts.received),
                    HumanCount(counts.applied),
                    HumanCount(counts.duplicates),
                    HumanCount(counts.stale),
                    HumanCount(counts.parked),
                    HumanCount(counts.dead),
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let counts = Counts {
            received: 1_300,
            applied: 1_000,
            duplicates: 299,
            dead: 1,
            ..Counts::default()
        };
        Summary {
            totals: counts,
            published: 1_000,
            undeliverable: 0,
            unpublished: 0,
            input: Some(InputCounts {
                lines: 1_300,
                ..InputCounts::default()
            }),
            seconds: 0.5,
            interrupted: false,
            plugins: [("points".to_owned(), counts)].into(),
        }
    }

    #[test]
    fn the_json_is_one_flat_object() {
        let json = serde_json::to_value(summary()).unwrap();
        for name in [
            "received",
            "applied",
            "duplicates",
            "stale",
            "parked",
            "dead",
            "published",
            "lines",
        ] {
            assert!(json[name].is_u64(), "{name}");
        }
        assert_eq!(json["seconds"], 0.5);
        assert_eq!(json["plugins"]["points"]["applied"], 1_000);
    }

    #[test]
    fn people_are_told_what_happened() {
        let text = summary().to_string();
        assert!(text.starts_with("Done after 0.50 s: 1,300 messages received, 2,600 a second.\n"));
        assert!(text.contains("  applied              1,000\n"), "{text}");
        assert!(
            text.contains("dead                     1  see `semel dead list`"),
            "{text}"
        );
        assert!(!text.contains("unpublished"));
    }
}
