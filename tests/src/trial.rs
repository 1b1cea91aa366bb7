//! One trial of the promise: orders go in, the host dies again and again, and at the end every
//! order must have taken effect exactly once.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::ledger::{Check, Found};
use crate::lines::{Kill, LineCount, kill_points};
use crate::site::{Running, Site, json_lines};
use crate::workload::{Workload, WorkloadConfig};

/// How long a host may take to get to the next kill, or to its end.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Where outgoing messages are written.
pub const OUTPUT: &str = "granted.jsonl";

/// The longest time from the output's reaching a length to a kill.
const MAX_DELAY: Duration = Duration::from_millis(30);

/// The longest time from the start of a host to a kill that comes early.
const MAX_EARLY: Duration = Duration::from_millis(60);

/// A workload, the directory in which a host works on it, and a store.
#[derive(Debug)]
pub struct Trial {
    /// Where the host runs, with `points` as its plugin.
    pub site: Site,
    /// What it is given.
    pub workload: Workload,
    /// Decides all that is random.
    pub random: StdRng,
    /// The store's URL.
    pub store: String,
    /// Of the output.
    pub output: LineCount,
    seed: u64,
}

impl Trial {
    /// A trial with `messages` orders, 30 % of which are duplicates. `SEMEL_SEED` repeats one.
    pub fn new(store: &str, messages: usize) -> Result<Self> {
        let seed = match env::var("SEMEL_SEED") {
            Ok(seed) => seed.parse().context("SEMEL_SEED is a number")?,
            Err(_) => rand::random::<u32>().into(),
        };
        let workload = Workload::generate(WorkloadConfig {
            messages,
            seed,
            // Few enough for handlers to meet at a user.
            users: 200,
            ..WorkloadConfig::default()
        });
        let site = Site::with_plugins(&["points"])?;
        Ok(Self {
            output: LineCount::new(site.path(OUTPUT)),
            site,
            workload,
            random: StdRng::seed_from_u64(seed),
            store: store.to_owned(),
            seed,
        })
    }

    /// Runs a test in a trial. An error says how to repeat it.
    pub fn conclude(&self, result: Result<()>) -> Result<()> {
        let seed = self.seed;
        result.with_context(|| format!("in a trial that SEMEL_SEED={seed} repeats"))
    }

    /// Kills hosts that `start` starts, `kills` times in the midst of their work, and some more
    /// times while they are starting up.
    pub fn kill(&mut self, kills: usize, start: impl Fn(&Self) -> Result<Running>) -> Result<()> {
        let orders = self.workload.ledger.orders();
        let points = kill_points(kills, orders, &mut self.random);
        for (number, point) in points.into_iter().enumerate() {
            if number % 3 == 1 {
                let mut host = start(self)?;
                std::thread::sleep(self.random.random_range(Duration::ZERO..MAX_EARLY));
                host.process.kill()?;
            }
            let mut host = start(self)?;
            let delay = self.random.random_range(Duration::ZERO..MAX_DELAY);
            let kill = self.output.kill_at(point, delay, &mut host, LIMIT)?;
            ensure!(
                matches!(kill, Kill::Hit { lines } if lines < orders),
                "kill {number} at {point} of {orders} missed: {kill:?}\n{}",
                host.stderr()
            );
        }
        Ok(())
    }

    /// Demands that every order took effect exactly once. No host may be running.
    pub fn check(&self) -> Result<()> {
        self.compare(&json_lines(&self.site.read(OUTPUT)?)?, true)
    }

    /// The same where several hosts had outputs of their own: what one published and could not
    /// confirm, another publishes again under the same id. The answer is the number of lines.
    pub fn check_outputs(&self, outputs: &[String]) -> Result<usize> {
        let mut lines = Vec::new();
        for output in outputs {
            lines.extend(json_lines(&self.site.read(output)?)?);
        }
        self.compare(&lines, false)?;
        Ok(lines.len())
    }

    fn compare(&self, lines: &[Value], lines_exactly_once: bool) -> Result<()> {
        let store = ["--store", &self.store, "--json"];
        let state = [&["state", "list", "points"], &store[..]].concat();
        let dead = [&["dead", "list"], &store[..]].concat();
        let (state, dead) = (self.site.ask_json(&state)?, self.site.ask_json(&dead)?);
        let found = Found::read(&state, lines, &dead)?;
        let checks = self.workload.ledger.compare(&found, lines_exactly_once);
        let wrong: Vec<&Check> = checks.iter().filter(|check| !check.holds()).collect();
        ensure!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    }
}
