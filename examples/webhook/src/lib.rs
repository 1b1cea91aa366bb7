//! A payment provider's webhook: each event counts once, and each payment once whatever number
//! of events tell of it.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use semel::{Context, Json, Result};
use serde::{Deserialize, Serialize};

/// A message of the topic `payment-events`, as the provider posts it.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// The provider's number for the event: the business key.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// To what; providers put more into it than is read here.
    pub payment: Payment,
}

/// A payment, as the event shows it.
#[derive(Debug, Deserialize)]
pub struct Payment {
    /// The provider's number for the payment.
    pub id: String,
    /// Our number for the order.
    pub order_id: String,
    /// How many cents.
    pub amount: u64,
}

/// The value of `payment/ID`.
#[derive(Debug, Deserialize, Serialize)]
struct Recorded {
    event: String,
    order_id: String,
    amount: u64,
}

/// A message to the destination `orders-paid`.
#[derive(Debug, Serialize)]
struct Paid<'e> {
    order_id: &'e str,
    payment: &'e str,
    amount: u64,
}

/// The reply, which the provider gets again when it posts the event again.
#[derive(Debug, Serialize)]
pub struct Answer {
    event: String,
    result: &'static str,
}

/// Records a payment that succeeded, and says which order is paid.
///
/// # Errors
/// Rejects a payment that was recorded with other particulars.
#[semel::handler(topics = ["payment-events"], key = "json:/id")]
pub fn record_payment(event: Event, ctx: &mut Context) -> Result<Json<Answer>> {
    let result = match event.kind.as_str() {
        "payment.succeeded" => succeed(&event, ctx)?,
        // Providers add types of events. One that we don't know must not be posted for ever.
        _ => "ignored",
    };
    Ok(Json(Answer {
        event: event.id,
        result,
    }))
}

fn succeed(event: &Event, ctx: &Context) -> Result<&'static str> {
    let Payment {
        id,
        order_id,
        amount,
    } = &event.payment;
    let name = format!("payment/{id}");
    // The event's number is unique per event. Two events can tell of one payment.
    if let Some(before) = ctx.state().get::<Recorded>(&name)? {
        if (&before.order_id, before.amount) != (order_id, *amount) {
            return Err(semel::reject(format_args!(
                "the payment `{id}` of {amount} for `{order_id}` was {} for `{}` in the event `{}`",
                before.amount, before.order_id, before.event
            )));
        }
        return Ok("known");
    }
    let recorded = Recorded {
        event: event.id.clone(),
        order_id: order_id.clone(),
        amount: *amount,
    };
    ctx.state().put(&name, &recorded)?;
    let paid = Paid {
        order_id,
        payment: id,
        amount: *amount,
    };
    ctx.publish("orders-paid", &paid)?;
    Ok("recorded")
}
