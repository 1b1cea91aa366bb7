//! MariaDB, which stands for MySQL, too.

use semel_tests::servers::mariadb::MariadbServer;

use super::*;
use sql::database;

sql_tests!(MariadbServer);

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
async fn a_server_that_stands_still_is_an_unknown_outcome() {
    let server = MariadbServer::start().await.unwrap();
    let store = sql::open(&server.database().unwrap()).await;
    assert_settled(&store, server.process().unwrap()).await;
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
