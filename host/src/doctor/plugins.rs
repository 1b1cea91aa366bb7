//! Plugins, as far as their files tell.

use std::path::Path;
use std::time::Duration;

use semel_core::{Finding, KeyExpression, Manifest, PluginName, Versioning};

use super::{Report, Setup, part};
use crate::host::Incoming;
use crate::{brokers, plugins, retention, sources};

/// A plugin that would be loaded.
pub struct InspectedPlugin {
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

/// Looks into the files of the directory.
pub(super) fn inspect(setup: &Setup) -> (Vec<InspectedPlugin>, Vec<Report>) {
    let directory = &setup.plugins;
    let mut inspected: Vec<InspectedPlugin> = Vec::new();
    let mut reports = Vec::new();
    let overrides = plugins::overrides(&setup.config);
    for file in retention::files(directory) {
        let subject = file.file_name().unwrap_or_default().display().to_string();
        let refused = |reason: String| {
            let advice = format!("`semel plugin inspect {}` shows more", file.display());
            Finding::failure(subject.clone(), format!("it would not be loaded: {reason}"))
                .advise(advice)
        };
        let manifest = match semel_sandbox::inspect(&file, &overrides) {
            Err(error) => Err(error.reason.to_string()),
            Ok(found) => match (found.refusal, found.manifest) {
                (Some(refusal), _) => Err(refusal.reason.to_string()),
                (None, manifest) => Ok(manifest.unwrap_or_default()),
            },
        };
        let plugin = match manifest.and_then(|manifest| of(&manifest, setup)) {
            Ok(plugin) => plugin,
            Err(reason) => {
                reports.extend(part("plugins", [refused(reason)]));
                continue;
            }
        };
        if inspected.iter().any(|other| other.name == plugin.name) {
            let reason = format!("another file has the plugin `{}` already", plugin.name);
            reports.extend(part("plugins", [refused(reason)]));
            continue;
        }
        reports.extend(part(
            &format!("plugin {}", plugin.name),
            judged(setup, &subject, &plugin),
        ));
        inspected.push(plugin);
    }
    if inspected.is_empty() {
        reports.extend(part("plugins", [none(directory)]));
    }
    (inspected, reports)
}

fn of(manifest: &Manifest, setup: &Setup) -> Result<InspectedPlugin, String> {
    let name = manifest.name.as_deref().unwrap_or_default();
    let configured = setup.config.plugin(name);
    Ok(InspectedPlugin {
        name: PluginName::new(name),
        topics: manifest.topics.clone().unwrap_or_default(),
        key: manifest.key.clone().unwrap_or_else(KeyExpression::id),
        order_by: manifest.order_by.clone(),
        versioning: manifest.versioning().map_err(|error| error.to_string())?,
        retention: retention::of(manifest),
        allow_short_retention: configured.is_some_and(|plugin| plugin.allow_short_retention),
    })
}

fn judged(setup: &Setup, file: &str, plugin: &InspectedPlugin) -> Vec<Finding> {
    let topics = plugin.topics.join(", ");
    let loads = format!("its contract and imports are in order; it handles {topics}");
    let http =
        matches!(&setup.incoming, Some(Incoming::Broker { url, .. }) if brokers::is_http(url));
    vec![
        Finding::good(file, loads),
        match plugin.key.is_id() {
            // Over HTTP it is the key that the client gives.
            true if !http => sources::key_is_id(),
            _ => Finding::good("key", plugin.key.to_string()),
        },
    ]
}

fn none(directory: &Path) -> Finding {
    let found = match directory.is_dir() {
        true => format!(
            "there is no plugin that would be loaded in {}",
            directory.display()
        ),
        false => format!("there is no directory {}", directory.display()),
    };
    Finding::failure("directory", found)
        .advise("put your `.wasm` files there, or name another directory with --plugins")
}
