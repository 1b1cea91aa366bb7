//! Which plugins there are, and what each of them is given.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use semel_core::{FlowLimits, Grants, Limits, Manifest, QueryLimits, RetryPolicy, Store};
use semel_sandbox::{
    LoadedPlugin, Overrides, Plugin, PluginOverride, RunLimits, Sandbox, SandboxConfig,
};

use crate::config::{Config, EngineConfig, LimitsConfig, PluginConfig, RetryConfig, duration_text};
use crate::declared::DeclaredPlugin;
use crate::destinations::granted;

/// A plugin that is ready to be given messages.
pub struct ReadyPlugin {
    /// What it says of itself.
    pub declared: DeclaredPlugin,
    /// What it may do.
    pub grants: Arc<Grants>,
    /// What becomes of its failures.
    pub retry: RetryPolicy,
    /// How much of it is done at once.
    pub flow: FlowLimits,
    /// Runs it.
    pub runner: Arc<Plugin>,
}

/// Manifest and limits of plugins as the configuration has them.
pub fn overrides(config: &Config) -> Overrides {
    let plugins = config.plugins.iter().map(|(name, plugin)| {
        let over = PluginOverride {
            manifest: plugin.manifest(),
            limits: Some(plugin.limits.run_limits()),
        };
        (name.clone(), over)
    });
    plugins.collect()
}

/// Loads every plugin of a directory. Bad ones are refused with a line in the log, and the
/// others go on; it is an error if none is left.
pub fn load(dir: &Path, config: &Config) -> Result<Vec<LoadedPlugin>> {
    let show = dir.display();
    if !dir.is_dir() {
        bail!(
            "there is no directory `{show}` to load plugins from: put your `.wasm` files there, or name another directory with --plugins"
        );
    }
    let overrides = overrides(config);
    let sandbox = Sandbox::new(SandboxConfig {
        limits: room_for(&overrides),
        cache_dir: config.cache_dir.clone().or_else(default_cache_dir),
        ..SandboxConfig::default()
    })?;
    let (loaded, refused) = sandbox.load_dir(dir, &overrides);
    for error in &refused {
        tracing::error!("refused: {error}");
    }
    match (loaded.len(), refused.len()) {
        (0, 0) => bail!(
            "there is no plugin in `{show}`: put a `.wasm` file there, or name another directory with --plugins"
        ),
        (0, _) => bail!(
            "every plugin in `{show}` was refused: see the lines above, and `semel plugin inspect FILE`"
        ),
        _ => {}
    }
    for name in config.plugins.keys() {
        if !loaded.iter().any(|plugin| plugin.name() == name) {
            tracing::warn!("[plugins.{name}] is configured, but no plugin in {show} has that name");
        }
    }
    Ok(loaded)
}

/// How many handlers can really run at a time.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// The limits of plugins that have none of their own. The sandbox's tables are as large as
/// these say, so they have to be large enough for every plugin.
fn room_for(overrides: &Overrides) -> RunLimits {
    let defaults = RunLimits::default();
    let limits = overrides.values().filter_map(|over| over.limits);
    let largest = limits.map(|limits| limits.table_elements).max();
    RunLimits {
        table_elements: defaults.table_elements.max(largest.unwrap_or(0)),
        ..defaults
    }
}

/// Where compiled plugins are kept unless the configuration says.
fn default_cache_dir() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("semel"))
}

impl ReadyPlugin {
    /// Puts together what the manifest, the configuration and the command line say, and tells
    /// the operator. `mapped` are the destinations that lead somewhere; none means any.
    pub async fn new(
        plugin: LoadedPlugin,
        config: &Config,
        store: &dyn Store,
        mapped: Option<&HashSet<Arc<str>>>,
        concurrency: Option<NonZeroUsize>,
    ) -> Result<Self> {
        let name = plugin.name();
        let defaults = PluginConfig::default();
        let configured = config.plugin(name).unwrap_or(&defaults);
        let destinations =
            granted(mapped, configured.destinations.as_deref()).map_err(|missing| {
                anyhow!(
                    "[plugins.{name}] allows the destination `{missing}`, which leads nowhere: add [destinations.{missing}] with a url, or use --output"
                )
            })?;
        let sql = match &configured.sql {
            Some(granted) => Some(
                store
                    .sql(&granted.clone().into())
                    .await
                    .map_err(|error| anyhow!("[plugins.{name}.sql] can't be granted: {error}"))?,
            ),
            None => None,
        };
        let grants = Grants {
            namespace: config.namespace(name).into(),
            destinations,
            sql,
            config: configured.config.0.clone(),
            limits: configured.limits.effect_limits(),
        };
        let mut flow = config.engine.flow(threads());
        if let Some(concurrency) = concurrency.or(configured.concurrency) {
            flow.concurrency = concurrency.get();
        }
        let declared = DeclaredPlugin::new(name, &plugin.manifest, config)?;
        announce(&declared, &plugin.manifest);
        Ok(Self {
            declared,
            grants: Arc::new(grants),
            retry: configured.retry.policy(),
            flow,
            runner: Arc::clone(&plugin.runner),
        })
    }
}

fn announce(plugin: &DeclaredPlugin, manifest: &Manifest) {
    tracing::info!(
        plugin = %plugin.name,
        plugin_version = manifest.plugin_version.as_deref().unwrap_or("-"),
        topics = plugin.topics.join(","),
        key = %plugin.key,
        order_by = plugin.order_by.as_ref().map(tracing::field::display),
        version = manifest.version.as_ref().map(tracing::field::display),
        entity = manifest.entity.as_ref().map(tracing::field::display),
        retention = duration_text(plugin.retention),
        "loaded"
    );
}

impl LimitsConfig {
    /// What the sandbox watches.
    fn run_limits(&self) -> RunLimits {
        let defaults = RunLimits::default();
        RunLimits {
            memory_bytes: self.memory.map_or(defaults.memory_bytes, |size| size.0),
            table_elements: self.table_elements.unwrap_or(defaults.table_elements),
            fuel: self.fuel.unwrap_or(defaults.fuel),
            wall_clock: self.time.map_or(defaults.wall_clock, |time| time.0),
            host_calls: self.host_calls.unwrap_or(defaults.host_calls),
            call_bytes: self.call_bytes.map_or(defaults.call_bytes, |size| size.0),
            log_bytes: self.log_bytes.map_or(defaults.log_bytes, |size| size.0),
        }
    }

    /// What a run may ask for.
    fn effect_limits(&self) -> Limits {
        let defaults = Limits::default();
        Limits {
            effect_bytes: self
                .effect_bytes
                .map_or(defaults.effect_bytes, |size| size.0),
            effects: self.effects.map_or(defaults.effects, usize::from),
            state_key_bytes: self
                .state_key_bytes
                .map_or(defaults.state_key_bytes, |size| size.0),
            reads: self.reads.map_or(defaults.reads, usize::from),
            query: QueryLimits {
                rows: self.query_rows.map_or(defaults.query.rows, usize::from),
                bytes: self.query_bytes.map_or(defaults.query.bytes, |size| size.0),
            },
        }
    }
}

impl RetryConfig {
    fn policy(&self) -> RetryPolicy {
        let defaults = RetryPolicy::default();
        RetryPolicy {
            max_attempts: self.max_attempts.map_or(defaults.max_attempts, u32::from),
            first_delay: self
                .first_delay
                .map_or(defaults.first_delay, |delay| delay.0),
            max_delay: self.max_delay.map_or(defaults.max_delay, |delay| delay.0),
        }
    }
}

impl EngineConfig {
    fn flow(&self, threads: usize) -> FlowLimits {
        let defaults = FlowLimits::default();
        FlowLimits {
            concurrency: self.concurrency.map_or(threads, usize::from),
            batch: self.batch.map_or(defaults.batch, usize::from),
            in_flight: self.in_flight.map_or(defaults.in_flight, usize::from),
            in_flight_bytes: self
                .in_flight_bytes
                .map_or(defaults.in_flight_bytes, |size| size.0),
            cached_values: self.cached_values.unwrap_or(defaults.cached_values),
        }
    }
}
