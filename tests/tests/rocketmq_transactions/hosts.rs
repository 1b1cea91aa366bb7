//! Hosts die or stand still at every step between the half message and the end of its
//! transaction, and consumers see each message of a committed run, once, and no other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use semel_core::crash::CrashPoint;
use semel_tests::child::is_sigkill;
use semel_tests::installation;
use semel_tests::orders::Orders;
use semel_tests::passage::{CRASH_AT, PAUSE_AT, Passage, RECORD};
use semel_tests::servers::redis::RedisServer;
use semel_tests::site::{Running, Site};
use serde::Deserialize;
use serde_json::{Value, json};

const QUEUES: u32 = 4;
const ORDERS: usize = 120;
const USERS: usize = 7;

/// How long a host may take to get somewhere.
const LIMIT: Duration = Duration::from_secs(90);

/// How long a host may take to finish what is in flight.
const DRAIN: Duration = Duration::from_secs(40);

/// A half message whose end was not heard of is asked for within this time.
const CHECK_BACK: Duration = Duration::from_secs(8);

/// How often something is looked at that is to change.
const POLL: Duration = Duration::from_millis(100);

/// Orders, the store that hosts share, and the directory where they run.
struct Stage {
    orders: Orders,
    redis: RedisServer,
    site: Site,
}

/// What `tally` publishes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Tallied {
    /// Which host ran the handler.
    plugin: String,
    id: String,
    user: String,
    ordinal: usize,
    place: usize,
}

/// What a host does on the way.
enum Plan {
    Serve,
    Crash(Passage),
    Pause(Passage),
}

impl Stage {
    /// With all orders sent. Each publishes two messages at once, and some a third one later.
    async fn new() -> Result<Self> {
        let site = Site::new()?;
        site.install(&installation::test_plugin("tally")?)?;
        let stage = Self {
            orders: Orders::new(QUEUES).await?,
            redis: RedisServer::start_synced().await?,
            site,
        };
        let order = |number: usize| {
            let publish = match number % 10 {
                0 => json!(["now", "now", { "later": 300 }]),
                _ => json!(["now", "now"]),
            };
            let user = format!("user-{}", number % USERS);
            json!({ "id": id(number), "user": user, "publish": publish }).to_string()
        };
        let orders: Vec<String> = (0..ORDERS).map(order).collect();
        stage.orders.send(&orders).await?;
        Ok(stage)
    }

    /// Starts a host whose handlers tell its name.
    fn start(&self, name: &str, plan: &Plan) -> Result<Running> {
        let config = format!(
            "{}delivery = \"transactional\"\n\n\
             [plugins.tally.config]\nname = \"{name}\"\n\n\
             [engine]\nbatch = 8\n",
            self.orders.configuration("tally", "tallied")
        );
        self.site.write(&format!("{name}.toml"), config)?;
        let store = self.redis.url();
        let config = format!("{name}.toml");
        let run = [
            "run",
            "--config",
            &config,
            "--store",
            &store,
            "--summary",
            "json",
        ];
        let record = self.site.path(&format!("{name}.record"));
        let armed = |command: &mut Command| {
            command.env(RECORD, record);
            match plan {
                Plan::Serve => {}
                Plan::Crash(at) => {
                    command.env(CRASH_AT, at.to_string());
                }
                Plan::Pause(at) => {
                    command.env(PAUSE_AT, at.to_string());
                }
            }
        };
        let program = installation::semel_under_test()?;
        self.site.start_program(&program, &run, armed)
    }

    /// How often a host has passed a crash point.
    fn passed(&self, host: &str, point: CrashPoint) -> usize {
        let record = fs::read_to_string(self.site.path(&format!("{host}.record")));
        let record = record.unwrap_or_default();
        record.lines().filter(|name| *name == point.name()).count()
    }

    /// Waits until a host passes a crash point.
    async fn wait_for(&self, host: &str, point: CrashPoint) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.passed(host, point) == 0 {
            let name = point.name();
            ensure!(Instant::now() < deadline, "{host} did not pass {name}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until all messages are seen, and for what may come in vain after.
    async fn all_seen(&self) -> Result<()> {
        let messages = 2 * ORDERS + ORDERS.div_ceil(10);
        self.orders.reach(messages, LIMIT).await?;
        tokio::time::sleep(CHECK_BACK).await;
        Ok(())
    }

    /// The orders of each user in the sequence in which they took effect.
    fn histories(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let store = self.redis.url();
        let list = ["state", "list", "tally", "--store", &store, "--json"];
        let history = |row: &Value| {
            let user = row["key"].as_str()?.strip_prefix("history/")?;
            let orders = row["value"].as_array()?.iter();
            let orders = orders.filter_map(|order| order.as_str().map(str::to_owned));
            Some((user.to_owned(), orders.collect()))
        };
        Ok(self
            .site
            .ask_json(&list)?
            .iter()
            .filter_map(history)
            .collect())
    }

    /// Demands that each order took effect once, and that consumers saw what it published:
    /// each message once, as the run that was committed published it. Gives the hosts whose
    /// runs that were, by order.
    fn verdict(&self) -> Result<HashMap<String, String>> {
        let histories = self.histories()?;
        let mut effects: Vec<&String> = histories.values().flatten().collect();
        effects.sort();
        let expected: Vec<String> = (0..ORDERS).map(id).collect();
        ensure!(
            effects.iter().copied().eq(&expected),
            "effects of {} orders instead of {ORDERS}: {effects:?}",
            effects.len()
        );
        let mut messages: HashMap<String, Tallied> = HashMap::new();
        for seen in self.orders.seen() {
            let body: Tallied = serde_json::from_slice(&seen.body)?;
            ensure!(seen.headers.is_empty(), "consumers see {:?}", seen.headers);
            let first = messages
                .entry(seen.id.clone())
                .or_insert_with(|| body.clone());
            ensure!(*first == body, "{}: {first:?} and {body:?}", seen.id);
        }
        let mut published = BTreeSet::new();
        let mut hosts = HashMap::new();
        for message in messages.into_values() {
            let committed = &histories[&message.user];
            ensure!(
                committed.get(message.place - 1) == Some(&message.id),
                "not of a committed run: {message:?}, where {} has {committed:?}",
                message.user
            );
            let host = hosts.entry(message.id.clone());
            let host = host.or_insert_with(|| message.plugin.clone());
            ensure!(
                *host == message.plugin,
                "of two runs: {message:?} and {host}"
            );
            let new = published.insert((message.id.clone(), message.ordinal));
            ensure!(new, "under two ids: {message:?}");
        }
        let expected = 2 * ORDERS + ORDERS.div_ceil(10);
        ensure!(published.len() == expected, "{} messages", published.len());
        Ok(hosts)
    }

    /// Ends a host with SIGTERM. Gives its summary.
    fn end(host: Running) -> Result<Value> {
        host.process.terminate()?;
        let summary = host.wait(DRAIN)?.succeeded("run")?.summary()?;
        ensure!(
            summary["unpublished"] == 0 && summary["dead"] == 0,
            "a host left behind: {summary}"
        );
        Ok(summary)
    }
}

fn id(number: usize) -> String {
    format!("o-{number:03}")
}

fn crash(point: CrashPoint) -> Plan {
    // The third batch: some orders were committed before.
    Plan::Crash(Passage { point, hit: 3 })
}

/// Waits until a host has stopped itself.
async fn stands_still(host: &Running) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !host.process.is_stopped() {
        ensure!(Instant::now() < deadline, "it goes on:\n{}", host.stderr());
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// The first host dies at a crash point; what it had not committed, the second one does.
/// Whether the second one has to answer for half messages of the first is up to the point.
async fn killed(point: CrashPoint, leaves_half_messages: bool) -> Result<()> {
    let stage = Stage::new().await?;
    let mut first = stage.start("first", &crash(point))?;
    let status = first.process.wait(LIMIT).with_context(|| first.stderr())?;
    ensure!(
        is_sigkill(status),
        "it ended with {status}:\n{}",
        first.stderr()
    );
    let committed: BTreeSet<String> = stage.histories()?.into_values().flatten().collect();
    ensure!(
        (1..ORDERS).contains(&committed.len()),
        "{} orders were committed before the crash",
        committed.len()
    );

    let second = stage.start("second", &Plan::Serve)?;
    if leaves_half_messages {
        stage.wait_for("second", CrashPoint::FenceAfter).await?;
    }
    stage.all_seen().await?;
    Stage::end(second)?;
    for (order, host) in stage.verdict()? {
        let expected = match committed.contains(&order) {
            true => "first",
            false => "second",
        };
        ensure!(
            host == expected,
            "{order} was committed by {expected}, and {host} is seen"
        );
    }
    stage.orders.close().await;
    Ok(())
}

#[tokio::test]
async fn killed_before_the_half_message() -> Result<()> {
    killed(CrashPoint::PrepareBefore, false).await
}

#[tokio::test]
async fn killed_after_the_half_message() -> Result<()> {
    killed(CrashPoint::PrepareAfter, true).await
}

#[tokio::test]
async fn killed_after_the_commit() -> Result<()> {
    killed(CrashPoint::CommitAfter, true).await
}

#[tokio::test]
async fn killed_after_the_end_of_the_transaction() -> Result<()> {
    killed(CrashPoint::EndAfter, false).await
}

/// The second host dies while it answers for the first, before or after the fence. The third
/// one answers for both.
async fn killed_while_answering(point: CrashPoint) -> Result<()> {
    let stage = Stage::new().await?;
    let mut first = stage.start("first", &crash(CrashPoint::PrepareAfter))?;
    first.process.wait(LIMIT).with_context(|| first.stderr())?;
    let at = Passage { point, hit: 1 };
    let mut second = stage.start("second", &Plan::Crash(at))?;
    let status = second
        .process
        .wait(LIMIT)
        .with_context(|| second.stderr())?;
    ensure!(
        is_sigkill(status),
        "it ended with {status}:\n{}",
        second.stderr()
    );
    let third = stage.start("third", &Plan::Serve)?;
    stage.wait_for("third", CrashPoint::FenceAfter).await?;
    stage.all_seen().await?;
    Stage::end(third)?;
    stage.verdict()?;
    stage.orders.close().await;
    Ok(())
}

#[tokio::test]
async fn killed_before_the_fence() -> Result<()> {
    killed_while_answering(CrashPoint::FenceBefore).await
}

#[tokio::test]
async fn killed_after_the_fence() -> Result<()> {
    killed_while_answering(CrashPoint::FenceAfter).await
}

/// A host stands still between its half messages and their commit, until another one has
/// answered for it. When it goes on its commit is refused, and the messages run again.
#[tokio::test]
async fn a_host_that_stood_still_is_fenced() -> Result<()> {
    let stage = Stage::new().await?;
    let at = Passage {
        point: CrashPoint::PrepareAfter,
        hit: 3,
    };
    let first = stage.start("first", &Plan::Pause(at))?;
    stands_still(&first).await?;
    let second = stage.start("second", &Plan::Serve)?;
    stage.wait_for("second", CrashPoint::FenceAfter).await?;
    // The broker may ask the one that stands still first, and the other one later.
    let mut fences = 0;
    while fences < stage.passed("second", CrashPoint::FenceAfter) {
        fences = stage.passed("second", CrashPoint::FenceAfter);
        tokio::time::sleep(CHECK_BACK).await;
    }
    first.process.resume()?;
    stage.all_seen().await?;
    let summary = Stage::end(first)?;
    ensure!(
        summary["conflicts"].as_u64() > Some(0),
        "nothing was refused: {summary}"
    );
    Stage::end(second)?;
    stage.verdict()?;
    stage.orders.close().await;
    Ok(())
}

/// While the store is down, a check-back gets no answer; once it is back, the right one.
#[tokio::test]
async fn a_check_back_waits_for_the_store() -> Result<()> {
    let mut stage = Stage::new().await?;
    let mut first = stage.start("first", &crash(CrashPoint::PrepareAfter))?;
    first.process.wait(LIMIT).with_context(|| first.stderr())?;
    let asked = Passage {
        point: CrashPoint::FenceBefore,
        hit: 1,
    };
    let mut second = stage.start("second", &Plan::Pause(asked))?;
    stands_still(&second).await?;
    stage.redis.kill();
    // Others may have asked the store just before, and find its answer when they go on.
    let others = stage.passed("second", CrashPoint::FenceBefore) - 1;
    second.process.resume()?;
    tokio::time::sleep(CHECK_BACK).await;
    let answered = stage.passed("second", CrashPoint::FenceAfter);
    ensure!(
        answered <= others,
        "{answered} answers, where the store can have given {others}"
    );
    ensure!(second.process.ended()?.is_none(), "{}", second.stderr());
    stage.redis.restart().await?;
    stage.all_seen().await?;
    let later = stage.passed("second", CrashPoint::FenceAfter);
    ensure!(later > others, "the one that stood still was not answered");
    Stage::end(second)?;
    stage.verdict()?;
    stage.orders.close().await;
    Ok(())
}
