//! The choice of faults. The same recording and seed give the same choice.

use std::collections::HashSet;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::recording::Hits;
use super::{Fault, Recording};
use crate::passage::Passage;

/// The part of the recorded hits of a point that is aimed at. Batches differ from run to run,
/// so the very last ones would often be missed.
const AIMED_AT: f64 = 0.85;

impl Recording {
    /// Kills at `count` passages: of each point the first, the last and some between, all
    /// points alike. Where that are more than there are, they come again.
    pub fn kills(&self, count: usize, random: &mut StdRng) -> Vec<Fault> {
        let passages = all(&self.first, random);
        let chosen = passages.iter().cycle().take(count);
        chosen.map(|passage| Fault::Kill(vec![*passage])).collect()
    }

    /// Kills at a passage of the first half, and again while the next host recovers.
    pub fn double_kills(&self, count: usize, random: &mut StdRng) -> Vec<Fault> {
        let first = early(&self.first, count, random);
        let mut again = early(&self.recovery, count, random);
        // Every point is to meet others each time.
        again.shuffle(random);
        let both = first.into_iter().zip(again);
        both.map(|(first, again)| Fault::Kill(vec![first, again]))
            .collect()
    }

    /// Pauses at passages of the first half.
    pub fn pauses(&self, count: usize, random: &mut StdRng) -> Vec<Fault> {
        let early = early(&self.first, count, random);
        early.into_iter().map(Fault::Pause).collect()
    }
}

/// The last of so many hits that is aimed at.
fn aim(hits: u64) -> u64 {
    ((hits as f64 * AIMED_AT) as u64).max(1)
}

/// Every passage that is aimed at. In each round each point has one.
fn all(hits: &Hits, random: &mut StdRng) -> Vec<Passage> {
    let mut rounds: Vec<Vec<Passage>> = Vec::new();
    for (&point, &hits) in hits {
        let last = aim(hits);
        let mut between: Vec<u64> = (2..last).collect();
        between.shuffle(random);
        let mut seen = HashSet::new();
        let hits = [1, last, 1 + last / 2].into_iter().chain(between);
        let hits = hits.filter(|hit| *hit <= last && seen.insert(*hit));
        for (round, hit) in hits.enumerate() {
            if rounds.len() == round {
                rounds.push(Vec::new());
            }
            rounds[round].push(Passage { point, hit });
        }
    }
    for round in &mut rounds {
        round.shuffle(random);
    }
    rounds.into_iter().flatten().collect()
}

/// A passage of the first half of each point in turn.
fn early(hits: &Hits, count: usize, random: &mut StdRng) -> Vec<Passage> {
    let points = hits.iter().cycle().take(count);
    let early = points.map(|(&point, &hits)| Passage {
        point,
        hit: random.random_range(1..=(aim(hits) / 2).max(1)),
    });
    early.collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use semel_core::crash::CrashPoint;

    use super::*;

    #[test]
    fn all_points_are_chosen_alike() {
        let hits = [(CrashPoint::CommitBefore, 20), (CrashPoint::ExpireAfter, 2)];
        let recording = Recording {
            first: hits.into(),
            ..Recording::default()
        };
        let kills = recording.kills(6, &mut StdRng::seed_from_u64(1));
        let kills: Vec<String> = kills.iter().map(ToString::to_string).collect();
        let starts = |round: &[String]| {
            let both = ["kill commit.before:", "kill expire.after:"];
            both.map(|point| round.iter().filter(|kill| kill.starts_with(point)).count())
        };
        assert_eq!(starts(&kills[..2]), [1, 1]);
        assert!(kills.contains(&"kill commit.before:17".to_owned()));
        assert_eq!(kills.iter().collect::<HashSet<_>>().len(), 6);
        let again = recording.kills(6, &mut StdRng::seed_from_u64(1));
        assert_eq!(again[5].to_string(), kills[5]);
    }
}
