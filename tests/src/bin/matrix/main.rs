//! `make matrix`: every source with every store, killed at random, and several hosts at once.
#![forbid(unsafe_code)]
#![recursion_limit = "512"] // the RocketMQ client's futures nest deeply

mod document;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use semel_tests::matrix::{Cell, CellConfig, Report, Servers, SourceKind};
use tokio::runtime::{Builder, Runtime};

/// Runs `points` on every source with every store: once undisturbed, for the throughput, and
/// once with a host that is killed at random moments. Where hosts can share the work, three of
/// them are restarted under load. Every order must take effect exactly once
#[derive(Debug, Parser)]
#[command(name = "matrix")]
struct Options {
    /// Only this cell, such as `kafka/redis`; may be given again
    #[arg(long, value_name = "CELL")]
    only: Vec<Cell>,

    /// Messages for each cell; 30 % of them are duplicates
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    messages: usize,

    /// Times to kill the host of each cell
    #[arg(long, value_name = "N", default_value_t = 3)]
    kills: usize,

    /// Leave out the cells' single hosts, or the groups of three
    #[arg(long, value_name = "PART")]
    skip: Option<Part>,

    /// Write the table to this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Hosts,
    Groups,
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            "error,rdkafka=off,librdkafka=off,rocketmq_client_rust=off,rocketmq_transport=off,rocketmq_runtime=off",
        )
        .init();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let started = Instant::now();
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let report = fill(options, &runtime);
    println!("{}", report.text());
    let took = started.elapsed();
    if let Some(path) = &options.write {
        let page = document::write(&report, options.messages, options.kills, took);
        fs::write(path, page).with_context(|| format!("can't write {}", path.display()))?;
    }
    let verdict = match report.is_exact() {
        true => "PASSED: every order took effect exactly once in every cell",
        false => "FAILED: see above",
    };
    println!("{verdict}, in {:.0} s", took.as_secs_f64());
    // Nothing that still runs matters any more.
    runtime.shutdown_background();
    Ok(report.is_exact())
}

fn fill(options: &Options, runtime: &Runtime) -> Report {
    let _within = runtime.enter();
    let mut servers = Servers::default();
    let mut report = Report::default();
    for source in SourceKind::ALL {
        for cell in Cell::all().filter(|cell| cell.source == source) {
            if options.only.is_empty() || options.only.contains(&cell) {
                run_cell(cell, options, &servers, &mut report);
            }
        }
        servers.stop(source);
    }
    report
}

fn run_cell(cell: Cell, options: &Options, servers: &Servers, report: &mut Report) {
    let name = format!("{}-{}", cell.source, cell.store);
    let (messages, kills) = (options.messages, options.kills);
    if options.skip != Some(Part::Hosts) {
        let outcome = cell.run(&name, CellConfig { messages, kills }, servers);
        match &outcome {
            Ok(outcome) => println!(
                "{cell}: exact after {kills} kills in {:.0} s; {:.0} messages/s undisturbed",
                outcome.took.as_secs_f64(),
                outcome.rate
            ),
            Err(error) => println!("{cell}: FAILED: {error:#}"),
        }
        report.add(cell, outcome.map_err(|error| format!("{error:#}")));
    }
    if cell.has_groups() && options.skip != Some(Part::Groups) {
        let outcome = cell.run_group(&format!("{name}-group"), messages, servers);
        match &outcome {
            Ok(outcome) => println!(
                "{cell}: three hosts: exact after {} restarts and {} kill in {:.0} s",
                outcome.restarts,
                outcome.kills,
                outcome.took.as_secs_f64()
            ),
            Err(error) => println!("{cell}: three hosts: FAILED: {error:#}"),
        }
        report.add_group(cell, outcome.map_err(|error| format!("{error:#}")));
    }
}
