//! What the relay does with outgoing messages, one case at a time.

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use semel_core::memory::{Fate, MemorySource, NativeRunner};
use semel_core::{
    Admin, Cause, Message, OutboxRow, OutboxScan, Outgoing, Prepared, RelayConfig, Run, RunContext,
    SinkError, Store, Transactions,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use world::World;

/// A world whose handler publishes its message's body to the destination that it names.
fn forwarding() -> World {
    let mut world = World::new();
    world.runner = Arc::new(NativeRunner::new(|context: &mut RunContext| {
        Box::pin(async move {
            let body = context.message().body.clone();
            let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let outgoing = Outgoing {
                destination: asked["to"].as_str().unwrap().into(),
                key: None,
                headers: Vec::new(),
                body,
                delay_ms: asked["delay"].as_u64(),
            };
            context.publish(outgoing).unwrap();
            Ok(None)
        })
    }));
    world
}

fn message(key: usize, to: &str, delay: Option<u64>) -> Message {
    let body = json!({"key": key.to_string(), "to": to, "lane": "l", "delay": delay});
    Message {
        id: key.to_string(),
        topic: "t".into(),
        keys: Vec::new(),
        headers: Vec::new(),
        body: body.to_string().into(),
        timestamp_ms: 1,
    }
}

fn source(messages: impl IntoIterator<Item = Message>) -> Arc<MemorySource> {
    let source = Arc::new(MemorySource::new());
    messages
        .into_iter()
        .for_each(|message| drop(source.push("p", message)));
    source
}

fn key(row: &OutboxRow) -> String {
    let body: serde_json::Value = serde_json::from_slice(&row.outgoing.body).unwrap();
    body["key"].as_str().unwrap().to_owned()
}

fn keys(rows: &[OutboxRow]) -> Vec<String> {
    rows.iter().map(key).collect()
}

async fn outbox(world: &World) -> Vec<OutboxRow> {
    let all = OutboxScan {
        limit: 1_000,
        ..OutboxScan::default()
    };
    world.store.outbox(&all).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_suspends_consuming_until_there_is_room() {
    let mut world = forwarding();
    world.flow.in_flight = 4;
    world.relay = RelayConfig {
        capacity: 10,
        ..RelayConfig::default()
    };
    world
        .sink
        .decide(|_| Fate::Fail(SinkError::Unavailable("away".into())));
    let source = source((0..100).map(|key| message(key, "out", None)));
    let running = tokio::spawn({
        let (world, source) = (world.clone(), source.clone());
        async move { world.finish(&source).await }
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    let waiting = outbox(&world).await.len();
    assert!(
        (10..10 + 4).contains(&waiting),
        "{waiting} rows: the bound and what was in flight"
    );
    world.sink.decide(|_| Fate::Confirm);
    running.await.unwrap();
    assert_eq!(world.sink.published().len(), 100);
    assert!(source.all_acknowledged());
}

/// Transactions of a broker that is down: it takes no half message.
struct NoHalves;

#[async_trait]
impl Transactions for NoHalves {
    fn covers(&self, _destination: &str) -> bool {
        true
    }

    async fn prepare(&self, _runs: &[Run]) -> Box<dyn Prepared> {
        Box::new(Self)
    }
}

#[async_trait]
impl Prepared for NoHalves {
    async fn end(self: Box<Self>, _applied: &[bool]) {}
}

#[tokio::test(start_paused = true)]
async fn rows_of_half_messages_count_in_the_outbox() {
    let mut world = forwarding();
    world.transactions = Some(Arc::new(NoHalves));
    world.flow.in_flight = 4;
    // The relay's queue is full before the outbox is: from then on there is no sweep to count.
    world.relay = RelayConfig {
        queue: 3,
        capacity: 10,
        ..RelayConfig::default()
    };
    world
        .sink
        .decide(|_| Fate::Fail(SinkError::Unavailable("away".into())));
    let source = Arc::new(MemorySource::new());
    let (relay, handle) = world.relay();
    tokio::spawn(relay.run(CancellationToken::new(), CancellationToken::new()));
    let engine = world.engine(&source, handle);
    tokio::spawn(engine.run(CancellationToken::new()));
    for batch in 0..20 {
        for key in 0..4 {
            drop(source.push("p", message(4 * batch + key, "out", None)));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let waiting = outbox(&world).await.len();
    assert!((10..10 + 4).contains(&waiting), "{waiting} rows");
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_a_dead_letter_and_its_lane_goes_on() {
    let mut world = forwarding();
    world.order_by = true;
    world.sink.decide(|row| match key(row).as_str() {
        "1" => Fate::Fail(SinkError::Refused("too bad".into())),
        _ => Fate::Confirm,
    });
    world
        .finish(&source((0..4).map(|key| message(key, "out", None))))
        .await;
    assert_eq!(keys(&world.sink.published()), ["0", "2", "3"]);
    let letters = world.store.list_dead(None, None, 10).await.unwrap();
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}")
    };
    assert_eq!(letter.cause, Cause::Undeliverable);
    assert_eq!(
        (&*letter.reason, &*letter.message.topic),
        ("too bad", "out")
    );
    assert_eq!(world.stats.undeliverable.get(), 1);

    world.sink.decide(|_| Fate::Confirm);
    assert!(world.store.replay(&letter.id, 0).await.unwrap());
    world.finish(&source([])).await;
    let published = world.sink.published();
    assert_eq!(keys(&published[3..]), ["1"]);
    let refused = letter.outgoing.as_ref().unwrap();
    assert_eq!(published[3].message_id, refused.message_id);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_stays_in_the_store_until_it_is_due() {
    let world = forwarding();
    let source = source([
        message(0, "out", Some(60_000)),
        message(1, "out", None),
        message(2, "out", Some(30_000)),
    ]);
    let running = tokio::spawn({
        let world = world.clone();
        async move { world.finish(&source).await }
    });
    for (seconds, published) in [(29, vec!["1"]), (2, vec!["1", "2"]), (28, vec!["1", "2"])] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(keys(&world.sink.published()), published);
    }
    assert_eq!(keys(&outbox(&world).await), ["0"]);
    running.await.unwrap();
    assert_eq!(keys(&world.sink.published()), ["1", "2", "0"]);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_down_holds_up_nobody_else() {
    let mut world = forwarding();
    world.relay.batch = 2;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    world
        .sink
        .decide(move |row| match &*row.outgoing.destination {
            "down" => {
                counted.fetch_add(1, Ordering::Relaxed);
                Fate::Fail(SinkError::Unavailable("away".into()))
            }
            _ => Fate::Confirm,
        });
    let to = |key| if key % 2 == 0 { "down" } else { "up" };
    let source = source((0..40).map(|key| message(key, to(key), None)));
    source.finish();
    let running = tokio::spawn({
        let world = world.clone();
        async move { world.finish(&source).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.sink.published().len(), 20);
    let tries = tries.load(Ordering::Relaxed);
    assert!(tries < 60, "{tries} tries in a minute: it backs off");
    world.sink.decide(|_| Fate::Confirm);
    running.await.unwrap();
    assert_eq!(world.sink.published().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn what_one_host_left_behind_another_publishes_in_order() {
    let mut world = forwarding();
    world.order_by = true;
    world
        .sink
        .decide(|_| Fate::Fail(SinkError::Unavailable("away".into())));
    let left = source((0..20).map(|key| message(key, "out", None)));
    left.finish();
    let (relay, handle) = world.relay();
    let dying = tokio::spawn(relay.run(CancellationToken::new(), CancellationToken::new()));
    world
        .engine(&left, handle)
        .run(CancellationToken::new())
        .await
        .unwrap();
    dying.abort();
    assert_eq!(outbox(&world).await.len(), 20);

    world.sink.decide(|_| Fate::Confirm);
    world
        .finish(&source((20..30).map(|key| message(key, "out", None))))
        .await;
    let expected: Vec<_> = (0..30).map(|key| key.to_string()).collect();
    assert_eq!(keys(&world.sink.published()), expected);
}

#[tokio::test(start_paused = true)]
async fn more_rows_than_fit_in_memory_are_swept_page_by_page() {
    let mut world = forwarding();
    world.relay.queue = 4;
    let later = (0..20).map(|key| message(key, "out", Some(5_000)));
    let now = (20..40).map(|key| message(key, "out", None));
    world.finish(&source(later.chain(now))).await;
    let mut published = keys(&world.sink.published());
    published.sort_by_key(|key| key.parse::<u32>().unwrap());
    let expected: Vec<_> = (0..40).map(|key| key.to_string()).collect();
    assert_eq!(published, expected, "each once");
}
