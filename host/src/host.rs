//! A host from start to end: plugins, store, sources, engines and relay, put together.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use indicatif::MultiProgress;
use semel_brokers::FileName;
use semel_core::{
    Admin, Engine, EngineConfig, EngineParts, OutboxScan, PluginName, Relay, RelayConfig,
    RelayHandle, Stats, Store, StoreError, SystemClock,
};
use semel_sandbox::Workers;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admin::{PAGE, redacted};
use crate::brokers::Brokers;
use crate::config::Config;
use crate::outlet::Outlet;
use crate::plugins::{self, ReadyPlugin};
use crate::progress::{self, Progress};
use crate::retention;
use crate::signals;
use crate::sources::{self, Opened};
use crate::summary::{Counts, InputCounts, Summary};

/// How long an end by signal waits for outgoing messages. Those left wait in the store.
const PUBLISH_TIME: Duration = Duration::from_secs(10);

/// What to run.
pub struct HostConfig {
    /// Where the plugins are.
    pub plugins: PathBuf,
    /// The store's URL.
    pub store: String,
    /// Where messages come from.
    pub incoming: Incoming,
    /// Where everything goes that plugins publish, if to one file.
    pub output: Option<FileName>,
    /// Handlers of a plugin that run at a time, whatever the configuration says.
    pub concurrency: Option<NonZeroUsize>,
    /// How outgoing messages are published.
    pub relay: RelayConfig,
}

/// Where messages come from.
pub enum Incoming {
    /// A file or stdin, which ends.
    Input {
        /// Which.
        file: FileName,
        /// Whether the run ends only when no message is parked any more.
        wait_for_parked: bool,
    },
    /// A broker.
    Broker {
        /// Which.
        url: String,
        /// What the names of consumer groups begin with.
        group_prefix: Option<String>,
        /// For how long it keeps messages, where the operator says so.
        redelivery: Option<Duration>,
    },
}

/// Runs a host until its input ends or it is told to stop.
pub async fn run(host: HostConfig, config: &Config, bars: &MultiProgress) -> Result<Summary> {
    let brokers = Brokers::default();
    let summary = run_with(&brokers, host, config, bars).await;
    brokers.shutdown().await;
    summary
}

async fn run_with(
    brokers: &Brokers,
    host: HostConfig,
    config: &Config,
    bars: &MultiProgress,
) -> Result<Summary> {
    let started = Instant::now();
    let shutdown = CancellationToken::new();
    signals::listen(shutdown.clone())?;

    let serves = matches!(host.incoming, Incoming::Broker { .. });
    let mut outlet = Outlet::open(host.output.as_ref(), config, serves, brokers)?;
    let loaded = tokio::task::block_in_place(|| plugins::load(&host.plugins, config))?;
    let store = semel_stores::open(&host.store).await?;
    tracing::info!(url = redacted(&host.store), "the store is open");
    let mut plugins = Vec::with_capacity(loaded.len());
    for plugin in loaded {
        let names = outlet.names();
        let plugin = ReadyPlugin::new(plugin, config, &*store, names, host.concurrency);
        plugins.push(plugin.await?);
    }
    let declared: Vec<_> = plugins.iter().map(|it| it.declared.clone()).collect();
    let opened = sources::open(&host.incoming, config.source.as_ref(), &declared, brokers).await?;
    retention::check(&declared, &opened.sources)?;

    // A host that died may have left half messages, so brokers are answered first.
    let durable: Arc<dyn Store> = Arc::clone(&store) as _;
    outlet.transactions = brokers.start_transactions(&durable).await;

    let mut running = Running::start(&host, plugins, &opened, &store, outlet, &shutdown)?;
    if serves {
        tracing::info!("serving; SIGINT or SIGTERM ends it");
    }
    let mut stats: Vec<Arc<Stats>> = running
        .engines
        .iter()
        .map(|(_, stats)| Arc::clone(stats))
        .collect();
    let reporter = match &opened.progress {
        Some(input) => tokio::spawn(Progress::new(bars, Arc::clone(input), stats).follow()),
        None => {
            stats.push(Arc::clone(&running.relay_stats));
            tokio::spawn(progress::report(stats))
        }
    };
    let outcome = running.supervise(&shutdown).await;
    reporter.abort();
    // A bar clears its line when it is dropped, which must come before the summary.
    let _ = reporter.await;
    outcome?;
    let seconds = started.elapsed().as_secs_f64();
    let interrupted = !serves && shutdown.is_cancelled();
    running
        .summary(&*store, &opened, seconds, interrupted)
        .await
}

/// The tasks of a host.
struct Running {
    tasks: JoinSet<Result<()>>,
    relay: Option<JoinHandle<Result<(), StoreError>>>,
    /// Tells the relay to end once the outbox is empty.
    finish: CancellationToken,
    /// Tells it to end.
    stop: CancellationToken,
    relay_stats: Arc<Stats>,
    engines: Vec<(PluginName, Arc<Stats>)>,
    /// Dropped when all is done.
    _workers: Workers,
}

impl Running {
    fn start(
        host: &HostConfig,
        plugins: Vec<ReadyPlugin>,
        opened: &Opened,
        store: &Arc<dyn Admin>,
        outlet: Outlet,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        let store: Arc<dyn Store> = Arc::clone(store) as _;
        let workers = Workers::start(plugins::threads()).context("can't start threads")?;
        let relay_stats = Arc::new(Stats::default());
        let (finish, stop) = (CancellationToken::new(), CancellationToken::new());
        let (relay, handle) = match outlet.sink {
            Some(sink) => {
                let (relay, handle) = Relay::new(
                    host.relay,
                    Arc::clone(&store),
                    sink,
                    Arc::new(SystemClock),
                    Arc::clone(&relay_stats),
                );
                let relay = tokio::spawn(relay.run(finish.clone(), stop.clone()));
                (Some(relay), handle)
            }
            // Rows that nobody takes stay where they are: in the store.
            None => (None, RelayHandle::default()),
        };

        let wait_for_parked = match host.incoming {
            Incoming::Input {
                wait_for_parked, ..
            } => wait_for_parked,
            Incoming::Broker { .. } => true,
        };
        let instance = rand::random();
        let mut tasks = JoinSet::new();
        let mut engines = Vec::new();
        for (plugin, source) in plugins.into_iter().zip(&opened.sources) {
            let stats = Arc::new(Stats::default());
            let declared = plugin.declared;
            let name = declared.name.clone();
            engines.push((name.clone(), Arc::clone(&stats)));
            let config = EngineConfig {
                plugin: declared.name,
                key: declared.key,
                order_by: declared.order_by,
                versioning: declared.versioning,
                grants: plugin.grants,
                retention: declared.retention,
                retry: plugin.retry,
                flow: plugin.flow,
                wait_for_parked,
                instance,
            };
            let parts = EngineParts {
                source: Arc::clone(source),
                store: Arc::clone(&store),
                runner: plugin.runner,
                clock: Arc::new(SystemClock),
                relay: handle.clone(),
                transactions: outlet.transactions.clone(),
                workers: workers.handle().clone(),
                stats,
            };
            let engine = Engine::new(config, parts).run(shutdown.clone());
            tasks.spawn(async move {
                let failed = || format!("the engine of the plugin `{name}` failed");
                engine.await.with_context(failed)
            });
        }
        Ok(Self {
            tasks,
            relay,
            finish,
            stop,
            relay_stats,
            engines,
            _workers: workers,
        })
    }

    /// Waits for all engines, then for the outbox. The first failure ends everything else.
    async fn supervise(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut failure: Option<Error> = None;
        loop {
            let relay = async {
                match self.relay.as_mut() {
                    Some(relay) => relay.await,
                    None => std::future::pending().await,
                }
            };
            let result = tokio::select! {
                joined = self.tasks.join_next() => match joined {
                    Some(result) => result.map_err(Error::from).flatten(),
                    None => break,
                },
                result = relay => {
                    self.relay = None;
                    relay_result(result)
                }
            };
            if let Err(error) = result {
                tracing::error!("{error:#}; finishing what is in flight");
                shutdown.cancel();
                failure.get_or_insert(error);
            }
        }
        let published = self.publish_the_rest(shutdown).await;
        failure.map_or(published, Err)
    }

    async fn publish_the_rest(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let Some(mut relay) = self.relay.take() else {
            return Ok(());
        };
        self.finish.cancel();
        tokio::select! {
            result = &mut relay => return relay_result(result),
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(PUBLISH_TIME).await;
            } => self.stop.cancel(),
        }
        relay_result(relay.await)
    }

    async fn summary(
        &self,
        store: &dyn Admin,
        opened: &Opened,
        seconds: f64,
        interrupted: bool,
    ) -> Result<Summary> {
        let mut plugins = BTreeMap::new();
        let mut totals = Counts::default();
        for (name, stats) in &self.engines {
            let (parked, _) = store.parked(name).await?;
            let counts = Counts::new(stats.snapshot(), parked)
                .with_latency(stats.latency.quantile(0.5), stats.latency.quantile(0.99));
            totals = totals.plus(&counts);
            plugins.insert(name.to_string(), counts);
        }
        Ok(Summary {
            totals,
            published: self.relay_stats.published.get(),
            undeliverable: self.relay_stats.undeliverable.get(),
            unpublished: unpublished(store).await?,
            input: opened.progress.as_ref().map(|input| InputCounts {
                lines: input.lines(),
                unrouted: input.unrouted(),
                malformed: input.malformed(),
            }),
            seconds,
            interrupted,
            plugins,
        })
    }
}

fn relay_result(result: Result<Result<(), StoreError>, tokio::task::JoinError>) -> Result<()> {
    match result {
        Ok(result) => result.context("the relay failed"),
        Err(panic) => Err(anyhow!(panic).context("the relay failed")),
    }
}

/// Outgoing messages that are left in the store.
async fn unpublished(store: &dyn Admin) -> Result<u64> {
    let mut scan = OutboxScan {
        limit: PAGE,
        ..OutboxScan::default()
    };
    let mut count = 0;
    loop {
        let rows = store.outbox(&scan).await?;
        let Some(last) = rows.last() else {
            return Ok(count);
        };
        count += rows.len() as u64;
        scan.after = Some(last.id);
    }
}
