use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::runtime::Handle;

use super::feed::{Feed, INPUT};
use super::{Cell, Servers, SourceKind};
use crate::site::Running;
use crate::trial::{LIMIT, OUTPUT, Trial};

/// How long a host may take to finish what is in flight.
pub(super) const DRAIN: Duration = Duration::from_secs(60);

/// How much a cell is given.
#[derive(Clone, Copy, Debug)]
pub struct CellConfig {
    /// Messages, of which 30 % are duplicates.
    pub messages: usize,
    /// Times to kill the host.
    pub kills: usize,
}

/// What a cell came to. It is exact, or it is an error.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Messages handled a second by one host that nobody kills, duplicates included.
    pub rate: f64,
    /// Times that the host was killed at work.
    pub kills: usize,
    /// From the first start to the end of the last run of the host that was killed.
    pub took: Duration,
}

impl Cell {
    /// Runs it twice: once for its throughput, and once with kills. Either must end exact.
    /// `name` is one that no other run has.
    pub fn run(self, name: &str, config: CellConfig, servers: &Servers) -> Result<Outcome> {
        let runtime = Handle::current();
        let rate = {
            let (mut trial, feed) = self.set_up(&format!("{name}-calm"), config, servers)?;
            let rate = self.measure(&mut trial);
            runtime.block_on(feed.close());
            let rate = rate.and_then(|rate| trial.check().map(|()| rate));
            let mut measured = 0.0;
            trial.conclude(rate.map(|rate| measured = rate))?;
            measured
        };
        let (mut trial, feed) = self.set_up(&format!("{name}-killed"), config, servers)?;
        let started = Instant::now();
        let result = (|| {
            trial.kill(config.kills, |trial| self.start(trial))?;
            self.finish(&mut trial)?;
            trial.check()
        })();
        let took = started.elapsed();
        runtime.block_on(feed.close());
        trial.conclude(result)?;
        Ok(Outcome {
            rate,
            kills: config.kills,
            took,
        })
    }

    fn set_up(self, name: &str, config: CellConfig, servers: &Servers) -> Result<(Trial, Feed)> {
        let runtime = Handle::current();
        let store = runtime.block_on(servers.store(self.store, name))?;
        let trial = Trial::new(&store, config.messages)?;
        let mut feed = runtime.block_on(Feed::new(self.source, name, servers))?;
        trial.site.write("semel.toml", feed.configuration())?;
        if self.source == SourceKind::File {
            trial.site.write(INPUT, trial.workload.json_lines())?;
        }
        runtime.block_on(feed.send(&trial.workload.messages))?;
        Ok((trial, feed))
    }

    fn start(self, trial: &Trial) -> Result<Running> {
        let mut run = vec!["run", "--store", &trial.store, "--output", OUTPUT];
        if self.source == SourceKind::File {
            run.extend(["--input", INPUT]);
        }
        trial.site.start(&run)
    }

    /// Lets a host run until all orders are published.
    fn finish(self, trial: &mut Trial) -> Result<()> {
        let mut host = self.start(trial)?;
        let orders = trial.workload.ledger.orders();
        let reached = trial.output.reach(orders, &mut host, LIMIT)?;
        self.end(reached, host)
    }

    /// The messages a second between the first outgoing message and the last.
    fn measure(self, trial: &mut Trial) -> Result<f64> {
        let mut host = self.start(trial)?;
        let orders = trial.workload.ledger.orders();
        ensure!(
            trial.output.reach(1, &mut host, LIMIT)?,
            "the host ended:\n{}",
            host.stderr()
        );
        let (first, started) = (trial.output.now()?, Instant::now());
        let reached = trial.output.reach(orders, &mut host, LIMIT)?;
        let seconds = started.elapsed().as_secs_f64();
        self.end(reached, host)?;
        let sent = trial.workload.ledger.sent as f64;
        Ok((orders - first) as f64 / seconds * sent / orders as f64)
    }

    /// A host that serves is told to end; one that reads a file ends by itself.
    fn end(self, reached: bool, host: Running) -> Result<()> {
        if self.source != SourceKind::File {
            ensure!(reached, "the host ended:\n{}", host.stderr());
            host.process.terminate()?;
        }
        host.wait(DRAIN)?.succeeded("run")?;
        Ok(())
    }
}
