//! What the engine does with each kind of message, one case at a time.

mod world;

use std::sync::Arc;
use std::time::Duration;

use semel_core::memory::{Fate, MemorySource, NativeRunner, StoreCall, StoreFault};
use semel_core::{
    Admin, BusinessKey, Cause, Failure, RecordState, SinkError, SourceError, Store, StoreError,
};
use tokio_util::sync::CancellationToken;
use world::{Order, World, message, order, record};

fn source(orders: &[Order]) -> Arc<MemorySource> {
    let source = Arc::new(MemorySource::new());
    orders
        .iter()
        .for_each(|order| drop(source.push("p", message(order))));
    source
}

#[tokio::test(start_paused = true)]
async fn effects_happen_once_for_each_key() {
    let world = World::new();
    let orders = [
        order("1"),
        order("2"),
        order("1"),
        order("1"),
        order("3"),
        order("2"),
    ];
    let source = source(&orders);
    world.finish(&source).await;
    let mut log = world.log().await;
    log.sort();
    assert_eq!(log, ["1", "2", "3"]);
    assert_eq!(world.state("a").await.unwrap(), "-3");
    assert_eq!(world.state("b").await.unwrap(), "3");
    assert_eq!(world.state("count").await.unwrap(), "3");
    assert_eq!(world.sink.published().len(), 3);
    assert!(source.all_acknowledged());
    let stats = world.stats.snapshot();
    assert_eq!((stats.received, stats.applied, stats.duplicates), (6, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn duplicates_run_no_handler() {
    let world = World::new();
    world.finish(&source(&[order("1"), order("2")])).await;
    let runs = world.stats.runs.get();
    world
        .finish(&source(&[order("2"), order("1"), order("2")]))
        .await;
    assert_eq!(world.stats.runs.get(), runs);
    assert_eq!(world.stats.duplicates.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_reply_is_kept_with_the_record() {
    let world = World::new();
    world.finish(&source(&[order("1")])).await;
    let (state, _) = world.store.record(&record("1")).await.unwrap();
    assert!(matches!(state, RecordState::Done { reply: Some(reply), .. } if reply == "1"));
}

#[tokio::test(start_paused = true)]
async fn same_key_and_other_payload_is_a_dead_letter() {
    let world = World::new();
    let other = Order {
        amount: 5,
        ..order("1")
    };
    let source = source(&[order("1"), other.clone(), order("1"), other]);
    world.finish(&source).await;
    assert_eq!(world.state("b").await.unwrap(), "1");
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert!(
        dead.iter()
            .all(|letter| letter.cause == Cause::Mismatch && letter.record.is_none())
    );
    assert!(source.all_acknowledged());
    let stats = world.stats.snapshot();
    assert_eq!(
        (
            stats.applied,
            stats.duplicates,
            stats.dead,
            stats.mismatches
        ),
        (1, 1, 2, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn no_key_and_malformed_are_dead_letters_and_the_rest_goes_on() {
    let world = World::new();
    let source = source(&[order("1")]);
    let mut keyless = message(&order("2"));
    keyless.body = "{\"no\":\"key\"}".into();
    source.push("p", keyless);
    source.push_malformed("p", "line 3: not JSON", "oops");
    source.push("p", message(&order("4")));
    let long = order(&"x".repeat(semel_core::MAX_KEY_BYTES + 1));
    source.push("p", message(&long));
    world.finish(&source).await;
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    let causes: Vec<_> = dead.iter().map(|letter| letter.cause).collect();
    assert_eq!(
        causes
            .iter()
            .filter(|cause| **cause == Cause::NoKey)
            .count(),
        2
    );
    assert_eq!(
        causes
            .iter()
            .filter(|cause| **cause == Cause::Malformed)
            .count(),
        1
    );
    assert_eq!(world.log().await.len(), 2);
    assert!(source.all_acknowledged());
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_is_parked_and_comes_back() {
    let world = World::new();
    let source = source(&[
        Order {
            failures: 2,
            ..order("1")
        },
        order("2"),
    ]);
    let start = tokio::time::Instant::now();
    world.finish(&source).await;
    assert_eq!(world.log().await, ["2", "1"]);
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "100 ms, then 200 ms"
    );
    let stats = world.stats.snapshot();
    assert_eq!((stats.applied, stats.parkings, stats.dead), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_ends_in_a_dead_letter_that_can_be_replayed() {
    let world = World::new();
    world
        .finish(&source(&[Order {
            failures: 4,
            ..order("1")
        }]))
        .await;
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    assert_eq!((dead[0].cause, dead[0].attempts), (Cause::Exhausted, 3));
    assert!(world.log().await.is_empty());
    // A redelivery of the dead message changes nothing.
    world
        .finish(&source(&[Order {
            failures: 4,
            ..order("1")
        }]))
        .await;
    assert_eq!(world.stats.duplicates.get(), 1);
    // A replay starts again at attempt 0, and so fails three times more.
    assert!(world.store.replay(&dead[0].id, 0).await.unwrap());
    world.finish(&source(&[])).await;
    assert_eq!(
        world.store.list_dead(None, None, 10).await.unwrap().len(),
        1
    );
    assert_eq!(world.stats.runs.get(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_message_is_dead_at_once() {
    let world = World::new();
    world
        .finish(&source(&[Order {
            reject: true,
            ..order("1")
        }]))
        .await;
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    assert_eq!(
        (dead[0].cause, dead[0].reason.as_str()),
        (Cause::Rejected, "no")
    );
    assert!(matches!(
        world.store.record(&record("1")).await.unwrap().0,
        RecordState::Dead { .. }
    ));
    assert_eq!(world.state("a").await, None);
}

#[tokio::test(start_paused = true)]
async fn an_addition_to_no_counter_is_a_dead_letter() {
    let mut world = World::new();
    world.runner = Arc::new(NativeRunner::new(|context| {
        Box::pin(async {
            let name = context.record().key.to_string();
            if name == "text" {
                context.put("value", "text".into()).unwrap();
            } else {
                context.add("value", 1).unwrap();
            }
            Ok(None)
        })
    }));
    world.finish(&source(&[order("text")])).await;
    world.finish(&source(&[order("add")])).await;
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert!(dead[0].reason.contains("`value`"), "{}", dead[0].reason);
    assert_eq!(world.state("value").await.unwrap(), "text");
}

#[tokio::test(start_paused = true)]
async fn a_lane_keeps_its_order_behind_a_parked_message() {
    let mut world = World::new();
    world.order_by = true;
    let orders: Vec<_> = (0..20)
        .map(|n| Order {
            failures: if n == 3 { 2 } else { 0 },
            lane: if n % 2 == 0 { "even" } else { "odd" }.into(),
            ..order(&n.to_string())
        })
        .collect();
    world.finish(&source(&orders)).await;
    let log = world.log().await;
    let lane = |parity: usize| -> Vec<usize> {
        let keys = log.iter().map(|key| key.parse::<usize>().unwrap());
        keys.filter(|key| key % 2 == parity).collect()
    };
    assert_eq!(lane(0), (0..20).step_by(2).collect::<Vec<_>>());
    assert_eq!(lane(1), (1..20).step_by(2).collect::<Vec<_>>());
    let position = |key: &str| log.iter().position(|k| k == key).unwrap();
    assert!(
        position("18") < position("3"),
        "the other lane does not wait"
    );
    let published: Vec<_> = world.sink.published();
    assert_eq!(published.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_settled_by_asking() {
    let world = World::new();
    world.store.lose_replies(3);
    world
        .finish(&source(&[order("1"), order("2"), order("3")]))
        .await;
    let mut log = world.log().await;
    log.sort();
    assert_eq!(log, ["1", "2", "3"]);
    let stats = world.stats.snapshot();
    assert_eq!((stats.applied, stats.duplicates), (3, 0));
    assert_eq!(
        world.sink.published().len(),
        3,
        "rows that nobody offered are swept"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_while_the_store_is_down() {
    let world = World::new();
    world.store.inject(|_| Some(StoreFault::Lost));
    let source = source(&[order("1")]);
    let (_relay, handle) = world.relay();
    let engine = world.engine(&source, handle);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(engine.run(shutdown.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.stats.runs.get(), 0);
    assert!(!source.all_acknowledged());
    world.store.heal();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.log().await, ["1"]);
    assert!(source.all_acknowledged());
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_before_its_commit() {
    let world = World::new();
    world
        .store
        .inject(|call| (call == StoreCall::Commit).then_some(StoreFault::Lost));
    let source = source(&[order("1")]);
    let (_relay, handle) = world.relay();
    let running = tokio::spawn(world.engine(&source, handle).run(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.stats.runs.get() > 0);
    assert_eq!(source.acknowledged("p"), None);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_needs_help_stops_the_engine() {
    let mut world = World::new();
    world.runner = Arc::new(NativeRunner::new(|_| {
        Box::pin(async {
            Err(Failure::Trap {
                reason: "boom".into(),
                detail: None,
            })
        })
    }));
    let source = source(&[order("1")]);
    source.fail_next(SourceError::Unavailable("away".into()));
    source.fail_next(SourceError::Failed("gone".into()));
    let (_relay, handle) = world.relay();
    let error = world
        .engine(&source, handle)
        .run(CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_trap_is_tried_again_and_the_neighbours_go_on() {
    let mut world = World::new();
    world.runner = Arc::new(NativeRunner::new(|context| {
        Box::pin(async {
            if context.record().key == BusinessKey::new("bad".as_bytes()) {
                let reason = "unreachable".to_owned();
                return Err(Failure::Trap {
                    reason,
                    detail: Some("backtrace".into()),
                });
            }
            context.add("good", 1).unwrap();
            Ok(None)
        })
    }));
    world
        .finish(&source(&[order("bad"), order("1"), order("2")]))
        .await;
    assert_eq!(world.state("good").await.unwrap(), "2");
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    assert_eq!(dead[0].detail.as_deref(), Some("backtrace"));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_down_delays_the_outbox() {
    let world = World::new();
    let attempts = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = attempts.clone();
    world.sink.decide(
        move |_| match counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0..4 => Fate::Fail(SinkError::Unavailable("away".into())),
            4 => Fate::LoseReply,
            _ => Fate::Confirm,
        },
    );
    world.finish(&source(&[order("1"), order("2")])).await;
    let rows = world.sink.published();
    let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.message_id).collect();
    assert_eq!(
        (rows.len(), ids.len()),
        (3, 2),
        "one was published twice, under one id"
    );
    assert!(
        world
            .store
            .outbox(&semel_core::OutboxScan {
                limit: 1,
                ..Default::default()
            })
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn back_pressure_bounds_what_is_in_flight() {
    let mut world = World::new();
    world.flow.in_flight = 4;
    world
        .store
        .inject(|call| (call == StoreCall::Commit).then_some(StoreFault::Lost));
    let orders: Vec<_> = (0..100).map(|n| order(&n.to_string())).collect();
    let source = source(&orders);
    let (_relay, handle) = world.relay();
    let running = tokio::spawn(world.engine(&source, handle).run(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        world.stats.received.get() <= 8,
        "{}",
        world.stats.received.get()
    );
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_what_is_running() {
    let world = World::new();
    let source = source(&[order("1"), order("2")]);
    let (_relay, handle) = world.relay();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(world.engine(&source, handle).run(shutdown.clone()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
    assert!(source.all_acknowledged());
    assert_eq!(world.log().await.len(), 2);
}

#[test]
fn store_errors_say_whether_to_try_again() {
    assert!(!StoreError::failed("disk full").is_transient());
}
