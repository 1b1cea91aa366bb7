use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::MultiProgress;
use semel_brokers::FileName;

use super::UsageError;
use crate::admin;
use crate::config::{Config, DEFAULT_PLUGINS};
use crate::host::{self, HostConfig, Incoming};
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
    /// The configuration [default: ./semel.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "SEMEL_CONFIG")]
    config: Option<PathBuf>,

    /// Where the plugins are: every `*.wasm` there is one [default: ./plugins]
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,

    /// The store: `redb:DIRECTORY`, `redis://HOST:PORT`, or `mysql:` or `postgres:` with
    /// `//USER:PASSWORD@HOST:PORT/DATABASE` [default: redb:./semel-data]
    #[arg(long, value_name = "URL", env = "SEMEL_STORE", hide_env_values = true)]
    store: Option<String>,

    /// Handle the messages of a JSON Lines file, or of stdin for `-`, and end
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    input: Option<PathBuf>,

    /// Write what plugins publish to a JSON Lines file, or to stdout for `-`
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Handle the messages of a broker, such as `rocketmq://127.0.0.1:9876`,
    /// `kafka://127.0.0.1:9092` or `amqp://127.0.0.1:5672`, or what is posted to
    /// `http://127.0.0.1:8080`
    #[arg(long, value_name = "URL")]
    source: Option<String>,

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
        let config = Config::load(self.config.as_deref())?;
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
        let output = self.output.as_ref().map(FileName::from_argument);
        if output == Some(FileName::Standard) && self.summary.is_some() {
            return Err(Error::new(UsageError(
                "--output - and --summary json both want stdout: give --output a file, or leave out --summary (a summary for people is on stderr)",
            )));
        }
        let wait_for_parked = !self.no_wait;
        let incoming = incoming(
            self.input.as_deref(),
            wait_for_parked,
            self.source.as_deref(),
            config,
        );
        let Some(incoming) = incoming else {
            return Err(Error::new(UsageError(
                "there is nothing to take messages from: give --input FILE or --source URL, or set `url` under [source] in semel.toml",
            )));
        };
        let plugins = self.plugins.clone().or_else(|| config.plugins_dir.clone());
        Ok(HostConfig {
            plugins: plugins.unwrap_or_else(|| DEFAULT_PLUGINS.into()),
            store: admin::store_url(self.store.as_deref(), config).to_owned(),
            incoming,
            output,
            concurrency: self.concurrency,
            relay: config.outbox.relay(),
        })
    }
}

/// Where messages come from: the command line's file or URL, else the configuration's.
pub(super) fn incoming(
    input: Option<&Path>,
    wait_for_parked: bool,
    source: Option<&str>,
    config: &Config,
) -> Option<Incoming> {
    if let Some(file) = input {
        let file = FileName::from_argument(file);
        return Some(Incoming::Input {
            file,
            wait_for_parked,
        });
    }
    let configured = config.source.as_ref();
    Some(Incoming::Broker {
        url: source
            .or_else(|| configured.map(|source| source.url.as_str()))?
            .to_owned(),
        group_prefix: configured.and_then(|source| source.group_prefix.clone()),
        redelivery: configured
            .and_then(|source| source.redelivery)
            .map(|span| span.0),
    })
}
