//! A deterministic simulation: real engines and relays on simulated servers, in virtual time.
//!
//! A seed is a script of messages and of everything that goes wrong, and the dice of all that is
//! left to chance. It reproduces its run to the byte. Every step that the world outside can see
//! is judged by the [`oracle`].
//!
//! | variable | what it does |
//! |---|---|
//! | `SEEDS=N` | plays N seeds (10,000) |
//! | `FIRST_SEED=K` | begins with seed K (0) |
//! | `SEED=K` | plays seed K alone, and prints all that happens |

/// Tests an invariant in a function that gives [`oracle::Broken`].
macro_rules! ensure {
    ($holds:expr, $($broken:tt)*) => {
        if !$holds {
            return Err(format!($($broken)*));
        }
    };
}

mod broker;
mod deliveries;
mod halves;
mod host;
mod leftovers;
mod life;
mod market;
mod oracle;
mod order;
mod plan;
mod play;
mod promises;
mod script;
mod serial;
mod store;
mod world;

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{env, thread};

use life::never_died_at;
use play::{Played, play};
use semel_core::crash::CrashPoint;

/// Seeds that are played unless other numbers are given.
const MANY: u64 = 10_000;
/// Seeds beyond those that once showed what few others do.
const TELLING: [u64; 1] = [567_071];
/// Crash points that lie inside the stores that have a transaction to open.
const IN_STORES: [CrashPoint; 3] = [
    CrashPoint::StatementsBefore,
    CrashPoint::StatementsAfter,
    CrashPoint::CommitWritten,
];
/// Lines of the trace that a failure shows.
const TAIL: usize = 60;

fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not `{value}`")),
    )
}

#[test]
fn every_seed_keeps_the_promise() {
    if let Some(seed) = variable("SEED") {
        let played = play(seed, true);
        println!("trace: {}", hash(&played));
        assert_eq!(played.broken, None, "seed {seed}");
        return;
    }
    let first = variable("FIRST_SEED").unwrap_or(0);
    let next = AtomicU64::new(first);
    let seeds = variable("SEEDS").unwrap_or(MANY);
    let end = first + seeds;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= end {
                        break;
                    }
                    let played = play(seed, false);
                    if let Some(broken) = &played.broken {
                        next.store(end, Relaxed);
                        panic!("{}", report(seed, broken, &played.trace));
                    }
                }
            });
        }
    });
    if seeds >= MANY {
        let missed: Vec<_> = never_died_at()
            .filter(|point| !IN_STORES.contains(point))
            .map(CrashPoint::name)
            .collect();
        assert!(missed.is_empty(), "no host died at {missed:?}");
    }
}

#[test]
fn telling_seeds_keep_the_promise() {
    for seed in TELLING {
        let played = play(seed, false);
        if let Some(broken) = &played.broken {
            panic!("{}", report(seed, broken, &played.trace));
        }
    }
}

fn report(seed: u64, broken: &str, trace: &str) -> String {
    let lines: Vec<_> = trace.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    format!(
        "seed {seed}: {broken}\n{tail}\nThe whole: SEED={seed} cargo test --release --locked -p semel-core \
         --test simulation -- --nocapture"
    )
}

fn hash(played: &Played) -> blake3::Hash {
    blake3::hash(played.trace.as_bytes())
}

#[test]
fn a_seed_reproduces_its_run() {
    for seed in 0..200 {
        let (once, twice) = (play(seed, false), play(seed, false));
        let differs = once
            .trace
            .lines()
            .zip(twice.trace.lines())
            .find(|(a, b)| a != b);
        assert_eq!(hash(&once), hash(&twice), "seed {seed}: {differs:?}");
    }
}

#[test]
fn another_process_plays_a_seed_alike() {
    for seed in [3, 14, 159] {
        let other = Command::new(env::current_exe().unwrap())
            .args(["--exact", "every_seed_keeps_the_promise", "--nocapture"])
            .env("SEED", seed.to_string())
            .output()
            .unwrap();
        let output = String::from_utf8(other.stdout).unwrap();
        let trace = format!("trace: {}", hash(&play(seed, false)));
        assert!(output.contains(&trace), "seed {seed}: {output}");
    }
}
