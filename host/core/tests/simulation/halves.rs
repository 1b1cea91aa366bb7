//! A broker's transactions: half messages, which consumers see when their transaction ends well.
//!
//! The broker hears of the end at most once, and maybe never. It asks some host of the group, and
//! gives a message up about which nobody could say anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use semel_core::crash::{CrashPoint, crash_point};
use semel_core::{OutboxRow, Prepared, RecordId, Run, RunId, Store, Transactions};
use tokio::time::timeout;

use crate::life::Life;
use crate::plan::{Seam, TRANSACTIONAL};
use crate::store::RemoteStore;
use crate::world::{Fault, World, lock};

/// How long the broker waits before it asks, and before it asks again.
const CHECK_MS: u64 = 150;
/// After so many questions without an answer the message is discarded.
const CHECKS: u32 = 4;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(200);

#[derive(Default)]
pub struct Halves {
    open: Mutex<BTreeMap<u64, Half>>,
    sent: AtomicU64,
}

#[derive(Clone)]
struct Half {
    row: OutboxRow,
    record: RecordId,
    run: RunId,
}

impl Halves {
    /// The broker takes a half message.
    fn store(&self, world: &Arc<World>, half: Half) -> u64 {
        let id = self.sent.fetch_add(1, Relaxed);
        world.note(format_args!("market: half {id} {}", half.row.message_id));
        lock(&self.open).insert(id, half);
        let asking = Arc::clone(world);
        world.send(async move { check_back(&asking, id).await });
        id
    }

    /// A transaction ends, unless it has ended before.
    fn end(&self, world: &World, id: u64, commit: bool) {
        let Some(half) = lock(&self.open).remove(&id) else {
            return;
        };
        let end = if commit { "committed" } else { "rolled back" };
        world.note(format_args!("market: half {id} {end}"));
        if commit {
            world.market.show(world, &half.row);
        }
    }
}

async fn check_back(world: &Arc<World>, id: u64) {
    for _ in 0..CHECKS {
        world.sleep(CHECK_MS).await;
        let half = lock(&world.market.halves.open).get(&id).cloned();
        let (Some(half), Some(life)) = (half, world.anyone()) else {
            continue;
        };
        let store = RemoteStore::new(&life);
        let answer = life.spawn(async move {
            crash_point(CrashPoint::FenceBefore);
            let answer = store.fence(&half.record, half.run).await;
            crash_point(CrashPoint::FenceAfter);
            answer
        });
        // No answer means that the broker asks again.
        if let Ok(Ok(Some(Ok(done)))) = timeout(ANSWER, answer).await {
            world.market.halves.end(world, id, done);
        }
    }
    if lock(&world.market.halves.open).remove(&id).is_some() {
        world.note(format_args!("market: half {id} discarded"));
    }
}

/// The broker's transactions as a host sees them.
pub struct Transactor {
    life: Arc<Life>,
}

impl Transactor {
    pub fn new(life: &Arc<Life>) -> Arc<Self> {
        Arc::new(Self {
            life: Arc::clone(life),
        })
    }

    /// Sends a half message. None if the broker did not confirm it, though it may have it.
    async fn send(&self, half: Half) -> Option<u64> {
        let world = &self.life.world;
        self.life.stand().await;
        world.travel().await;
        match world.fault(Seam::Sink) {
            None => Some(world.market.halves.store(world, half)),
            Some(Fault::Lost) => None,
            Some(Fault::ReplyLost) => {
                world.market.halves.store(world, half);
                None
            }
            Some(Fault::Late) => {
                let network = Arc::clone(world);
                world.send(async move {
                    network.dawdle().await;
                    network.market.halves.store(&network, half);
                });
                None
            }
        }
    }
}

#[async_trait]
impl Transactions for Transactor {
    fn covers(&self, destination: &str) -> bool {
        destination == TRANSACTIONAL
    }

    async fn prepare(&self, runs: &[Run]) -> Box<dyn Prepared> {
        let mut sent = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            // The commit that gives the rows their version is to come.
            for row in run.outbox_rows(0) {
                if !self.covers(&row.outgoing.destination) || row.due_ms != 0 {
                    continue;
                }
                let (record, run) = (run.record.clone(), run.id);
                let half = self.send(Half { row, record, run }).await;
                sent.extend(half.map(|id| (index, id)));
            }
        }
        self.life.stand().await;
        let life = Arc::clone(&self.life);
        Box::new(Sent { life, sent })
    }
}

/// Half messages that the broker confirmed, with the indices of their runs.
struct Sent {
    life: Arc<Life>,
    sent: Vec<(usize, u64)>,
}

#[async_trait]
impl Prepared for Sent {
    async fn end(self: Box<Self>, applied: &[bool]) {
        let world = &self.life.world;
        for (run, id) in self.sent {
            self.life.stand().await;
            let fault = world.fault(Seam::Sink);
            if fault == Some(Fault::Lost) {
                continue;
            }
            let (network, commit) = (Arc::clone(world), applied[run]);
            world.send(async move {
                match fault {
                    Some(Fault::Late) => network.dawdle().await,
                    _ => network.travel().await,
                }
                network.market.halves.end(&network, id, commit);
            });
        }
        self.life.stand().await;
    }
}
