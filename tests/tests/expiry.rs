//! What it costs to forget a million messages. It takes minutes, so it is run by hand:
//!
//! ```sh
//! cargo test --release --workspace --test expiry -- --ignored --nocapture --test-threads 1
//! ```
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use semel_core::{Admin, RecordState};
use semel_tests::conformance::store::build::*;
use semel_tests::installation::build_dir;
use semel_tests::servers::redis::RedisServer;

const RECORDS: usize = 1_000_000;
const BATCH: usize = 2_048;
const DAY: Duration = Duration::from_secs(86_400);

/// How long a record lives in Redis, apart from the store's own margin of a minute.
const RETENTION: Duration = Duration::from_secs(90);

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

/// Writes the records. Gives how long that took.
async fn fill(store: &Arc<dyn Admin>) -> Result<Duration> {
    let started = Instant::now();
    for first in (0..RECORDS).step_by(BATCH) {
        let last = RECORDS.min(first + BATCH);
        let mut runs: Vec<_> = (first..last).map(|n| done(format!("order-{n}"))).collect();
        let bucket = check(store, &runs[0].record).await.bucket;
        runs.iter_mut().for_each(|run| run.bucket = bucket);
        ensure!(commit(store, &runs).await.iter().all(applied));
    }
    Ok(started.elapsed())
}

/// Commits one run after another for a while: the median and the longest.
async fn commits(store: &Arc<dyn Admin>, time: Duration) -> (Duration, Duration) {
    let started = Instant::now();
    let mut took = Vec::new();
    while started.elapsed() < time {
        let run = done(format!("meanwhile-{:?}", run_id()));
        let begun = Instant::now();
        apply(store, &run).await;
        took.push(begun.elapsed());
    }
    took.sort();
    (took[took.len() / 2], took[took.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes a minute"]
async fn redb_drops_a_million_records_at_once() -> Result<()> {
    let dir = tempfile::tempdir_in(build_dir()?)?;
    let store = semel_stores::open(&format!("redb:{}", dir.path().display())).await?;
    let filled = fill(&store).await?;
    let before = commits(&store, Duration::from_secs(5)).await;
    let other = Arc::clone(&store);
    let expiring = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let started = Instant::now();
        // By then the one bucket is closed, and all that is in it too old.
        let later = now_ms() + 100 * DAY.as_millis() as u64;
        let buckets = other.expire(&plugin(), 7 * DAY, later).await;
        (buckets, started.elapsed())
    });
    let meanwhile = commits(&store, Duration::from_secs(5)).await;
    let (buckets, took) = expiring.await?;
    ensure!(buckets? == 1);
    let state = check(&store, &record("order-7")).await.state;
    ensure!(state == RecordState::Absent, "{state:?}");
    println!("redb: {RECORDS} records written in {filled:?}, expired in {took:?}");
    println!("  commits of one, median and longest: {before:?} before, {meanwhile:?} meanwhile");
    ensure!(took < Duration::from_secs(1), "it is no drop: {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes four minutes"]
async fn redis_forgets_a_million_records_by_itself() -> Result<()> {
    let server = RedisServer::start().await?;
    let store = semel_stores::open(&server.url()).await?;
    let started = Instant::now();
    store.expire(&plugin(), RETENTION, now_ms()).await?;
    let told = started.elapsed();
    let filled = fill(&store).await?;
    ensure!(filled < RETENTION, "too slow to tell: {filled:?}");
    let idle = cpu(&server)?;
    let before = commits(&store, Duration::from_secs(10)).await;
    let used_before = cpu(&server)? - idle;
    // The server's own time for the first record has come when this is over.
    tokio::time::sleep((RETENTION + Duration::from_secs(60)).saturating_sub(started.elapsed()))
        .await;
    let idle = cpu(&server)?;
    let begun = Instant::now();
    let meanwhile = commits(&store, filled + Duration::from_secs(10)).await;
    let (used, time) = (cpu(&server)? - idle, begun.elapsed());
    let state = check(&store, &record("order-7")).await.state;
    ensure!(state == RecordState::Absent, "{state:?}");
    println!("Redis: {RECORDS} records written in {filled:?}; Store::expire took {told:?}");
    println!("  commits of one, median and longest: {before:?} before, {meanwhile:?} meanwhile");
    println!(
        "  the server's CPU time: {used_before:?} in 10 s before, {used:?} in {time:?} meanwhile"
    );
    Ok(())
}

/// CPU time that the server has used.
fn cpu(server: &RedisServer) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid().unwrap_or_default()))?;
    let fields: Vec<&str> = stat.split_whitespace().collect();
    let ticks: u32 = fields[13].parse::<u32>()? + fields[14].parse::<u32>()?;
    Ok(Duration::from_millis(10) * ticks)
}
