use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::runtime::Handle;

use super::cell::DRAIN;
use super::feed::Feed;
use super::{Cell, Servers};
use crate::lines::LineCount;
use crate::site::{Running, json_lines};
use crate::trial::Trial;
use crate::workload::OrderMessage;

/// How many hosts share the work.
const HOSTS: usize = 3;

/// How many messages come at a time while hosts are restarted, and how often.
const CHUNK: usize = 50;
const PACE: Duration = Duration::from_millis(200);

/// How long hosts may take to publish more, or all. A broker takes a while to notice that a
/// host died.
const LIMIT: Duration = Duration::from_secs(200);

/// How often the outputs are looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long a host may take to start.
const START: Duration = Duration::from_secs(60);

/// What several hosts came to. They were exact, or it is an error.
#[derive(Clone, Copy, Debug)]
pub struct GroupOutcome {
    /// Hosts that were restarted by SIGTERM.
    pub restarts: usize,
    /// Hosts that died of SIGKILL.
    pub kills: usize,
    /// Copies of outgoing messages, which consumers know by their ids.
    pub copies: usize,
    /// From the first start until all was published.
    pub took: Duration,
}

/// Hosts that work together.
struct Group<'t> {
    trial: &'t Trial,
    hosts: Vec<Running>,
    outputs: Vec<LineCount>,
}

impl Cell {
    /// Restarts each of three hosts under load, one after the other, and kills one of them then.
    /// Everything must end exact. `name` is one that no other run has.
    pub fn run_group(self, name: &str, messages: usize, servers: &Servers) -> Result<GroupOutcome> {
        let runtime = Handle::current();
        let store = runtime.block_on(servers.store(self.store, name))?;
        let trial = Trial::new(&store, messages)?;
        let mut feed = runtime.block_on(Feed::new(self.source, name, servers))?;
        trial.site.write("semel.toml", feed.configuration())?;
        let outcome = restart_all(&trial, &mut feed);
        runtime.block_on(feed.close());
        let mut all = None;
        trial.conclude(outcome.map(|outcome| all = Some(outcome)))?;
        all.context("an outcome is there unless there is an error")
    }
}

fn restart_all(trial: &Trial, feed: &mut Feed) -> Result<GroupOutcome> {
    let started = Instant::now();
    let mut group = Group::start(trial)?;
    let calm = AtomicBool::new(false);
    let sending = Sending {
        runtime: Handle::current(),
        feed,
        messages: &trial.workload.messages,
        calm: &calm,
    };
    thread::scope(|scope| {
        let sender = scope.spawn(move || sending.run());
        let restarted = group.restart_each();
        let under_load = !sender.is_finished();
        calm.store(true, Relaxed);
        let sent = sender.join();
        sent.unwrap_or_else(|_| Err(anyhow!("the producer panicked")))?;
        restarted?;
        ensure!(under_load, "the load ended too soon: give more messages");
        Ok(())
    })?;
    group.all_published(trial.workload.ledger.orders())?;
    let took = started.elapsed();
    for host in group.hosts {
        host.process.terminate()?;
        host.wait(DRAIN)?.succeeded("run")?;
    }
    let outputs: Vec<String> = (0..HOSTS).map(output).collect();
    let lines = trial.check_outputs(&outputs)?;
    Ok(GroupOutcome {
        restarts: HOSTS,
        kills: 1,
        copies: lines - trial.workload.ledger.orders(),
        took,
    })
}

/// Sends messages at a steady pace, and the rest at once when all is calm.
struct Sending<'t> {
    runtime: Handle,
    feed: &'t mut Feed,
    messages: &'t [OrderMessage],
    calm: &'t AtomicBool,
}

impl Sending<'_> {
    fn run(self) -> Result<()> {
        let mut left = self.messages;
        while !left.is_empty() {
            let next = Instant::now() + PACE;
            let count = match self.calm.load(Relaxed) {
                true => left.len(),
                false => CHUNK.min(left.len()),
            };
            let (some, rest) = left.split_at(count);
            self.runtime.block_on(self.feed.send(some))?;
            left = rest;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

fn output(slot: usize) -> String {
    format!("granted-{slot}.jsonl")
}

impl<'t> Group<'t> {
    fn start(trial: &'t Trial) -> Result<Self> {
        let path = |slot| LineCount::new(trial.site.path(&output(slot)));
        let mut group = Self {
            trial,
            hosts: Vec::new(),
            outputs: (0..HOSTS).map(path).collect(),
        };
        for slot in 0..HOSTS {
            let host = group.host(slot)?;
            group.hosts.push(host);
        }
        Ok(group)
    }

    /// Starts a host, and waits until it serves.
    fn host(&self, slot: usize) -> Result<Running> {
        let (store, output) = (&self.trial.store, output(slot));
        let run = ["run", "--store", store, "--output", &output];
        let mut host = self.trial.site.start(&run)?;
        host.wait_for_log("serving", START)?;
        Ok(host)
    }

    /// Has a host ended by `end`, and starts another in its place.
    fn replace(&mut self, slot: usize, end: impl FnOnce(Running) -> Result<()>) -> Result<()> {
        end(self.hosts.remove(slot))?;
        let host = self.host(slot)?;
        self.hosts.insert(slot, host);
        Ok(())
    }

    /// Ends each of the hosts while the others work, and kills one of them then.
    fn restart_each(&mut self) -> Result<()> {
        for slot in 0..HOSTS {
            self.goes_on()?;
            self.hosts[slot].process.terminate()?;
            self.replace(slot, |host| host.wait(DRAIN)?.succeeded("run").map(drop))?;
        }
        self.goes_on()?;
        ensure!(self.hosts[1].process.kill()?, "a host had ended before");
        self.replace(1, |_| Ok(()))?;
        self.goes_on()
    }

    fn lines(&mut self) -> Result<usize> {
        self.outputs.iter_mut().map(LineCount::now).sum()
    }

    /// Waits until more is published.
    fn goes_on(&mut self) -> Result<()> {
        let lines = self.lines()? + CHUNK;
        self.wait_until(|group| Ok(group.lines()? >= lines))
    }

    /// Waits until this many different messages are published.
    fn all_published(&mut self, messages: usize) -> Result<()> {
        self.wait_until(|group| Ok(group.lines()? >= messages && group.ids()? >= messages))
    }

    fn ids(&self) -> Result<usize> {
        let mut ids = HashSet::new();
        for slot in 0..HOSTS {
            let output = self.trial.site.read(&output(slot))?;
            // The last line may be torn.
            let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
            for line in json_lines(whole)? {
                ids.insert(line["id"].to_string());
            }
        }
        Ok(ids.len())
    }

    fn wait_until(&mut self, holds: impl Fn(&mut Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !holds(self)? {
            for host in &mut self.hosts {
                let ended = host.process.ended()?;
                ensure!(ended.is_none(), "a host ended:\n{}", host.stderr());
            }
            ensure!(
                Instant::now() < deadline,
                "only {} messages are published after {LIMIT:?}",
                self.lines()?
            );
            thread::sleep(POLL);
        }
        Ok(())
    }
}
