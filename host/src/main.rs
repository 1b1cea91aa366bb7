//! `semel`: runs WebAssembly message handlers so that each message's effects happen exactly
//! once.
#![forbid(unsafe_code)]
#![recursion_limit = "512"] // the RocketMQ client's futures nest deeply

mod admin;
mod brokers;
mod cli;
mod config;
mod destinations;
mod host;
mod input_line;
mod logging;
mod outlet;
mod output;
mod plugins;
mod progress;
mod signals;
mod sources;
mod summary;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
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
