//! Plugins, as far as their files tell.

use std::path::Path;

use semel_core::{Finding, Manifest};

use super::{Report, Setup, part};
use crate::declared::DeclaredPlugin;
use crate::host::Incoming;
use crate::{brokers, plugins, retention, sources};

/// Looks into the files of the directory.
pub(super) fn inspect(setup: &Setup) -> (Vec<DeclaredPlugin>, Vec<Report>) {
    let directory = &setup.plugins;
    let mut inspected: Vec<DeclaredPlugin> = Vec::new();
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
        let declared = |manifest: Manifest| {
            let name = manifest.name.as_deref().unwrap_or_default();
            let declared = DeclaredPlugin::new(name, &manifest, &setup.config);
            declared.map_err(|error| error.to_string())
        };
        let plugin = match manifest.and_then(declared) {
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

fn judged(setup: &Setup, file: &str, plugin: &DeclaredPlugin) -> Vec<Finding> {
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
