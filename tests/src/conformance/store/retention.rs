//! Rule 18: how done records go, and why no zombie profits from it.

use std::sync::Arc;
use std::time::Duration;

use semel_core::{Admin, Cause, Clock, Outcome, PluginName, RecordState, SystemClock};

use super::build::*;

/// Long enough to check and commit within it, also where many tests run at once.
const SHORT: Duration = Duration::from_millis(500);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

async fn expire(store: &Arc<dyn Admin>, plugin: &PluginName, retention: Duration) -> u64 {
    let now_ms = SystemClock.now_ms();
    store
        .expire(plugin, retention, now_ms)
        .await
        .expect("expiry is answered")
}

/// Longer than the short retention and its buckets.
async fn wait() {
    tokio::time::sleep(2 * SHORT).await;
}

/// A record older than the retention is dropped, and its key may be used again.
pub async fn an_expired_record_is_gone(store: Arc<dyn Admin>) {
    expire(&store, &plugin(), SHORT).await;
    apply(&store, &done("k").replying(b"r").adding("n", 1)).await;
    wait().await;
    expire(&store, &plugin(), SHORT).await;
    assert_eq!(check(&store, &record("k")).await.state, RecordState::Absent);
    assert_eq!(
        store.record(&record("k")).await.unwrap().0,
        RecordState::Absent
    );
    apply(&store, &done("k").with_body(b"other").adding("n", 1)).await;
    assert_eq!(text(&store, "n").await.as_deref(), Some("2"));
}

/// A younger one is not.
pub async fn a_young_record_stays(store: Arc<dyn Admin>) {
    expire(&store, &plugin(), WEEK).await;
    apply(&store, &done("k")).await;
    wait().await;
    assert_eq!(expire(&store, &plugin(), WEEK).await, 0);
    assert_eq!(commit_one(&store, &done("k")).await, Outcome::Duplicate);
}

/// The zombie: it found nothing, someone else handled the message, the record expired.
pub async fn a_run_that_was_checked_before_the_horizon_conflicts(store: Arc<dyn Admin>) {
    expire(&store, &plugin(), SHORT).await;
    let bucket = check(&store, &record("k")).await.bucket;
    let late = |mut run: semel_core::Run| {
        run.bucket = bucket;
        run
    };
    apply(&store, &done("k").adding("n", 1)).await;
    assert_eq!(
        commit_one(&store, &late(done("k"))).await,
        Outcome::Duplicate
    );
    wait().await;
    expire(&store, &plugin(), SHORT).await;
    for zombie in [
        done("k").adding("n", 1),
        park("k", 5),
        dead("k", Cause::Rejected),
    ] {
        assert_eq!(commit_one(&store, &late(zombie)).await, Outcome::Conflict);
    }
    assert_eq!(text(&store, "n").await.as_deref(), Some("1"));
    apply(&store, &done("k").adding("n", 1)).await;
}

/// Only what is settled and successful.
pub async fn parked_and_dead_do_not_expire(store: Arc<dyn Admin>) {
    expire(&store, &plugin(), SHORT).await;
    apply(&store, &park("p", 5)).await;
    apply(&store, &dead("d", Cause::Rejected)).await;
    apply(&store, &done("s").putting("x", "1").publishing("m", None)).await;
    wait().await;
    expire(&store, &plugin(), SHORT).await;
    assert_eq!(due(&store, 5).await, ["p"]);
    assert_eq!(commit_one(&store, &done("d")).await, Outcome::Duplicate);
    assert_eq!(store.list_dead(None, None, 9).await.unwrap().len(), 1);
    assert_eq!(text(&store, "x").await.as_deref(), Some("1"));
    assert_eq!(store.stats(&plugin()).await.unwrap().outbox, 1);
}

/// One plugin's expiry leaves the others alone.
pub async fn plugins_expire_on_their_own(store: Arc<dyn Admin>) {
    let audit = PluginName::new("audit");
    expire(&store, &plugin(), SHORT).await;
    expire(&store, &audit, WEEK).await;
    apply(&store, &done("k")).await;
    apply(&store, &done("k").of_plugin("audit")).await;
    wait().await;
    expire(&store, &plugin(), SHORT).await;
    expire(&store, &audit, WEEK).await;
    apply(&store, &done("k")).await;
    let again = done("k").of_plugin("audit");
    assert_eq!(commit_one(&store, &again).await, Outcome::Duplicate);
}

/// Also for records that were written under a longer one.
pub async fn a_shorter_retention_takes_hold(store: Arc<dyn Admin>) {
    apply(&store, &done("k")).await;
    expire(&store, &plugin(), SHORT).await;
    wait().await;
    expire(&store, &plugin(), SHORT).await;
    apply(&store, &done("k")).await;
}
