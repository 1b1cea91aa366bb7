//! How long done records live, and whether that is long enough.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use semel_core::{Manifest, PluginName, Source, parse_duration};

use crate::config::{Config, DEFAULT_PLUGINS, duration_text};
use crate::plugins::{self, ReadyPlugin};

/// How long a done record lives where neither plugin nor operator says.
const DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long the done records of a plugin live, by its manifest.
pub fn of(manifest: &Manifest) -> Duration {
    let text = manifest.retention.as_deref();
    // A loaded manifest is validated.
    text.and_then(parse_duration).unwrap_or(DEFAULT)
}

/// Refuses plugins that would forget messages which their sources may still deliver again.
pub fn check(plugins: &[ReadyPlugin], sources: &[Arc<dyn Source>]) -> Result<()> {
    plugins
        .iter()
        .zip(sources)
        .try_for_each(|(plugin, source)| {
            let redelivery = source.redelivery().unwrap_or_default();
            let accepted = plugin.allow_short_retention;
            suffices(&plugin.name, plugin.retention, redelivery, accepted)
        })
}

/// Whether done records outlive the last delivery of their message; else it must be `accepted`.
fn suffices(
    plugin: &PluginName,
    retention: Duration,
    redelivery: Duration,
    accepted: bool,
) -> Result<()> {
    if retention >= redelivery {
        return Ok(());
    }
    let (retention, redelivery) = (duration_text(retention), duration_text(redelivery));
    if accepted {
        tracing::warn!(
            %plugin, retention, redelivery,
            "it forgets what it has handled before its source delivers for the last time: what comes later takes effect again"
        );
        return Ok(());
    }
    bail!(
        "the plugin `{plugin}` forgets after {retention} what it has handled, and its source may deliver a message again for {redelivery}: one that came late would take effect twice. Set `retention = \"{redelivery}\"` or more under [plugins.{plugin}]; or, if the broker keeps messages for less time, say so with `redelivery` under [source]; or accept it with `allow-short-retention = true` under [plugins.{plugin}]"
    );
}

/// The retention of plugins, for commands that load none.
pub struct Retentions<'c> {
    config: &'c Config,
    /// By the names of the plugins whose files are there.
    known: HashMap<String, Duration>,
}

impl<'c> Retentions<'c> {
    /// What the configuration and the plugins in its directory say.
    pub fn read(config: &'c Config) -> Self {
        let dir = config.plugins_dir.as_deref();
        let overrides = plugins::overrides(config);
        let manifests = files(dir.unwrap_or(Path::new(DEFAULT_PLUGINS)))
            .into_iter()
            .filter_map(|file| semel_sandbox::inspect(&file, &overrides).ok()?.manifest);
        let known = manifests.filter_map(|manifest| Some((manifest.name.clone()?, of(&manifest))));
        Self {
            config,
            known: known.collect(),
        }
    }

    /// The retention of one, which may have no file any more.
    pub fn of(&self, plugin: &PluginName) -> Duration {
        let configured = || {
            self.config
                .plugin(plugin.as_str())
                .map(|p| of(&p.manifest()))
        };
        let known = self.known.get(plugin.as_str()).copied();
        known.or_else(configured).unwrap_or(DEFAULT)
    }
}

/// The plugin files of a directory; none if it can't be read.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_retention_shorter_than_redelivery_must_be_accepted() {
        let plugin = PluginName::new("points");
        assert!(suffices(&plugin, HOUR, Duration::ZERO, false).is_ok());
        assert!(suffices(&plugin, HOUR, HOUR, false).is_ok());
        assert!(suffices(&plugin, HOUR, HOUR * 72, true).is_ok());
        let error = suffices(&plugin, HOUR, HOUR * 72, false).unwrap_err();
        let text = error.to_string();
        for part in [
            "`points`",
            "after 1h",
            "for 3d",
            "[plugins.points]",
            "redelivery",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn commands_know_the_retention_that_the_operator_sets() {
        let text = "plugins-dir = \"/nowhere\"\n[plugins.points]\nretention = \"2h\"";
        let config = Config::parse(Path::new("semel.toml"), text, &|_| None).unwrap();
        let retentions = Retentions::read(&config);
        assert_eq!(retentions.of(&PluginName::new("points")), HOUR * 2);
        assert_eq!(retentions.of(&PluginName::new("other")), DEFAULT);
    }
}
