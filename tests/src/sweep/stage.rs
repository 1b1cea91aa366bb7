//! Where one trial's hosts run.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use semel_core::Admin;
use tokio::runtime::Handle;

use super::books::{MAX_ATTEMPTS, Orders};
use super::broker::{Broker, Topics};
use super::configuration::{Configuration, Route};
use super::found::{Found, LANED, PLUGINS, Published};
use super::surroundings::Surroundings;
use crate::child::{Process, is_sigkill};
use crate::installation;
use crate::lines::LineCount;
use crate::poster::Poster;
use crate::servers::free_ports;
use crate::servers::store::{StoreKind, TABLE};
use crate::site::{Running, Site, json_lines};

/// How long a host may take to die or to come to the end of its work.
///
/// A broker that hears of a consumer when its host is dead already takes it for alive for two
/// minutes, and gives its queues to no other.
pub const LIMIT: Duration = Duration::from_secs(200);

/// How long after all is acknowledged a host that is to die may still do so, or pass something
/// that is recorded.
const GRACE: Duration = Duration::from_secs(2);

/// How long the broker may take to ask for half messages: it does so after 3 seconds, every 2
/// seconds.
const GRACE_FOR_CHECK_BACKS: Duration = Duration::from_secs(7);

/// How long what was published may take to consumers, with the broker's own delay. A reply that
/// a proxy loses may be one to the consumer, whose client then waits for half a minute and more.
const DELIVERY: Duration = Duration::from_secs(150);

/// How long consumers are listened to when they have what is expected.
const LINGER: Duration = Duration::from_millis(200);

/// How often a host's progress is asked for.
const POLL: Duration = Duration::from_millis(50);

const INPUT: &str = "orders.jsonl";
const NOTHING: &str = "nothing.jsonl";
const RECORD: &str = "passages";

/// Which build of the host to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The one that is released.
    Released,
    /// The one with crash points.
    UnderTest,
}

/// How a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It died of SIGKILL.
    Killed,
    /// All its work is done. One that serves was killed then.
    Done,
}

/// Where the orders come from.
enum Feed {
    File,
    Topics(Topics),
    Posted(Poster),
}

/// A place for a trial's hosts: their directory, their store, their orders.
pub struct Stage<'s> {
    surroundings: &'s Surroundings,
    configuration: Configuration,
    site: Site,
    /// The store's URL for hosts, and for the audit.
    store: String,
    audited: String,
    prefix: String,
    feed: Feed,
    runtime: Handle,
}

impl<'s> Stage<'s> {
    /// Sets everything up and sends the orders, whose keys begin with `prefix`.
    pub fn new(
        surroundings: &'s Surroundings,
        configuration: Configuration,
        orders: &Orders,
        prefix: String,
    ) -> Result<Self> {
        let runtime = Handle::current();
        let site = Site::new()?;
        let module = std::fs::read(installation::test_plugin("tally")?)?;
        for plugin in PLUGINS {
            site.write(&format!("plugins/{plugin}.wasm"), &module)?;
            site.write(
                &format!("plugins/{plugin}.toml"),
                format!("name = \"{plugin}\"\n"),
            )?;
        }
        let (store, audited) = match configuration.store {
            StoreKind::Redb => {
                let store = format!("redb:{}", site.path("data").display());
                (store.clone(), store)
            }
            shared => {
                let server = runtime.block_on(surroundings.store(shared))?;
                (server.url(&prefix), server.direct_url(&prefix))
            }
        };
        let mut stage = Self {
            surroundings,
            configuration,
            site,
            store,
            audited,
            prefix,
            feed: Feed::File,
            runtime,
        };
        stage.site.write(NOTHING, "")?;
        match configuration.route {
            Route::File => stage.site.write(INPUT, orders.json_lines())?,
            Route::Http => {
                let port = free_ports(&[0])?;
                let _within = stage.runtime.enter();
                stage.feed = Feed::Posted(Poster::start(port, orders.series(&PLUGINS))?);
            }
            _ => {
                let sent = async { stage.broker().await?.send(&orders.messages).await };
                let topics = stage.runtime.block_on(sent)?;
                stage.feed = Feed::Topics(topics);
            }
        }
        stage
            .site
            .write("semel.toml", stage.configuration_file()?)?;
        Ok(stage)
    }

    async fn broker(&self) -> Result<&Broker> {
        self.surroundings.broker(self.configuration.route).await
    }

    fn configuration_file(&self) -> Result<String> {
        let mut file = format!(
            "store = \"{}\"\n\n\
             [engine]\nconcurrency = 2\nbatch = 8\nin-flight = 24\n\n\
             [logging]\nlevel = \"warn\"\n",
            self.store
        );
        match &self.feed {
            Feed::File => {}
            Feed::Posted(poster) => {
                file += &format!("\n[source]\nurl = \"{}\"\n", poster.url());
            }
            Feed::Topics(topics) => {
                let broker = self.runtime.block_on(self.broker())?;
                file += &broker.configuration(topics);
            }
        }
        if self.configuration.route == Route::Transactional {
            file += "delivery = \"transactional\"\n";
        }
        for plugin in PLUGINS {
            let topic = match &self.feed {
                Feed::File => "orders",
                Feed::Posted(_) => plugin,
                Feed::Topics(topics) => &topics.of(plugin).name,
            };
            let lanes = match plugin {
                LANED => "order-by = \"json:/user\"\n",
                _ => "",
            };
            let (table, grants) = match self.configuration.store.has_tables() {
                true => (
                    format!("table = \"{TABLE}\"\n"),
                    format!("[plugins.{plugin}.sql]\ninsert = [\"{TABLE}\"]\n"),
                ),
                false => (String::new(), String::new()),
            };
            file += &format!(
                "\n[plugins.{plugin}]\ntopics = [\"{topic}\"]\n{lanes}\
                 [plugins.{plugin}.config]\nname = \"{plugin}\"\n{table}{grants}\
                 [plugins.{plugin}.retry]\nmax-attempts = {MAX_ATTEMPTS}\n\
                 first-delay = \"5ms\"\nmax-delay = \"20ms\"\n"
            );
        }
        Ok(file)
    }

    /// Starts a host with these variables in its environment. The second of two hosts that run
    /// at a time needs an output of its own.
    pub fn start(&self, build: Build, output: &str, orders: &[(&str, String)]) -> Result<Running> {
        let program = match build {
            Build::Released => installation::semel()?,
            Build::UnderTest => installation::semel_under_test()?,
        };
        let arguments: &[&str] = match self.configuration.route {
            Route::File => &["run", "--input", INPUT, "--output", output],
            Route::Http => &["run", "--output", output],
            _ => &["run"],
        };
        self.site.start_program(&program, arguments, |command| {
            command.envs(orders.iter().map(|(name, value)| (name, value)));
        })
    }

    /// Where a host may record its passages.
    pub fn record(&self) -> PathBuf {
        self.site.path(RECORD)
    }

    /// Runs a host until it dies or all its work is done.
    pub fn run(&self, build: Build, output: &str, orders: &[(&str, String)]) -> Result<End> {
        let host = self.start(build, output, orders)?;
        let grace = match (self.configuration.route, build) {
            (Route::Transactional, _) => GRACE_FOR_CHECK_BACKS,
            (_, Build::UnderTest) => GRACE,
            (_, Build::Released) => Duration::ZERO,
        };
        self.wait(host, grace)
    }

    /// Waits until a host dies or all its work is done, and for `grace` if it serves on.
    pub fn wait(&self, mut host: Running, grace: Duration) -> Result<End> {
        if self.configuration.route == Route::File {
            let status = host.process.wait(LIMIT).with_context(|| host.stderr())?;
            return end(status, &host);
        }
        let deadline = Instant::now() + LIMIT;
        let mut done_at = None;
        loop {
            if let Some(status) = host.process.ended()? {
                return end(status, &host);
            }
            let unserved = self.unserved()?;
            if done_at.is_none() && unserved == 0 {
                done_at = Some(Instant::now());
            }
            if done_at.is_some_and(|done_at| done_at.elapsed() >= grace) {
                host.process.kill()?;
                return Ok(End::Done);
            }
            ensure!(
                Instant::now() < deadline,
                "{unserved} messages are not acknowledged after {LIMIT:?}:\n{}",
                host.stderr()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Waits until a host has done all its work. One that serves is left as it is.
    pub fn finish(&self, host: &mut Running) -> Result<()> {
        self.watch(host, |_| false).map(drop)
    }

    /// Whether a host stops itself before all its work is done.
    pub fn pauses(&self, host: &mut Running) -> Result<bool> {
        self.watch(host, Process::is_stopped)
    }

    /// Waits for something to be true of a host. The answer is false if all its work is done
    /// before.
    fn watch(&self, host: &mut Running, is_true: impl Fn(&Process) -> bool) -> Result<bool> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if is_true(&host.process) {
                return Ok(true);
            }
            if let Some(status) = host.process.ended()? {
                let ended = end(status, host)?;
                ensure!(ended == End::Done, "the host was killed by someone else");
                return Ok(false);
            }
            let unserved = self.unserved()?;
            if unserved == 0 {
                return Ok(false);
            }
            ensure!(
                Instant::now() < deadline,
                "{unserved} messages are not acknowledged after {LIMIT:?}:\n{}",
                host.stderr()
            );
            std::thread::sleep(POLL);
        }
    }

    /// How many messages there are whose sender was not told that they are recorded. A file
    /// never is.
    fn unserved(&self) -> Result<u64> {
        match &self.feed {
            Feed::File => Ok(u64::MAX),
            Feed::Posted(poster) => Ok(poster.unanswered()),
            Feed::Topics(topics) => self.runtime.block_on(async {
                let broker = self.broker().await?;
                let mut behind = 0;
                for plugin in PLUGINS {
                    behind += broker.behind(topics, plugin).await;
                }
                Ok(behind)
            }),
        }
    }

    /// Has the rest done that a serving host left when it was killed: what is parked, and what
    /// is not published.
    pub fn settle(&self, output: &str) -> Result<()> {
        let rest: &[&str] = match self.feed {
            Feed::File => return Ok(()),
            Feed::Posted(_) => &["run", "--input", NOTHING, "--output", output],
            Feed::Topics(_) => &["run", "--input", NOTHING],
        };
        self.site.run(rest, LIMIT)?.succeeded(&rest.join(" "))?;
        Ok(())
    }

    /// What is in the store and at consumers, of whom `expected` messages are waited for. No
    /// host may be running.
    pub fn found(&self, orders: &Orders, outputs: &[&str], expected: usize) -> Result<Found> {
        let published = match &self.feed {
            Feed::File | Feed::Posted(_) => self.written(outputs)?,
            Feed::Topics(_) => self.runtime.block_on(self.consumed(expected))?,
        };
        let read = async {
            let store: Arc<dyn Admin> = semel_stores::open(&self.audited).await?;
            Found::read(&*store, &orders.books, published).await
        };
        self.runtime.block_on(read)
    }

    /// How many outgoing messages consumers have seen so far.
    pub fn progress(&self, output: &str) -> Result<usize> {
        match &self.feed {
            Feed::File | Feed::Posted(_) => LineCount::new(self.site.path(output)).now(),
            Feed::Topics(_) => {
                let broker = self.runtime.block_on(self.broker())?;
                Ok(broker.published(&self.prefix).len())
            }
        }
    }

    fn written(&self, outputs: &[&str]) -> Result<Vec<Published>> {
        let mut published = Vec::new();
        for output in outputs {
            for line in json_lines(&self.site.read(output)?)? {
                let id = line["id"].as_str().context("a line has an id")?;
                let body = line["body"].clone();
                published.push(Published {
                    message_id: id.to_owned(),
                    stream: (*output).to_owned(),
                    body: serde_json::from_value(body).with_context(|| line.to_string())?,
                });
            }
        }
        Ok(published)
    }

    async fn consumed(&self, expected: usize) -> Result<Vec<Published>> {
        let broker = self.broker().await?;
        let deadline = Instant::now() + DELIVERY;
        loop {
            let published = broker.published(&self.prefix);
            let ids: HashSet<_> = published
                .iter()
                .map(|message| &message.message_id)
                .collect();
            if ids.len() >= expected {
                // One too many would be about to come, too.
                tokio::time::sleep(LINGER).await;
                return Ok(broker.published(&self.prefix));
            }
            if Instant::now() > deadline {
                // What never came is for the audit to tell.
                return Ok(published);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Leaves the directory behind, and says where it is.
    pub fn keep(&mut self) -> PathBuf {
        self.site.keep().to_owned()
    }
}

fn end(status: ExitStatus, host: &Running) -> Result<End> {
    if is_sigkill(status) {
        return Ok(End::Killed);
    }
    if !status.success() {
        bail!("the host ended with {status}:\n{}", host.stderr());
    }
    Ok(End::Done)
}
