//! The program `semel`, as a library, so that tests can build it with crash points armed.
#![forbid(unsafe_code)]
#![recursion_limit = "512"] // the RocketMQ client's futures nest deeply

mod admin;
mod brokers;
mod cli;
mod config;
mod declared;
mod destinations;
mod doctor;
mod host;
#[cfg(feature = "http")]
mod http;
mod input_line;
#[cfg(feature = "kafka")]
mod kafka;
mod logging;
mod outlet;
mod output;
mod plugins;
mod progress;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod retention;
mod signals;
mod sources;
mod summary;
mod transactions;

use std::process::ExitCode;

use clap::Parser;

/// Does what the command line asks, and says with what code to exit.
pub fn main() -> ExitCode {
    match cli::Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<cli::UsageError>() { 2 } else { 1 })
        }
    }
}
