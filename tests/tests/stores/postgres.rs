//! PostgreSQL.

use super::*;

async fn fixture() -> Kept<&'static PostgresServer> {
    let server = PostgresServer::shared().await.expect("a server");
    let url = server.database().expect("a database");
    Kept {
        store: sql::open(&url).await,
        _keep: server,
    }
}

store_conformance!(fixture);

async fn url() -> (&'static PostgresServer, String) {
    let server = PostgresServer::shared().await.expect("a server");
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
async fn all_is_there_after_the_server_was_killed() {
    let mut server = PostgresServer::start().await.unwrap();
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
    let restart = async |server: &mut PostgresServer| server.restart().await.unwrap();
    let url = server.database().unwrap();
    sql::killed_mid_load(&url, &mut server, PostgresServer::kill, restart).await;
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
