//! Every store against the one definition of right, and what is peculiar to each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use semel_core::memory::{MemoryStore, StoreFault};
use semel_core::{
    Admin, Cause, Clock, DeadLetter, DeadLetterId, OutboxScan, Outcome, RecordState, Run, RunId,
    Store, StoreError, SystemClock,
};
use semel_stores::{RedbStore, RedisStore, SqlStore};
use semel_tests::conformance::store::build::*;
use semel_tests::conformance::store::{self as suite, Fixture};
use semel_tests::servers::mariadb::MariadbServer;
use semel_tests::servers::postgres::PostgresServer;
use semel_tests::servers::redis::RedisServer;
use semel_tests::store_conformance;
use tempfile::TempDir;

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

mod memory {
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

mod redb {
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
}

mod redis {
    use super::*;

    async fn open(url: &str) -> Arc<dyn Admin> {
        Arc::new(RedisStore::open(url).await.expect("it opens"))
    }

    async fn fixture() -> Kept<RedisServer> {
        let server = RedisServer::start().await.expect("a server");
        Kept {
            store: open(&server.url()).await,
            _keep: server,
        }
    }

    store_conformance!(fixture);

    #[tokio::test]
    async fn all_is_there_after_the_server_was_killed() {
        let mut server = RedisServer::start_synced().await.unwrap();
        let store = open(&server.url()).await;
        fill(&store).await;
        server.kill();
        let error = store.check(&[]).await.err();
        assert!(error.is_none(), "an empty request needs no server");
        let error = store.read(&[state("x")]).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        let error = store.commit(&[done("while it is away")]).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        server.restart().await.unwrap();
        for attempt in 0.. {
            match store.read(&[state("x")]).await {
                Ok(_) => break,
                Err(error) => assert!(error.is_transient() && attempt < 100, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The same handle goes on, also though the server forgot the scripts.
        assert_filled(&store).await;
        assert_filled(&open(&server.url()).await).await;
    }

    #[tokio::test]
    async fn a_server_that_stands_still_is_an_unknown_outcome() {
        let server = RedisServer::start().await.unwrap();
        let store = open(&server.url()).await;
        let mut run = done("k").adding("n", 1);
        run.bucket = check(&store, &run.record).await.bucket;
        server.pause().unwrap();
        let error = store.commit(std::slice::from_ref(&run)).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        // It lands when the server goes on; asking again settles it.
        server.resume().unwrap();
        assert!(applied(&commit_one(&store, &run).await));
        assert_eq!(text(&store, "n").await.as_deref(), Some("1"));
    }

    #[tokio::test]
    async fn a_record_expires_without_anyone_asking() {
        let server = RedisServer::start().await.unwrap();
        let store = open(&server.url()).await;
        let now_ms = check(&store, &record("k")).await.bucket;
        let retention = Duration::from_millis(500);
        store.expire(&plugin(), retention, now_ms).await.unwrap();
        let mut zombie = done("k").adding("n", 1);
        zombie.bucket = check(&store, &zombie.record).await.bucket;
        apply(&store, &done("k").adding("n", 1)).await;
        tokio::time::sleep(2 * retention).await;
        assert_eq!(check(&store, &record("k")).await.state, RecordState::Absent);
        assert_eq!(commit_one(&store, &zombie).await, Outcome::Conflict);
        // Under a longer retention no run may commit that was checked under the shorter.
        let mut early = done("k").adding("n", 1);
        early.bucket = check(&store, &early.record).await.bucket;
        let week = Duration::from_secs(7 * 24 * 3_600);
        store.expire(&plugin(), week, u64::MAX).await.unwrap();
        assert_eq!(commit_one(&store, &early).await, Outcome::Conflict);
        apply(&store, &done("k").adding("n", 1)).await;
        assert_eq!(text(&store, "n").await.as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn expiry_drops_fences_that_are_of_no_use() {
        let server = RedisServer::start().await.unwrap();
        let store = open(&server.url()).await;
        let run = done("k");
        assert!(!store.fence(&run.record, run.id).await.unwrap());
        let old = "ZADD {semel}:fpoints 1 a-fence-of-long-ago";
        assert_eq!(server.ask(old).await.unwrap(), ":1");
        let (retention, now_ms) = (Duration::from_secs(3_600), SystemClock.now_ms());
        store.expire(&plugin(), retention, now_ms).await.unwrap();
        let fences = server.ask("ZCARD {semel}:fpoints").await.unwrap();
        assert_eq!(fences, ":1");
        assert_eq!(commit_one(&store, &run).await, Outcome::Conflict);
    }

    #[tokio::test]
    async fn stores_with_another_prefix_share_nothing() {
        let server = RedisServer::start().await.unwrap();
        let (a, b) = (
            open(&format!("{}?prefix=a", server.url())).await,
            open(&format!("{}?prefix=b", server.url())).await,
        );
        fill(&a).await;
        assert_eq!(check(&b, &record("done")).await.state, RecordState::Absent);
        fill(&b).await;
        assert_filled(&a).await;
    }

    #[tokio::test]
    async fn a_server_that_evicts_is_refused() {
        let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"])
            .await
            .unwrap();
        let error = RedisStore::open(&server.url())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("maxmemory-policy is `allkeys-lru`"),
            "{error}"
        );
        assert!(
            error.contains("CONFIG SET maxmemory-policy noeviction"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_server_without_memory_says_so() {
        let server = RedisServer::start_with(&["--maxmemory", "3mb"])
            .await
            .unwrap();
        let store = open(&server.url()).await;
        let mut run = done("large");
        run = run.putting("x", &"x".repeat(4 << 20));
        run.bucket = check(&store, &run.record).await.bucket;
        let mut refused = None;
        for _ in 0..3 {
            run.id = run_id();
            run.record = record(run.id.to_string());
            refused = store.commit(std::slice::from_ref(&run)).await.err();
        }
        match refused {
            Some(StoreError::Failed { reason, .. }) => {
                assert!(reason.contains("raise its `maxmemory`"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        // Nothing of the refused run is there.
        assert_eq!(check(&store, &run.record).await.state, RecordState::Absent);
    }

    #[tokio::test]
    async fn nobody_listening_is_told() {
        let error = RedisStore::open("redis://127.0.0.1:1/0")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("can't be reached"), "{error}");
        assert!(error.contains("redis://127.0.0.1:1/0"), "{error}");
    }

    #[tokio::test]
    async fn missing_replicas_are_an_unknown_outcome() {
        let server = RedisServer::start().await.unwrap();
        let store = open(&format!("{}?wait=1", server.url())).await;
        let mut run = done("k");
        run.bucket = check(&store, &run.record).await.bucket;
        let error = store.commit(std::slice::from_ref(&run)).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    }

    #[tokio::test]
    async fn a_replica_that_follows_is_waited_for() {
        let server = RedisServer::start().await.unwrap();
        let port = server.port().to_string();
        let primary = format!("127.0.0.1 {port}");
        let options = ["--replicaof", &primary];
        let replica = RedisServer::start_with(&options);
        let _replica = replica.await.unwrap();
        let store = open(&format!("{}?wait=1", server.url())).await;
        let run = done("k").adding("n", 1);
        for attempt in 0.. {
            let mut run = run.clone();
            run.bucket = check(&store, &run.record).await.bucket;
            match store.commit(&[run]).await {
                Ok(outcomes) => {
                    assert!(applied(&outcomes[0]));
                    break;
                }
                Err(error) => assert!(error.is_transient() && attempt < 5, "{error}"),
            }
        }
        assert_eq!(text(&store, "n").await.as_deref(), Some("1"));
    }
}

#[path = "stores/mysql.rs"]
mod mysql;
#[path = "stores/postgres.rs"]
mod postgres;
#[path = "stores/sql.rs"]
mod sql;
