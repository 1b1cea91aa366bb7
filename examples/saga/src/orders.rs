//! The one who leads: knows how far each order is, and what comes next or is to be undone.

use semel::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{payments, send, stock};

/// Where orders and the participants' answers come in.
pub const TOPIC: &str = "saga-orders";

/// A message to this topic.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Event {
    /// A customer orders.
    Placed {
        /// The order's number.
        id: String,
        /// Who pays.
        user: String,
        /// What is bought.
        item: String,
        /// How many.
        quantity: u64,
        /// For how many cents.
        amount: u64,
    },
    /// The money was taken.
    Paid {
        /// The order's number.
        id: String,
    },
    /// The money was not taken, and won't be.
    Refused {
        /// The order's number.
        id: String,
        /// Why.
        reason: String,
    },
    /// The goods are set aside.
    Reserved {
        /// The order's number.
        id: String,
    },
    /// The goods are not there, and nothing was set aside.
    Missing {
        /// The order's number.
        id: String,
        /// Why.
        reason: String,
    },
    /// The money was given back.
    Refunded {
        /// The order's number.
        id: String,
    },
}

/// How far an order is. Each comes after those before it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    /// Waits for the answer of payments.
    Paying,
    /// Is paid, and waits for the answer of the stock.
    Reserving,
    /// Was paid in vain, and waits until the money is back.
    Refunding,
    /// Paid and reserved.
    Confirmed,
    /// Nothing is left of it.
    Cancelled,
}

/// The value of `order/ID`.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    status: Status,
    user: String,
    item: String,
    quantity: u64,
    amount: u64,
    /// Why it is cancelled, or will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The steps that were taken. An answer that comes once more is known by them also when
    /// its done record has expired.
    steps: Vec<String>,
}

impl Event {
    fn id(&self) -> &str {
        match self {
            Self::Placed { id, .. }
            | Self::Paid { id }
            | Self::Refused { id, .. }
            | Self::Reserved { id }
            | Self::Missing { id, .. }
            | Self::Refunded { id } => id,
        }
    }

    /// The step's name, and the status in which an order waits for it.
    fn step(&self) -> (&'static str, Status) {
        match self {
            Self::Placed { .. } => ("placed", Status::Paying),
            Self::Paid { .. } => ("paid", Status::Paying),
            Self::Refused { .. } => ("refused", Status::Paying),
            Self::Reserved { .. } => ("reserved", Status::Reserving),
            Self::Missing { .. } => ("missing", Status::Reserving),
            Self::Refunded { .. } => ("refunded", Status::Refunding),
        }
    }
}

/// Takes the order one step on.
///
/// # Errors
/// Asks to be run again for a step that comes too early, and rejects one that contradicts those
/// that were taken.
pub fn take(event: &Event, ctx: &mut Context) -> Result {
    let id = event.id();
    let name = format!("order/{id}");
    let known: Option<Order> = ctx.state().get(&name)?;
    let mut order = match (known, event) {
        (Some(order), _) => order,
        (None, Event::Placed { .. }) => return place(event, ctx, &name),
        (None, _) => {
            return Err(semel::retry(format_args!(
                "the order `{id}` is not placed yet"
            )));
        }
    };
    let (step, awaited) = event.step();
    if order.steps.iter().any(|taken| taken == step) {
        ctx.log()
            .debug(format_args!("`{id}` was {step} before; nothing to do"));
        return Ok(());
    }
    match (order.status, event) {
        (Status::Paying, Event::Paid { .. }) => {
            order.status = Status::Reserving;
            let reserve = stock::Command::Reserve {
                id: id.to_owned(),
                item: order.item.clone(),
                quantity: order.quantity,
            };
            send(ctx, stock::TOPIC, id, &reserve)?;
        }
        (Status::Paying, Event::Refused { reason, .. }) => {
            order.status = Status::Cancelled;
            order.reason = Some(reason.clone());
        }
        (Status::Reserving, Event::Reserved { .. }) => order.status = Status::Confirmed,
        (Status::Reserving, Event::Missing { reason, .. }) => {
            order.status = Status::Refunding;
            order.reason = Some(reason.clone());
            let refund = payments::Command::Refund { id: id.to_owned() };
            send(ctx, payments::TOPIC, id, &refund)?;
        }
        (Status::Refunding, Event::Refunded { .. }) => order.status = Status::Cancelled,
        (status, _) if status < awaited => {
            return Err(semel::retry(format_args!(
                "`{step}` comes too early: the order `{id}` is {status:?}"
            )));
        }
        // A participant that said two things. Nobody but the operator knows which is true.
        (status, _) => {
            return Err(semel::reject(format_args!(
                "`{step}` contradicts the order `{id}`, which is {status:?} after {:?}",
                order.steps
            )));
        }
    }
    order.steps.push(step.to_owned());
    ctx.state().put(&name, &order)
}

/// Begins: the money first, since it is the easier to give back.
fn place(event: &Event, ctx: &Context, name: &str) -> Result {
    let Event::Placed {
        id,
        user,
        item,
        quantity,
        amount,
    } = event
    else {
        return Err(semel::reject("only an order can be placed"));
    };
    if *quantity == 0 || *amount == 0 {
        return Err(semel::reject(
            "an order has a quantity and an amount above 0",
        ));
    }
    let charge = payments::Command::Charge {
        id: id.clone(),
        user: user.clone(),
        amount: *amount,
    };
    send(ctx, payments::TOPIC, id, &charge)?;
    let order = Order {
        status: Status::Paying,
        user: user.clone(),
        item: item.clone(),
        quantity: *quantity,
        amount: *amount,
        reason: None,
        steps: vec!["placed".to_owned()],
    };
    ctx.state().put(name, &order)
}
