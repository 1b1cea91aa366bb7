use std::num::NonZeroUsize;

use anyhow::{Context, Error, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::MultiProgress;
use semel_brokers::FileName;

use super::UsageError;
use super::setup::SetupArgs;
use crate::config::Config;
use crate::host::{self, HostConfig};
use crate::logging::{self, LogFormat};
use crate::output;

/// Handle messages with the plugins of a directory
#[derive(Args, Debug)]
#[command(after_help = "\
With --input it ends when every message of the input is applied, dropped as a duplicate or a
dead letter. Without, it serves the source until SIGINT or SIGTERM, then finishes what is in
flight; a second signal ends it at once. It may be killed at any time: started again, it goes
on, and no message takes effect twice.

What plugins publish goes to --output, or to where [destinations.NAME] in the configuration
leads. A name that leads nowhere is denied to plugins. The exception is --input without either:
outgoing messages then wait in the store until a later run has --output or destinations.

Examples:
  semel run --input orders.jsonl --output out.jsonl
  cat orders.jsonl | semel run --input - --summary json
  semel run --source rocketmq://127.0.0.1:9876 --store redis://127.0.0.1:6379
  semel run --source kafka://127.0.0.1:9092
  semel run --source 'amqp://me:secret@127.0.0.1:5672/%2F'
  semel run --source http://127.0.0.1:8080
  semel run --config semel.toml --log-format json")]
pub struct RunArgs {
    #[command(flatten)]
    setup: SetupArgs,

    /// End with the input, also if messages are still parked for another attempt
    #[arg(long, requires = "input")]
    no_wait: bool,

    /// Print a summary to stdout at the end: one JSON object on a line
    #[arg(long, value_name = "FORMAT")]
    summary: Option<SummaryFormat>,

    /// Handlers of each plugin that run at a time [default: one for each processor]
    #[arg(long, value_name = "N")]
    concurrency: Option<NonZeroUsize>,

    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// error, warn, info, debug or trace, or directives such as `info,semel_core=debug`
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SummaryFormat {
    Json,
}

impl RunArgs {
    /// Runs the host to its end.
    pub fn execute(self) -> Result<()> {
        let config = self.setup.load()?;
        let bars = MultiProgress::new();
        let format = self.log_format.or(config.logging.format);
        let level = self
            .log_level
            .as_deref()
            .or(config.logging.level.as_deref());
        logging::start(format.unwrap_or_default(), level, &bars)?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("semel-io")
            .enable_all()
            .build()
            .context("can't start threads")?;
        let host = self.host_config(&config)?;
        let summary = runtime.block_on(host::run(host, &config, &bars));
        // Nothing that still runs has anything durable to do.
        runtime.shutdown_background();
        let summary = summary?;

        eprint!("{summary}");
        if self.summary.is_some() {
            output::print_json(&summary)?;
        }
        if summary.interrupted {
            bail!("interrupted before the input's end: start it again to go on");
        }
        Ok(())
    }

    fn host_config(&self, config: &Config) -> Result<HostConfig> {
        let output = self.setup.output();
        if output == Some(FileName::Standard) && self.summary.is_some() {
            return Err(Error::new(UsageError(
                "--output - and --summary json both want stdout: give --output a file, or leave out --summary (a summary for people is on stderr)",
            )));
        }
        let Some(incoming) = self.setup.incoming(!self.no_wait, config) else {
            return Err(Error::new(UsageError(
                "there is nothing to take messages from: give --input FILE or --source URL, or set `url` under [source] in semel.toml",
            )));
        };
        Ok(HostConfig {
            plugins: self.setup.plugins(config),
            store: self.setup.store(config),
            incoming,
            output,
            concurrency: self.concurrency,
            relay: config.outbox.relay(),
        })
    }
}
