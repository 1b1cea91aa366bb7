//! The three ways in which consumers of RocketMQ are given a message twice: the producer sends
//! it again, the broker delivers it again because it did not hear of the acknowledgement, and
//! queues move to another consumer while messages are on their way. Each with the real host, a
//! real broker and Redis, and each compared to the last message with what was ordered.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use semel_brokers::{RocketMqClient, RocketMqSource, RocketMqSourceConfig};
use semel_core::crash::CrashPoint;
use semel_core::{Payload, Received, Source};
use semel_tests::child::is_sigkill;
use semel_tests::installation;
use semel_tests::ledger::{Check, Found};
use semel_tests::orders::Orders;
use semel_tests::passage::{CRASH_AT, PAUSE_AT, Passage};
use semel_tests::servers::redis::RedisServer;
use semel_tests::servers::rocketmq::RocketMq;
use semel_tests::site::{Running, Site};
use semel_tests::workload::{Workload, WorkloadConfig};
use serde_json::Value;
use tokio::task::spawn_blocking;

const QUEUES: u32 = 4;

/// How long a host may take to get somewhere.
const LIMIT: Duration = Duration::from_secs(120);

/// How long a host may take to finish what is in flight.
const DRAIN: Duration = Duration::from_secs(40);

/// After everything arrived, hosts are watched for so long: duplicates come last.
const IDLE: Duration = Duration::from_secs(4);

/// How often something is looked at that is to change.
const POLL: Duration = Duration::from_millis(50);

/// Orders, a store that hosts share, and a directory where they run.
struct Stage {
    workload: Workload,
    bodies: Vec<String>,
    orders: Orders,
    redis: RedisServer,
    site: Site,
}

impl Stage {
    /// Nothing is sent yet.
    async fn on(broker: &RocketMq, queues: u32, workload: WorkloadConfig) -> Result<Self> {
        let orders = Orders::on(broker, queues).await?;
        let site = Site::with_plugins(&["points"])?;
        site.write(
            "semel.toml",
            orders.configuration("points", "points-granted"),
        )?;
        let workload = Workload::generate(workload);
        let messages = workload.messages.iter();
        Ok(Self {
            bodies: messages.map(|message| message.body.clone()).collect(),
            workload,
            orders,
            redis: RedisServer::start().await?,
            site,
        })
    }

    /// Starts a host, with a variable of its environment that says where it dies or stands
    /// still.
    fn start(&self, order: Option<(&str, Passage)>) -> Result<Running> {
        let store = self.redis.url();
        let run = ["run", "--store", &store, "--summary", "json"];
        let program = installation::semel_under_test()?;
        self.site.start_program(&program, &run, |command| {
            if let Some((name, passage)) = order {
                command.env(name, passage.to_string());
            }
        })
    }

    /// Waits until consumers have seen every order's message.
    async fn finish(&self) -> Result<()> {
        self.orders
            .reach(self.workload.ledger.orders(), LIMIT)
            .await?;
        tokio::time::sleep(IDLE).await;
        Ok(())
    }

    /// Demands that every order took effect exactly once, and that nothing is left to do. Only
    /// who ended last can say that: what a store has for others to do is in each host's summary.
    fn verdict(&self, last: &Summary) -> Result<()> {
        ensure!(
            last.count("unpublished") == 0 && last.count("parked") == 0,
            "the hosts left behind: {}",
            last.0
        );
        let store = self.redis.url();
        let of = |what: &[&str]| {
            let arguments = [what, &["--store", &store, "--json"]].concat();
            self.site.ask_json(&arguments)
        };
        let state = of(&["state", "list", "points"])?;
        let dead = of(&["dead", "list"])?;
        let found = Found::read(&state, &self.orders.lines()?, &dead)?;
        let checks = self.workload.ledger.compare(&found, false);
        let wrong: Vec<&Check> = checks.iter().filter(|check| !check.holds()).collect();
        ensure!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    }
}

/// Ends a host with SIGTERM. Gives its summary, and how often it read messages again that the
/// client had skipped.
fn end(host: Running) -> Result<(Summary, usize)> {
    host.process.terminate()?;
    let ended = host.wait(DRAIN)?.succeeded("run")?;
    let gaps = ended
        .stderr
        .matches("the client skipped from offset")
        .count();
    Ok((Summary(ended.summary()?), gaps))
}

struct Summary(Value);

impl Summary {
    fn count(&self, name: &str) -> usize {
        let count = self.0[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name}: {}", self.0));
        usize::try_from(count).unwrap()
    }
}

/// The ids under which the broker has a topic's messages, each as often as it has it.
async fn ids(orders: &Orders, messages: usize) -> Result<Vec<String>> {
    let client = RocketMqClient::start()?;
    let config = RocketMqSourceConfig {
        name_server: orders.name_server(),
        group: format!("{}-audit", orders.topic),
        topics: vec![orders.topic.clone()],
        redelivery: RocketMqSourceConfig::DEFAULT_REDELIVERY,
    };
    let source = RocketMqSource::new(&client, config);
    let mut ids = Vec::new();
    let deadline = Instant::now() + LIMIT;
    while ids.len() < messages {
        ensure!(Instant::now() < deadline, "{} messages", ids.len());
        let Received::Batch(batch) = source.receive(1_000).await? else {
            break;
        };
        for delivery in batch {
            if let Payload::Message(message) = delivery.payload {
                ids.push(message.id.clone());
            }
        }
    }
    source.close().await;
    client.shutdown().await;
    Ok(ids)
}

/// A producer that did not hear whether its message arrived sends it again. The broker has two
/// messages then, and nothing but their content says that they are one.
#[tokio::test]
async fn send_retried() -> Result<()> {
    let workload = WorkloadConfig {
        messages: 3_000,
        duplicates_percent: 0,
        users: 100,
        ..WorkloadConfig::default()
    };
    let broker = RocketMq::shared().await?;
    let stage = Stage::on(broker, QUEUES, workload).await?;
    let orders = stage.bodies.len();
    // Some at once, some long after.
    let (early, late) = stage.bodies.split_at(orders / 2);
    for part in [early, early, late, late] {
        stage.orders.send(part).await?;
    }
    let stored = broker.stored(&stage.orders.topic, QUEUES)?;
    let ids = ids(&stage.orders, stored).await?;
    let different: HashSet<&String> = ids.iter().collect();
    ensure!(
        stored >= 2 * orders && different.len() == stored,
        "the broker was to have two messages of each order: {stored} with {} ids",
        different.len()
    );

    let host = stage.start(None)?;
    stage.finish().await?;
    let (summary, _) = end(host)?;
    let counts = ["received", "applied", "duplicates"].map(|name| summary.count(name));
    ensure!(counts == [stored, orders, stored - orders], "{}", summary.0);
    stage.verdict(&summary)?;
    stage.orders.close().await;
    Ok(())
}

/// A host dies after a commit, before the acknowledgement leaves it (`acknowledge.before`) or
/// as it leaves (`acknowledge.after`): the next one is given the same messages.
#[tokio::test]
async fn delivery_retried_after_a_lost_acknowledgement() -> Result<()> {
    for point in [CrashPoint::AcknowledgeBefore, CrashPoint::AcknowledgeAfter] {
        let workload = WorkloadConfig {
            messages: 3_000,
            duplicates_percent: 0,
            users: 100,
            ..WorkloadConfig::default()
        };
        let stage = Stage::on(RocketMq::shared().await?, QUEUES, workload).await?;
        stage.orders.send(&stage.bodies).await?;
        let mut host = stage.start(Some((CRASH_AT, Passage { point, hit: 2 })))?;
        let status = host.process.wait(LIMIT).with_context(|| host.stderr())?;
        ensure!(
            is_sigkill(status),
            "it ended with {status}:\n{}",
            host.stderr()
        );

        let host = stage.start(None)?;
        stage.finish().await?;
        let (summary, _) = end(host)?;
        let (applied, duplicates) = (summary.count("applied"), summary.count("duplicates"));
        println!("{point:?}: {applied} applied after it, {duplicates} delivered again");
        // The second acknowledgement is for some of them; the first may have gone as well.
        ensure!(
            point == CrashPoint::AcknowledgeAfter || duplicates > 0,
            "nothing was delivered again: {}",
            summary.0
        );
        stage.verdict(&summary)?;
        stage.orders.close().await;
    }
    Ok(())
}

/// A host stands still after a commit, before its acknowledgement, until the broker takes it
/// for dead and gives its queues to another one. Then it goes on.
#[tokio::test]
async fn delivery_retried_by_another_host_while_the_first_stands_still() -> Result<()> {
    let broker = RocketMq::start_with(&["serverChannelMaxIdleTimeSeconds=8"]).await?;
    let workload = WorkloadConfig {
        messages: 3_000,
        duplicates_percent: 0,
        users: 100,
        ..WorkloadConfig::default()
    };
    let stage = Stage::on(&broker, QUEUES, workload).await?;
    stage.orders.send(&stage.bodies).await?;
    let at = Passage {
        point: CrashPoint::AcknowledgeBefore,
        hit: 2,
    };
    let first = stage.start(Some((PAUSE_AT, at)))?;
    let deadline = Instant::now() + LIMIT;
    while !first.process.is_stopped() {
        ensure!(Instant::now() < deadline, "it goes on:\n{}", first.stderr());
        tokio::time::sleep(POLL).await;
    }
    let second = stage.start(None)?;
    // All of them: it has the first one's queues, too.
    stage.finish().await?;
    first.process.resume()?;
    tokio::time::sleep(IDLE).await;
    let (second, _) = end(second)?;
    ensure!(second.count("duplicates") > 0, "{}", second.0);
    let (first, _) = end(first)?;
    stage.verdict(&first)?;
    stage.orders.close().await;
    Ok(())
}

/// Hosts of one group come and go under load, so that queues move while their messages are
/// being handled: by SIGTERM, after which a host finishes and acknowledges what it has, and by
/// SIGKILL.
#[tokio::test]
async fn rebalance() -> Result<()> {
    const WIDE: u32 = 8;
    const CHUNK: usize = 200;
    const PAUSE: Duration = Duration::from_millis(250);
    const STEP: Duration = Duration::from_secs(6);

    let workload = WorkloadConfig {
        messages: 24_000,
        duplicates_percent: 30,
        users: 300,
        seed: rand::random(),
    };
    println!("the workload's seed is {}", workload.seed);
    let stage = Stage::on(RocketMq::shared().await?, WIDE, workload).await?;
    let sending = async {
        for chunk in stage.bodies.chunks(CHUNK) {
            stage.orders.send(chunk).await?;
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    let hosting = async {
        let (first, mut second) = (stage.start(None)?, stage.start(None)?);
        tokio::time::sleep(2 * STEP).await;
        let third = stage.start(None)?;
        tokio::time::sleep(STEP).await;
        // The sending goes on meanwhile.
        let (first, gaps) = spawn_blocking(|| end(first)).await??;
        tokio::time::sleep(STEP).await;
        let fourth = stage.start(None)?;
        tokio::time::sleep(STEP).await;
        ensure!(second.process.kill()?, "it had ended:\n{}", second.stderr());
        anyhow::Ok((first, gaps, third, fourth))
    };
    let (sent, hosted) = tokio::join!(sending, hosting);
    sent?;
    let (first, gaps, third, fourth) = hosted?;
    stage.finish().await?;
    let ((third, more), (fourth, yet_more)) = (end(third)?, end(fourth)?);
    let gaps = gaps + more + yet_more;
    let applied = [&first, &third, &fourth].map(|host| host.count("applied"));
    println!("applied by the hosts that ended: {applied:?}; gaps that were read again: {gaps}");
    ensure!(
        applied.iter().all(|applied| *applied > 0),
        "no queue moved: {applied:?}"
    );
    stage.verdict(&fourth)?;
    stage.orders.close().await;
    Ok(())
}
