//! What a plugin says of itself.

use std::time::Duration;

use anyhow::Result;
use semel_core::{KeyExpression, Manifest, PluginName, Versioning};

use crate::config::Config;
use crate::retention;

/// A plugin as its manifest declares it, or the configuration in its place.
#[derive(Clone, Debug)]
pub struct DeclaredPlugin {
    /// Its name.
    pub name: PluginName,
    /// What it subscribes to.
    pub topics: Vec<String>,
    /// Where the business key stands.
    pub key: KeyExpression,
    /// Where the lane stands.
    pub order_by: Option<KeyExpression>,
    /// How its messages are numbered, if they are.
    pub versioning: Option<Versioning>,
    /// How long its done records live.
    pub retention: Duration,
    /// Whether that may be too short for its source.
    pub allow_short_retention: bool,
}

impl DeclaredPlugin {
    /// Puts together what a manifest says, in which the configuration's settings are already.
    pub fn new(name: &str, manifest: &Manifest, config: &Config) -> Result<Self> {
        let configured = config.plugin(name);
        Ok(Self {
            name: PluginName::new(name),
            topics: manifest.topics.clone().unwrap_or_default(),
            key: manifest.key.clone().unwrap_or_else(KeyExpression::id),
            order_by: manifest.order_by.clone(),
            versioning: manifest.versioning()?,
            retention: retention::of(manifest),
            allow_short_retention: configured.is_some_and(|plugin| plugin.allow_short_retention),
        })
    }

    /// What it reads of messages beside its key.
    pub fn other_expressions(&self) -> Vec<KeyExpression> {
        let versioning = self.versioning.as_ref();
        let versions = versioning.map(|versioning| [&versioning.version, &versioning.entity]);
        let versions = versions.into_iter().flatten();
        self.order_by.iter().chain(versions).cloned().collect()
    }
}
