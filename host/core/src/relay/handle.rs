//! How engines reach their relay, and how the relay tells them that the outbox is full.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, futures::Notified};

use crate::OutboxRow;

/// How engines reach their relay.
#[derive(Clone, Default)]
pub struct RelayHandle {
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    room: Notify,
}

struct State {
    rows: Vec<(OutboxRow, bool)>,
    /// Rows were left to the sweep: there was no room, or their commit's outcome is unknown.
    sweep: bool,
    /// Rows that the relay holds, and how many it takes.
    queued: usize,
    queue: usize,
    /// Rows in the store, as far as this host knows, and how many there may be.
    outbox: u64,
    capacity: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            sweep: false,
            queued: 0,
            queue: 0,
            outbox: 0,
            capacity: u64::MAX,
        }
    }
}

/// What engines left for the relay.
pub(super) struct Offers {
    /// Each with whether no older row of its lane was present.
    pub(super) rows: Vec<(OutboxRow, bool)>,
    pub(super) sweep: bool,
}

impl RelayHandle {
    pub(super) fn new(queue: usize, capacity: u64) -> Self {
        let handle = Self::default();
        let mut state = handle.lock();
        state.queue = queue;
        state.capacity = capacity;
        drop(state);
        handle
    }

    /// Hands over rows that were just committed, each with whether no older row of its lane
    /// was present at that time. `left` more were committed and are left to the sweep.
    pub fn offer(&self, rows: Vec<(OutboxRow, bool)>, left: usize) {
        {
            let mut state = self.lock();
            let before = state.outbox;
            state.outbox += (rows.len() + left) as u64;
            tell_if_full(before, &state);
            if rows.is_empty() {
                return;
            }
            if state.queued + state.rows.len() > state.queue {
                state.sweep = true;
            } else {
                state.rows.extend(rows);
            }
        }
        self.inbox.arrived.notify_one();
    }

    /// Asks for a sweep: rows may have been committed that nobody will offer.
    pub fn sweep(&self) {
        self.lock().sweep = true;
        self.inbox.arrived.notify_one();
    }

    /// Whether the outbox holds as many rows as it may: nothing that may add to it should be
    /// started.
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        state.outbox >= state.capacity
    }

    /// Waits until the outbox is not full.
    pub async fn room(&self) {
        loop {
            let room = self.inbox.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }

    pub(super) fn take(&self, queued: usize) -> Offers {
        let mut state = self.lock();
        state.queued = queued;
        Offers {
            rows: std::mem::take(&mut state.rows),
            sweep: std::mem::take(&mut state.sweep),
        }
    }

    pub(super) fn has_offers(&self) -> bool {
        !self.lock().rows.is_empty()
    }

    pub(super) fn arrived(&self) -> Notified<'_> {
        self.inbox.arrived.notified()
    }

    /// This host deleted rows.
    pub(super) fn deleted(&self, rows: u64) {
        self.set_outbox(|known| known.saturating_sub(rows));
    }

    /// The store counted its rows.
    pub(super) fn counted(&self, rows: u64) {
        self.set_outbox(|_| rows);
    }

    fn set_outbox(&self, rows: impl FnOnce(u64) -> u64) {
        let mut state = self.lock();
        let before = state.outbox;
        state.outbox = rows(before);
        tell_if_full(before, &state);
        if state.outbox < state.capacity {
            drop(state);
            self.inbox.room.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inbox
            .state
            .lock()
            .expect("nothing panics while it holds the inbox")
    }
}

/// Says that the outbox became full, or that it no longer is.
fn tell_if_full(before: u64, state: &State) {
    let (rows, limit) = (state.outbox, state.capacity);
    match (before >= limit, rows >= limit) {
        (false, true) => tracing::warn!(
            rows,
            limit,
            "the outbox is full: consuming is suspended until brokers take outgoing messages"
        ),
        (true, false) => {
            tracing::info!(rows, limit, "the outbox has room again: consuming goes on")
        }
        _ => {}
    }
}
