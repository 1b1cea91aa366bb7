//! A part of `make matrix`: one cell of each source and each store, with fewer messages.
#![recursion_limit = "512"] // the RocketMQ client's futures nest deeply

use anyhow::Result;
use semel_tests::matrix::{Cell, CellConfig, Servers};
use tokio::runtime::Builder;

/// How much each cell is given here.
const CONFIG: CellConfig = CellConfig {
    messages: 4_000,
    kills: 2,
};

/// Runs one host on a cell, and three where they can share it and `group` asks for that.
fn holds(cell: &str, group: bool) -> Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let _within = runtime.enter();
    let servers = Servers::default();
    let cell: Cell = cell.parse()?;
    cell.run("alone", CONFIG, &servers)?;
    if group {
        cell.run_group("group", 20_000, &servers)?;
    }
    runtime.shutdown_background();
    Ok(())
}

#[test]
fn kafka_with_postgres() -> Result<()> {
    holds("kafka/postgres", true)
}

#[test]
fn rabbitmq_with_mysql() -> Result<()> {
    holds("rabbitmq/mysql", true)
}

#[test]
fn http_with_redis() -> Result<()> {
    holds("http/redis", false)
}
