//! The binary as an operator meets it: exit codes, and messages that say what to do. Runs of
//! plugins are tested in the workspace's `tests`.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `semel` in a directory of its own.
fn semel(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_semel"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("SEMEL_STORE")
        .env_remove("SEMEL_CONFIG")
        .output()
        .unwrap()
}

/// The exit code and stderr.
fn failure(arguments: &[&str], files: &[(&str, &str)]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let output = semel(dir.path(), arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), stderr)
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["run"][..],
        &["run", "--input", "a", "--output", "-", "--summary", "json"],
        &["run", "--input", "a", "--source", "rocketmq://h:1"],
        &["run", "--no-wait"],
        &["dead", "replay"],
        &["frobnicate"],
    ] {
        let (code, stderr) = failure(arguments, &[]);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        assert!(stderr.contains("error: "), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_bad_configuration_is_shown_with_its_line() {
    let (code, stderr) = failure(
        &["state", "list", "points"],
        &[("semel.toml", "store = \"memory:\"\nplugin-dir = \"p\"\n")],
    );
    assert_eq!(code, 1);
    assert!(
        stderr.contains("semel.toml:2:1: unknown field `plugin-dir`"),
        "{stderr}"
    );
    assert!(stderr.contains("2 | plugin-dir = \"p\""), "{stderr}");
}

#[test]
fn a_configuration_that_was_asked_for_must_be_there() {
    let (code, stderr) = failure(&["run", "--input", "a", "--config", "no.toml"], &[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("no.toml"), "{stderr}");
}

#[test]
fn a_run_without_plugins_says_what_to_do() {
    let run = &["run", "--input", "in.jsonl", "--store", "memory:"];
    let (code, stderr) = failure(run, &[("in.jsonl", "")]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("there is no directory `./plugins`"),
        "{stderr}"
    );
    let (code, stderr) = failure(run, &[("in.jsonl", ""), ("plugins/README", "")]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("there is no plugin in `./plugins`"),
        "{stderr}"
    );
    assert!(stderr.contains("--plugins"), "{stderr}");
}

#[test]
fn a_run_whose_plugins_are_all_refused_fails() {
    let (code, stderr) = failure(
        &["run", "--input", "in.jsonl", "--store", "memory:"],
        &[("in.jsonl", ""), ("plugins/bad.wasm", "no wasm")],
    );
    assert_eq!(code, 1);
    assert!(stderr.contains("bad.wasm"), "{stderr}");
    assert!(
        stderr.contains("every plugin in `./plugins` was refused"),
        "{stderr}"
    );
}

#[test]
fn looking_at_a_store_does_not_create_it() {
    let dir = tempfile::tempdir().unwrap();
    let output = semel(dir.path(), &["dead", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!dir.path().join("semel-data").exists());
}

#[test]
fn an_empty_store_has_nothing_to_show() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, shown) in [
        (
            &["dead", "list", "--store", "memory:"][..],
            "No dead letters.\n",
        ),
        (&["dead", "list", "--store", "memory:", "--json"], ""),
        (
            &["key", "show", "p", "k", "--store", "memory:", "--json"],
            "{\"plugin\":\"p\",\"key\":\"k\",\"state\":\"absent\"}\n",
        ),
    ] {
        let output = semel(dir.path(), arguments);
        assert!(output.status.success(), "{arguments:?}");
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            shown,
            "{arguments:?}"
        );
    }
}

#[test]
fn completions_are_printed_for_every_shell() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = semel(dir.path(), &["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            script.contains("semel") && script.contains("inspect"),
            "{shell}"
        );
    }
}
