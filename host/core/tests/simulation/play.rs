//! A run from its seed to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::join_all;
use semel_core::{Admin, Clock, PluginName};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::host::{SESSION_MS, live};
use crate::leftovers::Leftovers;
use crate::life::disband;
use crate::oracle::Broken;
use crate::plan::{Event, PLUGIN, Plan, RETENTION};
use crate::world::World;

/// After so long without faults, everything must be done.
const REST: Duration = Duration::from_secs(120);

/// What came of a run.
pub struct Played {
    pub trace: String,
    pub broken: Option<Broken>,
}

/// Plays one seed; if `loud`, what happens is printed.
pub fn play(seed: u64, loud: bool) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let (world, played) = runtime.block_on(async {
        let world = World::new(Plan::new(seed), loud);
        tokio::select! {
            biased;
            () = world.failed.cancelled() => {}
            () = to_the_end(&world) => {}
        }
        let played = Played {
            trace: world.trace(),
            broken: world.broken(),
        };
        (world, played)
    });
    drop(runtime);
    world.end();
    disband();
    played
}

async fn to_the_end(world: &Arc<World>) {
    let over = CancellationToken::new();
    let hosts: Vec<_> = (0..world.plan.hosts)
        .map(|host| tokio::spawn(live(Arc::clone(world), host, over.clone())))
        .collect();
    let producer = tokio::spawn(produce(Arc::clone(world)));
    events(world).await;
    producer.await.expect("a producer doesn't panic");
    world.heal();
    world.note(format_args!("all is well"));
    if timeout(REST, rest(world)).await.is_err() {
        return world.fail("it does not come to rest".to_owned());
    }
    if world.plan.freezes.is_some() {
        expire(world).await;
    }
    if world.plan.source_ends {
        world.broker.close();
        let finish = async {
            while world.finished.load(Relaxed) < world.plan.hosts {
                world.sleep(50).await;
            }
        };
        if timeout(REST, finish).await.is_err() {
            return world.fail("an engine whose source ended goes on".to_owned());
        }
    }
    over.cancel();
    let ended = async {
        let engines = join_all(hosts).await;
        engines
            .into_iter()
            .for_each(|ended| ended.expect("a host doesn't panic"));
    };
    if timeout(REST, ended).await.is_err() {
        return world.fail("a host does not end".to_owned());
    }
    settle(world).await;
}

/// Time passes until all done records have expired, and only then those come back who stood
/// still all the while, and requests arrive that were under way.
async fn expire(world: &Arc<World>) {
    // The broker does not keep messages for so long: none is delivered again.
    world.broker.truncate();
    tokio::time::advance(RETENTION + RETENTION / 7).await;
    world.sleep(world.roll(400)).await;
    world.note(format_args!("thaw"));
    world.thaw.cancel();
    world.sleep(2_000).await;
    if timeout(REST, rest(world)).await.is_err() {
        world.fail("it does not come to rest again".to_owned());
    }
}

async fn produce(world: Arc<World>) {
    let start = Instant::now();
    for sent in &world.plan.sent {
        tokio::time::sleep_until(start + Duration::from_millis(sent.at)).await;
        world.broker.push(sent.partition, &sent.content);
    }
}

/// Lets happen what is planned.
async fn events(world: &Arc<World>) {
    let start = Instant::now();
    for (at, event) in &world.plan.events {
        tokio::time::sleep_until(start + Duration::from_millis(*at)).await;
        world.note(format_args!("{event:?}"));
        match *event {
            Event::Rebalance => world.broker.rebalance(world),
            Event::Pause { host, for_ms } => pause(world, host, Duration::from_millis(for_ms)),
            Event::Clock { host, by_ms } => world.clocks[host].jump(by_ms),
            Event::StoreClock { by_ms } => world.store_clock.jump(by_ms),
            Event::Outage { of, for_ms } => world.begin_outage(of, for_ms),
            Event::Freeze => {
                if let Some(host) = world.plan.freezes {
                    pause(world, host, RETENTION * 3);
                }
            }
            Event::Operator => operate(world).await,
        }
    }
    tokio::time::sleep_until(start + Duration::from_millis(world.plan.heal)).await;
}

/// Lets a host stand still; if it does for long, the broker gives its partitions to others.
fn pause(world: &Arc<World>, host: usize, time: Duration) {
    let Some(life) = world.life(host).filter(|life| !life.is_dead()) else {
        return;
    };
    life.pause(time);
    let session = Duration::from_millis(SESSION_MS);
    if time > session {
        let world = Arc::clone(world);
        tokio::spawn(async move {
            tokio::time::sleep(session).await;
            world.evict(&life);
            life.awake().await;
            if !life.is_dead() {
                world.broker.join(&world, host);
            }
        });
    }
}

/// An operator replays some dead letters and drops others.
async fn operate(world: &World) {
    let letters = world
        .store
        .list_dead(None, None, 100)
        .await
        .unwrap_or_default();
    for letter in letters {
        let replays = world.roll(4) > 0;
        if replays {
            let now_ms = world.store_clock.now_ms();
            if !world
                .store
                .replay(&letter.id, now_ms)
                .await
                .unwrap_or_default()
            {
                continue;
            }
            let row = match &letter.record {
                Some(record) => world.store.record(record).await.unwrap_or_default().1,
                None => None,
            };
            world.note(format_args!("operator replays {}", letter.id));
            world.judge(|oracle| oracle.replayed(&letter, row));
        } else if world.store.drop_dead(&letter.id).await.unwrap_or_default() {
            world.note(format_args!("operator drops {}", letter.id));
            world.judge(|oracle| oracle.dropped(&letter));
        }
    }
}

/// Waits until nothing is left to do.
async fn rest(world: &Arc<World>) {
    let plugin = PluginName::new(PLUGIN);
    let mut asked = 0;
    loop {
        world.sleep(50).await;
        let lives = (0..world.plan.hosts)
            .filter(|host| world.plan.freezes != Some(*host) || world.is_aged())
            .map(|host| world.life(host));
        let paused = lives
            .clone()
            .any(|life| life.is_none_or(|life| life.paused().is_some()));
        let untold: Vec<_> = lives.flatten().flat_map(|life| life.untold()).collect();
        let acknowledged = world.broker.all_acknowledged();
        let stats = world.store.stats(&plugin).await.unwrap_or_default();
        let parked = stats.parked > 0 && !world.plan.source_ends;
        let busy = world.in_flight.load(Relaxed) > 0 || stats.outbox > 0;
        if acknowledged && untold.is_empty() && !parked && !busy && !paused {
            return;
        }
        asked += 1;
        if asked % 20 == 0 {
            world.note(format_args!(
                "at rest? acknowledged: {acknowledged}, untold: {untold:?}, parked: {}, outbox: {}, in flight: {}, paused: {paused}",
                stats.parked,
                stats.outbox,
                world.in_flight.load(Relaxed),
            ));
        }
        if asked % 60 == 0 {
            // An acknowledgement of a host that lost its partition may have gone back.
            world.broker.rebalance(world);
        }
    }
}

/// Compares what is left with what must be.
async fn settle(world: &World) {
    match Leftovers::of(world).await {
        Ok(leftovers) => _ = world.judge(|oracle| oracle.settled(&leftovers)),
        Err(error) => world.fail(error.to_string()),
    }
}
