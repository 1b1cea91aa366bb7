//! MariaDB, which stands for MySQL, too.

use super::*;

async fn fixture() -> Kept<&'static MariadbServer> {
    let server = MariadbServer::shared().await.expect("a server");
    let url = server.database().expect("a database");
    Kept {
        store: sql::open(&url).await,
        _keep: server,
    }
}

store_conformance!(fixture);

async fn url() -> (&'static MariadbServer, String) {
    let server = MariadbServer::shared().await.expect("a server");
    let url = server.database().expect("a database");
    (server, url)
}

fn database(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn keys_are_bytes() {
    sql::keys_are_bytes(&url().await.1).await;
}

#[tokio::test]
async fn too_long_is_an_error() {
    sql::too_long_is_an_error(&url().await.1).await;
}

#[tokio::test]
async fn stores_with_another_prefix_share_nothing() {
    sql::prefixes_share_nothing(&url().await.1).await;
}

#[tokio::test]
async fn tables_are_made_when_asked() {
    sql::tables_are_made_when_asked(&url().await.1).await;
}

#[tokio::test]
async fn many_may_start_at_once() {
    sql::many_may_start_at_once(&url().await.1).await;
}

#[tokio::test]
async fn many_records_expire() {
    sql::many_records_expire(&url().await.1).await;
}

#[test]
fn a_thread_without_io_can_ask() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_server, url) = runtime.block_on(url());
    sql::a_thread_without_io_can_ask(&runtime, &url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_add_up() {
    let (server, url) = url().await;
    let name = database(&url).to_owned();
    let before = server
        .sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        .unwrap();
    let interfere = || {
        let statements = format!(
            "USE {name}; BEGIN; UPDATE semel_state SET version = version; SELECT SLEEP(0.2); \
             UPDATE semel_sequence SET version = version; COMMIT"
        );
        server.client(&statements).unwrap()
    };
    sql::two_hosts_add_up(&url, interfere).await;
    let after = server
        .sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        .unwrap();
    assert_ne!(before, after, "nobody got in anybody's way");
}

#[tokio::test]
async fn a_lock_that_is_kept_holds_up_commits_only() {
    let (server, url) = url().await;
    let _first = sql::open(&url).await;
    let statements = format!(
        "USE {}; BEGIN; SELECT * FROM semel_sequence FOR UPDATE; SELECT SLEEP(4); COMMIT",
        database(&url)
    );
    let holder = server.client(&statements).unwrap();
    sql::a_lock_that_is_kept_holds_up_commits_only(&url, holder).await;
}

#[tokio::test]
async fn all_is_there_after_the_server_was_killed() {
    let mut server = MariadbServer::start().await.unwrap();
    let url = server.database().unwrap();
    let store = sql::open(&url).await;
    fill(&store).await;
    server.kill();
    let error = store.read(&[state("x")]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let error = store.commit(&[done("while it is away")]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    server.restart().await.unwrap();
    sql::wait_for(&store).await;
    // The same handle goes on.
    assert_filled(&store).await;
    assert_filled(&sql::open(&url).await).await;
    let restart = async |server: &mut MariadbServer| server.restart().await.unwrap();
    let url = server.database().unwrap();
    sql::killed_mid_load(&url, &mut server, MariadbServer::kill, restart).await;
}

#[tokio::test]
async fn a_server_that_stands_still_is_an_unknown_outcome() {
    let server = MariadbServer::start().await.unwrap();
    let store = sql::open(&server.database().unwrap()).await;
    let mut run = done("k").adding("n", 1);
    run.bucket = check(&store, &run.record).await.bucket;
    server.pause().unwrap();
    let error = store.commit(std::slice::from_ref(&run)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    server.resume().unwrap();
    assert!(applied(&commit_one(&store, &run).await));
    assert_eq!(text(&store, "n").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_server_that_breaks_the_promise_is_refused() {
    let server = MariadbServer::start_with(&["--log-bin=log", "--binlog-format=STATEMENT"]);
    let server = server.await.unwrap();
    let error = sql::refusal(&server.database().unwrap()).await;
    assert!(error.contains("`binlog_format` is `STATEMENT`"), "{error}");
    server.sql("SET GLOBAL binlog_format = 'ROW'").unwrap();
    let url = server.database().unwrap();
    fill(&sql::open(&url).await).await;
    let table = format!("{}.semel_state", database(&url));
    server
        .sql(&format!("ALTER TABLE {table} ENGINE = Aria"))
        .unwrap();
    let error = sql::refusal(&url).await;
    assert!(error.contains("ENGINE = InnoDB"), "{error}");
}

#[tokio::test]
async fn a_message_that_is_larger_than_a_packet_is_told() {
    let server = MariadbServer::start_with(&["--max-allowed-packet=1M"])
        .await
        .unwrap();
    let store = sql::open(&server.database().unwrap()).await;
    // Many that fit take several round trips and still one transaction.
    let fits = "x".repeat(200_000);
    let runs: Vec<_> = (0..8)
        .map(|i| done(format!("k{i}")).putting(&format!("n{i}"), &fits))
        .collect();
    assert!(commit(&store, &runs).await.iter().all(applied));
    let mut large = done("large")
        .putting("x", &"x".repeat(1 << 20))
        .adding("n", 1);
    large.bucket = check(&store, &large.record).await.bucket;
    let error = store.commit(&[large]).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(error.to_string().contains("max_allowed_packet"), "{error}");
    assert_eq!(text(&store, "n").await, None);
}

#[tokio::test]
async fn who_is_not_let_in_is_told() {
    let (_server, url) = url().await;
    let error = sql::refusal(&url.replace("secret", "wrong")).await;
    assert!(
        error.contains("can't be reached") && error.contains("Access denied"),
        "{error}"
    );
    assert!(
        error.contains("semel:***@") && !error.contains("wrong"),
        "{error}"
    );
    let error = sql::refusal("mysql://127.0.0.1:1/semel").await;
    assert!(error.contains("can't be reached"), "{error}");
    let error = sql::refusal(&url.replace("/test", "/no_test")).await;
    assert!(
        error.contains("CREATE DATABASE") || error.contains("denied"),
        "{error}"
    );
}
