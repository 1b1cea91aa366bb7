//! Measures throughput, CPU and latency of the host, beside a native handler on the same
//! path. `docs/benchmarks.md` says how to read it.
#![forbid(unsafe_code)]
#![recursion_limit = "512"] // the RocketMQ client's futures nest deeply

mod cpu;
mod disk;
mod feed;
mod handlers;
mod lap;
mod load;
mod report;
mod rows;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use disk::Disk;
use handlers::{Handlers, Kind};
use report::{Line, Series};
use rows::{Arena, Row};

/// Measures throughput, CPU and latency of the host, beside a native handler on the same path.
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// Only these rows; several are separated by commas
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<Row>,
    /// Messages of one run
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    messages: usize,
    /// Runs of each row and handler; the median is printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// 20,000 messages and one run, to see that everything works
    #[arg(long, conflicts_with_all = ["messages", "rounds"])]
    quick: bool,
    /// Only this kind of handler, as for a profiler
    #[arg(long, value_name = "KIND")]
    handler: Option<Kind>,
    /// Print one JSON object a line instead of the table
    #[arg(long)]
    json: bool,
    /// The points handler as WebAssembly
    #[arg(long, value_name = "FILE", default_value = "plugins/points.wasm")]
    plugin: PathBuf,
    /// Where durable rows keep their files meanwhile [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.messages, options.rounds) = (20_000, 1);
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            // As the host does: the client tells of each attempt of each task in an outage.
            "warn,rocketmq_client_rust=error,rocketmq_client_rust::consumer=off,\
             rocketmq_transport=off,rocketmq_runtime=off",
        )
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("semel-io")
        .enable_all()
        .build()?;
    let result = runtime.block_on(bench(&options));
    // Nothing that still runs matters any more.
    runtime.shutdown_background();
    result
}

async fn bench(options: &Options) -> Result<()> {
    let disk = Disk::probe(&options.dir.clone().unwrap_or_else(std::env::temp_dir))?;
    let scratch = disk.directory()?;
    let handlers = tokio::task::block_in_place(|| Handlers::load(&options.plugin, scratch.path()))?;
    let rows = match &options.only[..] {
        [] => Row::value_variants(),
        only => only,
    };
    let mut lines = Vec::new();
    let mut skipped = Vec::new();
    for &row in rows {
        match measure(row, options, &handlers, &disk).await {
            Ok(measured) => lines.extend(measured),
            Err(error) => skipped.push(format!("{}: skipped: {error:#}", row.title())),
        }
    }
    if options.json {
        for line in &lines {
            println!("{}", serde_json::to_string(line)?);
        }
    } else {
        println!("{}", report::table(&lines));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "\n{cores} cores; durable rows on {}, where a synced write of 4 KiB takes {:.2} ms",
            disk.file_system,
            disk.sync.as_secs_f64() * 1e3
        );
    }
    for reason in skipped {
        eprintln!("{reason}");
    }
    Ok(())
}

async fn measure(
    row: Row,
    options: &Options,
    handlers: &Handlers,
    disk: &Disk,
) -> Result<Vec<Line>> {
    eprintln!("{} …", row.title());
    let mut arena = Arena::set_up(row, options.messages, handlers, disk).await?;
    let kinds = match options.handler {
        Some(kind) => vec![kind],
        None if row.runs_handlers() => vec![Kind::Wasm, Kind::Native],
        None => vec![Kind::Wasm],
    };
    let mut series: Vec<Series> = kinds
        .into_iter()
        .map(|kind| Series {
            kind,
            samples: Vec::new(),
        })
        .collect();
    // In turn, so that both kinds meet the same weather.
    for _ in 0..options.rounds {
        for series in &mut series {
            let sample = arena.run(series.kind).await?;
            eprintln!(
                "  {:?}: {:.0} msg/s, {:.1} µs of CPU",
                series.kind, sample.rate, sample.host_cpu_us
            );
            series.samples.push(sample);
        }
    }
    arena.tear_down().await;
    Ok(report::lines(row, options.messages, &series))
}
