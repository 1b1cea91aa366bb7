//! The promise under random duplicates, reordering, faults, crashes and rival hosts.
//!
//! The oracle is one-at-a-time execution: every order writes a common log, so the log is the
//! serial order that the engine claims, and running the orders in that order must give the
//! same state and the same outgoing messages.

mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use semel_core::memory::MemorySource;
use semel_core::{Admin, Cause, RecordState};
use world::chaos::{Chaos, cases, chaos};
use world::{Order, World, message, record};

/// A message as the script sends it: several may share a key.
#[derive(Clone, Debug)]
struct Sent {
    partition: u8,
    order: Order,
}

#[derive(Clone, Debug)]
struct Script {
    sent: Vec<Sent>,
    lanes: bool,
    batch: usize,
    chaos: Chaos,
}

fn orders() -> impl Strategy<Value = Sent> {
    let account = prop::sample::select(vec!["a", "b", "c"]);
    let failures = prop_oneof![6 => Just(0u32), 1 => 1u32..3, 1 => Just(9u32)];
    (
        0u8..12,
        0u8..2,
        account.clone(),
        account,
        0u8..3,
        failures,
        0u8..20,
    )
        .prop_map(|(key, partition, from, to, lane, failures, oddity)| Sent {
            // Equal keys are equal orders, but for a few that differ in payload.
            partition,
            order: Order {
                key: format!("k{key}"),
                from: from.into(),
                to: to.into(),
                amount: i64::from(key) + 1,
                lane: format!("l{lane}"),
                failures,
                reject: oddity == 0,
            },
        })
}

fn scripts() -> impl Strategy<Value = Script> {
    (
        prop::collection::vec(orders(), 1..40),
        any::<bool>(),
        1usize..12,
        chaos(),
    )
        .prop_map(|(mut sent, lanes, batch, chaos)| {
            // A key's first order gives the shape of all its duplicates, save some mismatches;
            // with lanes, equal keys are in one lane and partition.
            let mut first: HashMap<String, Sent> = HashMap::new();
            for (index, sent) in sent.iter_mut().enumerate() {
                let model = first
                    .entry(sent.order.key.clone())
                    .or_insert_with(|| sent.clone());
                let amount = if index % 9 == 8 {
                    100 + index as i64
                } else {
                    model.order.amount
                };
                let partition = if lanes {
                    model.partition
                } else {
                    sent.partition
                };
                *sent = Sent {
                    partition,
                    order: Order {
                        amount,
                        ..model.order.clone()
                    },
                };
            }
            Script {
                sent,
                lanes,
                batch,
                chaos,
            }
        })
}

fn sources(script: &Script) -> Vec<Arc<MemorySource>> {
    let source = |_| {
        let source = Arc::new(MemorySource::new());
        for sent in &script.sent {
            source.push(&sent.partition.to_string(), message(&sent.order));
        }
        source
    };
    (0..script.chaos.hosts).map(source).collect()
}

#[derive(Default)]
struct Records {
    done: BTreeSet<String>,
    dead: BTreeSet<String>,
}

async fn check(world: &World, script: &Script, sources: &[Arc<MemorySource>]) {
    let mut records = Records::default();
    let letters = world.store.list_dead(None, None, 10_000).await.unwrap();
    let keys: BTreeSet<_> = script
        .sent
        .iter()
        .map(|sent| sent.order.key.clone())
        .collect();
    for key in &keys {
        match world.store.record(&record(key)).await.unwrap().0 {
            RecordState::Done { .. } => records.done.insert(key.clone()),
            RecordState::Dead { .. } => records.dead.insert(key.clone()),
            state => panic!("{key} ended as {state:?}"),
        };
    }
    for source in sources {
        assert!(
            source.all_acknowledged(),
            "everything is acknowledged in the end"
        );
    }

    let log = world.log().await;
    let logged: BTreeSet<_> = log.iter().cloned().collect();
    assert_eq!(log.len(), logged.len(), "no effect twice: {log:?}");
    assert_eq!(logged, records.done, "effects and done records go together");
    for letter in &letters {
        assert_ne!(
            letter.reason,
            world::TORN,
            "{:?} saw torn state",
            letter.record
        );
    }
    for key in &records.dead {
        let own = letters
            .iter()
            .filter(|letter| letter.record == Some(record(key)));
        assert_eq!(own.count(), 1, "one letter for the dead {key}");
    }

    // The payload of each key that took effect is one that was sent under it.
    let mut accounts: BTreeMap<String, i64> = BTreeMap::new();
    let mut bodies = Vec::new();
    let published = world.sink.published();
    let mut messages: BTreeMap<String, String> = BTreeMap::new();
    for row in &published {
        let body = String::from_utf8(row.outgoing.body.to_vec()).unwrap();
        let same = messages
            .entry(row.message_id.to_string())
            .or_insert_with(|| body.clone());
        assert_eq!(*same, body, "one id, one content");
    }
    for key in &log {
        let done = match world.store.record(&record(key)).await.unwrap().0 {
            RecordState::Done { fingerprint, .. } => fingerprint,
            state => panic!("{key}: {state:?}"),
        };
        let order = script.sent.iter().map(|sent| &sent.order).find(|order| {
            order.key == *key && semel_core::Fingerprint::of(&message(order).body) == done
        });
        let order = order.expect("what was done was sent");
        let from = accounts.get(&order.from).copied().unwrap_or(0);
        *accounts.entry(order.from.clone()).or_default() -= order.amount;
        let to = accounts.get(&order.to).copied().unwrap_or(0);
        *accounts.entry(order.to.clone()).or_default() += order.amount;
        bodies.push(format!("{{\"key\":\"{key}\",\"from\":{from},\"to\":{to}}}"));
    }
    for (account, balance) in &accounts {
        assert_eq!(
            world.state(account).await,
            Some(balance.to_string()),
            "account {account}"
        );
    }
    let count = (!log.is_empty()).then(|| log.len().to_string());
    assert_eq!(world.state("count").await, count);
    bodies.sort();
    let mut sent: Vec<_> = messages.into_values().collect();
    sent.sort();
    assert_eq!(
        sent, bodies,
        "each outgoing message once, as one-at-a-time execution has it"
    );

    // Every delivery is accounted for: by its key's record, or by a letter of its own.
    for sent in &script.sent {
        let print = semel_core::Fingerprint::of(&message(&sent.order).body);
        let state = world
            .store
            .record(&record(&sent.order.key))
            .await
            .unwrap()
            .0;
        if state.fingerprint() != Some(print) {
            let found = letters.iter().any(|letter| {
                letter.cause == Cause::Mismatch
                    && semel_core::Fingerprint::of(&letter.message.body) == print
            });
            assert!(found, "a mismatch of {} is a dead letter", sent.order.key);
        }
    }

    if script.lanes {
        let mut last: HashMap<(u8, &str), usize> = HashMap::new();
        for key in &log {
            let (offset, sent) = script
                .sent
                .iter()
                .enumerate()
                .find(|(_, sent)| sent.order.key == *key)
                .expect("what was done was sent");
            let place = (sent.partition, sent.order.lane.as_str());
            let before = last.insert(place, offset);
            assert!(before < Some(offset), "lane {place:?}: {log:?}");
        }
    }
}

fn run(script: &Script) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        world.order_by = script.lanes;
        world.flow.batch = script.batch;
        let sources = sources(script);
        let played = script.chaos.play(&world, &sources);
        let hour = Duration::from_secs(3_600);
        tokio::time::timeout(hour, played)
            .await
            .expect("it comes to an end");
        check(&world, script, &sources).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::with_cases(cases(2_000)) })]

    #[test]
    fn effects_happen_exactly_once_whatever_happens(script in scripts()) {
        run(&script);
    }
}
