//! The store as a host sees it: over a network that loses, delays and repeats nothing by itself,
//! but may carry out a request whose sender has long given up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use semel_core::memory::MemoryStore;
use semel_core::{
    CheckQuery, Checked, DeadLetter, OutboxRow, OutboxScan, Outcome, ParkedRow, PluginName,
    RecordId, RowId, Run, RunId, StateKey, Store, StoreError, Versioned,
};
use tokio::sync::oneshot;

use crate::life::Life;
use crate::plan::Seam;
use crate::world::{Fault, World};

type Answer<T> = Result<T, StoreError>;

pub struct RemoteStore {
    life: Arc<Life>,
}

impl RemoteStore {
    pub fn new(life: &Arc<Life>) -> Arc<Self> {
        Arc::new(Self {
            life: Arc::clone(life),
        })
    }

    /// A request that changes nothing.
    async fn ask<T>(&self, what: &str, answer: impl Future<Output = Answer<T>>) -> Answer<T> {
        let world = &self.life.world;
        self.life.stand().await;
        let fault = world.fault(Seam::Store);
        if fault.is_some() {
            world.time_out().await;
        } else {
            world.travel().await;
        }
        let answer = match fault {
            None => answer.await,
            Some(_) => Err(unavailable()),
        };
        let verdict = if answer.is_ok() { "ok" } else { "unavailable" };
        world.note(format_args!("h{} {what}: {verdict}", self.life.host));
        world.travel().await;
        self.life.stand().await;
        answer
    }

    /// A request that changes something: it arrives or not, whatever becomes of the host.
    async fn tell<T, F>(&self, what: &'static str, write: impl FnOnce(Arc<World>) -> F) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let world = &self.life.world;
        self.life.stand().await;
        let fault = world.fault(Seam::Store);
        let host = self.life.host;
        let (reply, replied) = oneshot::channel();
        if fault != Some(Fault::Lost) {
            let write = write(Arc::clone(world));
            let network = Arc::clone(world);
            world.send(async move {
                match fault {
                    Some(Fault::Late) => network.dawdle().await,
                    _ => network.travel().await,
                }
                let answer = write.await;
                network.note(format_args!("h{host} {what} arrived"));
                network.travel().await;
                // Nobody listens if the host died.
                let _ = reply.send(answer);
            });
        }
        let answer = match fault {
            None => replied.await.unwrap_or_else(|_| Err(unavailable())),
            Some(fault) => {
                world.time_out().await;
                world.note(format_args!("h{host} {what}: {fault:?}"));
                Err(unavailable())
            }
        };
        self.life.stand().await;
        answer
    }

    fn memory(&self) -> &MemoryStore {
        &self.life.world.store
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable {
        reason: "simulated".to_owned(),
        source: None,
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn check(&self, queries: &[CheckQuery]) -> Answer<Vec<Checked>> {
        let answer = self.ask("check", self.memory().check(queries)).await?;
        self.life.checked(queries);
        Ok(answer)
    }

    async fn read(&self, keys: &[StateKey]) -> Answer<Vec<Versioned>> {
        self.ask("read", self.memory().read(keys)).await
    }

    async fn commit(&self, runs: &[Run]) -> Answer<Vec<Outcome>> {
        let runs = runs.to_vec();
        self.tell("commit", |world| async move { commit(&world, &runs).await })
            .await
    }

    async fn bury(&self, letters: &[DeadLetter]) -> Answer<()> {
        let letters = letters.to_vec();
        self.tell("bury", |world| async move {
            world.judge(|oracle| oracle.buried(&letters));
            world.store.bury(&letters).await
        })
        .await
    }

    async fn due(&self, plugin: &PluginName, now_ms: u64, limit: usize) -> Answer<Vec<ParkedRow>> {
        self.ask("due", self.memory().due(plugin, now_ms, limit))
            .await
    }

    async fn parked(&self, plugin: &PluginName) -> Answer<(u64, Option<u64>)> {
        self.ask("parked", self.memory().parked(plugin)).await
    }

    async fn outbox(&self, scan: &OutboxScan) -> Answer<Vec<OutboxRow>> {
        self.ask("outbox", self.memory().outbox(scan)).await
    }

    async fn confirm(&self, rows: &[RowId]) -> Answer<()> {
        let rows = rows.to_vec();
        self.tell("confirm", |world| async move {
            world.judge(|oracle| oracle.promises.confirmed(&rows));
            world.store.confirm(&rows).await
        })
        .await
    }

    async fn refuse(&self, letters: &[DeadLetter]) -> Answer<()> {
        let letters = letters.to_vec();
        self.tell("refuse", |world| async move {
            world.judge(|oracle| oracle.promises.refused(&letters));
            world.store.refuse(&letters).await
        })
        .await
    }

    async fn outbox_len(&self) -> Answer<u64> {
        self.ask("outbox length", self.memory().outbox_len()).await
    }

    async fn fence(&self, record: &RecordId, run: RunId) -> Answer<bool> {
        let record = record.clone();
        self.tell("fence", move |world| async move {
            let done = world.store.fence(&record, run).await?;
            world.judge(|oracle| oracle.fenced(run, done));
            Ok(done)
        })
        .await
    }

    async fn expire(&self, plugin: &PluginName, retention: Duration, now_ms: u64) -> Answer<u64> {
        let plugin = plugin.clone();
        self.tell("expire", move |world| async move {
            world.store.expire(&plugin, retention, now_ms).await
        })
        .await
    }
}

/// One transaction, and what the oracle says to it.
async fn commit(world: &Arc<World>, runs: &[Run]) -> Answer<Vec<Outcome>> {
    let outcomes = world.store.commit(runs).await?;
    for (run, outcome) in runs.iter().zip(&outcomes) {
        world.note(format_args!("  {}", crate::oracle::describe(run, outcome)));
    }
    if let Some(written) = world.judge(|oracle| oracle.committed(runs, &outcomes)) {
        let values = world.store.read(&written).await?;
        world.judge(|oracle| oracle.compare(&written, &values));
    }
    Ok(outcomes)
}
