//! Loyalty points: one for each full 100 cents of an order.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use semel::{Context, Result};
use serde::{Deserialize, Serialize};

const CENTS_PER_POINT: i64 = 100;

/// Above this an order is a mistake: ten million in the currency's main unit.
const MAX_AMOUNT: i64 = 1_000_000_000;

/// A message of the topic `orders`.
#[derive(Debug, Deserialize)]
pub struct Order {
    /// The producer's number for the order: the business key.
    pub order_id: String,
    /// Who ordered.
    pub user: String,
    /// What for, in cents.
    pub amount: i64,
}

/// A message to the destination `points-granted`.
#[derive(Debug, Serialize)]
struct Granted<'o> {
    order_id: &'o str,
    user: &'o str,
    points: i64,
    balance: i64,
}

/// Adds an order's points to the user's balance and publishes what was granted.
///
/// # Errors
/// Rejects an amount that is negative or absurd, and a balance past 64 bits.
#[semel::handler(topics = ["orders"], key = "json:/order_id")]
pub fn grant_points(order: Order, ctx: &mut Context) -> Result {
    if !(0..=MAX_AMOUNT).contains(&order.amount) {
        return Err(semel::reject(format_args!(
            "the amount of {} cents is not between 0 and {MAX_AMOUNT}",
            order.amount
        )));
    }
    let points = order.amount / CENTS_PER_POINT;
    let name = format!("balance/{}", order.user);
    let before: i64 = ctx.state().get(&name)?.unwrap_or(0);
    let Some(balance) = before.checked_add(points) else {
        return Err(semel::reject("the balance would leave 64 bits"));
    };
    ctx.state().put(&name, &balance)?;
    ctx.publish(
        "points-granted",
        &Granted {
            order_id: &order.order_id,
            user: &order.user,
            points,
            balance,
        },
    )?;
    Ok(())
}
