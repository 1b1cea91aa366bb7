//! How long done records live, and whether that is long enough.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use semel_core::{Finding, Level, Manifest, PluginName, Source, parse_duration};

use crate::config::{Config, DEFAULT_PLUGINS, duration_text};
use crate::declared::DeclaredPlugin;
use crate::plugins;

/// How long a done record lives where neither plugin nor operator says.
const DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long the done records of a plugin live, by its manifest.
pub fn of(manifest: &Manifest) -> Duration {
    let text = manifest.retention.as_deref();
    // A loaded manifest is validated.
    text.and_then(parse_duration).unwrap_or(DEFAULT)
}

/// Refuses plugins that would forget messages which their sources may still deliver again.
pub fn check(plugins: &[DeclaredPlugin], sources: &[Arc<dyn Source>]) -> Result<()> {
    plugins
        .iter()
        .zip(sources)
        .try_for_each(|(plugin, source)| {
            let redelivery = source.redelivery().unwrap_or_default();
            let accepted = plugin.allow_short_retention;
            let finding = compared(&plugin.name, plugin.retention, redelivery, accepted);
            match finding.level {
                Level::Failure => bail!("{finding}"),
                Level::Warning => tracing::warn!("{finding}"),
                Level::Good | Level::Note => {}
            }
            Ok(())
        })
}

/// Whether done records outlive the last delivery of their message; else it must be `accepted`.
pub fn compared(
    plugin: &PluginName,
    retention: Duration,
    redelivery: Duration,
    accepted: bool,
) -> Finding {
    const SUBJECT: &str = "retention";
    if redelivery.is_zero() {
        return Finding::unchecked(
            SUBJECT,
            "nobody says for how long its source delivers again",
        )
        .advise("set `redelivery` under [source], if messages may come again after days");
    }
    let suffices = retention >= redelivery;
    let retention = duration_text(retention);
    let redelivery = match redelivery {
        Duration::MAX => "ever".to_owned(),
        redelivery => duration_text(redelivery),
    };
    if suffices {
        let found = format!(
            "`{plugin}` remembers for {retention} what it has handled, and its source delivers again for {redelivery} at most"
        );
        return Finding::good(SUBJECT, found);
    }
    let found = format!(
        "the plugin `{plugin}` forgets after {retention} what it has handled, and its source may deliver a message again for {redelivery}: one that came late would take effect twice"
    );
    if accepted {
        return Finding::warning(SUBJECT, format!("{found}, which was accepted"));
    }
    let advice = match redelivery.as_str() {
        "ever" => format!(
            "let the broker delete old messages, or accept it with `allow-short-retention = true` under [plugins.{plugin}]"
        ),
        _ => format!(
            "set `retention = \"{redelivery}\"` or more under [plugins.{plugin}]; or, if the broker keeps messages for less time, say so with `redelivery` under [source]; or accept it with `allow-short-retention = true` under [plugins.{plugin}]"
        ),
    };
    Finding::failure(SUBJECT, found).advise(advice)
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

/// The plugin files of a directory, by name; none if it can't be read.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let mut files: Vec<_> = files
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_retention_shorter_than_redelivery_must_be_accepted() {
        let plugin = PluginName::new("points");
        let level = |redelivery, accepted| compared(&plugin, HOUR, redelivery, accepted).level;
        assert_eq!(level(Duration::ZERO, false), Level::Note);
        assert_eq!(level(HOUR, false), Level::Good);
        assert_eq!(level(HOUR * 72, true), Level::Warning);
        assert_eq!(level(Duration::MAX, false), Level::Failure);
        let text = compared(&plugin, HOUR, HOUR * 72, false).to_string();
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
