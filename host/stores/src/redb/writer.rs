//! The thread that owns write transactions.
//!
//! A durable transaction costs about a millisecond whatever its size, so the writer takes all
//! requests that wait and carries them out in one. Each caller is answered after that is on
//! disk.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use redb::{Database, Durability, ReadableDatabase};
use semel_core::crash::{CrashPoint, crash_point};
use semel_core::{StoreError, Version};
use tokio::sync::oneshot;

use super::buckets::{self, AllBuckets};
use super::ledger::{Ledger, Left};
use super::tables::{BUCKETS, HORIZONS, META};
use super::{Broken, Time};

/// How much one transaction takes up at most, in runs or what costs about as much.
const TRANSACTION_WEIGHT: usize = 1024;

/// Hands requests to the writer. Its thread ends when this is dropped.
pub(super) struct Writer {
    requests: Option<Sender<Box<dyn Request>>>,
    thread: Option<JoinHandle<()>>,
}

/// Something to do in a write transaction.
trait Request: Send {
    fn weight(&self) -> usize;

    /// Carries it out and keeps the answer.
    fn carry_out(&mut self, ledger: &mut Ledger<'_>) -> Result<(), Broken>;

    /// Gives the caller the answer, or says why there is none.
    fn reply(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Task<T, F> {
    weight: usize,
    body: F,
    answer: Option<T>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Request for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Ledger<'_>) -> Result<T, Broken> + Send,
{
    fn weight(&self) -> usize {
        self.weight
    }

    fn carry_out(&mut self, ledger: &mut Ledger<'_>) -> Result<(), Broken> {
        self.answer = Some((self.body)(ledger)?);
        Ok(())
    }

    fn reply(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Task { answer, caller, .. } = *self;
        let answer = outcome.map(|()| answer.expect("it was carried out"));
        // A caller that no longer waits does not need the answer.
        let _ = caller.send(answer);
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        database: Arc<Database>,
        time: Arc<Time>,
        buckets: Arc<RwLock<Arc<AllBuckets>>>,
    ) -> Result<Self, Broken> {
        let mut worker = Worker {
            sequence: read_sequence(&database)?,
            known: read_buckets(&buckets),
            database,
            time,
            buckets,
        };
        let (requests, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("semel-redb".to_owned())
            .spawn(move || worker.work(&queue))
            .map_err(Broken::Thread)?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Carries out `body` in a durable transaction.
    pub(super) async fn write<T, F>(&self, weight: usize, body: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Ledger<'_>) -> Result<T, Broken> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let task = Task {
            weight,
            body,
            answer: None,
            caller,
        };
        let stopped = || StoreError::failed("the writer of the redb store has stopped");
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.send(Box::new(task)).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was reported by its callers' errors.
            let _ = thread.join();
        }
    }
}

struct Worker {
    database: Arc<Database>,
    time: Arc<Time>,
    /// What readers know of the buckets.
    buckets: Arc<RwLock<Arc<AllBuckets>>>,
    /// As of the last transaction.
    known: Arc<AllBuckets>,
    sequence: Version,
}

impl Worker {
    fn work(&mut self, queue: &Receiver<Box<dyn Request>>) {
        while let Ok(first) = queue.recv() {
            let mut weight = first.weight();
            let mut requests = vec![first];
            while weight < TRANSACTION_WEIGHT
                && let Ok(request) = queue.try_recv()
            {
                weight += request.weight();
                requests.push(request);
            }
            let outcome = self.transact(&mut requests).map_err(StoreError::from);
            for request in requests {
                request.reply(outcome.clone());
            }
        }
    }

    fn transact(&mut self, requests: &mut [Box<dyn Request>]) -> Result<(), Broken> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // Reopening after a kill takes a millisecond, whatever the size of the store.
        transaction.set_quick_repair(true);
        let now_ms = self.time.now_ms();
        let mut ledger =
            Ledger::open(&transaction, now_ms, self.sequence, Arc::clone(&self.known))?;
        for request in requests {
            request.carry_out(&mut ledger)?;
        }
        let Left {
            sequence,
            buckets,
            buckets_changed,
            has_runs,
        } = ledger.close()?;
        if buckets_changed {
            // Before the commit readers must know the new tables, which are empty to them.
            self.publish(Arc::new(merged(&self.known, &buckets)));
        }
        if has_runs {
            crash_point(CrashPoint::CommitWritten);
        }
        transaction.commit()?;
        self.sequence = sequence;
        if buckets_changed {
            self.publish(Arc::clone(&buckets));
            self.known = buckets;
        }
        Ok(())
    }

    fn publish(&self, buckets: Arc<AllBuckets>) {
        *self.buckets.write().unwrap_or_else(PoisonError::into_inner) = buckets;
    }
}

/// The buckets of both, with the horizons of the first.
fn merged(before: &AllBuckets, after: &AllBuckets) -> AllBuckets {
    let mut merged = before.clone();
    for (plugin, buckets) in after {
        let known = merged.entry(plugin.clone()).or_default();
        let is_new = |start_ms| known.live.iter().all(|bucket| bucket.start_ms != start_ms);
        let mut live: Vec<_> = buckets
            .live
            .iter()
            .filter(|bucket| is_new(bucket.start_ms))
            .cloned()
            .collect();
        live.append(&mut known.live);
        known.live = live;
    }
    merged
}

pub(super) fn read_buckets(buckets: &RwLock<Arc<AllBuckets>>) -> Arc<AllBuckets> {
    buckets
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

fn read_sequence(database: &Database) -> Result<Version, Broken> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(meta.get("sequence")?.map_or(0, |sequence| sequence.value()))
}

/// Reads the buckets when the store is opened.
pub(super) fn load_buckets(database: &Database) -> Result<AllBuckets, Broken> {
    let transaction = database.begin_read()?;
    buckets::load(
        &transaction.open_table(BUCKETS)?,
        &transaction.open_table(HORIZONS)?,
    )
}
