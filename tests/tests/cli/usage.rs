//! Configuration, help, and what is said where something is missing.

use anyhow::Context;

use super::*;

#[test]
fn a_plugin_file_is_inspected() -> Result<()> {
    let site = site(&[])?;
    let file = "plugins/points.wasm";
    let told = site.ask(&["plugin", "inspect", file])?;
    has(
        &told,
        &[
            "points",
            "orders",
            "json:/order_id",
            "blake3:",
            "semel:plugin/state@0.1.0",
        ],
    )?;
    let told = &site.ask_json(&["plugin", "inspect", file, "--json"])?[0];
    ensure!(told["manifest"]["name"] == "points", "{told}");
    ensure!(
        told["size"].as_u64() > Some(10_000) && told["refusal"].is_null(),
        "{told}"
    );
    let imports = told["imports"].as_array();
    ensure!(imports.is_some_and(|imports| !imports.is_empty()), "{told}");
    site.write("text.wasm", "no plugin")?;
    let refused = site.run(&["plugin", "inspect", "text.wasm"], LIMIT)?;
    ensure!(refused.status.code() == Some(1));
    has(
        &refused.stderr,
        &["text.wasm", "not a valid WebAssembly file"],
    )
}

#[test]
fn a_configuration_is_checked_and_secrets_come_from_the_environment() -> Result<()> {
    let site = site(&[order("1", "o-1", 100)])?;
    let refusal = |config: &str| -> Result<String> {
        site.write("semel.toml", config)?;
        let ended = semel(&site, RUN)?;
        ensure!(ended.status.code() == Some(1), "it was accepted: {config}");
        Ok(ended.stderr)
    };
    let unknown = refusal("store = \"memory:\"\n[engine]\nbatches = 3\n")?;
    has(
        &unknown,
        &["semel.toml:3:1", "unknown field `batches`", "batches = 3"],
    )?;
    has(&refusal("[engine]\nbatch = \"3\"\n")?, &["semel.toml:2:9"])?;
    let unset = "store = \"redis://:${SEMEL_TEST_UNSET}@127.0.0.1:1\"\n";
    has(&refusal(unset)?, &["semel.toml:1:", "SEMEL_TEST_UNSET"])?;

    // From here the store is the configuration's, and the environment completes its name.
    site.write("semel.toml", "store = \"redb:${SEMEL_TEST_DIR}\"\n")?;
    let host = site.start_with(&["run", "--input", "in.jsonl"], |command| {
        command.env("SEMEL_TEST_DIR", "elsewhere");
    })?;
    host.wait(LIMIT)?.succeeded("run")?;
    ensure!(site.path("elsewhere").is_dir(), "the variable was not used");
    Ok(())
}

#[test]
fn what_is_missing_is_said() -> Result<()> {
    let site = Site::new()?;
    site.write("in.jsonl", "")?;
    let ended = semel(&site, RUN)?;
    ensure!(ended.status.code() == Some(1));
    has(
        &ended.stderr,
        &["there is no directory `./plugins`", "--plugins"],
    )?;
    let site = Site::with_plugins(&["points"])?;
    let ended = semel(&site, RUN)?;
    ensure!(ended.status.code() == Some(1));
    has(&ended.stderr, &["in.jsonl"])?;
    let ended = semel(&site, "run")?;
    ensure!(ended.status.code() == Some(2));
    has(&ended.stderr, &["--input FILE", "--source URL"])
}

#[test]
fn help_shows_examples_and_shells_get_completions() -> Result<()> {
    let site = Site::new()?;
    for command in [
        "",
        "run",
        "state",
        "state list",
        "state get",
        "key show",
        "dead list",
        "dead show",
        "dead replay",
        "dead drop",
        "plugin inspect",
        "doctor",
        "completions",
    ] {
        let line = format!("{command} --help");
        let help = site.ask(&line.split_whitespace().collect::<Vec<_>>())?;
        has(&help, &["Usage: semel"])?;
        // A command that only groups others shows those.
        if command != "state" {
            has(&help, &["Examples:", "  semel "]).with_context(|| line)?;
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        has(&site.ask(&["completions", shell])?, &["semel", "inspect"])?;
    }
    Ok(())
}

#[test]
fn logs_are_json_where_that_is_asked() -> Result<()> {
    let site = site(&[order("1", "o-1", -1)])?;
    let ended = semel(&site, &format!("{RUN} --log-format json"))?.succeeded("run")?;
    let events: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .collect();
    let events = json_lines(&events.join("\n"))?;
    let loaded = events.iter().find(|event| event["message"] == "loaded");
    let loaded = loaded.with_context(|| ended.stderr.clone())?;
    ensure!(
        loaded["plugin"] == "points" && loaded["level"] == "INFO",
        "{loaded}"
    );
    Ok(())
}
