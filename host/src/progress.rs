//! How far a run is: a bar on a terminal where there is an input, lines in the log where a host
//! serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use semel_brokers::FileProgress;
use semel_core::{Stats, StatsSnapshot};

/// How often the bar is drawn anew.
const INTERVAL: Duration = Duration::from_millis(200);

/// How often a host that serves says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// A bar that follows an input's progress and the engines' counts.
pub struct Progress {
    bar: ProgressBar,
    input: Arc<FileProgress>,
    stats: Vec<Arc<Stats>>,
    started: Instant,
}

impl Progress {
    /// A bar among `bars`, which hide it where stderr is no terminal.
    pub fn new(bars: &MultiProgress, input: Arc<FileProgress>, stats: Vec<Arc<Stats>>) -> Self {
        let (bar, template) = match input.bytes_total() {
            Some(bytes) => (
                ProgressBar::new(bytes),
                "{bar:24} {percent:>3}%  {msg}  {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{spinner}  {msg}"),
        };
        let style = ProgressStyle::with_template(template)
            .expect("the template is a constant")
            .progress_chars("━╸─");
        bar.set_style(style);
        Self {
            bar: bars.add(bar),
            input,
            stats,
            started: Instant::now(),
        }
    }

    /// Draws the bar until it is dropped.
    pub async fn follow(self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            let counts = total(&self.stats);
            self.bar.set_message(line(&counts, self.started.elapsed()));
            self.bar.set_position(self.input.bytes_read());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes the counts to the log from time to time, as long as there is something new.
pub async fn report(stats: Vec<Arc<Stats>>) {
    let mut before = StatsSnapshot::default();
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        let now = total(&stats);
        if now != before {
            tracing::info!(
                received = now.received,
                applied = now.applied,
                duplicates = now.duplicates,
                stale = now.stale,
                retried = now.woken,
                dead = now.dead,
                published = now.published,
                undeliverable = now.undeliverable,
                "so far"
            );
            before = now;
        }
    }
}

/// The sum over all engines.
fn total(stats: &[Arc<Stats>]) -> StatsSnapshot {
    let snapshots = stats.iter().map(|stats| stats.snapshot());
    snapshots.fold(StatsSnapshot::default(), StatsSnapshot::plus)
}

fn line(counts: &StatsSnapshot, elapsed: Duration) -> String {
    let rate = counts.received as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{} messages  {}/s  {} duplicates  {} stale  {} parked  {} dead",
        HumanCount(counts.received),
        HumanCount(rate as u64),
        HumanCount(counts.duplicates),
        HumanCount(counts.stale),
        HumanCount(counts.parkings.saturating_sub(counts.woken)),
        HumanCount(counts.dead),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_what_an_operator_watches() {
        let counts = StatsSnapshot {
            received: 12_000,
            duplicates: 3_000,
            stale: 7,
            parkings: 5,
            woken: 3,
            dead: 1,
            ..StatsSnapshot::default()
        };
        assert_eq!(
            line(&counts, Duration::from_secs(2)),
            "12,000 messages  6,000/s  3,000 duplicates  7 stale  2 parked  1 dead"
        );
    }
}
