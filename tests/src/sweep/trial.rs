//! One trial: orders, a fault, and the audit of what came of them.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;

use super::audit::{Flaw, Harm, Terms};
use super::books::{Orders, OrdersConfig};
use super::broker::Broker;
use super::configuration::{Configuration, Route};
use super::fault::{Fault, Kind};
use super::found::PLUGINS;
use super::recording::{Hits, Recording};
use super::stage::{Build, End, LIMIT, Stage};
use super::surroundings::Surroundings;
use crate::passage::{CRASH_AT, PAUSE_AT, Passage, RECORD};
use crate::proxy::Proxy;
use crate::servers::store::StoreKind;

/// Orders of a trial in which the host dies: few, so that there can be many trials.
const FEW: usize = 60;

/// Orders of one in which a server dies under load.
const MANY: usize = 1_500;

/// How long a server is away.
const OUTAGE: Range<u64> = 20..300;

/// How long a host that was paused is watched with a broker.
const AFTERWARDS: Duration = Duration::from_secs(4);

const OUTPUT: &str = "tallied.jsonl";
const OTHER_OUTPUT: &str = "tallied-by-another.jsonl";

/// What to try.
#[derive(Clone, Debug)]
pub struct Trial {
    /// On what.
    pub configuration: Configuration,
    /// What befalls the host.
    pub fault: Fault,
    /// Makes the orders, and all else that is random.
    pub seed: u64,
    /// Whether to falsify the books, to see the audit fail.
    pub tamper: bool,
    /// Whether to leave the directory behind.
    pub keep: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// How often the fault struck: kills, pauses, replies lost.
    pub strikes: usize,
    /// Copies of outgoing messages that consumers had to drop by their ids.
    pub copies: usize,
    /// Everything that is wrong.
    pub flaws: Vec<Flaw>,
    /// What was passed, where that is recorded.
    pub passed: Hits,
    /// Requests to store and broker, where a proxy counted them.
    pub requests: (u64, u64),
    /// How long it took.
    pub took: Duration,
    /// The directory, if it is to be kept.
    pub kept: Option<PathBuf>,
}

impl Trial {
    /// Runs it. It waits, and so wants a thread for itself within a runtime.
    pub fn run(&self, surroundings: &Surroundings) -> Result<Verdict> {
        let started = Instant::now();
        let prefix = surroundings.place();
        let loaded = matches!(self.fault.kind(), Kind::KilledStore | Kind::KilledBroker);
        let mut orders = Orders::generate(&OrdersConfig {
            orders: if loaded { MANY } else { FEW },
            users: if loaded { 40 } else { 7 },
            wide: self.configuration.refuses(),
            prefix: prefix.clone(),
            seed: self.seed,
        });
        let mut stage = Stage::new(surroundings, self.configuration, &orders, prefix)?;
        // Each of the two plugins publishes all.
        let expected = PLUGINS.len() * orders.books.published(self.configuration.refuses());
        let mut acts = Acts {
            trial: self,
            surroundings,
            stage: &stage,
            expected,
            runtime: Handle::current(),
            verdict: Verdict::default(),
        };
        let outputs = acts.act();
        let mut verdict = acts.verdict;
        match outputs.and_then(|outputs| stage.settle(OUTPUT).map(|()| outputs)) {
            // A host that fails, or never comes to its end, is a flaw as any other.
            Err(error) => verdict.flaws.push(Flaw {
                harm: Harm::Wrong,
                what: format!("{error:#}"),
            }),
            Ok(outputs) => {
                let found = stage.found(&orders, &outputs, expected)?;
                if self.tamper {
                    orders.books.tamper();
                }
                let ids = found.published.iter().map(|message| &message.message_id);
                let ids: HashSet<_> = ids.collect();
                verdict.copies = found.published.len() - ids.len();
                let terms = Terms {
                    configuration: self.configuration,
                    outputs: outputs.len(),
                };
                verdict.flaws = orders.books.audit(&found, terms);
            }
        }
        if self.keep {
            verdict.kept = Some(stage.keep());
        }
        verdict.took = started.elapsed();
        Ok(verdict)
    }
}

/// The course of a trial.
struct Acts<'t> {
    trial: &'t Trial,
    surroundings: &'t Surroundings,
    stage: &'t Stage<'t>,
    expected: usize,
    runtime: Handle,
    verdict: Verdict,
}

impl Acts<'_> {
    /// Runs hosts until all work is done, and says where they wrote.
    fn act(&mut self) -> Result<Vec<&'static str>> {
        match &self.trial.fault {
            Fault::None => self.record()?,
            Fault::Recover(passage) => {
                let end = self.run_armed(CRASH_AT, passage.to_string())?;
                self.verdict.strikes += usize::from(end == End::Killed);
                self.record()?;
            }
            Fault::Kill(passages) => self.kill(passages)?,
            Fault::Pause(passage) => return self.pause(*passage),
            Fault::LoseStoreReply(_) | Fault::LoseBrokerReply(_) => self.lose_reply()?,
            Fault::KillStore(times) => self.kill_server(*times, Self::interrupt_store)?,
            Fault::KillBroker(times) => self.kill_server(*times, Self::interrupt_broker)?,
        }
        Ok(vec![OUTPUT])
    }

    /// Runs a host with its crash points armed.
    fn run_armed(&self, name: &'static str, value: String) -> Result<End> {
        self.stage.run(Build::UnderTest, OUTPUT, &[(name, value)])
    }

    /// One host does all that is left.
    fn finish(&self) -> Result<()> {
        let end = self.stage.run(Build::Released, OUTPUT, &[])?;
        ensure!(end == End::Done, "the last host was killed by someone else");
        Ok(())
    }

    fn record(&mut self) -> Result<()> {
        let record = self.stage.record();
        let end = self.run_armed(RECORD, record.display().to_string())?;
        ensure!(end == End::Done, "the host was killed by someone else");
        self.verdict.passed = Recording::read(&record)?;
        self.count_requests()
    }

    fn count_requests(&mut self) -> Result<()> {
        self.verdict.requests = self.runtime.block_on(async {
            let store = match self.trial.configuration.store {
                StoreKind::Redb => None,
                shared => self.surroundings.store(shared).await?.proxy.as_ref(),
            };
            let broker = match self.trial.configuration.route.has_broker() {
                true => self.broker().await?.proxy.as_ref(),
                false => None,
            };
            let requests = |proxy: Option<&Proxy>| proxy.map_or(0, Proxy::requests);
            anyhow::Ok((requests(store), requests(broker)))
        })?;
        Ok(())
    }

    fn kill(&mut self, passages: &[Passage]) -> Result<()> {
        for passage in passages {
            match self.run_armed(CRASH_AT, passage.to_string())? {
                End::Killed => self.verdict.strikes += 1,
                End::Done => return Ok(()),
            }
        }
        self.finish()
    }

    /// One host stands still while another does all the work, and goes on then as a zombie.
    fn pause(&mut self, passage: Passage) -> Result<Vec<&'static str>> {
        let orders = [(PAUSE_AT, passage.to_string())];
        let mut zombie = self.stage.start(Build::UnderTest, OUTPUT, &orders)?;
        if !self.stage.pauses(&mut zombie)? {
            return Ok(vec![OUTPUT]);
        }
        self.verdict.strikes += 1;
        let mut other = self.stage.start(Build::Released, OTHER_OUTPUT, &[])?;
        self.stage.finish(&mut other)?;
        zombie.process.resume()?;
        if self.trial.configuration.route != Route::File {
            // Both serve on. The zombie commits, acknowledges and publishes what it had.
            std::thread::sleep(AFTERWARDS);
            zombie.process.kill()?;
            other.process.kill()?;
        } else {
            self.stage.finish(&mut zombie)?;
        }
        Ok(vec![OUTPUT, OTHER_OUTPUT])
    }

    fn lose_reply(&mut self) -> Result<()> {
        let lost = self.runtime.clone().block_on(async {
            let (proxy, nth) = match self.trial.fault {
                Fault::LoseBrokerReply(nth) => {
                    let route = self.trial.configuration.route;
                    (&self.surroundings.broker(route).await?.proxy, nth)
                }
                Fault::LoseStoreReply(nth) => {
                    let store = self.trial.configuration.store;
                    (&self.surroundings.store(store).await?.proxy, nth)
                }
                _ => return Ok(None),
            };
            let proxy = proxy.as_ref().context("there is no proxy here")?;
            proxy.lose_reply(nth);
            anyhow::Ok(Some(proxy))
        })?;
        let has_lost = || lost.is_some_and(|proxy| proxy.has_lost());
        let ended = self.finish();
        if ended.is_err() && has_lost() {
            // One that can't reach its store when it starts says so and ends.
            self.finish()?;
        } else {
            ended?;
        }
        self.verdict.strikes += usize::from(has_lost());
        Ok(())
    }

    /// A server dies each time that a further part of the messages is published.
    fn kill_server(
        &mut self,
        times: u64,
        interrupt: fn(&Self, Duration) -> Result<()>,
    ) -> Result<()> {
        let mut random = StdRng::seed_from_u64(self.trial.seed);
        let mut host = self.stage.start(Build::Released, OUTPUT, &[])?;
        let parts = usize::try_from(times)? + 1;
        for part in 1..parts {
            let deadline = Instant::now() + LIMIT;
            while self.stage.progress(OUTPUT)? < self.expected * part / parts {
                ensure!(
                    host.process.ended()?.is_none() && Instant::now() < deadline,
                    "the host does not go on:\n{}",
                    host.stderr()
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            interrupt(self, Duration::from_millis(random.random_range(OUTAGE)))?;
            self.verdict.strikes += 1;
        }
        let end = self.stage.wait(host, Duration::ZERO)?;
        ensure!(end == End::Done, "the host was killed by someone else");
        Ok(())
    }

    async fn broker(&self) -> Result<&Broker> {
        let route = self.trial.configuration.route;
        self.surroundings.broker(route).await
    }

    fn interrupt_store(&self, outage: Duration) -> Result<()> {
        self.runtime.block_on(async {
            let store = self.trial.configuration.store;
            let mut server = self.surroundings.store(store).await?.server.lock().await;
            server.kill();
            tokio::time::sleep(outage).await;
            server.restart().await
        })
    }

    fn interrupt_broker(&self, outage: Duration) -> Result<()> {
        self.runtime.block_on(async {
            let mut cluster = self.broker().await?.cluster.lock().await;
            cluster.kill();
            tokio::time::sleep(outage).await;
            cluster.restart().await
        })
    }
}
