//! Keeps books on its own effects, so that one that is missing, doubled or out of order shows.

use std::time::Duration;

use semel::{Context, Outgoing, Result};
use serde::{Deserialize, Serialize};

/// A header that no RocketMQ broker takes.
const WIDE: usize = 40_000;

/// A message of the topic `orders`.
#[derive(Deserialize)]
pub struct Order {
    /// The business key.
    id: String,
    /// The lane, where the operator says so.
    user: String,
    /// How often the handler fails before it succeeds.
    #[serde(default)]
    fails: u32,
    /// Whether to reject it.
    #[serde(default)]
    reject: bool,
    /// The outgoing messages.
    #[serde(default)]
    publish: Vec<Publication>,
    /// The outgoing messages of whoever tallies what this order publishes.
    #[serde(default)]
    publish_next: Vec<Publication>,
}

/// How to publish one of them.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Publication {
    /// At once.
    Now,
    /// After so many milliseconds.
    Later(u64),
    /// In a way that brokers with a limit on headers refuse.
    Wide,
}

/// A message to the destination `tallied`.
#[derive(Serialize)]
struct Tallied<'o> {
    plugin: Option<&'o str>,
    id: &'o str,
    user: &'o str,
    /// Its index among the messages of the run.
    ordinal: usize,
    /// The order's place in the user's history, from 1.
    place: usize,
    /// What the order wants of the next one who tallies it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    publish: &'o [Publication],
}

/// Adds the order to its user's history, counts it, also in a table if the operator names one, and
/// publishes what it asks for.
#[semel::handler(topics = ["orders"], key = "json:/id")]
pub fn tally(order: Order, ctx: &mut Context) -> Result {
    if order.reject {
        return Err(semel::reject("the order says so"));
    }
    if ctx.message().attempt < order.fails {
        return Err(semel::retry("the order says so"));
    }
    let history = format!("history/{}", order.user);
    let mut orders: Vec<String> = ctx.state().get(&history)?.unwrap_or_default();
    orders.push(order.id.clone());
    ctx.state().put(&history, &orders)?;
    ctx.state().add(&format!("count/{}", order.id), 1)?;
    let plugin = ctx.config("name");
    if let Some(table) = ctx.config("table") {
        // In a table beside the store's: not even a row that is there twice is refused.
        ctx.sql()
            .statement(format!("INSERT INTO {table} (plugin, id) VALUES (?, ?)"))
            .bind(plugin.clone())
            .bind(&order.id)
            .rows(1)
            .stage()?;
    }
    for (ordinal, how) in order.publish.iter().enumerate() {
        let tallied = Tallied {
            plugin: plugin.as_deref(),
            id: &order.id,
            user: &order.user,
            ordinal,
            place: orders.len(),
            publish: &order.publish_next,
        };
        let message = Outgoing::json("tallied", &tallied)?;
        ctx.send(match how {
            Publication::Now => message,
            Publication::Later(ms) => message.delay(Duration::from_millis(*ms)),
            Publication::Wide => message.header("wide", "w".repeat(WIDE)),
        })?;
    }
    Ok(())
}
