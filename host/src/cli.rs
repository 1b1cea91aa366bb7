//! The command line: one file per command.

mod completions;
mod dead;
mod doctor;
mod key;
mod plugin;
mod run;
mod setup;
mod state;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use semel_core::Admin;

use crate::admin;
use crate::config::Config;

/// Runs WebAssembly message handlers so that each message's effects happen exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "semel",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  semel run --input orders.jsonl --output out.jsonl   Handle a file's messages with ./plugins
  semel run --source rocketmq://127.0.0.1:9876        Serve a broker until interrupted
  semel doctor --source kafka://127.0.0.1:9092        Check a set-up before it is used
  semel state list points                             What the plugin `points` has stored
  semel dead list                                     Which messages were given up, and why

Exit codes: 0 for success, 1 for a failure, 2 for a command line that can't be understood.";

/// A command line that is well-formed, but asks for what can't be.
#[derive(Debug)]
pub struct UsageError(&'static str);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for UsageError {}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    State(state::StateArgs),
    Key(key::KeyArgs),
    Dead(dead::DeadArgs),
    Store(store::StoreCommandArgs),
    Doctor(doctor::DoctorArgs),
    Plugin(plugin::PluginArgs),
    Completions(completions::CompletionsArgs),
}

/// Where a command finds its store, and how it prints.
#[derive(Args, Debug)]
struct StoreArgs {
    /// The store: `redb:DIRECTORY`, `redis://HOST:PORT`, or `mysql:` or `postgres:` with
    /// `//USER:PASSWORD@HOST:PORT/DATABASE` [default: redb:./semel-data]
    #[arg(long, value_name = "URL", env = "SEMEL_STORE", hide_env_values = true)]
    store: Option<String>,

    /// The configuration [default: ./semel.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "SEMEL_CONFIG")]
    config: Option<PathBuf>,

    /// Print JSON Lines in place of a table
    #[arg(long)]
    json: bool,
}

impl StoreArgs {
    async fn open(&self) -> Result<(Config, Arc<dyn Admin>)> {
        let config = Config::load(self.config.as_deref())?;
        let store = admin::open(admin::store_url(self.store.as_deref(), &config)).await?;
        Ok((config, store))
    }
}

impl Cli {
    /// Does what was asked.
    pub fn execute(self) -> Result<()> {
        match self.command {
            Command::Run(args) => args.execute(),
            Command::State(args) => wait(args.execute()),
            Command::Key(args) => wait(args.execute()),
            Command::Dead(args) => wait(args.execute()),
            Command::Store(args) => wait(args.execute()),
            Command::Doctor(args) => args.execute(),
            Command::Plugin(args) => args.execute(),
            Command::Completions(args) => args.execute(),
        }
    }
}

/// Runs a command that needs a store, on this thread.
fn wait<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// Every command that does something explains itself, with an example.
    #[test]
    fn every_command_has_an_example() {
        fn leaves(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string);
            if !command.has_subcommands() && !help.unwrap_or_default().contains("semel ") {
                found.push(path.clone());
            }
            command
                .get_subcommands()
                .for_each(|sub| leaves(sub, &path, found));
        }
        let mut without = Vec::new();
        leaves(&Cli::command(), "", &mut without);
        assert!(without.is_empty(), "{without:?}");
    }
}
