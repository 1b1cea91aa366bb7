//! Back-pressure: bounds on the messages that are on their way.

use std::sync::Mutex;

use tokio::sync::Notify;

/// Counts messages and bytes in flight.
pub(super) struct Budget {
    limit: usize,
    limit_bytes: usize,
    used: Mutex<(usize, usize)>,
    freed: Notify,
}

impl Budget {
    pub(super) fn new(limit: usize, limit_bytes: usize) -> Self {
        Self {
            limit,
            limit_bytes,
            used: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Waits until there is room for a message, and says for how many. The batch that is then
    /// received may go over the bytes once: its size isn't known before.
    pub(super) async fn room(&self) -> usize {
        loop {
            let freed = self.freed.notified();
            {
                let (count, bytes) = *self.lock();
                if count < self.limit && bytes < self.limit_bytes {
                    return self.limit - count;
                }
            }
            freed.await;
        }
    }

    pub(super) fn reserve(&self, count: usize, bytes: usize) {
        let mut used = self.lock();
        used.0 += count;
        used.1 += bytes;
    }

    pub(super) fn release(&self, bytes: usize) {
        {
            let mut used = self.lock();
            used.0 -= 1;
            used.1 -= bytes;
        }
        self.freed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (usize, usize)> {
        self.used
            .lock()
            .expect("nothing panics while it holds the budget")
    }
}
