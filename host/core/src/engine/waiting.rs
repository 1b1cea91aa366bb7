//! What an engine does in its own time: take up parked messages, expire records, and find out
//! whether it has come to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::job::Job;
use super::{
    EXPIRE_INTERVAL, Engine, EngineError, Phase, SETTLE_INTERVAL, WAKE_INTERVAL, WAKE_LIMIT,
};
use crate::crash::{CrashPoint, crash_point};
use crate::{ParkedRow, StoreError};

impl Engine {
    pub(super) fn start_timers(&mut self) {
        let now = Instant::now();
        if self.pending.wake.is_none() && now >= self.wake_at && !self.parts.relay.is_full() {
            self.wake_at = now + WAKE_INTERVAL;
            let store = Arc::clone(&self.parts.store);
            let plugin = self.config.plugin.clone();
            let now_ms = self.parts.clock.now_ms();
            self.pending.wake = Some(Box::pin(async move {
                crash_point(CrashPoint::WakeBefore);
                let rows = store.due(&plugin, now_ms, WAKE_LIMIT).await;
                crash_point(CrashPoint::WakeAfter);
                rows
            }));
        }
        if self.pending.expire.is_none() && now >= self.expire_at {
            self.expire_at = now + EXPIRE_INTERVAL;
            let store = Arc::clone(&self.parts.store);
            let plugin = self.config.plugin.clone();
            let (retention, now_ms) = (self.config.retention, self.parts.clock.now_ms());
            self.pending.expire = Some(Box::pin(async move {
                crash_point(CrashPoint::ExpireBefore);
                let expired = store.expire(&plugin, retention, now_ms).await;
                crash_point(CrashPoint::ExpireAfter);
                expired
            }));
        }
    }

    pub(super) fn due(
        &mut self,
        rows: Result<Vec<ParkedRow>, StoreError>,
    ) -> Result<(), EngineError> {
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "parked messages have to wait");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let config = Arc::clone(&self.config);
        self.take_up(rows.into_iter().map(|row| Job::from_parked(row, &config)));
        self.give_up_gaps();
        Ok(())
    }

    /// Has parked messages run again, unless they are on their way already.
    pub(super) fn take_up(&mut self, jobs: impl IntoIterator<Item = Job>) {
        let mut taken = Vec::new();
        for mut job in jobs {
            if !self.queue.has(&job.record) {
                self.queue.lead(&mut job);
                self.budget.reserve(1, job.message.size());
                self.parts.stats.woken.add(1);
                taken.push(job);
            }
        }
        self.recheck(None, taken);
    }

    /// Whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_idle()
            && self.running == 0
            && self.pending.is_empty()
            && self.unacknowledged.is_empty()
    }

    /// Asks whether messages are parked still.
    pub(super) fn start_settling(&mut self) {
        if Instant::now() >= self.settle_at {
            let store = Arc::clone(&self.parts.store);
            let plugin = self.config.plugin.clone();
            self.pending.settling = Some(Box::pin(async move { store.parked(&plugin).await }));
        }
    }

    pub(super) fn settled(
        &mut self,
        parked: Result<(u64, Option<u64>), StoreError>,
    ) -> Result<Phase, EngineError> {
        let now = Instant::now();
        self.settle_at = now + SETTLE_INTERVAL;
        match parked {
            Ok((0, _)) => return Ok(Phase::Finished),
            Ok((_, due_ms)) => {
                let delay = due_ms
                    .unwrap_or(0)
                    .saturating_sub(self.parts.clock.now_ms());
                self.wake_at = self.wake_at.min(now + Duration::from_millis(delay));
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "parked messages can't be counted");
                self.settle_at = now + WAKE_INTERVAL;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Phase::Finishing)
    }

    pub(super) fn next_timer(&self, phase: Phase) -> Instant {
        let mut next = Instant::now() + WAKE_INTERVAL;
        if self.pending.wake.is_none() && !self.parts.relay.is_full() {
            next = next.min(self.wake_at);
        }
        if self.pending.expire.is_none() {
            next = next.min(self.expire_at);
        }
        if !self.unacknowledged.is_empty() && !self.pending.is_acknowledging() {
            next = next.min(self.acknowledge_at);
        }
        if !self.pending.is_committing() && self.overlay.len() > 0 {
            next = next.min(self.commit_at);
        }
        if phase == Phase::Finishing && self.pending.settling.is_none() && self.is_quiet() {
            next = next.min(self.settle_at);
        }
        next
    }
}
