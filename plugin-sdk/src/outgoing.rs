//! Messages that a handler publishes.

use std::time::Duration;

use serde::Serialize;

use crate::{OrFail, Result};

/// A message to publish, built up step by step and handed to
/// [`Context::send`](crate::Context::send).
///
/// ```
/// # use semel::{Context, Outgoing, Result};
/// # use std::time::Duration;
/// # fn remind(ctx: &mut Context) -> Result {
/// let reminder = Outgoing::json("reminders", &serde_json::json!({ "user": "ann" }))?
///     .key("ann")
///     .header("kind", "first")
///     .delay(Duration::from_secs(3600));
/// let id = ctx.send(reminder)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub(crate) destination: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) delay: Option<Duration>,
}

impl Outgoing {
    /// A message with these bytes for the destination of this name. The operator maps names
    /// to the topics of a broker.
    pub fn new(destination: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            destination: destination.into(),
            key: None,
            headers: Vec::new(),
            body: body.into(),
            delay: None,
        }
    }

    /// A message with a value as JSON.
    ///
    /// # Errors
    /// A rejection if the value has no JSON form, such as a map whose keys are no strings.
    pub fn json(destination: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Result<Self> {
        let destination = destination.into();
        let body = serde_json::to_vec(value).or_reject(format_args!(
            "the message to `{destination}` has no JSON form"
        ))?;
        Ok(Self::new(destination, body))
    }

    /// Sets the record key: brokers partition and compact by it.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Asks for delivery no sooner than this long after the commit, to the millisecond.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }
}
