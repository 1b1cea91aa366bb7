use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use semel_core::{PluginName, StateEntry, StateKey, Version, Versioning};
use serde::Serialize;
use serde_json::value::RawValue;

use super::StoreArgs;
use crate::admin::PAGE;
use crate::output::{self, Listing, Row};

/// Look at what a plugin has stored
#[derive(Args, Debug)]
pub struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// List values by name
    #[command(after_help = "\
Examples:
  semel state list points
  semel state list points --prefix balance/ --json
  semel state list stock --versions
  semel state list points --store redis://127.0.0.1:6379")]
    List {
        /// Whose state: the plugin's name
        plugin: String,
        /// Only names that begin with this
        #[arg(
            long,
            value_name = "PREFIX",
            default_value = "",
            hide_default_value = true
        )]
        prefix: String,
        /// By entity, the version that was last applied
        #[arg(long)]
        versions: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Print one value whole
    #[command(after_help = "\
Examples:
  semel state get points balance/alice
  semel state get points balance/alice --json")]
    Get {
        /// Whose state: the plugin's name
        plugin: String,
        /// The name that the handler uses
        name: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// A value as it is printed.
#[derive(Serialize)]
struct StateRow {
    key: String,
    value: Box<RawValue>,
    version: Version,
    #[serde(skip)]
    text: String,
}

impl From<StateEntry> for StateRow {
    fn from(entry: StateEntry) -> Self {
        Self {
            value: output::json_of_bytes(&entry.value),
            text: output::text_of_bytes(&entry.value),
            key: entry.name,
            version: entry.version,
        }
    }
}

impl Row for StateRow {
    const COLUMNS: &'static [&'static str] = &["key", "version", "value"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.key.clone(),
            self.version.to_string(),
            self.text.clone(),
        ]
    }
}

impl StateArgs {
    /// Looks it up and prints it.
    pub async fn execute(self) -> Result<()> {
        match self.command {
            StateCommand::List {
                plugin,
                prefix,
                versions,
                store,
            } => list(&plugin, &prefix, versions, &store).await,
            StateCommand::Get {
                plugin,
                name,
                store,
            } => get(&plugin, &name, &store).await,
        }
    }
}

async fn list(plugin: &str, prefix: &str, versions: bool, args: &StoreArgs) -> Result<()> {
    let (config, store) = args.open().await?;
    let namespace = match versions {
        true => Versioning::namespace(&PluginName::new(plugin)),
        false => config.namespace(plugin).into(),
    };
    let mut listing = Listing::new(args.json);
    let mut after: Option<String> = None;
    loop {
        let entries = store
            .list_state(&namespace, prefix, after.as_deref(), PAGE)
            .await?;
        let Some(last) = entries.last() else { break };
        after = Some(last.name.clone());
        let rows: Vec<StateRow> = entries.into_iter().map(StateRow::from).collect();
        listing.page(&rows)?;
    }
    listing.finish(&format!("The plugin `{plugin}` has no such state."))
}

async fn get(plugin: &str, name: &str, args: &StoreArgs) -> Result<()> {
    let (config, store) = args.open().await?;
    let key = StateKey {
        namespace: config.namespace(plugin).into(),
        name: name.into(),
    };
    let mut found = store.read(&[key]).await?;
    let Some((version, value)) = found.pop().and_then(|v| Some((v.version, v.value?))) else {
        bail!(
            "the plugin `{plugin}` has no state named `{name}`: `semel state list {plugin}` shows what it has"
        );
    };
    if args.json {
        return output::print_json(&StateRow::from(StateEntry {
            name: name.to_owned(),
            version,
            value,
        }));
    }
    output::properties(&[
        ("key", name.to_owned()),
        ("version", version.to_string()),
        ("value", output::text_of_bytes(&value)),
    ])
}
