//! Sets goods aside. It is the last step, so it needs no compensation: nothing after it fails.

use semel::{Context, OrFail, Result};
use serde::{Deserialize, Serialize};

use crate::orders::{self, Event};
use crate::send;

/// Where its commands come in.
pub const TOPIC: &str = "saga-stock";

/// A message to this topic.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Command {
    /// Goods come in.
    Deliver {
        /// The delivery's number.
        id: String,
        /// Of what.
        item: String,
        /// How many.
        quantity: u64,
    },
    /// Set goods aside for an order, or say that they are missing.
    Reserve {
        /// The order's number.
        id: String,
        /// Of what.
        item: String,
        /// How many.
        quantity: u64,
    },
}

/// The value of `reservation/ID`.
#[derive(Debug, Deserialize, Serialize)]
struct Reservation {
    item: String,
    /// How many are set aside: none if there were too few.
    quantity: u64,
}

/// Does what the command says, once, and answers.
///
/// # Errors
/// Rejects a delivery past 64 bits.
pub fn take(command: &Command, ctx: &mut Context) -> Result {
    match command {
        Command::Deliver { item, quantity, .. } => {
            let level: u64 = ctx.state().get(&level(item))?.unwrap_or(0);
            let level = level
                .checked_add(*quantity)
                .or_reject(format_args!("there can't be so many of `{item}`"))?;
            ctx.state().put(&self::level(item), &level)
        }
        Command::Reserve { id, item, quantity } => reserve(ctx, id, item, *quantity),
    }
}

fn reserve(ctx: &Context, id: &str, item: &str, quantity: u64) -> Result {
    let name = format!("reservation/{id}");
    // Decided before, and answered: the done record of that has expired.
    if ctx.state().get::<Reservation>(&name)?.is_some() {
        return Ok(());
    }
    let there: u64 = ctx.state().get(&level(item))?.unwrap_or(0);
    let (reserved, answer) = match there.checked_sub(quantity) {
        Some(left) => {
            ctx.state().put(&level(item), &left)?;
            (quantity, Event::Reserved { id: id.to_owned() })
        }
        None => {
            let id = id.to_owned();
            let reason = format!("of `{item}` there are {there}, {quantity} are wanted");
            (0, Event::Missing { id, reason })
        }
    };
    let reservation = Reservation {
        item: item.to_owned(),
        quantity: reserved,
    };
    ctx.state().put(&name, &reservation)?;
    send(ctx, orders::TOPIC, id, &answer)
}

fn level(item: &str) -> String {
    format!("level/{item}")
}
