//! The examples come to what their READMEs say, by the commands that stand there; and the demo
//! tells right from wrong.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use semel_tests::installation::repository;
use semel_tests::site::{Site, json_lines};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// The commands in the shell blocks of a README that begin with `semel `, as words.
fn commands(readme: &str) -> Vec<Vec<String>> {
    let mut in_shell = false;
    let mut commands = Vec::new();
    for line in readme.lines() {
        if line.starts_with("```") {
            in_shell = line == "```sh";
        } else if in_shell && line.starts_with("semel ") {
            commands.push(line.split_whitespace().skip(1).map(str::to_owned).collect());
        }
    }
    commands
}

/// An example in a directory that has of the repository what its README needs. Gives the
/// results of the README's commands, in order.
fn follow(name: &str) -> Result<(Site, Vec<String>)> {
    let example = repository().join("examples").join(name);
    let site = Site::with_plugins(&[name])?;
    for data in fs::read_dir(example.join("data"))? {
        let data = data?;
        let to = format!("examples/{name}/data/{}", data.file_name().display());
        site.write(&to, fs::read(data.path())?)?;
    }
    let commands = commands(&fs::read_to_string(example.join("README.md"))?);
    ensure!(commands.len() >= 2, "its README has no commands");
    let mut results = Vec::new();
    for command in &commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let ended = site.run(&words, LIMIT)?.succeeded(&words.join(" "))?;
        results.push(ended.stdout);
    }
    Ok((site, results))
}

/// What a plugin holds: name and number.
fn holdings(site: &Site, plugin: &str, store: &str) -> Result<Vec<(String, i64)>> {
    let rows = site.ask_json(&["state", "list", plugin, "--store", store, "--json"])?;
    rows.iter()
        .map(|row| {
            let key = row["key"].as_str().context("a key")?;
            Ok((key.to_owned(), row["value"].as_i64().context("a number")?))
        })
        .collect()
}

fn causes(site: &Site, store: &str) -> Result<Vec<String>> {
    let letters = site.ask_json(&["dead", "list", "--store", store, "--json"])?;
    let mut causes: Vec<String> = letters
        .iter()
        .map(|letter| letter["cause"].to_string())
        .collect();
    causes.sort();
    Ok(causes)
}

/// Runs an example's data once more, which must change nothing.
fn again(site: &Site, data: &str, output: &str, store: &str) -> Result<Value> {
    let run = ["run", "--store", store, "--input", data, "--output", output];
    let run = [&run[..], &["--summary", "json"]].concat();
    site.run(&run, LIMIT)?.succeeded("run")?.summary()
}

#[test]
fn points_comes_to_what_its_readme_says() -> Result<()> {
    let (site, printed) = follow("points")?;
    let store = "redb:./points-data";
    let expected = [
        ("balance/ann", 29),
        ("balance/ben", 150),
        ("balance/cleo", 7),
    ];
    let expected: Vec<_> = expected
        .map(|(key, points)| (key.to_owned(), points))
        .into();
    ensure!(holdings(&site, "points", store)? == expected);
    for (key, points) in &expected {
        let told = printed
            .iter()
            .any(|text| text.contains(key) && text.contains(&points.to_string()));
        ensure!(told, "no command of the README tells {key}: {printed:?}");
    }
    ensure!(causes(&site, store)? == ["\"mismatch\"", "\"rejected\""]);
    let output = site.read("granted.jsonl")?;
    ensure!(json_lines(&output)?.len() == 7, "{output}");
    let again = again(
        &site,
        "examples/points/data/orders.jsonl",
        "granted.jsonl",
        store,
    )?;
    ensure!(again["received"] == 12 && again["applied"] == 0, "{again}");
    ensure!(site.read("granted.jsonl")? == output);
    ensure!(causes(&site, store)?.len() == 2);
    Ok(())
}

#[test]
fn transfer_comes_to_what_its_readme_says() -> Result<()> {
    let (site, _) = follow("transfer")?;
    let store = "redb:./transfer-data";
    let expected = [
        ("account/ann", 7_000),
        ("account/ben", 2_500),
        ("account/cleo", 5_500),
    ];
    let expected: Vec<_> = expected.map(|(key, cents)| (key.to_owned(), cents)).into();
    let found = holdings(&site, "transfer", store)?;
    ensure!(found == expected, "{found:?}");
    ensure!(causes(&site, store)? == ["\"rejected\"", "\"rejected\""]);
    let output = site.read("done.jsonl")?;
    ensure!(json_lines(&output)?.len() == 5, "{output}");
    let again = again(
        &site,
        "examples/transfer/data/transfers.jsonl",
        "done.jsonl",
        store,
    )?;
    ensure!(again["received"] == 7 && again["applied"] == 0, "{again}");
    ensure!(site.read("done.jsonl")? == output);
    Ok(())
}

#[test]
fn stock_comes_to_what_its_readme_says() -> Result<()> {
    let (site, printed) = follow("stock")?;
    let store = "redb:./stock-data";
    let expected = [("level/bolt", 60), ("level/nut", 35), ("level/washer", 500)];
    let expected: Vec<_> = expected.map(|(key, level)| (key.to_owned(), level)).into();
    let found = holdings(&site, "stock", store)?;
    ensure!(found == expected, "{found:?}");
    // The versions are those of the README's second listing.
    for (item, version) in [("bolt", 4), ("nut", 3), ("washer", 9)] {
        let row = printed[2].lines().find(|line| line.contains(item));
        let row = row.with_context(|| format!("{item} is not in {printed:?}"))?;
        ensure!(row.trim().ends_with(&version.to_string()), "{row}");
    }
    ensure!(causes(&site, store)? == ["\"no-version\"", "\"rejected\""]);
    let output = site.read("changed.jsonl")?;
    ensure!(json_lines(&output)?.len() == 6, "{output}");
    let again = again(
        &site,
        "examples/stock/data/changes.jsonl",
        "changed.jsonl",
        store,
    )?;
    ensure!(
        again["received"] == 11 && again["applied"] == 0 && again["stale"] == 0,
        "{again}"
    );
    ensure!(site.read("changed.jsonl")? == output);
    Ok(())
}

fn demo(arguments: &[&str]) -> Result<(Output, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--orders", "10000"])
        .args(arguments)
        .output()?;
    let printed = String::from_utf8(output.stdout.clone())?;
    Ok((output, printed))
}

#[test]
fn the_demo_passes_and_its_verdict_can_fail() -> Result<()> {
    let (output, printed) = demo(&["--seed", "1"])?;
    ensure!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(printed.contains("\nPASSED: "), "{printed}");
    ensure!(printed.matches("SIGKILL after").count() == 3, "{printed}");
    ensure!(
        !printed.contains('\u{1b}'),
        "there are colours in a file: {printed:?}"
    );
    let (output, printed) = demo(&["--seed", "1", "--tamper"])?;
    ensure!(output.status.code() == Some(1), "{printed}");
    ensure!(
        printed.contains("\nFAILED: ") && printed.contains("WRONG"),
        "{printed}"
    );
    Ok(())
}
