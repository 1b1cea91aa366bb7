//! Version numbers: what is newer is applied, what is older is stale, and what comes early may
//! wait.

mod scripts;
#[path = "../world/mod.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use semel_core::memory::{MemorySource, NativeRunner};
use semel_core::{Admin, Cause, Failure, Message, RecordState, Runner, Versioning};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use world::{World, record};

const BOUND: Duration = Duration::from_secs(30);

/// A version of an item.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Update {
    key: String,
    item: String,
    version: u64,
    lane: String,
    /// Fails this many times before it succeeds.
    failures: u32,
    reject: bool,
}

fn update(item: &str, version: u64) -> Update {
    Update {
        key: format!("{item}{version}"),
        item: item.into(),
        version,
        lane: item.into(),
        failures: 0,
        reject: false,
    }
}

fn message(update: &impl Serialize) -> Message {
    Message {
        id: "m".into(),
        topic: "updates".into(),
        keys: vec![],
        headers: vec![],
        body: serde_json::to_vec(update).unwrap().into(),
        timestamp_ms: 1,
    }
}

fn source(updates: &[Update]) -> Arc<MemorySource> {
    let source = Arc::new(MemorySource::new());
    for update in updates {
        source.push("p", message(update));
    }
    source
}

/// Appends each version to its item's log. The lower the version, the longer it takes, so that
/// nothing but the engine keeps versions in order.
fn logger() -> Arc<dyn Runner> {
    Arc::new(NativeRunner::new(|context| {
        Box::pin(async move {
            let update: Update = serde_json::from_slice(&context.message().body).unwrap();
            for _ in update.version..10 {
                tokio::task::yield_now().await;
            }
            if update.reject {
                let reason = "no".into();
                return Err(Failure::Reject { reason });
            }
            if context.attempt() < update.failures {
                return Err(Failure::Retry {
                    reason: "not yet".into(),
                    after_ms: None,
                });
            }
            assert_eq!(context.attempt(), update.failures, "waiting is no attempt");
            let log = context
                .get(&update.item)
                .await
                .map_err(|_| Failure::Aborted)?;
            let log = String::from_utf8(log.unwrap_or_default().to_vec()).unwrap();
            let log = format!("{log} {}", update.version);
            context.put(&update.item, log.into()).unwrap();
            Ok(None)
        })
    }))
}

fn world(wait: Option<Duration>) -> World {
    let mut world = World::new();
    world.runner = logger();
    world.versioning = Some(Versioning {
        version: "json:/version".parse().unwrap(),
        entity: "json:/item".parse().unwrap(),
        first: None,
        wait,
    });
    world
}

/// The versions of an item that were applied, in order.
async fn applied(world: &World, item: &str) -> Vec<u64> {
    let log = world.state(item).await.unwrap_or_default();
    log.split_whitespace().map(|v| v.parse().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_not_newer_is_stale() {
    let world = world(None);
    let same_version = Update {
        key: "other".into(),
        ..update("a", 3)
    };
    let source = source(&[
        update("a", 1),
        update("a", 3),
        update("a", 2),
        update("b", 2),
        same_version,
    ]);
    world.finish(&source).await;
    assert_eq!(applied(&world, "a").await, [1, 3]);
    assert_eq!(applied(&world, "b").await, [2]);
    assert!(source.all_acknowledged());
    let stats = world.stats.snapshot();
    assert_eq!((stats.applied, stats.stale, stats.runs), (3, 2, 3));
    assert_eq!((stats.duplicates, stats.dead), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stale_message_is_done_so_that_its_copies_are_duplicates() {
    let world = world(None);
    world
        .finish(&source(&[update("a", 2), update("a", 1)]))
        .await;
    let (state, _) = world.store.record(&record("a1")).await.unwrap();
    assert!(matches!(state, RecordState::Done { reply: None, .. }));
    world
        .finish(&source(&[update("a", 1), update("a", 1)]))
        .await;
    let stats = world.stats.snapshot();
    assert_eq!((stats.stale, stats.duplicates), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn versions_that_arrive_in_order_are_all_applied() {
    let world = world(None);
    let updates: Vec<_> = (0..60).map(|n| update(&format!("i{}", n % 3), n)).collect();
    world.finish(&source(&updates)).await;
    let stats = world.stats.snapshot();
    assert_eq!((stats.applied, stats.stale), (60, 0));
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_does_not_wait_for_one_that_fails() {
    let world = world(None);
    let failing = Update {
        failures: 1,
        ..update("a", 1)
    };
    world.finish(&source(&[failing, update("a", 2)])).await;
    assert_eq!(applied(&world, "a").await, [2]);
    assert_eq!(world.stats.stale.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_version_was_not_applied() {
    let world = world(None);
    let rejected = Update {
        key: "bad".into(),
        reject: true,
        ..update("a", 2)
    };
    world
        .finish(&source(&[update("a", 1), rejected, update("a", 2)]))
        .await;
    assert_eq!(applied(&world, "a").await, [1, 2]);
    assert_eq!(world.stats.dead.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_version_is_a_dead_letter_and_the_rest_goes_on() {
    let world = world(None);
    let source = source(&[update("a", 1)]);
    let bad = [
        (r#""1e3""#, "`1e3`"),
        (r#""+7""#, "`+7`"),
        ("-1", "`-1`"),
        ("18446744073709551616", "`18446744073709551616`"),
        ("1.5", "a number with a fraction"),
        ("null", "finds nothing"),
    ];
    for (index, (version, _)) in bad.iter().enumerate() {
        let body = format!(r#"{{"key":"k{index}","item":"a","version":{version}}}"#);
        let mut message = message(&());
        message.body = body.into();
        source.push("p", message);
    }
    let mut nameless = message(&());
    nameless.body = r#"{"key":"k","version":2}"#.into();
    source.push("p", nameless);
    source.push("p", message(&update("a", u64::MAX)));
    world.finish(&source).await;
    assert_eq!(applied(&world, "a").await, [1, u64::MAX]);
    let letters = world.store.list_dead(None, None, 100).await.unwrap();
    assert_eq!(letters.len(), bad.len() + 1);
    for letter in &letters {
        assert_eq!((letter.cause, letter.attempts), (Cause::NoVersion, 0));
    }
    for (_, why) in bad.iter().chain([&("", "`json:/item` finds nothing")]) {
        let told = letters.iter().any(|letter| letter.reason.contains(why));
        assert!(told, "{why}: {letters:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_early_waits_and_follows_at_once() {
    let world = world(Some(BOUND));
    let late = Update {
        failures: 1,
        ..update("a", 2)
    };
    let start = Instant::now();
    let early = [5, 4, 6, 3].map(|version| update("a", version));
    let updates = [&[update("a", 1)], &early[..], &[late]].concat();
    world.finish(&source(&updates)).await;
    assert_eq!(applied(&world, "a").await, [1, 2, 3, 4, 5, 6]);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(world.stats.stale.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn those_that_have_waited_long_follow_at_once() {
    let world = world(Some(BOUND));
    let source = source(&[1, 5, 3, 4].map(|version| update("a", version)));
    let (_, handle) = world.relay();
    let stop = CancellationToken::new();
    let engine = world.engine(&source, handle).run(stop.clone());
    let feed = async {
        // Who has waited so long looks again seconds later.
        tokio::time::sleep(BOUND / 2).await;
        assert_eq!(applied(&world, "a").await, [1]);
        source.push("p", message(&update("a", 2)));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let followed = applied(&world, "a").await;
        stop.cancel();
        followed
    };
    let (result, followed) = tokio::join!(engine, feed);
    result.unwrap();
    assert_eq!(followed, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_stays_holds_up_for_the_bound_alone() {
    let world = world(Some(BOUND));
    let start = Instant::now();
    world
        .finish(&source(&[update("a", 1), update("a", 3), update("b", 7)]))
        .await;
    assert_eq!(applied(&world, "a").await, [1, 3]);
    assert_eq!(applied(&world, "b").await, [7]);
    let elapsed = start.elapsed();
    assert!(
        elapsed >= BOUND && elapsed < BOUND + Duration::from_secs(2),
        "{elapsed:?}"
    );
    world.finish(&source(&[update("a", 2)])).await;
    assert_eq!(applied(&world, "a").await, [1, 3]);
    assert_eq!(world.stats.stale.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_lowest_of_those_that_wait_goes_first() {
    let world = world(Some(BOUND));
    // Rows that are due at the same time come in the order of their keys.
    let backwards = |version: u64| Update {
        key: (9 - version).to_string(),
        ..update("a", version)
    };
    let source = source(&[1, 7].map(backwards));
    let start = Instant::now();
    let feed = async {
        tokio::time::sleep(BOUND / 2).await;
        for version in [5, 3, 4] {
            source.push("p", message(&backwards(version)));
        }
        source.finish();
    };
    let (relay, handle) = world.relay();
    let stop = CancellationToken::new();
    let relay = tokio::spawn(relay.run(stop.clone(), CancellationToken::new()));
    let engine = world.engine(&source, handle).run(CancellationToken::new());
    let (result, ()) = tokio::join!(engine, feed);
    result.unwrap();
    stop.cancel();
    relay.await.unwrap().unwrap();
    assert_eq!(applied(&world, "a").await, [1, 3, 4, 5, 7]);
    // The bound of 7 is the bound of all that come before it.
    assert!(
        start.elapsed() < BOUND + Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_entity_begins_where_it_is_said_to_begin() {
    let mut world = world(Some(BOUND));
    world.versioning.as_mut().unwrap().first = Some(1);
    world
        .finish(&source(&[3, 2, 1].map(|version| update("a", version))))
        .await;
    assert_eq!(applied(&world, "a").await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn the_wait_goes_on_in_another_host() {
    let world = world(Some(BOUND));
    let start = Instant::now();
    let source = source(&[update("a", 1), update("a", 3)]);
    for _ in 0..3 {
        let (_, handle) = world.relay();
        let stop = CancellationToken::new();
        let engine = world.engine(&source, handle).run(stop.clone());
        let (result, ()) = tokio::join!(engine, async {
            tokio::time::sleep(BOUND / 5).await;
            stop.cancel();
        });
        result.unwrap();
        assert_eq!(applied(&world, "a").await, [1]);
    }
    world.finish(&MemorySource::new().into()).await;
    assert_eq!(applied(&world, "a").await, [1, 3]);
    let elapsed = start.elapsed();
    assert!(
        elapsed >= BOUND && elapsed < BOUND + Duration::from_secs(5),
        "{elapsed:?}"
    );
}
