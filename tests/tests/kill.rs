//! The real host dies of SIGKILL at random moments, on every store, and every order takes
//! effect exactly once nevertheless. Compared is with a ledger kept outside of the system.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::Rng;
use semel_tests::servers::redis::RedisServer;
use semel_tests::site::{Ended, Running};
use semel_tests::trial::{LIMIT, OUTPUT, Trial};

const INPUT: &str = "orders.jsonl";

/// Starts a host that works through the input.
fn start(trial: &Trial) -> Result<Running> {
    let store = trial.store.as_str();
    let files = ["run", "--input", INPUT, "--output", OUTPUT];
    let others = ["--store", store, "--summary", "json"];
    trial.site.start(&[&files[..], &others[..]].concat())
}

/// Runs one to the end of the input.
fn finish(trial: &Trial) -> Result<Ended> {
    start(trial)?.wait(LIMIT)?.succeeded("run")
}

/// After the end: all is there once, and the whole input again changes nothing.
fn check(trial: &Trial) -> Result<()> {
    trial.check()?;
    let again = finish(trial)?.summary()?;
    let sent = trial.workload.ledger.sent;
    ensure!(
        again["applied"] == 0 && again["duplicates"] == sent && again["parked"] == 0,
        "the input once more came to {again}"
    );
    trial.check()
}

fn killed(store: &str, messages: usize, kills: usize) -> Result<()> {
    let mut trial = Trial::new(store, messages)?;
    trial.site.write(INPUT, trial.workload.json_lines())?;
    let result = (|| {
        trial.kill(kills, start)?;
        finish(&trial)?;
        check(&trial)
    })();
    trial.conclude(result)
}

#[test]
fn killed_on_redb_with_a_file() -> Result<()> {
    killed("redb:data", 40_000, 8)
}

#[tokio::test]
async fn killed_on_redis_with_a_file() -> Result<()> {
    let redis = RedisServer::start().await?;
    killed(&redis.url(), 40_000, 8)
}

/// The store's server dies too, three times, and once the host with it.
#[tokio::test]
async fn killed_while_redis_is_killed() -> Result<()> {
    let mut redis = RedisServer::start_synced().await?;
    let mut trial = Trial::new(&redis.url(), 20_000)?;
    trial.site.write(INPUT, trial.workload.json_lines())?;
    let result = async {
        let orders = trial.workload.ledger.orders();
        let mut host = start(&trial)?;
        for part in 1..=4 {
            let reached = trial.output.reach(orders * part / 6, &mut host, LIMIT)?;
            ensure!(reached, "the host ended:\n{}", host.stderr());
            redis.kill();
            let outage = trial.random.random_range(50..500);
            tokio::time::sleep(Duration::from_millis(outage)).await;
            ensure!(
                host.process.ended()?.is_none(),
                "the host gave up when its store went away:\n{}",
                host.stderr()
            );
            if part == 2 {
                ensure!(host.process.kill()?, "the host was gone");
            }
            redis.restart().await?;
            if part == 2 {
                host = start(&trial)?;
            }
        }
        host.wait(LIMIT)?.succeeded("run")?;
        check(&trial)
    }
    .await;
    trial.conclude(result)
}

/// SIGTERM ends a run early, in good order: what is in flight is finished, and the next run
/// does the rest.
#[test]
fn a_run_that_is_terminated_can_be_finished() -> Result<()> {
    let mut trial = Trial::new("redb:data", 40_000)?;
    trial.site.write(INPUT, trial.workload.json_lines())?;
    let result = (|| {
        let mut host = start(&trial)?;
        let orders = trial.workload.ledger.orders();
        trial.output.reach(orders / 3, &mut host, LIMIT)?;
        host.process.terminate()?;
        let ended = host.wait(Duration::from_secs(20))?;
        ensure!(
            ended.status.code() == Some(1) && ended.stderr.contains("interrupted"),
            "{} and:\n{}",
            ended.status,
            ended.stderr
        );
        let summary = ended.summary()?;
        let lines = trial.output.now()?;
        ensure!(
            summary["interrupted"] == true
                && summary["applied"] == lines
                && summary["published"] == lines
                && lines < orders,
            "it wrote {lines} messages and said {summary}"
        );
        finish(&trial)?;
        check(&trial)
    })();
    trial.conclude(result)
}

/// Without its store a host neither waits in silence nor runs a handler.
#[tokio::test]
async fn a_store_that_is_down_runs_nothing() -> Result<()> {
    let mut redis = RedisServer::start().await?;
    let trial = Trial::new(&redis.url(), 1_000)?;
    trial.site.write(INPUT, trial.workload.json_lines())?;
    redis.kill();
    let ended = start(&trial)?.wait(LIMIT)?;
    let port = redis.port().to_string();
    ensure!(
        ended.status.code() == Some(1) && ended.stderr.contains(&port),
        "{} and:\n{}",
        ended.status,
        ended.stderr
    );
    ensure!(
        trial.site.read(OUTPUT).unwrap_or_default().is_empty(),
        "it published something"
    );
    redis.restart().await?;
    finish(&trial)?;
    check(&trial)
}
