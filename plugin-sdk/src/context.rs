//! What a handler can do besides computing.

use std::fmt;

use serde::Serialize;

use crate::backend::{Backend, MAX_RANDOM_BYTES};
use crate::{Log, Message, Outgoing, Result, Sql, State};

/// A handler's whole access to the world: its message, its state, its outgoing messages.
///
/// Every effect is staged. The host commits all effects of a run in one transaction with
/// the record that says "this key is done", or drops them all.
pub struct Context {
    message: Message,
    backend: Box<dyn Backend>,
}

impl Context {
    pub(crate) fn new(message: Message, backend: Box<dyn Backend>) -> Self {
        Self { message, backend }
    }

    /// The message that is being handled.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The plugin's durable state.
    ///
    /// ```
    /// # fn example(ctx: &mut semel::Context) -> semel::Result {
    /// let visits: u64 = ctx.state().get("visits/ann")?.unwrap_or(0);
    /// ctx.state().put("visits/ann", &(visits + 1))?;
    /// # Ok(()) }
    /// ```
    pub fn state(&self) -> State<'_> {
        State(&*self.backend)
    }

    /// Stages a value as JSON for a destination, and gives the message id that consumers
    /// will see. The id is the same however often the handler runs. A destination is a name
    /// that the operator maps to the topic of a broker.
    ///
    /// # Errors
    /// A retry if the operator has not granted the destination; a rejection if the value has
    /// no JSON form or the run's limits are used up.
    pub fn publish(&self, destination: &str, value: &(impl Serialize + ?Sized)) -> Result<String> {
        self.send(Outgoing::json(destination, value)?)
    }

    /// Stages a message with a key, headers or a delay: [`publish`](Self::publish) in full.
    ///
    /// # Errors
    /// A retry if the operator has not granted the destination; a rejection if the run's
    /// limits are used up.
    pub fn send(&self, outgoing: Outgoing) -> Result<String> {
        let destination = outgoing.destination.clone();
        self.backend
            .publish(outgoing)
            .map_err(|error| error.on_publish(&destination))
    }

    /// The user's own tables, where the store is a database and the operator granted their use.
    ///
    /// ```
    /// # fn example(ctx: &mut semel::Context) -> semel::Result {
    /// ctx.sql()
    ///     .statement("INSERT INTO payments (order_id, amount) VALUES (?, ?)")
    ///     .bind("o-1")
    ///     .bind(250)
    ///     .stage()?;
    /// # Ok(()) }
    /// ```
    pub fn sql(&self) -> Sql<'_> {
        Sql(&*self.backend)
    }

    /// Lines for the operator.
    ///
    /// ```
    /// # fn example(ctx: &mut semel::Context, points: u32) {
    /// ctx.log().info(format_args!("granted {points} points"));
    /// # }
    /// ```
    pub fn log(&self) -> Log<'_> {
        Log(&*self.backend)
    }

    /// A value that the operator configured for this plugin.
    pub fn config(&self, name: &str) -> Option<String> {
        self.backend.config(name)
    }

    /// A key for a call to another system, the same however often this message is handled,
    /// and another one for each label.
    pub fn idempotency_key(&self, label: &str) -> String {
        self.backend.idempotency_key(label)
    }

    /// Random bytes that depend on the plugin and the business key alone: another run on the
    /// same message gets the same. Each call within a run gives others.
    pub fn random(&self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let part = (len - bytes.len()).min(MAX_RANDOM_BYTES);
            bytes.extend(self.backend.random(part as u32));
        }
        bytes
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}
