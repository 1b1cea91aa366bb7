use std::sync::Arc;
use std::time::Duration;

use semel_core::Store;
use semel_core::crash::{CrashPoint, crash_point};
use semel_rocketmq_client::{CheckBack, Decision, MessageExt};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::message::run_of;

/// How long the store may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Answers the broker's check-backs from the store, for whichever host sent the half message.
///
/// A run that is not done is fenced before its message is rolled back: the host that sent it
/// may be paused, and must not commit it when it wakes up. Without an answer of the store the
/// broker is told nothing, and asks again.
pub(super) struct StoreCheckBack {
    store: Arc<dyn Store>,
    /// Where the store's client lives.
    runtime: Handle,
}

impl StoreCheckBack {
    /// Asks this store, on the runtime of the caller.
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            runtime: Handle::current(),
        }
    }
}

impl CheckBack for StoreCheckBack {
    fn decide(&self, half: &MessageExt) -> Decision {
        let Some((record, run)) = run_of(half) else {
            tracing::warn!(
                topic = %half.topic(),
                "a half message names no run: the producer group is used by something else, too"
            );
            return Decision::Unknown;
        };
        crash_point(CrashPoint::FenceBefore);
        let fence = async { timeout(ANSWER, self.store.fence(&record, run)).await };
        let answer = self.runtime.block_on(fence);
        let decision = match answer {
            Ok(Ok(true)) => Decision::Commit,
            Ok(Ok(false)) => Decision::Rollback,
            Ok(Err(_)) | Err(_) => Decision::Unknown,
        };
        if decision != Decision::Unknown {
            crash_point(CrashPoint::FenceAfter);
        }
        tracing::debug!(plugin = %record.plugin, key = %record.key, %run, ?decision, "check-back");
        decision
    }
}
