//! Tests a handler natively: no host, no WebAssembly.
//!
//! A [`Harness`] takes the handler's name as a type, hands it messages as the host would,
//! and keeps state, outgoing messages and log lines in memory:
//!
//! ```
//! use semel::testing::{Harness, Incoming, Outcome};
//! use semel::{Context, Message, Result};
//!
//! #[semel::handler(topics = ["pings"], key = "header:ping")]
//! pub fn answer(ping: Message, ctx: &mut Context) -> Result {
//!     if ping.attempt == 0 {
//!         return Err(semel::retry("not yet"));
//!     }
//!     ctx.state().add("answered", 1)?;
//!     ctx.publish("pongs", ping.header("ping").unwrap_or_default())?;
//!     Ok(())
//! }
//!
//! let mut host = Harness::new::<answer>();
//! let ping = Incoming::new("").header("ping", "p-1");
//! assert_eq!(host.deliver_message(ping.clone()).reason(), Some("not yet"));
//! assert_eq!(host.published(), []);
//!
//! assert!(host.retry_parked()[0].is_applied());
//! assert!(host.deliver_message(ping).is_duplicate());
//! assert_eq!(host.state::<i64>("answered"), Some(1));
//! assert_eq!(host.published()[0].json::<String>(), "p-1");
//! ```
//!
//! It follows the host in what a handler can notice: effects count once per business key and
//! only if the handler succeeds, a body that changed under the same key is refused, a version
//! that is not newer is stale and one that comes early waits, reads see the run's own writes, and ids and random bytes depend on plugin and key alone (their values
//! are not the host's). It does not imitate timing: messages are handled one by one, parked
//! ones come back when the test says so, and nothing limits memory or time.
//! A panic goes through to the test.

mod base64;
mod harness;
mod incoming;
mod key;
mod outcome;
mod run;

pub use harness::{Harness, LogLine, Published};
pub use incoming::{Incoming, LineError};
pub use outcome::Outcome;
