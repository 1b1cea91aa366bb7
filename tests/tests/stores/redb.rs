//! redb.

use std::path::Path;

use semel_core::DeadLetterId;
use semel_stores::RedbStore;
use tempfile::TempDir;

use super::*;

fn open(directory: &Path) -> Arc<dyn Admin> {
    Arc::new(RedbStore::open(directory).expect("it opens"))
}

async fn fixture() -> Kept<TempDir> {
    let directory = tempfile::tempdir().expect("a directory");
    Kept {
        store: open(directory.path()),
        _keep: directory,
    }
}

store_conformance!(fixture);

#[tokio::test]
async fn all_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill(&store).await;
    drop(store);
    let store = open(directory.path());
    assert_filled(&store).await;
    drop(store);
    assert_filled(&open(directory.path())).await;
}

#[tokio::test]
async fn a_replayed_letter_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    apply(&store, &dead("k", Cause::Rejected)).await;
    assert!(
        store
            .replay(&DeadLetterId::of_record(&record("k")), 1)
            .await
            .unwrap()
    );
    drop(store);
    assert_eq!(due(&open(directory.path()), 1).await, ["k"]);
}

#[tokio::test]
async fn the_horizon_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut zombie = done("k");
    zombie.bucket = check(&store, &zombie.record).await.bucket;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let retention = Duration::from_millis(5);
    let now_ms = check(&store, &zombie.record).await.bucket;
    store.expire(&plugin(), retention, now_ms).await.unwrap();
    drop(store);
    assert_eq!(
        commit_one(&open(directory.path()), &zombie).await,
        Outcome::Conflict
    );
}

#[test]
fn a_second_opener_is_told_why() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path());
    let error = RedbStore::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("another process has it open"), "{error}");
    let path = directory.path().join("semel.redb");
    assert!(error.contains(&path.display().to_string()), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("semel.redb"), [7; 9_000]).unwrap();
    let error = RedbStore::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("semel.redb: it can't be opened"), "{error}");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = RedbStore::open(&file).unwrap_err().to_string();
    assert!(error.contains("its directory can't be made"), "{error}");
}
