//! Where outgoing messages go, and how a host's sink gets them there.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use semel_core::{MessageId, OutboxRow, Sink, SinkError};

use crate::halves::Halves;
use crate::life::Life;
use crate::plan::{PICKY, Seam, TRANSACTIONAL};
use crate::world::{Fault, World, lock};

/// The consumers of what is published.
#[derive(Default)]
pub struct Market {
    seen: Mutex<HashSet<MessageId>>,
    pub halves: Halves,
}

impl Market {
    /// A message arrives.
    fn take(&self, world: &World, row: &OutboxRow) {
        let again = !lock(&self.seen).insert(row.message_id.clone());
        let mark = if again { " again" } else { "" };
        world.note(format_args!("market: {} {}{mark}", row.id, row.message_id));
        world.judge(|oracle| oracle.promises.published(row));
    }

    /// A half message becomes visible. It may come at any time after its commit.
    pub fn show(&self, world: &World, row: &OutboxRow) {
        lock(&self.seen).insert(row.message_id.clone());
        world.judge(|oracle| oracle.promises.shown(row));
    }

    fn has(&self, row: &OutboxRow) -> bool {
        lock(&self.seen).contains(&row.message_id)
    }
}

/// Whether the broker never takes this message: about every second one for a picky destination.
pub fn is_refused(row: &OutboxRow) -> bool {
    &*row.outgoing.destination == PICKY && row.message_id.as_str().as_bytes()[0].is_multiple_of(2)
}

/// The market as a host sees it.
pub struct Producer {
    life: Arc<Life>,
}

impl Producer {
    pub fn new(life: &Arc<Life>) -> Arc<Self> {
        Arc::new(Self {
            life: Arc::clone(life),
        })
    }

    async fn publish_one(&self, row: &OutboxRow) -> Result<(), SinkError> {
        let world = &self.life.world;
        self.life.stand().await;
        if row.due_ms > world.clocks[self.life.host].latest_ms() {
            world.fail(format!("{} is published before it is due", row.message_id));
        }
        if &*row.outgoing.destination == TRANSACTIONAL {
            // Consumers may have it from a transaction.
            world.travel().await;
            if world.market.has(row) && world.fault(Seam::Sink).is_none() {
                return Ok(());
            }
        }
        let fault = world.fault(Seam::Sink);
        world.travel().await;
        if is_refused(row) && fault.is_none() {
            world.judge(|oracle| oracle.promises.refuses(row));
            return Err(SinkError::Refused("simulated".to_owned()));
        }
        match fault {
            None | Some(Fault::ReplyLost) if !is_refused(row) => world.market.take(world, row),
            Some(Fault::Late) if !is_refused(row) => {
                let (network, row) = (Arc::clone(world), row.clone());
                world.send(async move {
                    network.dawdle().await;
                    network.market.take(&network, &row);
                });
            }
            _ => {}
        }
        world.travel().await;
        match fault {
            None => Ok(()),
            Some(fault) => {
                world.note(format_args!(
                    "h{} publishes {}: {fault:?}",
                    self.life.host, row.id
                ));
                Err(SinkError::Unavailable("simulated".to_owned()))
            }
        }
    }
}

#[async_trait]
impl Sink for Producer {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        let mut failed = HashSet::new();
        let mut results = Vec::with_capacity(rows.len());
        for row in rows {
            let result = match &row.lane {
                Some(lane) if failed.contains(lane) => Err(SinkError::Held),
                _ => self.publish_one(row).await,
            };
            if result.is_err() {
                failed.extend(row.lane.clone());
            }
            results.push(result);
        }
        self.life.stand().await;
        results
    }
}
