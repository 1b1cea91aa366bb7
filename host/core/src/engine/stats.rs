//! Counts for summaries and metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened so far. Shared by an engine, its relay and whoever reports.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: Counter,)*
            /// From receive to the commit's end, for messages that ran.
            pub latency: Latency,
        }

        /// The values of [`Stats`] at one time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct StatsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// The values now.
            pub fn snapshot(&self) -> StatsSnapshot {
                StatsSnapshot { $($name: self.$name.get(),)* }
            }
        }

        impl StatsSnapshot {
            /// The sum of two.
            pub fn plus(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

counters! {
    /// Messages received from the source.
    received,
    /// Messages whose effects were applied, parked ones included.
    applied,
    /// Messages whose key was already handled, parked or dead.
    duplicates,
    /// Messages that were not newer than what was applied of their entity.
    stale,
    /// Times that a message was parked.
    parkings,
    /// Messages that became dead letters, for whatever cause.
    dead,
    /// Dead letters among them whose key belonged to another payload.
    mismatches,
    /// Parked messages that were taken up again.
    woken,
    /// Handler calls, those in vain included.
    runs,
    /// Handler calls in vain: a value that they read had changed.
    conflicts,
    /// Durable commits.
    commits,
    /// Outgoing messages that a broker confirmed.
    published,
    /// Outgoing messages that a broker refused: dead letters.
    undeliverable,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram of durations with a relative error of at most 1/8.
#[derive(Debug)]
pub struct Latency {
    buckets: Box<[AtomicU64]>,
}

/// Buckets for each doubling of the duration.
const PER_DOUBLING: u64 = 8;
/// Enough for 2^40 µs.
const BUCKETS: usize = (40 * PER_DOUBLING) as usize;

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Latency {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[Self::bucket(micros)].fetch_add(1, Relaxed);
    }

    /// The duration that a share `quantile` (0 to 1) of those counted did not exceed, or
    /// nothing if none was counted.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        let rank = (total as f64 * quantile).ceil().max(1.0) as u64;
        let mut below = 0;
        let at = counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(Duration::from_micros(Self::upper_bound(at as u64)))
    }

    fn bucket(micros: u64) -> usize {
        let index = if micros < PER_DOUBLING {
            micros
        } else {
            let doubling = u64::from(micros.ilog2()) - u64::from(PER_DOUBLING.ilog2());
            (doubling + 1) * PER_DOUBLING + (micros >> doubling) - PER_DOUBLING
        };
        (index as usize).min(BUCKETS - 1)
    }

    fn upper_bound(bucket: u64) -> u64 {
        if bucket < PER_DOUBLING {
            bucket
        } else {
            let doubling = bucket / PER_DOUBLING - 1;
            ((bucket % PER_DOUBLING + PER_DOUBLING + 1) << doubling) - 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        (1..=10_000).for_each(|n| latency.record(Duration::from_micros(n)));
        for (quantile, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = latency.quantile(quantile).unwrap().as_micros() as f64;
            assert!(
                found >= exact && found <= exact * 1.13,
                "{quantile}: {found}"
            );
        }
    }
}
