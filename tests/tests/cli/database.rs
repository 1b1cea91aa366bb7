//! Stores in databases, as commands meet them.

use semel_tests::servers::postgres::PostgresServer;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_migrated_when_asked() -> Result<()> {
    let server = PostgresServer::shared().await?;
    let url = server.database()?;
    let site = site(&[order("1", "o-1", 1_250)])?;
    let never = format!("{url}?migrate=never");
    let list = ["state", "list", "points", "--store", &never];
    let refused = site.run(&list, LIMIT)?;
    ensure!(refused.status.code() == Some(1));
    has(
        &refused.stderr,
        &["it has no tables", "semel store migrate"],
    )?;
    let migrate = ["store", "migrate", "--store", &never];
    has(&site.ask(&migrate)?, &["changed in 1 step"])?;
    has(&site.ask(&migrate)?, &["up to date"])?;
    let rows = site.ask_json(&["store", "migrate", "--store", &never, "--json"])?;
    ensure!(rows == [json!({"steps": 0})], "{rows:?}");

    let run = [
        "run",
        "--input",
        "in.jsonl",
        "--output",
        "out.jsonl",
        "--store",
        &never,
    ];
    site.run(&run, LIMIT)?.succeeded("run")?;
    has(&site.ask(&list)?, &["balance/ann", "12"])?;
    Ok(())
}
