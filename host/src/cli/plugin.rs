use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use semel_core::{Manifest, Versioning};
use semel_sandbox::{FileKind, Inspected};
use serde::Serialize;

use crate::config::{Config, duration_text};
use crate::output;
use crate::plugins;

/// Look at plugin files
#[derive(Args, Debug)]
pub struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Show a plugin's manifest, imports, hash and size, and whether it would be loaded
    #[command(after_help = "\
The manifest is shown as it holds: with what a sidecar file and the configuration override.
The exit code is 1 if the host would refuse the file.

Examples:
  semel plugin inspect plugins/points.wasm
  semel plugin inspect plugins/points.wasm --json")]
    Inspect {
        /// The `.wasm` file
        file: PathBuf,
        /// The configuration [default: ./semel.toml, if there is one]
        #[arg(long, value_name = "FILE", env = "SEMEL_CONFIG")]
        config: Option<PathBuf>,
        /// Print JSON Lines in place of a table
        #[arg(long)]
        json: bool,
    },
}

/// A file as it is printed.
#[derive(Serialize)]
struct PluginLine<'i> {
    file: &'i Path,
    size: usize,
    hash: String,
    kind: Option<&'static str>,
    manifest: Option<&'i Manifest>,
    imports: &'i [String],
    exports: &'i [String],
    refusal: Option<String>,
}

impl PluginArgs {
    /// Looks into the file and prints it.
    pub fn execute(self) -> Result<()> {
        let PluginCommand::Inspect { file, config, json } = self.command;
        let config = Config::load(config.as_deref())?;
        let inspected = match semel_sandbox::inspect(&file, &plugins::overrides(&config)) {
            Ok(inspected) => inspected,
            // Its text names the reason already, so the chain would say it twice.
            Err(error) => bail!("{error}"),
        };
        let refusal = inspected
            .refusal
            .as_ref()
            .map(|error| error.reason.to_string());
        if json {
            output::print_json(&PluginLine {
                file: &file,
                size: inspected.size,
                hash: inspected.hash.to_string(),
                kind: inspected.kind.map(kind_name),
                manifest: inspected.manifest.as_ref(),
                imports: &inspected.imports,
                exports: &inspected.exports,
                refusal: refusal.clone(),
            })?;
        } else {
            output::properties(&described(&file, &inspected, refusal.as_deref()))?;
        }
        match refusal {
            Some(refusal) => bail!("{}: {refusal}", file.display()),
            None => Ok(()),
        }
    }
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Component => "component",
        FileKind::CoreModule => "core module",
    }
}

fn gap(versioning: &Versioning) -> String {
    let first = versioning
        .first
        .map(|first| format!(", from version {first} on"));
    match versioning.wait {
        None => "skip".to_owned(),
        Some(bound) => format!(
            "wait up to {}{}",
            duration_text(bound),
            first.unwrap_or_default()
        ),
    }
}

fn described(
    file: &Path,
    inspected: &Inspected,
    refusal: Option<&str>,
) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("file", file.display().to_string()),
        ("size", format!("{} bytes", inspected.size)),
        ("hash", format!("blake3:{}", inspected.hash)),
    ];
    if let Some(kind) = inspected.kind {
        lines.push(("kind", kind_name(kind).to_owned()));
    }
    if let Some(manifest) = &inspected.manifest {
        let text = |value: &Option<String>, default: &str| {
            value.clone().unwrap_or_else(|| default.to_owned())
        };
        let key = manifest.key.as_ref();
        let lane = manifest.order_by.as_ref();
        lines.extend([
            ("name", text(&manifest.name, "-")),
            ("plugin version", text(&manifest.plugin_version, "-")),
            (
                "topics",
                manifest.topics.as_deref().unwrap_or_default().join(", "),
            ),
            (
                "key",
                key.map_or("id (default: the broker's message id)".to_owned(), |key| {
                    key.to_string()
                }),
            ),
            (
                "order by",
                lane.map_or("- (any order)".to_owned(), |lane| lane.to_string()),
            ),
            ("retention", text(&manifest.retention, "7d (default)")),
        ]);
        if let Ok(Some(versioning)) = manifest.versioning() {
            lines.push((
                "version",
                format!("{} of {}", versioning.version, versioning.entity),
            ));
            lines.push(("gap", gap(&versioning)));
        }
    }
    lines.extend(
        inspected
            .imports
            .iter()
            .map(|name| ("import", name.clone())),
    );
    lines.extend(
        inspected
            .exports
            .iter()
            .map(|name| ("export", name.clone())),
    );
    lines.push((
        "loads",
        refusal.map_or("yes".to_owned(), |_| "no".to_owned()),
    ));
    lines
}
