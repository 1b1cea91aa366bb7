//! Looks into the store: for rows that were left behind, and for lanes whose lowest rows this
//! relay does not hold.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use futures::future::{BoxFuture, OptionFuture};
use tokio::time::Instant;

use super::RelayConfig;
use crate::crash::{CrashPoint, crash_point};
use crate::{OutboxLane, OutboxRow, OutboxScan, RowId, Store, StoreError};

/// One look at a time.
pub(super) struct Sweep {
    scan: Option<BoxFuture<'static, Result<Found, StoreError>>>,
    /// When the next round starts, or goes on.
    at: Instant,
    /// After a look that failed, none before.
    resume_at: Instant,
    /// How far the round has come; none between rounds.
    after: Option<RowId>,
    /// The first round takes every row: whoever left it there is gone, most likely.
    swept: bool,
    /// Rows of the last round that were left to whoever committed them, and of this one.
    strange: BTreeSet<RowId>,
    strange_now: BTreeSet<RowId>,
    /// Lanes with older rows than those that were offered. They are looked into in turn, and
    /// after the last one a round has its turn.
    behind: BTreeSet<OutboxLane>,
    turn: Option<OutboxLane>,
    /// Deleted while a scan was under way, which may have seen them still.
    lingering: Vec<RowId>,
}

/// What a look brought.
pub(super) struct Found {
    /// The lane that was looked into; none in a round over all rows.
    lane: Option<OutboxLane>,
    rows: Vec<OutboxRow>,
    /// Whether there may be more.
    full: bool,
    /// All rows of the store, counted when a round starts.
    pub(super) outbox: Option<u64>,
}

impl Found {
    /// Whether it is a lane of which there is more than one look can bring.
    pub(super) fn is_of_full_lane(&self) -> bool {
        self.full && self.lane.is_some()
    }
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            scan: None,
            at: now,
            resume_at: now,
            after: None,
            swept: false,
            strange: BTreeSet::new(),
            strange_now: BTreeSet::new(),
            behind: BTreeSet::new(),
            turn: None,
            lingering: Vec::new(),
        }
    }

    /// The next round is to start at once.
    pub(super) fn hasten(&mut self) {
        self.at = Instant::now();
    }

    pub(super) fn is_behind(&self, lane: &OutboxLane) -> bool {
        self.behind.contains(lane)
    }

    /// A lane has older rows than the one that was offered.
    pub(super) fn look_into(&mut self, lane: &OutboxLane) {
        self.behind.insert(lane.clone());
    }

    /// Whether nothing is left to look for between rounds.
    pub(super) fn is_idle(&self) -> bool {
        self.scan.is_none() && self.behind.is_empty() && self.after.is_none()
    }

    /// When the next look is to start, unless one is under way. A round needs `room`.
    pub(super) fn next_start(&self, room: bool) -> Option<Instant> {
        match &self.scan {
            Some(_) => None,
            None if !self.behind.is_empty() => Some(self.resume_at),
            None => room.then_some(self.at.max(self.resume_at)),
        }
    }

    pub(super) fn start(
        &mut self,
        store: &Arc<dyn Store>,
        config: &RelayConfig,
        room: bool,
        now: Instant,
    ) {
        if self.scan.is_some() || now < self.resume_at {
            return;
        }
        let round = room && now >= self.at;
        let lane = match self.next_lane() {
            None if !round => self.behind.first().cloned(),
            lane => lane,
        };
        if lane.is_none() && !round {
            return;
        }
        self.turn.clone_from(&lane);
        let counts = lane.is_none() && self.after.is_none();
        if lane.is_none() {
            self.at = now + config.sweep_interval;
        }
        let query = OutboxScan {
            after: self.after.filter(|_| lane.is_none()),
            lane,
            // Rows that are being published are found too, so this is the queue's whole room.
            limit: config.queue,
        };
        let store = Arc::clone(store);
        self.scan = Some(Box::pin(async move {
            crash_point(CrashPoint::ScanBefore);
            let rows = store.outbox(&query).await?;
            let outbox = match counts {
                true => Some(store.outbox_len().await?),
                false => None,
            };
            crash_point(CrashPoint::ScanAfter);
            Ok(Found {
                full: rows.len() >= query.limit,
                lane: query.lane,
                rows,
                outbox,
            })
        }));
    }

    fn next_lane(&self) -> Option<OutboxLane> {
        let above = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.behind.range((above, Bound::Unbounded)).next().cloned()
    }

    /// What the look under way brings; none if there is none.
    pub(super) async fn found(&mut self) -> Option<Result<Found, StoreError>> {
        let found = OptionFuture::from(self.scan.as_mut()).await?;
        self.scan = None;
        Some(found)
    }

    /// The look failed or brought nothing: the next one starts at `at`.
    pub(super) fn rest(&mut self, at: Instant) {
        self.resume_at = at;
    }

    /// The rows to take up: all of a lane that is behind, and those that were left behind.
    pub(super) fn sift(
        &mut self,
        found: Found,
        is_known: impl Fn(&OutboxRow) -> bool,
    ) -> Vec<OutboxRow> {
        let last = found.rows.last().map(|row| row.id);
        let fresh = found.rows.into_iter().filter(|row| !is_known(row));
        if let Some(lane) = found.lane {
            if !found.full {
                self.behind.remove(&lane);
            }
            return fresh.collect();
        }
        let mut taken = Vec::new();
        for row in fresh {
            if !self.swept || self.strange.contains(&row.id) {
                taken.push(row);
            } else {
                self.strange_now.insert(row.id);
            }
        }
        if found.full {
            self.after = last;
            self.at = Instant::now();
        } else {
            self.after = None;
            self.swept = true;
            self.strange = std::mem::take(&mut self.strange_now);
        }
        taken
    }

    /// Rows are deleted. They are given back unless a look is under way that may have seen
    /// them.
    pub(super) fn linger(&mut self, rows: Vec<RowId>) -> Option<Vec<RowId>> {
        if self.scan.is_none() {
            return Some(rows);
        }
        self.lingering.extend(rows);
        None
    }

    /// The look is over: these are forgotten.
    pub(super) fn lingered(&mut self) -> Vec<RowId> {
        std::mem::take(&mut self.lingering)
    }
}
