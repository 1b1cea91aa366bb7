//! The store in memory, with its faults.

use semel_core::Store;
use semel_core::memory::{MemoryStore, StoreFault};

use super::*;

store_conformance!(async || Kept {
    store: Arc::new(MemoryStore::new()),
    _keep: (),
});

#[tokio::test]
async fn a_lost_reply_is_settled_by_sending_again() {
    let store = MemoryStore::new();
    let run = checked(&store, done("k").adding("n", 1)).await;
    store.lose_replies(1);
    assert!(store.commit(std::slice::from_ref(&run)).await.is_err());
    let handle: Arc<dyn Admin> = Arc::new(store);
    assert!(applied(&commit_one(&handle, &run).await));
    assert_eq!(text(&handle, "n").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_late_commit_lands_when_told() {
    let store = MemoryStore::new();
    let run = checked(&store, done("k").adding("n", 1)).await;
    store.inject(|_| Some(StoreFault::Late));
    assert!(store.commit(std::slice::from_ref(&run)).await.is_err());
    store.heal();
    let handle: Arc<dyn Admin> = Arc::new(store.clone());
    apply(&handle, &done("k").adding("n", 1)).await;
    assert_eq!(store.land_late(), 1);
    assert_eq!(text(&handle, "n").await.as_deref(), Some("1"));
    store.fail_next(1);
    assert!(store.check(&[]).await.is_err());
    assert!(store.check(&[]).await.is_ok());
}

async fn checked(store: &MemoryStore, mut run: Run) -> Run {
    let handle: Arc<dyn Admin> = Arc::new(store.clone());
    run.bucket = check(&handle, &run.record).await.bucket;
    run
}
