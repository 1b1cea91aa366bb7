//! Stock levels: of each item the level that its newest version says.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use semel::{Context, Result};
use serde::{Deserialize, Serialize};

/// A message of the topic `stock`, and one to the destination `stock-changed`.
#[derive(Debug, Deserialize, Serialize)]
pub struct Level {
    /// Of what: the entity.
    pub item: String,
    /// Counts the item's changes up, at its producer.
    pub version: u64,
    /// How many there are.
    pub level: i64,
}

/// Keeps the level and passes the change on.
///
/// # Errors
/// Rejects a level below 0.
#[semel::handler(
    topics = ["stock"],
    key = "json:/item + json:/version",
    version = "json:/version",
    entity = "json:/item"
)]
pub fn set_level(change: Level, ctx: &mut Context) -> Result {
    if change.level < 0 {
        return Err(semel::reject(format_args!(
            "there can't be {} of anything",
            change.level
        )));
    }
    let name = format!("level/{}", change.item);
    ctx.state().put(&name, &change.level)?;
    ctx.publish("stock-changed", &change)?;
    Ok(())
}
