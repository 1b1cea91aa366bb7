//! One measured run: a source, a store and a sink around one engine and one relay, put
//! together as the host does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use semel_core::{
    Engine, EngineConfig, EngineParts, FlowLimits, Grants, Relay, RelayConfig, RetryPolicy, Sink,
    Source, Stats, StatsSnapshot, Store, SystemClock,
};
use semel_sandbox::Workers;
use tokio_util::sync::CancellationToken;

use crate::cpu::CpuTime;
use crate::feed::Timed;
use crate::handlers::{Handler, Kind};

/// A run that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(300);

/// What one run goes through.
pub struct Course {
    /// Where messages come from.
    pub source: Arc<dyn Source>,
    /// Fresh, unless duplicates are measured.
    pub store: Arc<dyn Store>,
    /// Where messages go to.
    pub sink: Arc<dyn Sink>,
    /// The servers' processes.
    pub servers: Vec<u32>,
    /// Messages that will come.
    pub messages: usize,
    /// How many of them are to be applied.
    pub to_apply: usize,
}

/// What was measured.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Sample {
    /// Messages each second, from the first receive until all are acknowledged and published.
    pub rate: f64,
    /// Microseconds of CPU for each message: this process.
    pub host_cpu_us: f64,
    /// The same: the servers.
    pub server_cpu_us: f64,
    /// Milliseconds from receive to acknowledge that half of the messages took at most.
    pub p50_ms: f64,
    /// The same for 99 %.
    pub p99_ms: f64,
    /// What the engine counted.
    pub counts: StatsSnapshot,
}

/// Runs a handler on everything that comes along the course.
pub async fn run(course: Course, handler: &Handler, kind: Kind) -> Result<Sample> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let workers = Workers::start(threads)?;
    let source = Arc::new(Timed::new(course.source, course.servers.clone()));
    let (stats, relay_stats) = (Arc::new(Stats::default()), Arc::new(Stats::default()));
    let (shutdown, finish) = (CancellationToken::new(), CancellationToken::new());
    let (relay, handle) = Relay::new(
        RelayConfig::default(),
        Arc::clone(&course.store),
        course.sink,
        Arc::new(SystemClock),
        Arc::clone(&relay_stats),
    );
    let mut relay = tokio::spawn(relay.run(finish.clone(), CancellationToken::new()));
    let config = EngineConfig {
        plugin: handler.name.clone(),
        key: handler.key.clone(),
        order_by: None,
        versioning: None,
        grants: Arc::new(Grants {
            namespace: handler.name.as_str().into(),
            ..Grants::default()
        }),
        retention: Duration::from_secs(7 * 24 * 60 * 60),
        retry: RetryPolicy::default(),
        flow: FlowLimits {
            concurrency: threads,
            ..FlowLimits::default()
        },
        wait_for_parked: false,
        instance: rand::random(),
    };
    let parts = EngineParts {
        source: Arc::clone(&source) as _,
        store: course.store,
        runner: handler.runner(kind),
        clock: Arc::new(SystemClock),
        relay: handle,
        transactions: None,
        workers: workers.handle().clone(),
        stats: Arc::clone(&stats),
    };
    let mut engine = tokio::spawn(Engine::new(config, parts).run(shutdown.clone()));

    let published = (course.to_apply * handler.publishes) as u64;
    let begun = Instant::now();
    let mut ended = false;
    while source.acknowledged() < course.messages || relay_stats.published.get() < published {
        tokio::select! {
            result = &mut engine, if !ended => {
                result??;
                ended = true;
            }
            result = &mut relay => {
                result??;
                bail!("the relay ended early");
            }
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "after {PATIENCE:?} only {} of {} messages are acknowledged, {} of {published} published",
            source.acknowledged(),
            course.messages,
            relay_stats.published.get(),
        );
    }
    let (end, cpu) = (Instant::now(), CpuTime::now(&course.servers)?);

    shutdown.cancel();
    if !ended {
        engine.await??;
    }
    finish.cancel();
    relay.await??;

    let counts = stats.snapshot();
    let repeated = (course.messages - course.to_apply) as u64;
    ensure!(
        counts.applied == course.to_apply as u64 && counts.duplicates == repeated,
        "{} messages should have been applied and {repeated} dropped: {counts:?}",
        course.to_apply
    );
    ensure!(
        course.to_apply > 0 || counts.runs == 0,
        "duplicates reached the handler: {counts:?}"
    );
    let start = source.start().context("nothing was received")?;
    let cpu = cpu.since(start.cpu);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / course.messages as f64;
    let quantile = |share| {
        source
            .latency
            .quantile(share)
            .unwrap_or_default()
            .as_secs_f64()
            * 1e3
    };
    Ok(Sample {
        rate: course.messages as f64 / (end - start.at).as_secs_f64(),
        host_cpu_us: each(cpu.host),
        server_cpu_us: each(cpu.servers),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        counts,
    })
}
