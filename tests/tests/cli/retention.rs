//! What is forgotten must not come back unnoticed.

use std::thread::sleep;

use super::*;

#[test]
fn a_retention_shorter_than_the_broker_keeps_messages_is_refused() -> Result<()> {
    let site = site(&[])?;
    site.write("semel.toml", "[plugins.points]\nretention = \"1d\"")?;
    let refused = semel(&site, "run --source rocketmq://127.0.0.1:1")?;
    ensure!(refused.status.code() == Some(1), "{}", refused.stderr);
    has(
        &refused.stderr,
        &[
            "the plugin `points` forgets after 1d",
            "again for 3d",
            "allow-short-retention = true",
        ],
    )?;
    // The operator knows better for how long the broker keeps messages.
    let source = "[source]\nurl = \"rocketmq://127.0.0.1:1\"\nredelivery = \"8d\"";
    site.write("semel.toml", source)?;
    let refused = semel(&site, "run")?;
    ensure!(refused.status.code() == Some(1), "{}", refused.stderr);
    has(&refused.stderr, &["forgets after 7d", "again for 8d"])
}

#[test]
fn a_file_is_read_again_at_the_operators_own_risk() -> Result<()> {
    let site = site(&[order("1", "o-1", 1_250)])?;
    site.write("semel.toml", "[plugins.points]\nretention = \"1s\"")?;
    ensure!(run(&site)?["applied"] == 1);
    Ok(())
}

#[test]
fn letters_older_than_the_retention_are_replayed_by_force_alone() -> Result<()> {
    let site = site(&[order("1", "o-1", -1), order("2", "o-2", -1)])?;
    ensure!(run(&site)?["dead"] == 2);
    let letters = ask_json(&site, "dead list")?;
    let id = letters[0]["id"].as_str().unwrap().to_owned();
    site.write("semel.toml", "[plugins.points]\nretention = \"1s\"")?;
    sleep(Duration::from_millis(1_100));

    let refused = semel(&site, &format!("dead replay {id}"))?;
    ensure!(refused.status.code() == Some(1), "{}", refused.stderr);
    has(&refused.stderr, &[&id, "(1s)", "--force", "1 of 1 refused"])?;
    let refused = semel(&site, "dead replay --all --yes")?;
    ensure!(refused.status.code() == Some(1), "{}", refused.stderr);
    has(&refused.stderr, &["retention: 2", "--force"])?;
    ensure!(ask_json(&site, "dead list")?.len() == 2);

    has(
        &ask(&site, &format!("dead replay {id} --force"))?,
        &["replayed"],
    )?;
    ask(&site, "dead replay --all --yes --force")?;
    ensure!(ask_json(&site, "dead list")?.is_empty());
    Ok(())
}
