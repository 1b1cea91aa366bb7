//! The seam to brokers that take part in the commit: transactional messages.

use async_trait::async_trait;

use crate::Run;

/// Sends outgoing messages as *half messages* before the commit of their run, and tells the
/// broker after it whether consumers may see them.
///
/// The outbox row stays what it is: the message is published from there unless consumers have
/// it, since the end of a transaction is not confirmed. A broker that hears nothing asks back;
/// whoever answers fences the run first (see [`Store::fence`](crate::Store::fence)).
#[async_trait]
pub trait Transactions: Send + Sync + 'static {
    /// Whether messages for this destination are sent as half messages.
    fn covers(&self, destination: &str) -> bool;

    /// Sends the half messages of these runs. When it returns, each is confirmed by the broker
    /// or left to the outbox.
    async fn prepare(&self, runs: &[Run]) -> Box<dyn Prepared>;
}

/// Half messages whose fate is open.
#[async_trait]
pub trait Prepared: Send {
    /// Tells the broker for each run whether it was applied. It may not hear of it.
    async fn end(self: Box<Self>, applied: &[bool]);
}
