//! Settle: those who wait at the source hear what became of their messages.

use std::sync::Arc;

use super::Engine;
use super::job::{Job, Origin};
use crate::crash::{CrashPoint, crash_point};
use crate::{Disposition, Settlement};

impl Engine {
    /// Notes what became of a message, if anyone wants to hear it.
    pub(super) fn note(&mut self, job: &Job, disposition: impl FnOnce() -> Disposition) {
        if self.wants_settlements && job.origin == Origin::Source {
            self.settlements.push(Settlement {
                position: job.position.clone(),
                disposition: disposition(),
            });
        }
    }

    pub(super) fn start_settle(&mut self) {
        if self.pending.settle.is_some() || self.settlements.is_empty() {
            return;
        }
        let settlements = std::mem::take(&mut self.settlements);
        let source = Arc::clone(&self.parts.source);
        self.pending.settle = Some(Box::pin(async move {
            crash_point(CrashPoint::SettleBefore);
            source.settle(settlements).await;
            crash_point(CrashPoint::SettleAfter);
        }));
    }
}

/// What a duplicate in flight hears.
pub(super) fn of_duplicate(first: &Disposition) -> Disposition {
    match first.clone() {
        Disposition::Done { reply, .. } => Disposition::Done {
            reply,
            duplicate: true,
        },
        other => other,
    }
}
