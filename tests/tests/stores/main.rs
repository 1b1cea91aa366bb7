//! Every store against the one definition of right, and what is peculiar to each.

#[macro_use]
mod sql;
mod memory;
mod mysql;
mod postgres;
mod redb;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use semel_core::{Admin, Cause, DeadLetter, OutboxScan, Outcome, RecordState, Run, RunId};
use semel_tests::child::Process;
use semel_tests::conformance::store::build::*;
use semel_tests::conformance::store::{self as suite, Fixture};
use semel_tests::store_conformance;

/// A store and what must outlive it.
struct Kept<T> {
    store: Arc<dyn Admin>,
    _keep: T,
}

impl<T> Fixture for Kept<T> {
    fn store(&self) -> Arc<dyn Admin> {
        Arc::clone(&self.store)
    }
}

/// Some of everything, and what should be found of it later.
async fn fill(store: &Arc<dyn Admin>) {
    let batch = [
        done("done").putting("x", "1").adding("n", 7).replying(b"r"),
        park("parked", 5).in_lane("l", 1),
        dead("dead", Cause::Rejected),
        done("out").publishing("m", None).in_lane("o", 1),
    ];
    assert!(commit(store, &batch).await.iter().all(applied));
    store.bury(&[stray(1)]).await.unwrap();
    apply(store, &done("refused").publishing("x", None)).await;
    let scan = OutboxScan {
        limit: 9,
        ..OutboxScan::default()
    };
    let row = &store.outbox(&scan).await.unwrap()[1];
    let letter = DeadLetter::undeliverable(row, "too large".to_owned(), 1);
    store.refuse(&[letter]).await.unwrap();
    let fenced = fenced();
    assert!(!store.fence(&fenced.record, fenced.id).await.unwrap());
}

/// The same run each time.
fn fenced() -> Run {
    let mut run = done("fenced");
    run.id = RunId::new(1, 1);
    run
}

async fn assert_filled(store: &Arc<dyn Admin>) {
    assert_eq!(commit_one(store, &done("done")).await, Outcome::Duplicate);
    assert_eq!(commit_one(store, &done("dead")).await, Outcome::Duplicate);
    let behind = done("later").in_lane("l", 2);
    assert_eq!(commit_one(store, &behind).await, Outcome::Behind);
    assert_eq!(due(store, 5).await, ["parked"]);
    assert_eq!(text(store, "x").await.as_deref(), Some("1"));
    assert_eq!(text(store, "n").await.as_deref(), Some("7"));
    let scan = OutboxScan {
        limit: 9,
        ..OutboxScan::default()
    };
    let rows = store.outbox(&scan).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(store.list_dead(None, None, 9).await.unwrap().len(), 3);
    assert_eq!(commit_one(store, &fenced()).await, Outcome::Conflict);
    // Versions go on where they were.
    let version = apply(store, &done(run_id().to_string())).await;
    assert!(version > rows[0].id.version);
}

/// A store whose server is gone answers nothing, and nothing is decided by that.
async fn assert_away(store: &Arc<dyn Admin>) {
    let error = store.read(&[state("x")]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let error = store.commit(&[done("while it is away")]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

/// Waits until a server that was started again answers this handle.
async fn wait_for(store: &Arc<dyn Admin>) {
    for attempt in 0.. {
        match store.read(&[state("x")]).await {
            Ok(_) => return,
            Err(error) => assert!(error.is_transient() && attempt < 100, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a commit came to while the server stood still, asking again settles.
async fn assert_settled(store: &Arc<dyn Admin>, server: &Process) {
    let mut run = done("k").adding("n", 1);
    run.bucket = check(store, &run.record).await.bucket;
    server.pause().unwrap();
    let error = store.commit(std::slice::from_ref(&run)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    // It may land when the server goes on.
    server.resume().unwrap();
    assert!(applied(&commit_one(store, &run).await));
    assert_eq!(text(store, "n").await.as_deref(), Some("1"));
}
