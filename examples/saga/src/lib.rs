//! A saga: an order is paid, then its goods are reserved. If a step fails, what was done
//! before it is undone by steps of their own.
//!
//! [`orders`] leads. [`payments`] and [`stock`] take its commands and answer with events. They
//! share this file so that the example is one plugin, but nothing else: each reads and writes
//! its own names in the state, and they talk through messages alone.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use semel::{Context, Message, Outgoing, Result};
use serde::Serialize;

pub mod orders;
pub mod payments;
pub mod stock;

/// Hands the message to the participant whose topic it came to.
///
/// The business key is what a message is about and which step it is. Names of steps differ
/// between topics, so that no two steps of an order have the same key.
///
/// # Errors
/// What the participant says, and a rejection of any other topic.
#[semel::handler(
    topics = ["saga-orders", "saga-payments", "saga-stock"],
    key = "json:/id + json:/step"
)]
pub fn take_step(message: Message, ctx: &mut Context) -> Result {
    match message.topic.as_str() {
        orders::TOPIC => orders::take(&message.json()?, ctx),
        payments::TOPIC => payments::take(&message.json()?, ctx),
        stock::TOPIC => stock::take(&message.json()?, ctx),
        other => Err(semel::reject(format_args!(
            "no participant takes `{other}`"
        ))),
    }
}

/// Publishes a step under its order's number, so that a broker keeps an order's messages in
/// one partition.
fn send(ctx: &Context, topic: &str, id: &str, step: &impl Serialize) -> Result {
    ctx.send(Outgoing::json(topic, step)?.key(id))?;
    Ok(())
}
