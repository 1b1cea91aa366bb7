//! The relay: publishes the outbox.
//!
//! A committed row is published by the host that committed it at once, and deleted only when
//! the broker confirmed it. Rows that a crash left behind are found by a sweep. There is no
//! lease: two relays may publish the same row, under the same message id. Rows of a lane are
//! published in order: always the lowest that is present first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{OutboxLane, OutboxRow, OutboxScan, RowId, Sink, SinkError, Stats, Store, StoreError};

/// A relay's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Rows published in one call to the sink.
    pub batch: usize,
    /// Rows kept in memory. Those beyond stay in the store until there is room.
    pub queue: usize,
    /// How often the store is swept for rows that were left behind. A row must be seen twice
    /// before it counts as such, lest every host publishes what another has just committed.
    pub sweep_interval: Duration,
    /// The pause after a failed publish; it doubles up to 64 times this.
    pub retry_pause: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch: 512,
            queue: 8_192,
            sweep_interval: Duration::from_secs(1),
            retry_pause: Duration::from_millis(100),
        }
    }
}

/// How engines reach their relay.
#[derive(Clone, Default)]
pub struct RelayHandle {
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<InboxState>,
    arrived: Notify,
}

#[derive(Default)]
struct InboxState {
    rows: Vec<(OutboxRow, bool)>,
    /// Rows were left to the sweep: there was no room, or their commit's outcome is unknown.
    sweep: bool,
    queued: usize,
    limit: usize,
}

impl RelayHandle {
    /// Hands over rows that were just committed, each with whether no older row of its lane
    /// was present at that time.
    pub fn offer(&self, rows: Vec<(OutboxRow, bool)>) {
        if rows.is_empty() {
            return;
        }
        {
            let mut inbox = self.lock();
            if inbox.queued + inbox.rows.len() > inbox.limit {
                inbox.sweep = true;
            } else {
                inbox.rows.extend(rows);
            }
        }
        self.inbox.arrived.notify_one();
    }

    /// Asks for a sweep: rows may have been committed that nobody will offer.
    pub fn sweep(&self) {
        self.lock().sweep = true;
        self.inbox.arrived.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InboxState> {
        self.inbox
            .state
            .lock()
            .expect("nothing panics while it holds the inbox")
    }
}

/// Publishes committed rows until it is shut down; see the [module's documentation](self).
pub struct Relay {
    config: RelayConfig,
    store: Arc<dyn Store>,
    sink: Arc<dyn Sink>,
    stats: Arc<Stats>,
    handle: RelayHandle,
    /// To be published, lowest first.
    queue: BTreeMap<RowId, OutboxRow>,
    /// Being published, or published and not deleted yet.
    publishing: HashSet<RowId>,
    /// Deleted while a scan was under way, which may have seen them still.
    lingering: Vec<RowId>,
    /// Confirmed by the broker, to be deleted.
    confirmed: Vec<RowId>,
    /// Lanes with older rows that are not in the queue: these come first.
    behind: HashSet<OutboxLane>,
    /// Seen by the last sweep and left to whoever committed them.
    strange: HashSet<RowId>,
    publish: Waiting<Published>,
    confirm: Waiting<Confirmed>,
    scan: Waiting<Scanned>,
    sweep_at: Instant,
    /// The first sweep takes every row: whoever left it there is gone, most likely.
    swept: bool,
    publish_at: Instant,
    confirm_at: Instant,
    pause: Duration,
}

type Waiting<T> = Option<BoxFuture<'static, T>>;
type Published = (Vec<OutboxRow>, Vec<Result<(), SinkError>>);
type Confirmed = (Vec<RowId>, Result<(), StoreError>);
type Scanned = (Scan, Result<Vec<OutboxRow>, StoreError>);

/// Which rows a look into the store was for.
enum Scan {
    Sweep,
    Lane(OutboxLane),
}

impl Relay {
    /// A relay that has not started, and the handle to it.
    pub fn new(
        config: RelayConfig,
        store: Arc<dyn Store>,
        sink: Arc<dyn Sink>,
        stats: Arc<Stats>,
    ) -> (Self, RelayHandle) {
        let handle = RelayHandle::default();
        handle.lock().limit = config.queue;
        let now = Instant::now();
        let relay = Self {
            config,
            store,
            sink,
            stats,
            handle: handle.clone(),
            queue: BTreeMap::new(),
            publishing: HashSet::new(),
            lingering: Vec::new(),
            confirmed: Vec::new(),
            behind: HashSet::new(),
            strange: HashSet::new(),
            publish: None,
            confirm: None,
            scan: None,
            sweep_at: now,
            swept: false,
            publish_at: now,
            confirm_at: now,
            pause: config.retry_pause,
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
            self.start();
            if finish.is_cancelled() && self.is_idle() && self.outbox_is_empty().await? {
                break;
            }
            let handle = self.handle.clone();
            let timer = self.next_timer();
            tokio::select! {
                () = stop.cancelled() => break,
                () = finish.cancelled(), if !finish.is_cancelled() => self.sweep_at = Instant::now(),
                () = handle.inbox.arrived.notified() => {}
                Some((rows, results)) = OptionFuture::from(self.publish.as_mut()) => {
                    self.publish = None;
                    self.published(rows, results);
                }
                Some((rows, result)) = OptionFuture::from(self.confirm.as_mut()) => {
                    self.confirm = None;
                    self.deleted(rows, result)?;
                }
                Some((scan, rows)) = OptionFuture::from(self.scan.as_mut()) => {
                    self.scan = None;
                    self.scanned(scan, rows)?;
                    let deleted = std::mem::take(&mut self.lingering);
                    self.forget(&deleted);
                }
                () = sleep_until(timer) => {}
            }
        }
        self.sink.close().await;
        Ok(())
    }

    fn take_offers(&mut self) {
        let (rows, sweep) = {
            let mut inbox = self.handle.lock();
            inbox.queued = self.queue.len();
            (
                std::mem::take(&mut inbox.rows),
                std::mem::take(&mut inbox.sweep),
            )
        };
        if sweep {
            self.sweep_at = Instant::now();
        }
        for (row, clear) in rows {
            match &row.lane {
                Some(lane) if !clear || self.behind.contains(lane) => {
                    self.behind.insert(lane.clone());
                }
                _ => {
                    self.queue.insert(row.id, row);
                }
            }
        }
    }

    fn start(&mut self) {
        let now = Instant::now();
        if self.publish.is_none() && now >= self.publish_at && !self.queue.is_empty() {
            self.start_publish();
        }
        if self.confirm.is_none() && now >= self.confirm_at && !self.confirmed.is_empty() {
            let rows = std::mem::take(&mut self.confirmed);
            let store = Arc::clone(&self.store);
            self.confirm = Some(Box::pin(async move {
                let result = store.confirm(&rows).await;
                (rows, result)
            }));
        }
        if self.scan.is_none() {
            if let Some(lane) = self.behind.iter().next().cloned() {
                self.start_scan(Scan::Lane(lane));
            } else if now >= self.sweep_at && self.queue.len() < self.config.queue {
                self.sweep_at = now + self.config.sweep_interval;
                self.start_scan(Scan::Sweep);
            }
        }
    }

    fn start_publish(&mut self) {
        let mut rows = Vec::new();
        while rows.len() < self.config.batch
            && let Some((id, row)) = self.queue.pop_first()
        {
            self.publishing.insert(id);
            rows.push(row);
        }
        let sink = Arc::clone(&self.sink);
        self.publish = Some(Box::pin(async move {
            let results = sink.publish(&rows).await;
            (rows, results)
        }));
    }

    fn published(&mut self, rows: Vec<OutboxRow>, results: Vec<Result<(), SinkError>>) {
        let mut failures: HashMap<String, usize> = HashMap::new();
        for (row, result) in rows.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    self.stats.published.add(1);
                    self.confirmed.push(row.id);
                }
                Err(error) => {
                    self.publishing.remove(&row.id);
                    *failures.entry(error.to_string()).or_default() += 1;
                    self.queue.insert(row.id, row);
                }
            }
        }
        if failures.is_empty() {
            self.pause = self.config.retry_pause;
            return;
        }
        for (error, rows) in failures {
            tracing::warn!(%error, rows, retry_in = ?self.pause, "not published");
        }
        self.publish_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(self.config.retry_pause * 64);
    }

    fn deleted(
        &mut self,
        rows: Vec<RowId>,
        result: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match result {
            Ok(()) if self.scan.is_some() => {
                self.lingering.extend(rows);
                Ok(())
            }
            Ok(()) => {
                self.forget(&rows);
                Ok(())
            }
            // They are published and present: to be deleted later, never to be sent again.
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, rows = rows.len(), "published messages stay in the outbox");
                self.confirmed.extend(rows);
                self.confirm_at = Instant::now() + self.config.sweep_interval;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn forget(&mut self, rows: &[RowId]) {
        for row in rows {
            self.publishing.remove(row);
        }
    }

    fn start_scan(&mut self, scan: Scan) {
        let lane = match &scan {
            Scan::Sweep => None,
            Scan::Lane(lane) => Some(lane.clone()),
        };
        // Rows that are being published are found too, so look further than the queue's room.
        let limit = self.config.queue;
        let query = OutboxScan {
            after: None,
            lane,
            limit,
        };
        let store = Arc::clone(&self.store);
        self.scan = Some(Box::pin(async move { (scan, store.outbox(&query).await) }));
    }

    fn scanned(
        &mut self,
        scan: Scan,
        rows: Result<Vec<OutboxRow>, StoreError>,
    ) -> Result<(), StoreError> {
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the outbox can't be swept");
                self.sweep_at = Instant::now() + self.config.sweep_interval;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let full = rows.len() >= self.config.queue;
        let fresh = rows
            .into_iter()
            .filter(|row| !self.publishing.contains(&row.id));
        match scan {
            Scan::Lane(lane) => {
                self.queue.extend(fresh.map(|row| (row.id, row)));
                if !full {
                    self.behind.remove(&lane);
                }
            }
            Scan::Sweep => {
                let mut strange = HashSet::new();
                for row in fresh {
                    if !self.swept || self.strange.contains(&row.id) {
                        self.queue.insert(row.id, row);
                    } else if !self.queue.contains_key(&row.id) {
                        strange.insert(row.id);
                    }
                }
                self.strange = strange;
                self.swept = true;
                if full {
                    self.sweep_at = Instant::now();
                }
            }
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.confirmed.is_empty()
            && self.behind.is_empty()
            && self.publish.is_none()
            && self.confirm.is_none()
            && self.scan.is_none()
            && self.handle.lock().rows.is_empty()
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
        let mut next = self.sweep_at;
        if self.scan.is_some() || self.queue.len() >= self.config.queue {
            next = Instant::now() + self.config.sweep_interval;
        }
        if self.publish.is_none() && !self.queue.is_empty() {
            next = next.min(self.publish_at);
        }
        if self.confirm.is_none() && !self.confirmed.is_empty() {
            next = next.min(self.confirm_at);
        }
        next
    }
}
