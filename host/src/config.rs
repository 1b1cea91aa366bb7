//! `semel.toml`: what the operator decides. A plugin's own manifest comes first, then this
//! file, and the command line last.

mod environment;
mod error;
mod http;
mod values;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use semel_core::{Gap, KeyExpression, Manifest, RelayConfig, SqlGrants};
use serde::Deserialize;

pub use error::ConfigError;
pub use http::{HttpDestinationOptions, HttpSourceOptions, InFlightOption, MethodOption};
pub use values::{Namespace, Settings, Size, Span, SpanText, duration_text};

use crate::logging::LogFormat;

/// Read when `--config` is not given, if it is there.
pub const DEFAULT_FILE: &str = "semel.toml";
/// Where the store is unless anyone says otherwise.
pub const DEFAULT_STORE: &str = "redb:./semel-data";
/// Where plugins are unless anyone says otherwise.
pub const DEFAULT_PLUGINS: &str = "./plugins";

/// The whole file. Every part is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The store's URL.
    pub store: Option<String>,
    /// The directory that plugins are loaded from.
    pub plugins_dir: Option<PathBuf>,
    /// Where compiled plugins are kept.
    pub cache_dir: Option<PathBuf>,
    /// Where messages come from when the host serves.
    pub source: Option<SourceConfig>,
    /// Where the destinations that plugins name lead to.
    pub destinations: BTreeMap<String, DestinationConfig>,
    /// How much is in progress at once.
    pub engine: EngineConfig,
    /// Outgoing messages that wait in the store.
    pub outbox: OutboxConfig,
    /// What the host says of itself.
    pub logging: LoggingConfig,
    /// Overrides by plugin name.
    pub plugins: BTreeMap<String, PluginConfig>,
}

/// `[source]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SourceConfig {
    /// Such as `rocketmq://127.0.0.1:9876`, `kafka://127.0.0.1:9092`, `amqp://127.0.0.1:5672`
    /// or `http://127.0.0.1:8080`.
    pub url: String,
    /// What the name of each plugin's consumer group begins with.
    pub group_prefix: Option<String>,
    /// What goes for an HTTP URL.
    pub http: Option<HttpSourceOptions>,
    /// For how long after it was sent a message may be delivered again.
    pub redelivery: Option<Span>,
}

/// `[destinations.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DestinationConfig {
    /// Such as `rocketmq://127.0.0.1:9876/TOPIC` or `https://payments.example/charges`.
    pub url: String,
    /// What takes messages there.
    #[serde(default)]
    pub delivery: Delivery,
    /// What goes for an HTTP URL.
    pub http: Option<HttpDestinationOptions>,
}

/// `delivery` under `[destinations.NAME]`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// The relay, after the commit.
    #[default]
    Outbox,
    /// Half messages around the commit, and the relay for what they leave.
    Transactional,
}

/// `[engine]`: bounds for each plugin on what is on its way between receive and acknowledge.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Handlers of one plugin that run at a time.
    pub concurrency: Option<NonZeroUsize>,
    /// Runs in one commit.
    pub batch: Option<NonZeroUsize>,
    /// Messages in flight.
    pub in_flight: Option<NonZeroUsize>,
    /// Bytes in flight.
    pub in_flight_bytes: Option<Size>,
    /// State values kept at hand between batches.
    pub cached_values: Option<usize>,
}

/// `[outbox]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OutboxConfig {
    /// Outgoing messages of all plugins at which consuming is suspended.
    pub capacity: Option<NonZeroU64>,
}

/// `[logging]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LoggingConfig {
    /// For people or for machines.
    pub format: Option<LogFormat>,
    /// A level, or directives as of `tracing`'s `EnvFilter`.
    pub level: Option<String>,
}

/// `[plugins.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PluginConfig {
    /// In place of the manifest's topics.
    pub topics: Option<Vec<String>>,
    /// In place of the manifest's key.
    pub key: Option<KeyExpression>,
    /// In place of the manifest's lane.
    pub order_by: Option<KeyExpression>,
    /// In place of the manifest's version.
    pub version: Option<KeyExpression>,
    /// In place of the manifest's entity.
    pub entity: Option<KeyExpression>,
    /// In place of what the manifest says of messages that skip versions.
    pub gap: Option<Gap>,
    /// In place of the manifest's bound on their wait.
    pub gap_timeout: Option<SpanText>,
    /// In place of the manifest's first version.
    pub first_version: Option<u64>,
    /// In place of the manifest's retention.
    pub retention: Option<SpanText>,
    /// Whether the retention may be shorter than the source may deliver again.
    pub allow_short_retention: bool,
    /// Where its state is, if not under its own name.
    pub namespace: Option<Namespace>,
    /// The only destinations that it may publish to.
    pub destinations: Option<Vec<String>>,
    /// Its handlers that run at a time.
    pub concurrency: Option<NonZeroUsize>,
    /// What it may do with the user's own tables.
    pub sql: Option<SqlConfig>,
    /// What its handler may ask for by name.
    pub config: Settings,
    /// What one run may use up.
    pub limits: LimitsConfig,
    /// What becomes of a message whose run failed.
    pub retry: RetryConfig,
}

/// `[plugins.NAME.sql]`: tables, as statements name them, by what may be done with them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SqlConfig {
    /// Read by queries.
    pub select: Vec<String>,
    /// Inserted into.
    pub insert: Vec<String>,
    /// Updated.
    pub update: Vec<String>,
    /// Deleted from.
    pub delete: Vec<String>,
    /// Functions beside the usual ones.
    pub functions: Vec<String>,
}

/// `[plugins.NAME.limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Linear memory.
    pub memory: Option<Size>,
    /// Elements of tables, where function pointers live.
    pub table_elements: Option<usize>,
    /// Instructions, roughly.
    pub fuel: Option<u64>,
    /// From call to return, reads from the store included.
    pub time: Option<Span>,
    /// Calls of the host.
    pub host_calls: Option<u64>,
    /// What one call may hand to the host.
    pub call_bytes: Option<Size>,
    /// Log lines.
    pub log_bytes: Option<Size>,
    /// Values, outgoing messages, statements and reply together.
    pub effect_bytes: Option<Size>,
    /// Writes, outgoing messages and statements together.
    pub effects: Option<NonZeroUsize>,
    /// One state key.
    pub state_key_bytes: Option<Size>,
    /// Distinct state keys read, and queries.
    pub reads: Option<NonZeroUsize>,
    /// Rows that one query may give.
    pub query_rows: Option<NonZeroUsize>,
    /// Bytes that one query may give.
    pub query_bytes: Option<Size>,
}

/// `[plugins.NAME.retry]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Runs before the message becomes a dead letter.
    pub max_attempts: Option<NonZeroU32>,
    /// Before the second run; it doubles from there.
    pub first_delay: Option<Span>,
    /// The delay never grows past this.
    pub max_delay: Option<Span>,
}

impl Config {
    /// Reads `given`, or `./semel.toml` if there is one.
    pub fn load(given: Option<&Path>) -> Result<Self> {
        let path = given.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(path, &text, &|name| std::env::var(name).ok())?),
            Err(error) if given.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => {
                Err(error).with_context(|| format!("can't read the configuration {path:?}"))
            }
        }
    }

    /// Reads `text`; `path` is for messages, `environment` answers `${NAME}`.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        environment::resolve(text, environment)
            .and_then(|document| Ok(Self::deserialize(toml::Deserializer::from(document))?))
            .map_err(|fault| ConfigError::new(path, text, fault))
    }

    /// What the file says of a plugin.
    pub fn plugin(&self, name: &str) -> Option<&PluginConfig> {
        self.plugins.get(name)
    }

    /// The namespace of a plugin's state.
    pub fn namespace<'a>(&'a self, plugin: &'a str) -> &'a str {
        let configured = self.plugin(plugin).and_then(|p| p.namespace.as_ref());
        configured.map_or(plugin, |namespace| namespace.0.as_str())
    }
}

impl OutboxConfig {
    /// How outgoing messages are published.
    pub fn relay(&self) -> RelayConfig {
        let defaults = RelayConfig::default();
        RelayConfig {
            capacity: self.capacity.map_or(defaults.capacity, u64::from),
            ..defaults
        }
    }
}

impl From<SqlConfig> for SqlGrants {
    fn from(config: SqlConfig) -> Self {
        Self {
            select: config.select,
            insert: config.insert,
            update: config.update,
            delete: config.delete,
            functions: config.functions,
        }
    }
}

impl PluginConfig {
    /// The part that is laid over the plugin's own manifest.
    pub fn manifest(&self) -> Manifest {
        Manifest {
            topics: self.topics.clone(),
            key: self.key.clone(),
            order_by: self.order_by.clone(),
            version: self.version.clone(),
            entity: self.entity.clone(),
            gap: self.gap,
            gap_timeout: self.gap_timeout.as_ref().map(|span| span.0.clone()),
            first_version: self.first_version,
            retention: self.retention.as_ref().map(|span| span.0.clone()),
            ..Manifest::default()
        }
    }
}

#[cfg(test)]
mod tests;
