use anyhow::{Context, Result, bail};
use clap::Args;
use semel_core::Level;

use super::setup::SetupArgs;
use crate::config::Config;
use crate::doctor::{self, Report, Setup};
use crate::output::{self, Listing, Row};

/// Check a set-up against what Semel needs, and change nothing
#[derive(Args, Debug)]
#[command(after_help = "\
It looks at the configuration, the plugins, the store, the source and the destinations, and says of
each point what was found, what it means and what to do. Nothing is created, migrated, consumed or
published. A server that does not answer is waited for up to 11 seconds, while everything else is
checked.

The exit code is 1 if anything failed: `semel run` would refuse it, or a promise would break. With
warnings it is 0. What can't be found out is said to be not checked.

Examples:
  semel doctor
  semel doctor --source kafka://127.0.0.1:9092 --store redis://127.0.0.1:6379
  semel doctor --config semel.toml --json")]
pub struct DoctorArgs {
    #[command(flatten)]
    setup: SetupArgs,

    /// Print JSON Lines in place of a table
    #[arg(long)]
    json: bool,
}

impl Row for Report {
    const COLUMNS: &'static [&'static str] = &["", "part", "checked", "found"];

    fn cells(&self) -> Vec<String> {
        let finding = &self.finding;
        let level = match finding.level {
            Level::Good => "ok",
            Level::Note => "note",
            Level::Warning => "WARNING",
            Level::Failure => "FAILURE",
        };
        let found = match &finding.advice {
            None => finding.found.clone(),
            Some(advice) => format!("{}\n→ {advice}", finding.found),
        };
        vec![
            level.to_owned(),
            self.part.clone(),
            finding.subject.clone(),
            found,
        ]
    }
}

impl DoctorArgs {
    /// Looks at everything, and prints it.
    pub fn execute(self) -> Result<()> {
        let reports = match self.setup.load() {
            Ok(config) => {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .enable_all()
                    .build()
                    .context("can't start threads")?;
                let reports = runtime.block_on(doctor::examine(self.setup(config)));
                // What still waits for a server that hangs changes nothing.
                runtime.shutdown_background();
                reports
            }
            Err(error) => vec![Report {
                part: "configuration".to_owned(),
                finding: doctor::explain(&error),
            }],
        };
        match self.json {
            true => Listing::new(true).page(&reports)?,
            false => output::whole(&reports)?,
        }
        let count = |level| {
            reports
                .iter()
                .filter(|report| report.finding.level == level)
                .count()
        };
        let (failures, warnings) = (count(Level::Failure), count(Level::Warning));
        if failures > 0 {
            bail!(
                "{failures} of {} checks failed, and {warnings} warn",
                reports.len()
            );
        }
        if !self.json {
            println!(
                "\nNothing failed; {warnings} of {} checks warn.",
                reports.len()
            );
        }
        Ok(())
    }

    fn setup(&self, config: Config) -> Setup {
        Setup {
            config_file: self.setup.config_file(),
            plugins: self.setup.plugins(&config),
            store: self.setup.store(&config),
            incoming: self.setup.incoming(true, &config),
            output: self.setup.output(),
            config,
        }
    }
}
