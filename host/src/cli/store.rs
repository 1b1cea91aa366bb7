use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::StoreArgs;
use crate::admin;
use crate::config::Config;
use crate::output;

/// Prepare a store
#[derive(Args, Debug)]
pub struct StoreCommandArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Create the tables of a store in a database, or bring them up to date
    ///
    /// `semel run` does the same by itself, unless its store's URL says `migrate=never`. Then an
    /// administrator types this, with the URL of a user who may create tables, before a new
    /// version of semel is started.
    #[command(after_help = "\
Examples:
  semel store migrate --store mysql://admin:PASSWORD@127.0.0.1:3306/semel
  semel store migrate --config semel.toml")]
    Migrate {
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// What was done, as it is printed.
#[derive(Serialize)]
struct Migrated {
    steps: usize,
}

impl StoreCommandArgs {
    /// Does what was asked.
    pub async fn execute(self) -> Result<()> {
        let StoreCommand::Migrate { store } = self.command;
        let config = Config::load(store.config.as_deref())?;
        let url = admin::store_url(store.store.as_deref(), &config);
        let steps = semel_stores::migrate(url).await?;
        if store.json {
            return output::print_json(&Migrated { steps });
        }
        println!(
            "{}",
            match steps {
                0 => "The store is up to date.".to_owned(),
                1 => "The store's tables were changed in 1 step.".to_owned(),
                _ => format!("The store's tables were changed in {steps} steps."),
            }
        );
        Ok(())
    }
}
