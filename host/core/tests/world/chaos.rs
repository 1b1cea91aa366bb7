//! Everything that may go wrong, drawn at random and reproducible.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;
use semel_core::SinkError;
use semel_core::memory::{Fate, MemorySource, StoreCall, StoreFault};
use tokio_util::sync::CancellationToken;

use super::World;

#[derive(Clone, Debug)]
pub struct Chaos {
    /// Each crash ends all hosts after this many steps of the first.
    crashes: Vec<u16>,
    /// Hosts that consume the same partitions at the same time.
    pub hosts: u8,
    /// Seeds the faults of store and sink; their share is in percent.
    faults: (u64, u8),
}

pub fn chaos() -> impl Strategy<Value = Chaos> {
    (
        prop::collection::vec(1u16..400, 0..4),
        1u8..4,
        (any::<u64>(), prop_oneof![Just(0u8), 1u8..30]),
    )
        .prop_map(|(crashes, hosts, faults)| Chaos {
            crashes,
            hosts,
            faults,
        })
}

impl Chaos {
    /// Crashes as scripted, and then runs every host to its end.
    pub async fn play(&self, world: &World, sources: &[Arc<MemorySource>]) {
        inject(world, self.faults);
        for &polls in &self.crashes {
            let stop = CancellationToken::new();
            let mut relays = Vec::new();
            let mut engines = Vec::new();
            for source in sources {
                let (relay, handle) = world.relay();
                relays.push(tokio::spawn(
                    relay.run(CancellationToken::new(), stop.clone()),
                ));
                engines.push(Box::pin(
                    world.engine(source, handle).run(CancellationToken::new()),
                ));
            }
            let all = futures::future::join_all(engines);
            CrashAfter {
                future: Box::pin(all),
                polls,
            }
            .await;
            relays.iter().for_each(|relay| relay.abort());
            sources.iter().for_each(|source| source.restart());
            if polls % 2 == 0 {
                world.store.land_late();
            }
            tokio::time::sleep(Duration::from_millis(u64::from(polls))).await;
        }
        let halfway = world.store.clone();
        let landing = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            halfway.land_late();
            tokio::time::sleep(Duration::from_secs(60)).await;
            halfway.heal();
        });
        futures::future::join_all(sources.iter().map(|source| world.finish(source))).await;
        landing.abort();
        world.store.heal();
        // Commits that nobody waits for land in the end; by then they must be harmless.
        world.store.land_late();
        world.sink.decide(|_| Fate::Confirm);
        world.finish(&Arc::new(MemorySource::new())).await;
    }
}

/// A future that is dropped in mid-air after a number of polls.
struct CrashAfter<F> {
    future: Pin<Box<F>>,
    polls: u16,
}

impl<F: Future> Future for CrashAfter<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.polls == 0 {
            return Poll::Ready(());
        }
        self.polls -= 1;
        self.future.as_mut().poll(context).map(|_| ())
    }
}

/// The next of a reproducible row of numbers.
fn next(seed: &AtomicU64) -> u64 {
    let x = seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn inject(world: &World, (seed, share): (u64, u8)) {
    let seed = Arc::new(AtomicU64::new(seed));
    let (store, sink) = (seed.clone(), seed);
    world.store.inject(move |call| {
        let roll = next(&store);
        let fault = match roll % 3 {
            0 => StoreFault::Lost,
            1 => StoreFault::ReplyLost,
            _ if call == StoreCall::Commit => StoreFault::Late,
            _ => StoreFault::Lost,
        };
        (call != StoreCall::Admin && (roll >> 32) % 100 < u64::from(share)).then_some(fault)
    });
    world.sink.decide(move |_| match next(&sink) % 100 {
        roll if roll >= u64::from(share) => Fate::Confirm,
        roll if roll % 2 == 0 => Fate::Fail(SinkError::Unavailable("away".into())),
        _ => Fate::LoseReply,
    });
}

/// `PROPTEST_CASES` asks for more.
pub fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(default)
}
