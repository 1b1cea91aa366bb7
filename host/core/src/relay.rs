//! The relay: publishes the outbox.
//!
//! A committed row is published by the host that committed it at once, and deleted only when
//! the broker confirmed it. Rows that a crash left behind are found by a sweep. There is no
//! lease: two relays may publish the same row, under the same message id. Rows of a lane are
//! published in order: always the lowest that is present first.
//!
//! A destination that fails rests for a while, and holds up nobody but the lanes that go
//! there. A row that a broker will never take becomes a dead letter.

mod handle;
mod queue;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::crash::{CrashPoint, crash_point};
use crate::throttle::Throttle;
use crate::{
    Clock, DeadLetter, OutboxRow, OutboxScan, RowId, Sink, SinkError, Stats, Store, StoreError,
};
use handle::Offers;
use queue::Queue;
use sweep::{Found, Sweep};

pub use handle::RelayHandle;

/// A relay's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Rows of one destination published in one call to the sink.
    pub batch: usize,
    /// Rows kept in memory. Those beyond stay in the store until there is room.
    pub queue: usize,
    /// Rows in the store at which engines stop consuming. What is in flight then may go over.
    pub capacity: u64,
    /// How often the store is swept for rows that were left behind. A row must be seen twice
    /// before it counts as such, lest every host publishes what another has just committed.
    pub sweep_interval: Duration,
    /// How long a destination rests after a failure; it doubles up to 64 times this.
    pub retry_pause: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch: 512,
            queue: 8_192,
            capacity: 1_000_000,
            sweep_interval: Duration::from_secs(1),
            retry_pause: Duration::from_millis(100),
        }
    }
}

/// Publishes committed rows until it is shut down; see the [module's documentation](self).
pub struct Relay {
    config: RelayConfig,
    store: Arc<dyn Store>,
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    stats: Arc<Stats>,
    handle: RelayHandle,
    queue: Queue,
    sweep: Sweep,
    /// Being published, or published and not deleted yet.
    publishing: BTreeSet<RowId>,
    /// Confirmed by the broker, to be deleted.
    confirmed: Vec<RowId>,
    /// Refused by the broker, to be buried.
    refused: Vec<DeadLetter>,
    publishes: FuturesUnordered<BoxFuture<'static, Published>>,
    confirm: Waiting<Deleted<RowId>>,
    refuse: Waiting<Deleted<DeadLetter>>,
    /// Of lines about dead letters.
    letters: Throttle,
    /// After a failed deletion, none before.
    delete_at: Instant,
}

type Waiting<T> = Option<BoxFuture<'static, T>>;
type Published = (Arc<str>, Vec<OutboxRow>, Vec<Result<(), SinkError>>);
/// What was to be deleted from the outbox, and whether it was.
type Deleted<T> = (Vec<T>, Result<(), StoreError>);

impl Relay {
    /// A relay that has not started, and the handle to it.
    pub fn new(
        config: RelayConfig,
        store: Arc<dyn Store>,
        sink: Arc<dyn Sink>,
        clock: Arc<dyn Clock>,
        stats: Arc<Stats>,
    ) -> (Self, RelayHandle) {
        let handle = RelayHandle::new(config.queue, config.capacity);
        let relay = Self {
            config,
            store,
            sink,
            clock,
            stats,
            handle: handle.clone(),
            queue: Queue::default(),
            sweep: Sweep::new(Instant::now()),
            publishing: BTreeSet::new(),
            confirmed: Vec::new(),
            refused: Vec::new(),
            publishes: FuturesUnordered::new(),
            confirm: None,
            refuse: None,
            letters: Throttle::default(),
            delete_at: Instant::now(),
        };
        (relay, handle)
    }

    /// Publishes until `finish` is cancelled and the outbox is empty, or `stop` is cancelled.
    pub async fn run(
        mut self,
        finish: CancellationToken,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        loop {
            self.take_offers();
            self.start_publishes();
            self.start_deletes();
            self.start_scan();
            if finish.is_cancelled() && self.is_idle() && self.outbox_is_empty().await? {
                break;
            }
            let handle = self.handle.clone();
            let timer = self.next_timer();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = finish.cancelled(), if !finish.is_cancelled() => self.sweep.hasten(),
                Some((destination, rows, results)) = self.publishes.next() => {
                    self.published(&destination, rows, results);
                }
                Some((rows, result)) = OptionFuture::from(self.confirm.as_mut()) => {
                    self.confirm = None;
                    self.confirmed(rows, result)?;
                }
                Some((letters, result)) = OptionFuture::from(self.refuse.as_mut()) => {
                    self.refuse = None;
                    self.buried(letters, result)?;
                }
                Some(found) = self.sweep.found() => self.found(found)?,
                () = handle.arrived() => {}
                () = sleep_until(timer) => {}
            }
        }
        self.sink.close().await;
        Ok(())
    }

    fn take_offers(&mut self) {
        let Offers { rows, sweep } = self.handle.take(self.queue.len());
        if sweep {
            self.sweep.hasten();
        }
        for (row, clear) in rows {
            match &row.lane {
                Some(lane) if !clear || self.sweep.is_behind(lane) => self.sweep.look_into(lane),
                _ => self.admit(row),
            }
        }
    }

    /// Takes a row up, unless it is not due and there is no room to remember it.
    fn admit(&mut self, row: OutboxRow) {
        let due = row.due_ms <= self.clock.now_ms() || self.sink.delays(&row);
        if due {
            self.queue.insert(row);
        } else if self.queue.len() < self.config.queue {
            self.queue.delay(row);
        }
    }

    // === publish ===

    fn start_publishes(&mut self) {
        self.queue.release(self.clock.now_ms());
        for (destination, rows) in self.queue.take(self.config.batch, Instant::now()) {
            self.publishing.extend(rows.iter().map(|row| row.id));
            let sink = Arc::clone(&self.sink);
            self.publishes.push(Box::pin(async move {
                crash_point(CrashPoint::PublishBefore);
                let results = sink.publish(&rows).await;
                crash_point(CrashPoint::PublishAfter);
                (destination, rows, results)
            }));
        }
    }

    fn published(
        &mut self,
        destination: &Arc<str>,
        rows: Vec<OutboxRow>,
        results: Vec<Result<(), SinkError>>,
    ) {
        self.queue.returned(destination, &rows);
        let mut failures: BTreeMap<String, usize> = BTreeMap::new();
        for (row, result) in rows.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    self.stats.published.add(1);
                    self.confirmed.push(row.id);
                }
                Err(SinkError::Refused(reason)) => {
                    if let Some(held_back) = self.letters.pass() {
                        let id = &row.message_id;
                        tracing::warn!(%destination, %id, %reason, held_back, "dead letter: undeliverable");
                    }
                    let letter = DeadLetter::undeliverable(&row, reason, self.clock.now_ms());
                    self.refused.push(letter);
                }
                Err(error) => {
                    self.publishing.remove(&row.id);
                    if !matches!(error, SinkError::Held) {
                        *failures.entry(error.to_string()).or_default() += 1;
                    }
                    self.queue.insert(row);
                }
            }
        }
        if failures.is_empty() {
            self.queue.succeeded(destination);
            return;
        }
        let first_pause = self.config.retry_pause;
        let retry_in = self.queue.failed(destination, first_pause, Instant::now());
        for (error, rows) in failures {
            tracing::warn!(%destination, %error, rows, ?retry_in, "not published");
        }
    }

    // === delete ===

    fn start_deletes(&mut self) {
        if Instant::now() < self.delete_at {
            return;
        }
        if self.confirm.is_none() && !self.confirmed.is_empty() {
            let rows = std::mem::take(&mut self.confirmed);
            let store = Arc::clone(&self.store);
            self.confirm = Some(Box::pin(async move {
                crash_point(CrashPoint::ConfirmBefore);
                let result = store.confirm(&rows).await;
                crash_point(CrashPoint::ConfirmAfter);
                (rows, result)
            }));
        }
        if self.refuse.is_none() && !self.refused.is_empty() {
            let letters = std::mem::take(&mut self.refused);
            let store = Arc::clone(&self.store);
            self.refuse = Some(Box::pin(async move {
                crash_point(CrashPoint::RefuseBefore);
                let result = store.refuse(&letters).await;
                crash_point(CrashPoint::RefuseAfter);
                (letters, result)
            }));
        }
    }

    fn confirmed(
        &mut self,
        rows: Vec<RowId>,
        result: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.is_deleted(rows.len(), result)? {
            self.gone(rows);
        } else {
            self.confirmed.extend(rows);
        }
        Ok(())
    }

    fn buried(
        &mut self,
        letters: Vec<DeadLetter>,
        result: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.is_deleted(letters.len(), result)? {
            self.stats.undeliverable.add(letters.len() as u64);
            let rows = letters.into_iter().filter_map(|letter| letter.outgoing);
            self.gone(rows.map(|row| row.id).collect());
        } else {
            self.refused.extend(letters);
        }
        Ok(())
    }

    /// Rows that are not deleted are present and not to be sent again: they are deleted later.
    fn is_deleted(
        &mut self,
        rows: usize,
        result: Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, rows, "published messages stay in the outbox");
                self.delete_at = Instant::now() + self.config.sweep_interval;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn gone(&mut self, rows: Vec<RowId>) {
        self.handle.deleted(rows.len() as u64);
        for row in self.sweep.linger(rows).unwrap_or_default() {
            self.publishing.remove(&row);
        }
    }

    // === sweep ===

    fn start_scan(&mut self) {
        let room = self.queue.len() < self.config.queue;
        self.sweep
            .start(&self.store, &self.config, room, Instant::now());
    }

    fn found(&mut self, found: Result<Found, StoreError>) -> Result<(), StoreError> {
        match found {
            Ok(found) => {
                if let Some(rows) = found.outbox {
                    self.handle.counted(rows);
                }
                let (queue, publishing) = (&self.queue, &self.publishing);
                let is_known =
                    |row: &OutboxRow| publishing.contains(&row.id) || queue.contains(row);
                let waits = found.is_of_full_lane();
                let rows = self.sweep.sift(found, is_known);
                if waits && rows.is_empty() {
                    // Its lowest rows are on their way: there is nothing to see until they are gone.
                    self.sweep.rest(Instant::now() + self.config.retry_pause);
                }
                rows.into_iter().for_each(|row| self.admit(row));
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the outbox can't be swept");
                self.sweep.rest(Instant::now() + self.config.sweep_interval);
            }
            Err(error) => return Err(error),
        }
        for row in self.sweep.lingered() {
            self.publishing.remove(&row);
        }
        Ok(())
    }

    // === end ===

    fn is_idle(&self) -> bool {
        self.queue.len() == 0
            && self.confirmed.is_empty()
            && self.refused.is_empty()
            && self.publishes.is_empty()
            && self.confirm.is_none()
            && self.refuse.is_none()
            && self.sweep.is_idle()
            && !self.handle.has_offers()
    }

    async fn outbox_is_empty(&mut self) -> Result<bool, StoreError> {
        let scan = OutboxScan {
            limit: 1,
            ..OutboxScan::default()
        };
        match self.store.outbox(&scan).await {
            Ok(rows) => Ok(rows.is_empty()),
            Err(error) if error.is_transient() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn next_timer(&self) -> Instant {
        let now = Instant::now();
        let room = self.queue.len() < self.config.queue;
        let mut next = match self.sweep.next_start(room) {
            Some(start) => start,
            None => now + self.config.sweep_interval,
        };
        if let Some(due_ms) = self.queue.next_due_ms() {
            let delay = due_ms.saturating_sub(self.clock.now_ms());
            next = next.min(now + Duration::from_millis(delay));
        }
        if let Some(again) = self.queue.next_try(now) {
            next = next.min(again);
        }
        let confirms = self.confirm.is_none() && !self.confirmed.is_empty();
        let refuses = self.refuse.is_none() && !self.refused.is_empty();
        if confirms || refuses {
            next = next.min(self.delete_at.max(now));
        }
        next
    }
}
