//! What a source hears: what became of its messages, and which it may forget.

mod world;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use semel_core::memory::MemorySource;
use semel_core::{
    Cause, Disposition, Position, Received, RelayHandle, Settlement, Source, SourceError,
};
use tokio_util::sync::CancellationToken;
use world::{Order, World, message, order};

/// A source at which someone waits.
struct Asking {
    inner: MemorySource,
    heard: Mutex<Vec<Settlement>>,
    /// So many acknowledgements fail.
    deaf: AtomicU32,
}

impl Asking {
    fn new(orders: &[Order]) -> Arc<Self> {
        let inner = MemorySource::new();
        orders
            .iter()
            .for_each(|order| drop(inner.push("p", message(order))));
        inner.finish();
        Arc::new(Self {
            inner,
            heard: Mutex::default(),
            deaf: AtomicU32::new(0),
        })
    }

    /// What became of the messages, by offset.
    fn heard(&self) -> Vec<Disposition> {
        let mut heard = self.heard.lock().unwrap().clone();
        heard.sort_by_key(|settlement| settlement.position.offset);
        heard
            .into_iter()
            .map(|settled| settled.disposition)
            .collect()
    }
}

#[async_trait]
impl Source for Asking {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        self.inner.receive(limit).await
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        match self.deaf.load(Relaxed) {
            0 => self.inner.acknowledge(positions).await,
            left => {
                self.deaf.store(left - 1, Relaxed);
                Err(SourceError::Unavailable("deaf".to_owned()))
            }
        }
    }

    fn wants_settlements(&self) -> bool {
        true
    }

    async fn settle(&self, settlements: Vec<Settlement>) {
        self.heard.lock().unwrap().extend(settlements);
    }
}

async fn run(world: &World, orders: &[Order]) -> Vec<Disposition> {
    let source = Asking::new(orders);
    let engine = world.engine_of(source.clone(), RelayHandle::default());
    engine.run(CancellationToken::new()).await.unwrap();
    source.heard()
}

fn done(reply: &str, duplicate: bool) -> Disposition {
    Disposition::Done {
        reply: Some(reply.to_owned().into()),
        duplicate,
    }
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_hears_the_first_reply_whenever_it_comes() {
    let world = World::new();
    let in_flight = run(&world, &[order("1"), order("1"), order("2")]).await;
    assert_eq!(
        in_flight,
        [done("1", false), done("1", true), done("2", false)]
    );
    assert_eq!(run(&world, &[order("2")]).await, [done("2", true)]);
}

#[tokio::test(start_paused = true)]
async fn whoever_lost_the_race_hears_the_winners_reply() {
    for lanes in [false, true] {
        let mut world = World::new();
        world.order_by = lanes;
        let orders: Vec<_> = (0..20).map(|key| order(&key.to_string())).collect();
        let (ours, theirs) = tokio::join!(run(&world, &orders), run(&world, &orders));
        for (key, pair) in ours.iter().zip(&theirs).enumerate() {
            let reply = key.to_string();
            let expected = [done(&reply, false), done(&reply, true)];
            let pair = [pair.0.clone(), pair.1.clone()];
            let same = expected
                .iter()
                .all(|disposition| pair.contains(disposition));
            assert!(same, "one was first: {pair:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_heard_as_what_they_are() {
    let world = World::new();
    let parked = Order {
        failures: 1,
        ..order("1")
    };
    let rejected = Order {
        reject: true,
        ..order("2")
    };
    let other = Order {
        amount: 7,
        ..order("3")
    };
    let orders = [parked.clone(), rejected.clone(), order("3"), other];
    let heard = run(&world, &orders).await;
    assert_eq!(heard[0], Disposition::Parked);
    let dead = |cause, reason: &str| Disposition::Dead {
        cause: Some(cause),
        reason: Some(reason.to_owned()),
    };
    assert_eq!(heard[1], dead(Cause::Rejected, "no"));
    assert_eq!(heard[2], done("3", false));
    let taken = "the key `3` was already used by a message with another payload";
    assert_eq!(heard[3], dead(Cause::Mismatch, taken));

    let again = run(&world, &[parked, rejected]).await;
    assert_eq!(again[0], done("1", true), "it was run again meanwhile");
    let unknown = Disposition::Dead {
        cause: None,
        reason: None,
    };
    assert_eq!(again[1], unknown);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_failed_is_sent_again() {
    let world = World::new();
    let source = Asking::new(&[order("1"), order("2")]);
    source.deaf.store(3, Relaxed);
    let engine = world.engine_of(source.clone(), RelayHandle::default());
    engine.run(CancellationToken::new()).await.unwrap();
    assert!(source.inner.all_acknowledged());
    assert_eq!(world.stats.received.get(), 2);
}
