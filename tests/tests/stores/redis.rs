//! Redis.

use semel_core::{Clock, StoreError, SystemClock};
use semel_stores::RedisStore;
use semel_tests::servers::certificates::Certificates;
use semel_tests::servers::redis::RedisServer;

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
    assert_away(&store).await;
    server.restart().await.unwrap();
    wait_for(&store).await;
    // The same handle goes on, also though the server forgot the scripts.
    assert_filled(&store).await;
    assert_filled(&open(&server.url()).await).await;
}

#[tokio::test]
async fn a_server_that_stands_still_is_an_unknown_outcome() {
    let server = RedisServer::start().await.unwrap();
    let store = open(&server.url()).await;
    assert_settled(&store, server.process().unwrap()).await;
}

#[tokio::test]
async fn who_is_not_known_is_not_spoken_to() {
    let certificates = Certificates::new().unwrap();
    let (server, encrypted) = RedisServer::start_with_tls(&certificates).await.unwrap();
    let trusting =
        |certificates: &Certificates| format!("{encrypted}?ca={}", certificates.ca().display());
    fill(&open(&trusting(&certificates)).await).await;
    assert_filled(&open(&server.url()).await).await;
    let stranger = Certificates::new().unwrap();
    let renamed = trusting(&certificates).replace("127.0.0.1", "localhost");
    let plain =
        trusting(&certificates).replace(&encrypted, &server.url().replace("redis:", "rediss:"));
    for (url, why) in [
        (trusting(&stranger), "UnknownIssuer"),
        (encrypted.clone(), "UnknownIssuer"),
        (renamed, "not valid for name"),
        (plain, "can't be reached"),
    ] {
        let error = RedisStore::open(&url).await.unwrap_err().to_string();
        assert!(error.contains(why), "{url}: {error}");
    }
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
