//! Commands that look into a store, and decide about dead letters.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use semel_core::{Admin, DeadLetter, OutboxScan};
use semel_stores::RedbStore;
use semel_tests::conformance::store::build::{Changed, apply, done};

use super::*;

/// The id of the dead letter with this cause.
fn letter_id(letters: &[Value], cause: &str, key: Option<&str>) -> Result<String> {
    let found = letters
        .iter()
        .find(|letter| letter["cause"] == cause && key.is_none_or(|key| letter["key"] == key));
    let id = found.and_then(|letter| letter["id"].as_str());
    id.map(str::to_owned)
        .with_context(|| format!("no {cause} letter of {key:?} is in {letters:?}"))
}

#[test]
fn state_and_keys_are_shown() -> Result<()> {
    let lines = [order("1", "o-1", 1_250), order("2", "o-2", -1)];
    let site = site(&lines)?;
    run(&site)?;
    let state = ask_json(&site, "state list points")?;
    ensure!(
        state.len() == 1 && state[0]["key"] == "balance/ann",
        "{state:?}"
    );
    ensure!(
        state[0]["value"] == 12 && state[0]["version"].is_u64(),
        "{state:?}"
    );
    has(
        &ask(&site, "state list points")?,
        &["KEY", "VALUE", "balance/ann", "12"],
    )?;
    ensure!(ask_json(&site, "state get points balance/ann")? == state);
    has(
        &ask(&site, "state get points balance/ann")?,
        &["balance/ann", "12"],
    )?;
    let absent = semel(&site, "state get points balance/nobody")?;
    ensure!(absent.status.code() == Some(1));
    has(
        &absent.stderr,
        &["balance/nobody", "semel state list points"],
    )?;

    for (key, state) in [("o-1", "done"), ("o-2", "dead"), ("o-9", "absent")] {
        let record = ask_json(&site, &format!("key show points {key}"))?;
        ensure!(
            record[0]["state"] == state && record[0]["key"] == key,
            "{record:?}"
        );
        has(&ask(&site, &format!("key show points {key}"))?, &[state])?;
    }
    Ok(())
}

#[test]
fn dead_letters_are_shown_and_can_be_put_right() -> Result<()> {
    let lines = [
        order("1", "o-1", 1_250),
        order("2", "o-2", -1),
        order("3", "o-1", 9_900),
    ];
    let site = site(&lines)?;
    let summary = run(&site)?;
    ensure!(
        summary["dead"] == 2 && summary["mismatches"] == 1,
        "{summary}"
    );
    let letters = ask_json(&site, "dead list")?;
    let rejected = letter_id(&letters, "rejected", Some("o-2"))?;
    let mismatch = letter_id(&letters, "mismatch", None)?;
    has(
        &ask(&site, "dead list")?,
        &[&rejected, &mismatch, "not between 0 and"],
    )?;
    let shown = ask(&site, &format!("dead show {rejected}"))?;
    has(
        &shown,
        &["rejected", "o-2", "not between 0 and", r#""amount":-1"#],
    )?;

    // The message comes out as an input line, is put right, and goes in again.
    let line = ask(&site, &format!("dead show {mismatch} --json"))?;
    site.write("in.jsonl", line.replace("o-1", "o-3"))?;
    ensure!(run(&site)?["applied"] == 1);

    let unknown = semel(&site, "dead show 0000000000000000")?;
    ensure!(unknown.status.code() == Some(1));
    has(&unknown.stderr, &["0000000000000000", "semel dead list"])
}

#[test]
fn dead_letters_are_replayed_and_dropped() -> Result<()> {
    let site = site(&[
        order("1", "o-1", -1),
        order("2", "o-2", -1),
        order("3", "o-2", 5),
    ])?;
    run(&site)?;
    let letters = ask_json(&site, "dead list --plugin points")?;
    let first = letter_id(&letters, "rejected", Some("o-1"))?;
    let replayed = ask_json(&site, &format!("dead replay {first}"))?;
    ensure!(replayed[0]["result"] == "replayed", "{replayed:?}");
    let record = ask_json(&site, "key show points o-1")?;
    ensure!(record[0]["state"] == "parked", "{record:?}");
    // The next run takes it up, and it is rejected again.
    site.write("in.jsonl", "")?;
    let summary = run(&site)?;
    ensure!(summary["retried"] == 1 && summary["dead"] == 1, "{summary}");

    // What ends no record can't be run again, and the refusal says what can be done.
    let mismatch = letter_id(&letters, "mismatch", None)?;
    let refused = semel(&site, &format!("dead replay {mismatch}"))?;
    ensure!(refused.status.code() == Some(1));
    has(
        &refused.stderr,
        &["semel dead show", "--json", "semel run --input"],
    )?;

    let careful = semel(&site, "dead drop --all")?;
    ensure!(careful.status.code() == Some(1));
    has(&careful.stderr, &["3 to drop", "--yes"])?;
    ensure!(ask_json(&site, "dead drop --all --yes")?.len() == 3);
    ensure!(ask(&site, "dead list --json")?.is_empty());
    has(&ask(&site, "dead list")?, &["No dead letters"])?;
    // A dropped letter's message stays known.
    site.write("in.jsonl", order("1", "o-1", -1))?;
    let summary = run(&site)?;
    ensure!(
        summary["duplicates"] == 1 && summary["dead"] == 0,
        "{summary}"
    );
    Ok(())
}

#[tokio::test]
async fn undeliverable_messages_are_shown_and_published_again() -> Result<()> {
    let site = site(&[])?;
    let letter = refuse_a_message(&site, r#"{"points":12}"#).await?;
    let (id, message_id) = (letter.id.as_str(), letter.message.id.as_str());
    let listed = ask_json(&site, "dead list --plugin points")?;
    ensure!(
        listed[0]["id"] == id
            && listed[0]["cause"] == "undeliverable"
            && listed[0]["destination"] == "points-granted"
            && listed[0]["message_id"] == message_id,
        "{listed:?}"
    );
    has(
        &ask(&site, "dead list")?,
        &[id, "undeliverable", "points-granted: too large"],
    )?;
    has(
        &ask(&site, &format!("dead show {id}"))?,
        &[
            "points-granted",
            message_id,
            "too large",
            r#"{"points":12}"#,
        ],
    )?;
    let shown = ask_json(&site, &format!("dead show {id}"))?;
    ensure!(
        shown[0]["id"] == message_id
            && shown[0]["destination"] == "points-granted"
            && shown[0]["body"] == json!({"points": 12}),
        "{shown:?}"
    );

    let replayed = ask_json(&site, "dead replay --all --yes --force")?;
    ensure!(replayed[0]["result"] == "replayed", "{replayed:?}");
    ensure!(ask_json(&site, "dead list")?.is_empty());
    run(&site)?;
    let published = json_lines(&site.read("out.jsonl")?)?;
    ensure!(
        published.len() == 1 && published[0]["id"] == message_id,
        "{published:?}"
    );
    Ok(())
}

/// Has a message in the site's store that a broker refused.
async fn refuse_a_message(site: &Site, body: &str) -> Result<DeadLetter> {
    let store: Arc<dyn Admin> = Arc::new(RedbStore::open(&site.path("data"))?);
    apply(&store, &done("o-1").publishing(body, None)).await;
    let scan = OutboxScan {
        limit: 1,
        ..OutboxScan::default()
    };
    let rows = store.outbox(&scan).await?;
    let letter = DeadLetter::undeliverable(&rows[0], "too large".to_owned(), 1);
    store.refuse(std::slice::from_ref(&letter)).await?;
    Ok(letter)
}

#[test]
fn a_store_that_a_host_holds_is_refused_clearly() -> Result<()> {
    let site = site(&[])?;
    let run = [
        "run",
        "--input",
        "-",
        "--output",
        "out.jsonl",
        "--store",
        "redb:data",
    ];
    let mut host = site.start_with(&run, |command| {
        command.stdin(Stdio::piped());
    })?;
    let _open = host.process.stdin();
    host.wait_for_log("the store is open", LIMIT)?;
    let other_run = RUN.replace("out.jsonl", "other.jsonl");
    for line in [
        "state list points",
        "dead list",
        "key show points o-1",
        &other_run,
    ] {
        let refused = semel(&site, line)?;
        ensure!(
            refused.status.code() == Some(1),
            "{line}: {}",
            refused.stdout
        );
        has(&refused.stderr, &["data", "another process"])?;
    }
    Ok(())
}
