//! Logs on stderr: for people, or one JSON object a line.

mod format;

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use indicatif::MultiProgress;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use format::ForPeople;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    // Ordinary comments: clap would print a paragraph for each value that has a doc comment.
    // For people, with colours on a terminal.
    #[default]
    Text,
    // For machines: one JSON object a line.
    Json,
}

/// What is logged at the level that the operator chose; everything else at `warn`.
const OWN_TARGETS: &str = "semel";
/// The RocketMQ client tells of each attempt of each task in an outage and of each pull that a
/// shutdown cuts off, and ends with a report of several kilobytes. What matters of it, our
/// source and sink say themselves. The same goes for RabbitMQ's; Kafka's logs at `debug`.
const NOISY_TARGETS: &str = "rocketmq_client_rust=error,rocketmq_client_rust::consumer=off,\
                             rocketmq_transport=off,rocketmq_runtime=off,lapin=off";

/// Starts logging. Lines are written above the bars of `bars`.
pub fn start(format: LogFormat, level: Option<&str>, bars: &MultiProgress) -> Result<()> {
    let filter = filter(level.unwrap_or("info"))?;
    let writer = AboveBars(bars.clone());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder
                .with_ansi(colours)
                .event_format(ForPeople)
                .try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("can't start logging: {error}"))
}

/// A level is meant for the host and its plugins; anything else is taken as directives.
fn filter(level: &str) -> Result<EnvFilter> {
    let is_level = level.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let directives = if is_level {
        format!("warn,{NOISY_TARGETS},{OWN_TARGETS}={level}")
    } else {
        level.to_owned()
    };
    EnvFilter::try_new(&directives).with_context(|| {
        format!(
            "`{level}` is no log level: use error, warn, info, debug or trace, or directives such as `info,semel_core=debug`"
        )
    })
}

/// Stderr, with progress bars out of the way while a line is written.
struct AboveBars(MultiProgress);

/// One line, written at once when it is complete.
struct Line<'b> {
    bars: &'b MultiProgress,
    text: Vec<u8>,
}

impl<'b> MakeWriter<'b> for AboveBars {
    type Writer = Line<'b>;

    fn make_writer(&'b self) -> Self::Writer {
        Line {
            bars: &self.0,
            text: Vec::new(),
        }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // There is nowhere to report that the log can't be written.
        let _ = self.bars.suspend(|| io::stderr().write_all(&self.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_accepted() {
        for level in [
            "error",
            "WARN",
            "info",
            "debug",
            "trace",
            "off",
            "info,semel_core=debug",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
        assert!(filter("semel=loud").is_err());
    }
}
