//! The broker that messages come from: partitions, and one consumer group.
//!
//! A host that lost a partition may not hear of it for a while: it goes on to be given messages
//! and to acknowledge them, and so does the new owner. What it acknowledges may go back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use semel_core::{
    Delivery, Message, Partition, Payload, Position, Received, Settlement, Source, SourceError,
};
use tokio::sync::Notify;

use crate::life::Life;
use crate::plan::Seam;
use crate::script::Content;
use crate::world::{Fault, World, lock};

/// How long a host waits for a message, in milliseconds.
const POLL_MS: u64 = 250;

pub struct Broker {
    inner: Mutex<Inner>,
    arrived: Notify,
}

struct Inner {
    partitions: Vec<Log>,
    members: BTreeSet<usize>,
    /// Counts assignments.
    generation: u64,
    /// The source comes to its end.
    closing: bool,
}

#[derive(Default)]
struct Log {
    payloads: Vec<Payload>,
    /// Those before this one are forgotten.
    first: usize,
    /// The first offset that is not acknowledged.
    committed: usize,
    owner: Option<usize>,
}

impl Broker {
    pub fn new(partitions: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                partitions: (0..partitions).map(|_| Log::default()).collect(),
                members: BTreeSet::new(),
                generation: 0,
                closing: false,
            }),
            arrived: Notify::new(),
        }
    }

    pub fn push(&self, partition: usize, content: &Content) {
        let mut inner = lock(&self.inner);
        let log = &mut inner.partitions[partition];
        let payload = payload(content, format!("{partition}-{}", log.payloads.len()));
        log.payloads.push(payload);
        self.arrived.notify_waiters();
    }

    pub fn join(&self, world: &World, host: usize) {
        if lock(&self.inner).members.insert(host) {
            self.rebalance(world);
        }
    }

    pub fn leave(&self, world: &World, host: usize) {
        if lock(&self.inner).members.remove(&host) {
            self.rebalance(world);
        }
    }

    /// Gives each partition to some member.
    pub fn rebalance(&self, world: &World) {
        let mut inner = lock(&self.inner);
        inner.generation += 1;
        let members: Vec<_> = inner.members.iter().copied().collect();
        for log in &mut inner.partitions {
            log.owner = match members.len() {
                0 => None,
                count => Some(members[world.roll(count as u64) as usize]),
            };
        }
        let owners: Vec<_> = inner.partitions.iter().map(|log| log.owner).collect();
        world.note(format_args!("broker: partitions to {owners:?}"));
        self.arrived.notify_waiters();
    }

    pub fn close(&self) {
        lock(&self.inner).closing = true;
        self.arrived.notify_waiters();
    }

    pub fn all_acknowledged(&self) -> bool {
        let inner = lock(&self.inner);
        inner
            .partitions
            .iter()
            .all(|log| log.committed == log.payloads.len())
    }

    /// Forgets all messages: they are too old.
    pub fn truncate(&self) {
        for log in &mut lock(&self.inner).partitions {
            log.first = log.payloads.len();
            log.committed = log.first;
        }
    }
}

fn payload(content: &Content, id: String) -> Payload {
    let body = match content {
        Content::Order(order) => order.body(),
        Content::Keyless => "{}".into(),
        Content::Malformed => {
            return Payload::Malformed {
                reason: "not JSON".to_owned(),
                raw: "?".into(),
            };
        }
    };
    Payload::Message(Arc::new(Message {
        id,
        topic: "orders".into(),
        keys: Vec::new(),
        headers: Vec::new(),
        body,
        timestamp_ms: 1,
    }))
}

/// The broker as a host sees it.
pub struct Consumer {
    life: Arc<Life>,
    /// What the host believes to own: where it goes on, and since which assignment.
    view: Mutex<BTreeMap<usize, (u64, usize)>>,
}

impl Consumer {
    pub fn new(life: &Arc<Life>) -> Arc<Self> {
        Arc::new(Self {
            life: Arc::clone(life),
            view: Mutex::default(),
        })
    }

    /// Hears of assignments, maybe.
    fn hear(&self) {
        let world = &self.life.world;
        let inner = lock(&world.broker.inner);
        let mut view = lock(&self.view);
        for (number, log) in inner.partitions.iter().enumerate() {
            let known = view
                .get(&number)
                .is_some_and(|(since, _)| *since == inner.generation);
            if known || (view.contains_key(&number) && world.roll(2) == 0) {
                continue;
            }
            if log.owner == Some(self.life.host) {
                view.insert(number, (inner.generation, log.committed));
            } else {
                view.remove(&number);
            }
        }
    }

    fn take(&self, limit: usize) -> Option<Received> {
        let world = &self.life.world;
        let inner = lock(&world.broker.inner);
        let mut view = lock(&self.view);
        for (number, (_, next)) in view.iter_mut() {
            *next = inner.partitions[*number].first.max(*next);
        }
        let mut batch = Vec::new();
        let limit = 1 + world.roll(limit as u64) as usize;
        while batch.len() < limit {
            let waiting = |(number, (_, next)): &(&usize, &(u64, usize))| {
                *next < inner.partitions[**number].payloads.len()
            };
            let ready: Vec<usize> = view
                .iter()
                .filter(waiting)
                .map(|(number, _)| *number)
                .collect();
            if ready.is_empty() {
                break;
            }
            let number = ready[world.roll(ready.len() as u64) as usize];
            let (_, next) = view.get_mut(&number).expect("it is ready");
            batch.push(Delivery {
                position: Position {
                    partition: partition(number),
                    offset: *next as u64,
                },
                payload: inner.partitions[number].payloads[*next].clone(),
            });
            *next += 1;
        }
        match batch.is_empty() {
            false => Some(Received::Batch(batch)),
            true => inner.closing.then_some(Received::End),
        }
    }
}

pub fn partition(number: usize) -> Partition {
    Partition::new(&format!("p{number}"))
}

pub fn number(partition: &Partition) -> usize {
    partition.as_str()[1..]
        .parse()
        .expect("a partition's name ends in its number")
}

#[async_trait]
impl Source for Consumer {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let world = &self.life.world;
        self.life.stand().await;
        world.travel().await;
        if world.fault(Seam::Source).is_some() {
            return Err(SourceError::Unavailable("simulated".to_owned()));
        }
        let arrived = world.broker.arrived.notified();
        self.hear();
        let received = match self.take(limit) {
            Some(received) => received,
            None => {
                let poll = std::time::Duration::from_millis(POLL_MS);
                // Whether it arrived or not, an empty batch is an answer.
                let _ = tokio::time::timeout(poll, arrived).await;
                Received::Batch(Vec::new())
            }
        };
        match &received {
            Received::Batch(batch) if batch.is_empty() => {}
            Received::Batch(batch) => {
                self.life.delivered(batch);
                let positions = batch.iter().map(|delivery| delivery.position.to_string());
                let positions = positions.collect::<Vec<_>>().join(" ");
                world.note(format_args!("h{} receives {positions}", self.life.host));
            }
            Received::End => world.note(format_args!("h{} receives the end", self.life.host)),
        }
        self.life.stand().await;
        Ok(received)
    }

    fn wants_settlements(&self) -> bool {
        self.life.world.plan.settles
    }

    async fn settle(&self, settlements: Vec<Settlement>) {
        let world = &self.life.world;
        self.life.stand().await;
        world.travel().await;
        for settlement in &settlements {
            world.judge(|oracle| oracle.told(settlement));
            self.life.told(&settlement.position);
        }
        self.life.stand().await;
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        let world = &self.life.world;
        self.life.stand().await;
        let fault = world.fault(Seam::Source);
        let host = self.life.host;
        if fault != Some(Fault::Lost) {
            let positions = positions.to_vec();
            let network = Arc::clone(world);
            world.send(async move {
                match fault {
                    Some(Fault::Late) => network.dawdle().await,
                    _ => network.travel().await,
                }
                acknowledged(&network, host, &positions);
            });
        }
        world.travel().await;
        self.life.stand().await;
        match fault {
            None => Ok(()),
            Some(_) => Err(SourceError::Unavailable("simulated".to_owned())),
        }
    }
}

fn acknowledged(world: &World, host: usize, positions: &[Position]) {
    for position in positions {
        let end = position.offset as usize + 1;
        world.note(format_args!("h{host} acknowledges {position}"));
        let mut inner = lock(&world.broker.inner);
        let log = &mut inner.partitions[number(&position.partition)];
        if end > log.payloads.len() {
            world.fail(format!("{position} is acknowledged and was never sent"));
        }
        // Below what is acknowledged already, all was looked at before.
        let fresh = log.committed..end;
        log.committed = end.max(log.first);
        drop(inner);
        for offset in fresh {
            let (partition, offset) = (position.partition.clone(), offset as u64);
            world.judge(|oracle| oracle.acknowledged(&Position { partition, offset }));
        }
    }
}
