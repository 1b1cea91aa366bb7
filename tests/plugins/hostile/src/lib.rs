//! Does what a plugin should not, as the message says, so that tests can watch the host
//! contain it.

#![allow(
    clippy::disallowed_methods,
    reason = "to do what is not done is what it is for"
)]

mod memory;

use std::hint::black_box;
use std::time::Duration;

use semel::{Context, Outgoing, Result};
use serde::Deserialize;

/// More than any limit allows.
const GIANT: usize = 256 << 20;

/// What to do.
#[derive(Deserialize)]
pub struct Order {
    #[serde(rename = "do")]
    action: Action,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    /// Run for ever.
    Loop,
    /// Allocate without end.
    Memory,
    /// Call itself without end.
    Recurse,
    /// Read state without end.
    Storm,
    /// Publish without end.
    PublishStorm,
    /// Reply with 256 MiB.
    GiantReply,
    /// Write 256 MiB of state.
    GiantState,
    Panic,
    /// Sleep for an hour.
    Sleep,
    /// Exit as a program does.
    Exit,
    Retry,
    Reject,
    /// Add 1 to the counter `ok`.
    Ok,
    /// Leave a pattern all over the linear memory.
    SecretWrite,
    /// Reject if the pattern is anywhere in the linear memory.
    SecretRead,
}

/// Does it.
#[semel::handler(topics = ["hostile"], key = "json:/id")]
pub fn misbehave(order: Order, ctx: &mut Context) -> Result<Option<Vec<u8>>> {
    match order.action {
        Action::Loop => spin(),
        Action::Memory => allocate(),
        Action::Recurse => {
            recurse(0);
        }
        Action::Storm => loop {
            black_box(ctx.state().get_bytes("none"));
        },
        Action::PublishStorm => loop {
            // Going on in spite of refusals is the point.
            let _ = black_box(ctx.send(Outgoing::new("storm", [0; 1024])));
        },
        Action::GiantReply => return Ok(Some(black_box(vec![1; GIANT]))),
        Action::GiantState => ctx.state().put_bytes("giant", &black_box(vec![1; GIANT]))?,
        Action::Panic => panic!("the message said so"),
        Action::Sleep => std::thread::sleep(Duration::from_secs(3600)),
        Action::Exit => std::process::exit(3),
        Action::Retry => return Err(semel::retry("the message said so")),
        Action::Reject => return Err(semel::reject("the message said so")),
        Action::Ok => ctx.state().add("ok", 1)?,
        Action::SecretWrite => memory::plant(),
        Action::SecretRead => {
            if let Some(address) = memory::find() {
                return Err(semel::reject(format_args!(
                    "another message's secret is at {address:#x}"
                )));
            }
        }
    }
    Ok(None)
}

fn spin() {
    let mut turns = 0_u64;
    while black_box(true) {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn allocate() {
    let mut held = Vec::new();
    while black_box(true) {
        held.push(black_box(vec![1_u8; 1 << 20]));
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    match black_box(true) {
        true => recurse(depth + 1) + frame[7],
        false => 0,
    }
}
