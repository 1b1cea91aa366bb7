//! `make demo`: orders with duplicates and out of order, a host that is killed on the way, and
//! the question whether every order took effect exactly once.
#![forbid(unsafe_code)]

use std::env;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use semel_tests::ledger::{Check, Found};
use semel_tests::lines::{Kill, LineCount, kill_points};
use semel_tests::site::{Site, json_lines};
use semel_tests::workload::{Workload, WorkloadConfig};
use serde_json::Value;

/// Runs `points` over orders that are duplicated and out of order, kills the host with SIGKILL
/// on the way, and checks that every order took effect exactly once
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Options {
    /// Messages to send; 30 % of them are duplicates
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = at_least_1000)]
    orders: usize,

    /// Times to kill the host
    #[arg(long, value_name = "N", default_value_t = 3)]
    kills: usize,

    /// Makes the orders and the moments of the kills [default: a random one, which is printed]
    #[arg(long)]
    seed: Option<u64>,

    /// Leave the input, the output, the store and the logs behind
    #[arg(long)]
    keep: bool,

    /// Falsify the expected result by one point, to see that the verdict can fail
    #[arg(long)]
    tamper: bool,
}

/// How long any single run of the host may take.
const LIMIT: Duration = Duration::from_secs(300);

/// The longest time from the output's reaching a length to the kill.
const MAX_DELAY: Duration = Duration::from_millis(20);

const INPUT: &str = "orders.jsonl";
const OUTPUT: &str = "granted.jsonl";
const STORE: &str = "redb:data";

/// How the host is started, each time.
const RUN: [&str; 9] = [
    "run",
    "--input",
    INPUT,
    "--output",
    OUTPUT,
    "--store",
    STORE,
    "--summary",
    "json",
];

fn at_least_1000(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(orders) if orders >= 1_000 => Ok(orders),
        Ok(_) => Err("with fewer than 1000 the host would be done before a kill".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match demo(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; the answer is the verdict.
fn demo(options: &Options) -> Result<bool> {
    let paint = Paint::new();
    let seed = options.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let mut random = StdRng::seed_from_u64(seed);
    let workload = Workload::generate(WorkloadConfig {
        messages: options.orders,
        seed,
        ..WorkloadConfig::default()
    });
    let mut ledger = workload.ledger.clone();
    let (sent, orders) = (ledger.sent, ledger.orders());
    let mut site = Site::with_plugins(&["points"])?;
    site.write(INPUT, workload.json_lines())?;
    println!(
        "{} messages, out of order: {} orders and {} duplicates {}",
        count(sent),
        count(orders),
        count(sent - orders),
        paint.dim(&format!("(--seed {seed})")),
    );
    println!("{}\n", paint.dim(&format!("semel {}", RUN.join(" "))));

    let started = Instant::now();
    let points = kill_points(options.kills, orders, &mut random);
    let (kills, last) = run_with_kills(&site, &points, &mut random, orders, &paint)?;
    let seconds = started.elapsed().as_secs_f64();
    let again = run_again(&site, points.len() + 2)?;

    if options.tamper {
        ledger.tamper();
    }
    let found = Found::read(
        &site.ask_json(&["state", "list", "points", "--store", STORE, "--json"])?,
        &json_lines(&site.read(OUTPUT)?)?,
        &site.ask_json(&["dead", "list", "--store", STORE, "--json"])?,
    )?;
    let applied = found.orders();
    let dropped = sent.saturating_sub(found.messages());
    let mut checks = vec![
        Check::count("messages sent", sent, number(&last, "received")?),
        Check::count("orders applied", orders, applied),
        Check::count("duplicates dropped", sent - orders, dropped),
        Check::count("kills of a host at work", options.kills, kills),
    ];
    checks.extend(ledger.compare(&found, true));
    checks.extend([
        Check::count("parked messages", 0, number(&last, "parked")?),
        Check::count("once more: applied", 0, number(&again, "applied")?),
        Check::count("once more: duplicates", sent, number(&again, "duplicates")?),
    ]);
    print!("\n{}", table(&checks, &paint));
    println!(
        "\n{seconds:.2} s from the first start to the end of run {}, {} messages a second",
        points.len() + 1,
        count((sent as f64 / seconds) as usize),
    );
    if options.keep {
        println!("everything is in {}", site.keep().display());
    }
    Ok(verdict(&checks, &paint))
}

/// Runs the host until it is done, killing it at each of `points` on the way. Gives the number
/// of kills that hit it at work, and the summary of the run that came to the end.
fn run_with_kills(
    site: &Site,
    points: &[usize],
    random: &mut StdRng,
    orders: usize,
    paint: &Paint,
) -> Result<(usize, Value)> {
    let bar = Bar::follow(LineCount::new(site.path(OUTPUT)), orders)?;
    let mut output = LineCount::new(site.path(OUTPUT));
    let mut kills = 0;
    for (number, &point) in (1..).zip(points) {
        let mut host = site.start(&RUN)?;
        let delay = random.random_range(Duration::ZERO..MAX_DELAY);
        let kill = output.kill_at(point, delay, &mut host, LIMIT)?;
        let seconds = host.process.age().as_secs_f64();
        match kill {
            Kill::Hit { lines } if lines < orders => {
                kills += 1;
                bar.say(&format!(
                    "run {number}   {} after {seconds:.2} s, with {} of {} messages published",
                    paint.red("SIGKILL"),
                    count(lines),
                    count(orders)
                ));
            }
            _ => bar.say(&format!("run {number}   done before it could be killed")),
        }
    }
    let ended = site.run(&RUN, LIMIT)?.succeeded("run")?;
    drop(bar);
    let summary = ended.summary()?;
    println!("run {}   done: {}", points.len() + 1, outcome(&summary)?);
    Ok((kills, summary))
}

/// Runs the host over the whole input once more, which must change nothing.
fn run_again(site: &Site, number: usize) -> Result<Value> {
    let summary = site.run(&RUN, LIMIT)?.succeeded("run")?.summary()?;
    println!("run {number}   once more: {}", outcome(&summary)?);
    Ok(summary)
}

fn outcome(summary: &Value) -> Result<String> {
    let seconds = summary["seconds"]
        .as_f64()
        .context("a summary has seconds")?;
    Ok(format!(
        "{} received, {} applied, {} duplicates in {seconds:.2} s",
        count(number(summary, "received")?),
        count(number(summary, "applied")?),
        count(number(summary, "duplicates")?),
    ))
}

/// Prints the verdict and gives it.
fn verdict(checks: &[Check], paint: &Paint) -> bool {
    let failed: Vec<&Check> = checks.iter().filter(|check| !check.holds()).collect();
    if failed.is_empty() {
        println!(
            "{}: every order took effect exactly once",
            paint.green("PASSED")
        );
        return true;
    }
    let (failures, all) = (failed.len(), checks.len());
    println!(
        "{}: {failures} of {all} checks do not hold",
        paint.red("FAILED")
    );
    for check in failed {
        let (name, expected, found) = (check.name, check.expected, check.found);
        print!(
            "  {name}: expected {}, found {}",
            grouped(expected),
            grouped(found)
        );
        println!(
            "{}",
            check
                .example
                .as_ref()
                .map_or(String::new(), |e| format!("; {e}"))
        );
    }
    false
}

fn table(checks: &[Check], paint: &Paint) -> String {
    let mut table = format!("{:<32}{:>14}{:>14}\n", "", "expected", "found");
    for check in checks {
        let mark = if check.holds() {
            paint.green("ok")
        } else {
            paint.red("WRONG")
        };
        let (expected, found) = (grouped(check.expected), grouped(check.found));
        table += &format!("{:<32}{expected:>14}{found:>14}  {mark}\n", check.name);
    }
    table
}

fn number(summary: &Value, name: &str) -> Result<usize> {
    let number = summary[name]
        .as_u64()
        .and_then(|number| usize::try_from(number).ok());
    number.with_context(|| format!("the summary {summary} has no `{name}`"))
}

/// With thousands set apart.
fn count(number: usize) -> String {
    HumanCount(number as u64).to_string()
}

fn grouped(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", HumanCount(number.unsigned_abs()))
}

/// A bar on a terminal, which a thread moves until it is dropped.
struct Bar {
    bar: ProgressBar,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    fn follow(mut output: LineCount, total: usize) -> Result<Self> {
        let template = "{bar:32} {percent:>3}%  {human_pos} of {human_len} messages published";
        let style = ProgressStyle::with_template(template)?.progress_chars("━╸─");
        let bar = ProgressBar::new(total as u64).with_style(style);
        let done = Arc::new(AtomicBool::new(false));
        let (moved, ended) = (bar.clone(), Arc::clone(&done));
        let thread = thread::spawn(move || {
            while !ended.load(Relaxed) {
                // A bar that stands still is no reason to stop.
                moved.set_position(output.now().unwrap_or_default() as u64);
                thread::sleep(Duration::from_millis(100));
            }
        });
        let thread = Some(thread);
        Ok(Self { bar, done, thread })
    }

    /// Prints a line above the bar.
    fn say(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only draws.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

/// Colours on a terminal.
struct Paint(bool);

impl Paint {
    fn new() -> Self {
        Self(stdout().is_terminal() && env::var_os("NO_COLOR").is_none())
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn red(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn green(&self, text: &str) -> String {
        self.paint("1;32", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }
}
