//! Measures a store: `cargo run --release -p semel-stores --example throughput -- URL [RUNS
//! [BATCH [AHEAD]]]`.
//!
//! Each run is checked, puts one of 1,000 state values and publishes one message, which is
//! confirmed afterwards. AHEAD batches are under way at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use semel_core::{
    Admin, BusinessKey, CheckQuery, Effects, Expected, Fingerprint, Outcome, Outgoing, Partition,
    PluginName, Position, RecordId, RecordState, RowId, Run, RunId, StateKey, StateOp, Verdict,
    Write,
};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "memory:".to_owned());
    let mut number = |default: u64| match arguments.next() {
        Some(text) => text.parse(),
        None => Ok(default),
    };
    let (runs, batch, ahead) = (number(200_000)?, number(256)?, number(2)?);
    let store = semel_stores::open(&url).await?;
    let plugin = PluginName::new("throughput");
    let week = Duration::from_secs(7 * 24 * 3_600);
    store.expire(&plugin, week, now_ms()).await?;
    let instance = now_ms();
    println!("{url}: {runs} runs in batches of {batch}, {ahead} at a time");

    let (from, cpu) = (Instant::now(), cpu_time());
    let applied: u64 = stream::iter(0..runs / batch)
        .map(|number| one_batch(Arc::clone(&store), plugin.clone(), instance, number, batch))
        .buffer_unordered(usize::try_from(ahead)?)
        .fold(0, |sum, applied| async move { sum + applied })
        .await;
    report("applied", applied, from.elapsed(), cpu_time() - cpu);

    let queries: Vec<_> = (0..runs / batch)
        .map(|number| {
            query(
                &plugin,
                instance,
                number.wrapping_mul(7_919) % (runs / batch) * batch,
            )
        })
        .collect();
    for (what, queries) in [
        ("found", queries.clone()),
        (
            "not found",
            queries.iter().map(|q| missing(q.clone())).collect(),
        ),
    ] {
        let (from, cpu) = (Instant::now(), cpu_time());
        let mut found = 0;
        for _ in 0..64 {
            for queries in queries.chunks(256) {
                found += store.check(queries).await?.len() as u64;
            }
        }
        report(what, found, from.elapsed(), cpu_time() - cpu);
    }
    let (from, cpu) = (Instant::now(), cpu_time());
    for number in 0..10_000u64 {
        store.read(&[user(&plugin, number)]).await?;
    }
    report("single reads", 10_000, from.elapsed(), cpu_time() - cpu);
    Ok(())
}

async fn one_batch(
    store: Arc<dyn Admin>,
    plugin: PluginName,
    instance: u64,
    number: u64,
    batch: u64,
) -> u64 {
    let queries: Vec<_> = (0..batch)
        .map(|i| query(&plugin, instance, number * batch + i))
        .collect();
    let checked = store.check(&queries).await.expect("the check is answered");
    let runs: Vec<_> = (0..batch)
        .zip(queries.iter().zip(checked))
        .map(|(i, (query, checked))| {
            assert_eq!(checked.state, RecordState::Absent);
            run(
                &plugin,
                query.record.clone(),
                checked.bucket,
                instance,
                number * batch + i,
            )
        })
        .collect();
    let outcomes = store.commit(&runs).await.expect("the commit is answered");
    let rows: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Applied { version, .. } => Some(RowId {
                version: *version,
                ordinal: 0,
            }),
            _ => None,
        })
        .collect();
    store
        .confirm(&rows)
        .await
        .expect("the confirmation is answered");
    rows.len() as u64
}

fn query(plugin: &PluginName, instance: u64, number: u64) -> CheckQuery {
    // Keys come in no order, as order numbers of many producers do.
    let mixed = (instance << 32)
        .wrapping_add(number)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let record = RecordId {
        plugin: plugin.clone(),
        key: BusinessKey::new(format!("{mixed:016x}")),
    };
    CheckQuery { record, lane: None }
}

fn missing(mut query: CheckQuery) -> CheckQuery {
    let mut key = query.record.key.as_bytes().to_vec();
    key.push(b'x');
    query.record.key = BusinessKey::new(key);
    query
}

fn user(plugin: &PluginName, number: u64) -> StateKey {
    StateKey {
        namespace: plugin.as_str().into(),
        name: format!("balance:u{:03}", number % 1_000).into(),
    }
}

fn run(plugin: &PluginName, record: RecordId, bucket: u64, instance: u64, number: u64) -> Run {
    let value = Bytes::from(number.to_string());
    Run {
        id: RunId::new(instance, number),
        record,
        fingerprint: Fingerprint::of(&number.to_be_bytes()),
        position: Position {
            partition: Partition::new("throughput"),
            offset: number,
        },
        lane: None,
        expected: Expected::Absent,
        bucket,
        reads: Vec::new(),
        ended_ms: 0,
        verdict: Verdict::Done(Effects {
            writes: vec![Write {
                key: user(plugin, number),
                op: StateOp::Put(value),
            }],
            outgoing: vec![Outgoing {
                destination: "points-granted".into(),
                key: None,
                headers: Vec::new(),
                body: Bytes::from(format!(
                    "{{\"user\":\"u{:03}\",\"points\":{number}}}",
                    number % 1_000
                )),
                delay_ms: None,
            }],
            reply: None,
        }),
    }
}

fn report(what: &str, count: u64, took: Duration, cpu: Duration) {
    println!(
        "{what:>12}: {count} in {took:.2?}, {:.0}/s, {:.2} µs of CPU each",
        count as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / count as f64
    );
}

/// What this process used so far, in user and kernel mode (Linux, 100 ticks a second).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn now_ms() -> u64 {
    use semel_core::Clock;
    semel_core::SystemClock.now_ms()
}
