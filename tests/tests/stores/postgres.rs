//! PostgreSQL.

use semel_tests::servers::postgres::PostgresServer;

use super::*;
use sql::database;

sql_tests!(PostgresServer);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_add_up() {
    let (server, url) = url().await;
    let name = database(&url).to_owned();
    let interfere = || {
        let statements = "BEGIN; UPDATE semel_state SET version = version; \
                          SELECT pg_sleep(0.2); UPDATE semel_sequence SET version = version; \
                          COMMIT";
        server.client(&name, statements).unwrap()
    };
    sql::two_hosts_add_up(&url, interfere).await;
    let ask = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'");
    assert_ne!(
        server.sql(&ask).unwrap(),
        "0",
        "nobody got in anybody's way"
    );
}

#[tokio::test]
async fn a_lock_that_is_kept_holds_up_commits_only() {
    let (server, url) = url().await;
    let _first = sql::open(&url).await;
    let statements = "BEGIN; SELECT * FROM semel_sequence FOR UPDATE; SELECT pg_sleep(4); \
                      COMMIT";
    let holder = server.client(database(&url), statements).unwrap();
    sql::a_lock_that_is_kept_holds_up_commits_only(&url, holder).await;
}

#[tokio::test]
async fn a_server_that_breaks_the_promise_is_refused() {
    let (server, url) = url().await;
    fill(&sql::open(&url).await).await;
    let alter = "ALTER TABLE semel_record SET UNLOGGED";
    server.sql_in(database(&url), alter).unwrap();
    let error = sql::refusal(&url).await;
    assert!(error.contains("SET LOGGED"), "{error}");
}

#[tokio::test]
async fn who_is_not_let_in_is_told() {
    let (_server, url) = url().await;
    let error = sql::refusal(&url.replace("semel@", "nobody@")).await;
    assert!(
        error.contains("can't be reached") && error.contains("nobody"),
        "{error}"
    );
    let error = sql::refusal("postgres://127.0.0.1:1/semel").await;
    assert!(error.contains("can't be reached"), "{error}");
    let error = sql::refusal(&url.replace("/test", "/no_test")).await;
    assert!(error.contains("CREATE DATABASE"), "{error}");
}
