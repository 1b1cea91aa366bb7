//! `semel run` over an input.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Stdio;

use anyhow::Context;
use semel_tests::workload::{Workload, WorkloadConfig};

use super::*;

#[test]
fn a_run_says_what_it_came_to_and_a_second_one_changes_nothing() -> Result<()> {
    let lines = [
        order("1", "o-1", 1_250),
        order("1", "o-1", 1_250),
        order("2", "o-2", 750),
    ];
    let site = site(&lines)?;
    let first = run(&site)?;
    for (name, count) in [
        ("received", 3),
        ("applied", 2),
        ("duplicates", 1),
        ("parked", 0),
        ("dead", 0),
        ("published", 2),
    ] {
        ensure!(first[name] == count, "{name} must be {count}: {first}");
    }
    ensure!(
        first["seconds"].as_f64().is_some_and(|s| s > 0.0),
        "{first}"
    );
    let output = site.read("out.jsonl")?;
    for line in json_lines(&output)? {
        for name in ["id", "destination", "key", "headers", "body"] {
            ensure!(line.get(name).is_some(), "`{name}` is not in {line}");
        }
        ensure!(line["destination"] == "points-granted", "{line}");
    }
    let second = run(&site)?;
    ensure!(
        second["applied"] == 0 && second["duplicates"] == 3,
        "{second}"
    );
    ensure!(second["published"] == 0, "{second}");
    ensure!(
        site.read("out.jsonl")? == output,
        "the second run wrote to the output"
    );
    // People get a summary on stderr, with or without the one for programs.
    has(
        &semel(&site, RUN)?.stderr,
        &["3 messages received", "duplicates", "applied"],
    )
}

#[test]
fn a_line_that_is_no_message_is_a_dead_letter_with_its_number() -> Result<()> {
    let lines = [
        order("1", "o-1", 100),
        "{\"topic\":\"orders\",\"body\":".to_owned(),
        "not json".to_owned(),
        String::new(),
        order("2", "o-2", 100),
    ];
    let site = site(&lines)?;
    let summary = run(&site)?;
    ensure!(summary["applied"] == 2 && summary["dead"] == 2, "{summary}");
    ensure!(summary["malformed"] == 2, "{summary}");
    let letters = ask_json(&site, "dead list")?;
    let mut places: Vec<&str> = Vec::new();
    for letter in &letters {
        ensure!(letter["cause"] == "malformed", "{letter}");
        has(letter["reason"].as_str().unwrap_or_default(), &["line"])?;
        places.push(letter["position"].as_str().context("a position")?);
    }
    places.sort_unstable();
    ensure!(
        places.len() == 2 && places[0].ends_with(":2") && places[1].ends_with(":3"),
        "{places:?}"
    );
    Ok(())
}

#[test]
fn stdin_is_an_input_and_stdout_an_output() -> Result<()> {
    let site = site(&[])?;
    let run = [
        "run",
        "--input",
        "-",
        "--output",
        "-",
        "--store",
        "redb:data",
    ];
    let mut host = site.start_with(&run, |command| {
        command.stdin(Stdio::piped());
    })?;
    let mut stdin = host.process.stdin().context("its stdin is a pipe")?;
    writeln!(
        stdin,
        "{}\n{}",
        order("1", "o-1", 100),
        order("2", "o-1", 100)
    )?;
    drop(stdin);
    let ended = host.wait(LIMIT)?.succeeded("run")?;
    let output = json_lines(&ended.stdout)?;
    ensure!(
        output.len() == 1 && output[0]["body"]["order_id"] == "o-1",
        "{output:?}"
    );
    Ok(())
}

#[test]
fn a_torn_last_line_is_mended() -> Result<()> {
    let lines = [order("1", "o-1", 100), order("2", "o-2", 100)];
    let site = site(&lines[..1])?;
    run(&site)?;
    let whole = site.read("out.jsonl")?;
    OpenOptions::new()
        .append(true)
        .open(site.path("out.jsonl"))?
        .write_all(b"{\"id\":\"half a li")?;
    site.write("in.jsonl", lines.join("\n"))?;
    let ended = semel(&site, RUN)?.succeeded(RUN)?;
    has(&ended.stderr, &["torn last line"])?;
    let output = site.read("out.jsonl")?;
    ensure!(output.starts_with(&whole), "{output}");
    ensure!(json_lines(&output)?.len() == 2, "{output}");
    Ok(())
}

/// Outgoing messages of a run without an output wait in the store for one that has one.
#[test]
fn outgoing_messages_wait_for_an_output() -> Result<()> {
    let workload = Workload::generate(WorkloadConfig {
        messages: 1_000,
        ..WorkloadConfig::default()
    });
    let site = site(&[])?;
    site.write("in.jsonl", workload.json_lines())?;
    let without = RUN.replace(" --output out.jsonl", "");
    let first = semel(&site, &without)?.succeeded("run")?.summary()?;
    ensure!(
        first["published"] == 0 && first["unpublished"] == 700,
        "{first}"
    );
    let second = run(&site)?;
    ensure!(
        second["published"] == 700 && second["unpublished"] == 0,
        "{second}"
    );
    ensure!(json_lines(&site.read("out.jsonl")?)?.len() == 700);
    Ok(())
}
