//! The real host dies of SIGKILL at random moments while it serves a real RocketMQ broker, and
//! every order takes effect exactly once nevertheless.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use semel_brokers::{RocketMqClient, RocketMqSink, RocketMqSinkConfig};
use semel_core::Sink;
use semel_tests::servers::redis::RedisServer;
use semel_tests::servers::rocketmq::RocketMq;
use semel_tests::site::Running;
use semel_tests::trial::{LIMIT, OUTPUT, Trial};
use semel_tests::workload::OrderMessage;

const QUEUES: u32 = 4;

/// How many rows a producer sends at a time.
const CHUNK: usize = 1_000;

/// How long a host may take to finish what is in flight.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a host with nothing to do is watched.
const IDLE: Duration = Duration::from_secs(4);

/// The host's configuration: orders come from the trial's own topic.
fn configuration(broker: &RocketMq, topic: &str) -> String {
    let url = broker.url();
    format!(
        "[source]\nurl = \"{url}\"\ngroup-prefix = \"{topic}\"\n\n\
         [plugins.points]\ntopics = [\"{topic}\"]\n"
    )
}

/// Starts a host that serves.
fn start(trial: &Trial) -> Result<Running> {
    let store = trial.store.as_str();
    let run = [
        "run",
        "--store",
        store,
        "--output",
        OUTPUT,
        "--summary",
        "json",
    ];
    trial.site.start(&run)
}

/// Sends messages as a producer would: each copy of a message has its id.
async fn produce(broker: &RocketMq, topic: &str, messages: &[OrderMessage]) -> Result<()> {
    let client = RocketMqClient::start()?;
    let config = RocketMqSinkConfig {
        name_server: broker.name_server(),
        producer_group: format!("{topic}-producer"),
        destinations: BTreeMap::from([("orders".to_owned(), topic.to_owned())]),
    };
    let sink = RocketMqSink::new(&client, config);
    let rows: Vec<_> = messages
        .iter()
        .map(|message| message.row("orders"))
        .collect();
    for chunk in rows.chunks(CHUNK) {
        for result in sink.publish(chunk).await {
            result?;
        }
    }
    sink.close().await;
    client.shutdown().await;
    Ok(())
}

/// Lets a host serve until all orders are published, ends it with SIGTERM, and looks at what it
/// says.
fn finish(trial: &mut Trial) -> Result<()> {
    let mut host = start(trial)?;
    let orders = trial.workload.ledger.orders();
    let reached = trial.output.reach(orders, &mut host, LIMIT)?;
    ensure!(reached, "the host ended:\n{}", host.stderr());
    // The last messages may be duplicates, which publish nothing.
    std::thread::sleep(IDLE);
    host.process.terminate()?;
    let summary = host.wait(DRAIN)?.succeeded("run")?.summary()?;
    ensure!(
        summary["unpublished"] == 0 && summary["parked"] == 0 && summary["dead"] == 0,
        "the last run came to {summary}"
    );
    Ok(())
}

/// After a drain all is acknowledged: a host that starts again is given nothing.
fn nothing_is_left(trial: &mut Trial) -> Result<()> {
    let mut host = start(trial)?;
    host.wait_for_log("serving", LIMIT)?;
    std::thread::sleep(IDLE);
    host.process.terminate()?;
    let summary = host.wait(DRAIN)?.succeeded("run")?.summary()?;
    ensure!(
        summary["received"] == 0 && summary["applied"] == 0,
        "after all was done a host was given more: {summary}"
    );
    Ok(())
}

async fn killed(name: &str, store: &str, messages: usize, kills: usize) -> Result<()> {
    let broker = RocketMq::shared().await?;
    let topic = format!("orders-{name}-{}", std::process::id());
    broker.create_topic(&topic, QUEUES).await?;
    let mut trial = Trial::new(store, messages)?;
    trial
        .site
        .write("semel.toml", configuration(broker, &topic))?;
    produce(broker, &topic, &trial.workload.messages).await?;
    let result = (|| {
        trial.kill(kills, start)?;
        finish(&mut trial)?;
        trial.check()?;
        nothing_is_left(&mut trial)?;
        trial.check()
    })();
    trial.conclude(result)
}

#[tokio::test]
async fn killed_on_redb_with_rocketmq() -> Result<()> {
    killed("redb", "redb:data", 20_000, 6).await
}

#[tokio::test]
async fn killed_on_redis_with_rocketmq() -> Result<()> {
    let redis = RedisServer::start().await?;
    killed("redis", &redis.url(), 20_000, 6).await
}
