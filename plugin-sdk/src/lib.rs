//! Write message handlers for Semel: plain functions whose effects happen exactly once per
//! plugin and business key.
//!
//! ```
//! use semel::{Context, Result};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Order {
//!     order_id: String,
//!     user: String,
//!     amount: u64,
//! }
//!
//! #[semel::handler(topics = ["orders"], key = "json:/order_id")]
//! pub fn count_spending(order: Order, ctx: &mut Context) -> Result {
//!     if order.amount > 1_000_000 {
//!         return Err(semel::reject("no order is that large"));
//!     }
//!     let name = format!("spent/{}", order.user);
//!     let before: u64 = ctx.state().get(&name)?.unwrap_or(0);
//!     ctx.state().put(&name, &(before + order.amount))?;
//!     ctx.publish("spending", &order)?;
//!     ctx.log().info(format_args!("{} spent {} more", order.user, order.amount));
//!     Ok(())
//! }
//!
//! // The handler's name is also a type, for the test harness: no host, no WebAssembly.
//! let mut host = semel::testing::Harness::new::<count_spending>();
//! let order = Order { order_id: "o-1".into(), user: "ann".into(), amount: 250 };
//! assert!(host.deliver(&order).is_applied());
//! assert!(host.deliver(&order).is_duplicate());
//! assert_eq!(host.state::<u64>("spent/ann"), Some(250));
//! assert_eq!(host.published().len(), 1);
//! ```
//!
//! # What a handler is
//! A function of one message and of the state that it reads. It has no other way to reach
//! the world: no clock but the message's timestamp, no randomness but what its key gives,
//! no files and no network. What it asks for is held back, and committed with the record
//! that says "this key is done" in one transaction. So it may run twice, trap or be killed
//! and leaves nothing behind.
//!
//! # How it fails
//! [`retry`] asks to be run again later, [`reject`] says that it is of no use; see [`Error`].
//! A panic counts as a retry, and its text goes to the host's log.
//!
//! # How it is built
//! As a `cdylib` (with `rlib` beside it for tests) for `wasm32-wasip2` or
//! `wasm32-unknown-unknown`:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib", "rlib"]
//! ```
//!
//! A crate holds one handler.
#![deny(missing_docs)]
// Bindings and exports of a WebAssembly module can't do without; elsewhere there is none.
#![cfg_attr(not(target_family = "wasm"), forbid(unsafe_code))]
#![cfg_attr(target_family = "wasm", deny(unsafe_code))]

// The attribute names this crate `::semel`, also in this crate's own tests.
extern crate self as semel;

mod backend;
mod context;
mod error;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod guest;
mod handler;
mod log;
mod message;
mod outgoing;
mod sql;
mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use context::Context;
pub use error::{Error, OrFail, Result, reject, retry};
#[doc(hidden)]
pub use handler::finish;
pub use handler::{FromMessage, Handler, IntoReply, Json};
pub use log::{Level, Log};
pub use message::Message;
pub use outgoing::Outgoing;
pub use semel_sdk_macros::handler;
pub use sql::{OnMiss, Query, Sql, SqlRows, SqlValue, Staged, Statement};
pub use state::State;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
