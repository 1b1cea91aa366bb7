//! Plugins that misbehave, files that are no plugins, and a neighbour that must not notice.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use semel_tests::installation;
use semel_tests::ledger::Found;
use semel_tests::site::{Ended, Site, json_lines};
use semel_tests::workload::{Workload, WorkloadConfig};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// Limits and delays that make misbehaviour short.
const CONFIG: &str = r#"
[plugins.hostile.limits]
time = "60s"
fuel = 200_000_000
memory = "16MiB"
host-calls = 10_000

[plugins.hostile.retry]
max-attempts = 2
first-delay = "10ms"
max-delay = "10ms"
"#;

/// What each message does, how its letter is caused, and what its reason must name.
const HOSTILE: [(&str, &str, &str); 11] = [
    ("loop", "exhausted", "used up its fuel of 200000000"),
    ("memory", "exhausted", "more than 16777216 bytes of memory"),
    // The stack of Rust's code lies in the linear memory, and grows out of it.
    ("recurse", "exhausted", "calls go too deep"),
    (
        "storm",
        "exhausted",
        "called the host more than 10000 times",
    ),
    (
        "publish-storm",
        "exhausted",
        "called the host more than 10000 times",
    ),
    (
        "giant-reply",
        "exhausted",
        "more than 16777216 bytes of memory",
    ),
    (
        "giant-state",
        "exhausted",
        "more than 16777216 bytes of memory",
    ),
    ("panic", "exhausted", "panicked: the message said so"),
    // WASI tells success from failure, and not one failure from the other.
    ("exit", "exhausted", "left with exit status 1"),
    ("retry", "exhausted", "the message said so"),
    ("reject", "rejected", "the message said so"),
];

/// What the same plugin does without harm. It sleeps for an hour of time that is not real.
const HARMLESS: [&str; 2] = ["ok", "sleep"];

/// A site with `points` and `hostile`, and 5,000 orders among hostile messages.
fn site() -> Result<(Site, Workload)> {
    let site = Site::with_plugins(&["points"])?;
    site.install(&installation::test_plugin("hostile")?)?;
    site.write("semel.toml", CONFIG)?;
    let workload = Workload::generate(WorkloadConfig {
        messages: 5_000,
        users: 100,
        ..WorkloadConfig::default()
    });
    let mut lines: Vec<String> = workload.json_lines().lines().map(str::to_owned).collect();
    let spread = lines.len() / HOSTILE.len();
    for (at, (action, ..)) in HOSTILE.iter().enumerate() {
        lines.insert(at * spread, hostile_line(action, action));
    }
    lines.extend(HARMLESS.map(|action| hostile_line(action, action)));
    site.write("input.jsonl", lines.join("\n"))?;
    Ok((site, workload))
}

fn hostile_line(id: &str, action: &str) -> String {
    json!({"topic": "hostile", "id": id, "body": {"id": id, "do": action}}).to_string()
}

fn run(site: &Site) -> Result<Ended> {
    let run = "run --input input.jsonl --output out.jsonl --store redb:data --summary json";
    site.run(&run.split(' ').collect::<Vec<_>>(), LIMIT)
}

/// The neighbour's orders are all applied, once.
fn check_neighbour(site: &Site, workload: &Workload) -> Result<()> {
    let state = "state list points --store redb:data --json";
    let dead = "dead list --plugin points --store redb:data --json";
    let found = Found::read(
        &site.ask_json(&state.split(' ').collect::<Vec<_>>())?,
        &json_lines(&site.read("out.jsonl")?)?,
        &site.ask_json(&dead.split(' ').collect::<Vec<_>>())?,
    )?;
    for check in workload.ledger.compare(&found, true) {
        ensure!(check.holds(), "{check:#?}");
    }
    Ok(())
}

#[test]
fn misbehaviour_ends_as_dead_letters_and_the_neighbour_works_on() -> Result<()> {
    let (site, workload) = site()?;
    let ended = run(&site)?.succeeded("run")?;
    let summary = ended.summary()?;
    ensure!(
        summary["plugins"]["hostile"]["dead"] == HOSTILE.len(),
        "{summary}"
    );
    ensure!(
        summary["plugins"]["hostile"]["applied"] == HARMLESS.len(),
        "{summary}"
    );
    ensure!(summary["parked"] == 0, "{summary}");
    check_neighbour(&site, &workload)?;

    let rows = site.ask_json(&["dead", "list", "--store", "redb:data", "--json"])?;
    let letters: BTreeMap<&str, &Value> = rows
        .iter()
        .map(|row| Ok((row["key"].as_str().context("a key")?, row)))
        .collect::<Result<_>>()?;
    let mut wrong = Vec::new();
    for (action, cause, says) in HOSTILE {
        let letter = letters
            .get(action)
            .with_context(|| format!("no letter of {action}"))?;
        let attempts = if cause == "rejected" { 1 } else { 2 };
        let reason = letter["reason"].as_str().unwrap_or_default();
        let as_it_must =
            letter["cause"] == cause && letter["attempts"] == attempts && reason.contains(says);
        if !as_it_must {
            wrong.push(format!("{action} must say {cause}, {says}: {letter}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");

    // The author sees the panic's text and where it happened: in the log at the default level
    // under the plugin's name, and by command.
    let events = ended.events();
    let told = |event: &String| {
        event.contains("hostile: ")
            && event.contains("panicked at tests/plugins/hostile/src/lib.rs:")
            && event.contains("the message said so")
    };
    ensure!(
        events.iter().any(told),
        "the log hides the panic:\n{}",
        ended.stderr
    );
    let id = letters["panic"]["id"].as_str().context("an id")?;
    let shown = site.ask(&["dead", "show", id, "--store", "redb:data"])?;
    ensure!(
        shown.contains("panicked at tests/plugins/hostile/src/lib.rs:"),
        "{shown}"
    );

    // What did nothing wrong left its effect, and nothing of what did.
    let state = site.ask_json(&["state", "list", "hostile", "--store", "redb:data", "--json"])?;
    ensure!(state.len() == 1 && state[0]["key"] == "ok", "{state:?}");
    Ok(())
}

/// A host serves again and again what is parked, and all of it comes to an end also when each
/// start meets it anew.
#[test]
fn no_wait_leaves_failures_parked_for_the_next_run() -> Result<()> {
    let site = Site::new()?;
    site.install(&installation::test_plugin("hostile")?)?;
    let slow = CONFIG.replace("\"10ms\"", "\"1s\"");
    site.write("semel.toml", &slow)?;
    site.write("input.jsonl", hostile_line("p", "panic"))?;
    let run = "run --input input.jsonl --store redb:data --summary json --no-wait";
    let run: Vec<&str> = run.split(' ').collect();
    let first = site.run(&run, LIMIT)?.succeeded("run")?.summary()?;
    ensure!(first["parked"] == 1 && first["dead"] == 0, "{first}");
    let key = "key show hostile p --store redb:data --json";
    let key = &site.ask_json(&key.split(' ').collect::<Vec<_>>())?[0];
    ensure!(
        key["state"] == "parked" && key["parked"]["attempt"] == 1,
        "{key}"
    );
    let second = site
        .run(&run[..run.len() - 1], LIMIT)?
        .succeeded("run")?
        .summary()?;
    ensure!(second["parked"] == 0 && second["dead"] == 1, "{second}");
    Ok(())
}

/// A core module with a manifest of this name.
fn module(name: &str, items: &str) -> Result<Vec<u8>> {
    Ok(wat::parse_str(format!(
        r#"(module {items}
            (memory (export "memory") 1)
            (@custom "semel:manifest" "{{\"semel\":\"0.1\",\"name\":\"{name}\",\"topics\":[\"t\"]}}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "handle")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32) (result i32)
                (i32.const 512)))"#
    ))?)
}

#[test]
fn bad_files_are_refused_by_name_and_the_others_run_on() -> Result<()> {
    let (site, workload) = site()?;
    let good = fs::read(installation::plugin("points")?)?;
    let mut flipped = good.clone();
    // In the midst of the code.
    for at in 0..64 {
        let place = flipped.len() / 2 + at * 101;
        flipped[place] ^= 0x40;
    }
    let http = r#"(component (import "wasi:http/outgoing-handler@0.2.3" (instance)))"#;
    let starts = "(func $start (unreachable)) (start $start)";
    // Each file, and what its refusal must say: the reason, and what to do.
    let bad: [(&str, Vec<u8>, &str, &str); 9] = [
        (
            "truncated",
            good[..good.len() / 2].to_vec(),
            "not a valid WebAssembly",
            "Was it copied whole?",
        ),
        (
            "flipped",
            flipped,
            "not a valid WebAssembly",
            "Was it copied whole?",
        ),
        (
            "text",
            b"I am no plugin\n".to_vec(),
            "not a valid WebAssembly",
            "Build it again",
        ),
        (
            "empty",
            Vec::new(),
            "not a valid WebAssembly",
            "Build it again",
        ),
        (
            "traps",
            module("traps", starts)?,
            "does not start",
            "must not fail",
        ),
        (
            "http",
            wat::parse_str(http)?,
            "imports `wasi:http/outgoing-handler@0.2.3`",
            "`outbox`",
        ),
        (
            "foo",
            module("foo", r#"(import "env" "foo" (func))"#)?,
            "imports `env`",
            "Link",
        ),
        (
            "bare",
            wat::parse_str("(module)")?,
            "has no manifest",
            "semel::handler",
        ),
        (
            "zz-points-again",
            good,
            "has the name `points`",
            "Remove one",
        ),
    ];
    for (name, bytes, ..) in &bad {
        site.write(&format!("plugins/{name}.wasm"), bytes)?;
    }
    let ended = run(&site)?.succeeded("run")?;
    let events = ended.events();
    let mut wrong = Vec::new();
    for (name, _, reason, advice) in &bad {
        let file = format!("plugins/{name}.wasm");
        let refusals: Vec<&String> = events
            .iter()
            .filter(|event| event.contains(" ERROR refused: ") && event.contains(&file))
            .collect();
        match refusals.as_slice() {
            [event] if event.contains(reason) && event.contains(advice) => {}
            events => wrong.push(format!("{file} must say {reason}, {advice}: {events:?}")),
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}\n{}", ended.stderr);
    check_neighbour(&site, &workload)
}
