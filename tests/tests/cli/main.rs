//! The real binary as users and scripts meet it: input, output, summaries, and the commands
//! that look into a store.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod database;
mod doctor;
mod retention;
mod run;
mod store;
mod usage;
mod versions;

use std::time::Duration;

use anyhow::{Result, ensure};
use semel_tests::site::{Ended, Site, json_lines};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// The store of all command lines.
const STORE: [&str; 2] = ["--store", "redb:data"];

/// How a run over the input is started.
const RUN: &str = "run --input in.jsonl --output out.jsonl --summary json";

/// Runs a command line with the store added to it.
fn semel(site: &Site, line: &str) -> Result<Ended> {
    let mut arguments: Vec<&str> = line.split_whitespace().collect();
    arguments.extend(STORE);
    site.run(&arguments, LIMIT)
}

/// The same for one that must succeed: what it prints.
fn ask(site: &Site, line: &str) -> Result<String> {
    Ok(semel(site, line)?.succeeded(line)?.stdout)
}

/// The same for one that prints JSON Lines.
fn ask_json(site: &Site, line: &str) -> Result<Vec<Value>> {
    json_lines(&ask(site, &format!("{line} --json"))?)
}

/// Runs over the input, and gives the summary.
fn run(site: &Site) -> Result<Value> {
    semel(site, RUN)?.succeeded(RUN)?.summary()
}

/// A line of input.
fn order(id: &str, order: &str, amount: i64) -> String {
    let body = json!({"order_id": order, "user": "ann", "amount": amount});
    json!({"topic": "orders", "id": id, "body": body}).to_string()
}

/// A site with `points` and these lines as input.
fn site(lines: &[String]) -> Result<Site> {
    let site = Site::with_plugins(&["points"])?;
    site.write("in.jsonl", lines.join("\n"))?;
    Ok(site)
}

/// Fails with the text if it lacks a part.
fn has(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    Ok(())
}
