//! Fences: a run that is known not to be done never will be.

use std::sync::Arc;
use std::time::Duration;

use semel_core::{Admin, Cause, Clock, Outcome, RecordState, Run, SystemClock};
use tokio::sync::Barrier;

use super::build::*;

async fn fence(store: &Arc<dyn Admin>, run: &Run) -> bool {
    let done = store.fence(&run.record, run.id).await;
    done.expect("the fence is answered")
}

/// Nobody did it: this run must not, but another may.
pub async fn a_fenced_run_is_refused(store: Arc<dyn Admin>) {
    let run = done("k").adding("n", 1).publishing("m", None);
    for _ in 0..2 {
        assert!(!fence(&store, &run).await);
        assert_eq!(commit_one(&store, &run).await, Outcome::Conflict);
    }
    assert_eq!(check(&store, &run.record).await.state, RecordState::Absent);
    assert_eq!(text(&store, "n").await, None);
    assert_eq!(store.outbox_len().await.unwrap(), 0);
    apply(&store, &done("k").adding("n", 1)).await;
    assert_eq!(text(&store, "n").await.as_deref(), Some("1"));
    assert_eq!(commit_one(&store, &run).await, Outcome::Duplicate);
}

/// Whatever it asks for, and whatever it found.
pub async fn a_fence_holds_for_every_verdict(store: Arc<dyn Admin>) {
    let version = apply(&store, &park("k", 5)).await;
    for run in [
        done("k").found(version),
        park("k", 9).found(version),
        dead("k", Cause::Rejected).found(version),
        dead("k", Cause::Exhausted).found(version),
    ] {
        assert!(!fence(&store, &run).await);
        assert_eq!(commit_one(&store, &run).await, Outcome::Conflict);
    }
    assert_eq!(parked_version(&store, &record("k")).await, version);
    apply(&store, &done("k").found(version)).await;
}

/// It is told each time, and the run is not fenced.
pub async fn the_run_that_did_it_is_known(store: Arc<dyn Admin>) {
    let plain = done("k").adding("n", 1);
    let replying = done("r").replying(b"r");
    for run in [plain, replying] {
        let first = commit_one(&store, &run).await;
        assert!(fence(&store, &run).await);
        assert!(fence(&store, &run).await);
        assert_eq!(commit_one(&store, &run).await, first);
    }
}

/// Done, but by another; or by this run, but parked or dead.
pub async fn only_the_run_that_did_it_is_done(store: Arc<dyn Admin>) {
    let late = done("k");
    apply(&store, &done("k")).await;
    assert!(!fence(&store, &late).await);
    assert_eq!(commit_one(&store, &late).await, Outcome::Duplicate);
    for run in [park("p", 5), dead("d", Cause::Rejected)] {
        apply(&store, &run).await;
        assert!(!fence(&store, &run).await);
    }
    // A record of the same key, of another plugin.
    let run = done("k").of_plugin("audit");
    apply(&store, &run).await;
    assert!(!store.fence(&record("k"), run.id).await.unwrap());
    assert!(fence(&store, &run).await);
}

/// Within a batch, a fenced run holds up its lane and nothing else.
pub async fn a_fence_concerns_one_run_of_a_batch(store: Arc<dyn Admin>) {
    let batch = [
        done("1").in_lane("l", 1),
        done("2").in_lane("l", 2),
        done("3").in_lane("m", 1),
        done("4").adding("n", 1),
    ];
    assert!(!fence(&store, &batch[0]).await);
    let outcomes = commit(&store, &batch).await;
    assert_eq!(outcomes[..2], [Outcome::Conflict, Outcome::Conflict]);
    assert!(outcomes[2..].iter().all(applied), "{outcomes:?}");
    let mut again = batch[0].clone();
    again.id = run_id();
    let outcomes = commit(&store, &[again, batch[1].clone()]).await;
    assert!(outcomes.iter().all(applied), "{outcomes:?}");
}

/// At the same time: whichever comes first, both tell the same.
pub async fn fence_and_commit_decide_one_way(store: Arc<dyn Admin>) {
    let (mut done_runs, mut fenced) = (0, 0);
    for round in 0..60 {
        let mut run = done(round.to_string()).adding("n", 1);
        run.bucket = check(&store, &run.record).await.bucket;
        let start = Arc::new(Barrier::new(2));
        let committer = tokio::spawn({
            let (store, run, start) = (Arc::clone(&store), run.clone(), Arc::clone(&start));
            async move {
                start.wait().await;
                commit_one(&store, &run).await
            }
        });
        start.wait().await;
        let is_done = fence(&store, &run).await;
        let outcome = committer.await.expect("it does not panic");
        match (&outcome, is_done) {
            (Outcome::Applied { .. }, true) => done_runs += 1,
            (Outcome::Conflict, false) => fenced += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!(fence(&store, &run).await, is_done);
        assert_eq!(commit_one(&store, &run).await, outcome);
    }
    assert_eq!(done_runs + fenced, 60);
    let sum = text(&store, "n").await.unwrap_or_default();
    assert_eq!(sum.parse().unwrap_or(0), done_runs);
}

/// Expiry may forget a fence, but what was fenced stays refused.
pub async fn expiry_lifts_no_fence(store: Arc<dyn Admin>) {
    let expire = async |retention: Duration| {
        let now_ms = SystemClock.now_ms();
        store.expire(&plugin(), retention, now_ms).await.unwrap();
    };
    let short = Duration::from_millis(20);
    expire(short).await;
    let mut old = done("k");
    old.bucket = check(&store, &old.record).await.bucket;
    assert!(!fence(&store, &old).await);
    tokio::time::sleep(Duration::from_millis(80)).await;
    let mut young = done("k");
    young.bucket = check(&store, &young.record).await.bucket;
    assert!(!fence(&store, &young).await);
    for retention in [short, short, Duration::from_secs(3_600)] {
        expire(retention).await;
        for run in [&old, &young] {
            assert_eq!(commit_one(&store, run).await, Outcome::Conflict);
        }
    }
    assert!(!fence(&store, &old).await);
    apply(&store, &done("k")).await;
}
