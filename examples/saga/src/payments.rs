//! Takes money and gives it back.

use semel::{Context, OrFail, Result};
use serde::{Deserialize, Serialize};

use crate::orders::{self, Event};
use crate::send;

/// Where its commands come in.
pub const TOPIC: &str = "saga-payments";

/// A message to this topic.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Command {
    /// Money comes in.
    Deposit {
        /// The deposit's number.
        id: String,
        /// Whose it is.
        user: String,
        /// How many cents.
        amount: u64,
    },
    /// Take the money for an order, or refuse.
    Charge {
        /// The order's number.
        id: String,
        /// Who pays.
        user: String,
        /// How many cents.
        amount: u64,
    },
    /// Give back what was taken for an order: the compensation of `charge`.
    Refund {
        /// The order's number.
        id: String,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Charged,
    Refused,
    Refunded,
}

/// The value of `payment/ID`.
#[derive(Debug, Deserialize, Serialize)]
struct Payment {
    status: Status,
    user: String,
    amount: u64,
}

/// Does what the command says, once, and answers.
///
/// # Errors
/// Asks to be run again for a refund that comes before its charge, and rejects one of what was
/// never taken.
pub fn take(command: &Command, ctx: &mut Context) -> Result {
    match command {
        Command::Deposit { user, amount, .. } => give(ctx, user, *amount),
        Command::Charge { id, user, amount } => charge(ctx, id, user, *amount),
        Command::Refund { id } => refund(ctx, id),
    }
}

fn charge(ctx: &Context, id: &str, user: &str, amount: u64) -> Result {
    let name = format!("payment/{id}");
    // Decided before, and answered: the done record of that has expired.
    if ctx.state().get::<Payment>(&name)?.is_some() {
        return Ok(());
    }
    let held: u64 = ctx.state().get(&balance(user))?.unwrap_or(0);
    let (status, answer) = match held.checked_sub(amount) {
        Some(left) => {
            ctx.state().put(&balance(user), &left)?;
            (Status::Charged, Event::Paid { id: id.to_owned() })
        }
        // A refusal is an answer like any other. It is no failure of the message.
        None => {
            let id = id.to_owned();
            let reason = format!("{user} holds {held}, which is less than {amount}");
            (Status::Refused, Event::Refused { id, reason })
        }
    };
    let payment = Payment {
        status,
        user: user.to_owned(),
        amount,
    };
    ctx.state().put(&name, &payment)?;
    send(ctx, orders::TOPIC, id, &answer)
}

fn refund(ctx: &Context, id: &str) -> Result {
    let name = format!("payment/{id}");
    let payment: Option<Payment> = ctx.state().get(&name)?;
    let mut payment = payment.or_retry(format_args!("nothing was charged for `{id}` yet"))?;
    match payment.status {
        Status::Charged => {
            give(ctx, &payment.user, payment.amount)?;
            payment.status = Status::Refunded;
            ctx.state().put(&name, &payment)?;
            send(
                ctx,
                orders::TOPIC,
                id,
                &Event::Refunded { id: id.to_owned() },
            )
        }
        Status::Refunded => Ok(()),
        Status::Refused => Err(semel::reject(format_args!(
            "the charge for `{id}` was refused: there is nothing to give back"
        ))),
    }
}

fn give(ctx: &Context, user: &str, amount: u64) -> Result {
    let held: u64 = ctx.state().get(&balance(user))?.unwrap_or(0);
    let held = held
        .checked_add(amount)
        .or_reject(format_args!("{user} would hold more than 64 bits can"))?;
    ctx.state().put(&balance(user), &held)
}

fn balance(user: &str) -> String {
    format!("balance/{user}")
}
