use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use semel_core::{Position, Received, Settlement, Source, SourceError};

use super::desk::Desk;
use super::listener::Listener;

/// How long [`HttpSource::receive`] waits for a request.
const POLL: Duration = Duration::from_millis(100);

/// The requests for one plugin.
///
/// A request is answered when its message is settled. Nothing is kept here beyond that: what is
/// not settled is the client's to send again, under the same key.
pub struct HttpSource {
    desk: Arc<Desk>,
    listener: Arc<Listener>,
    /// For how long a request may come again.
    redelivery: Duration,
    closed: AtomicBool,
}

impl HttpSource {
    pub(super) fn new(desk: Arc<Desk>, listener: Arc<Listener>, redelivery: Duration) -> Self {
        listener.hold();
        Self {
            desk,
            listener,
            redelivery,
            closed: AtomicBool::new(false),
        }
    }
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource")
            .field("plugin", &self.desk.plugin())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        Ok(Received::Batch(self.desk.receive(limit, POLL).await))
    }

    async fn acknowledge(&self, _positions: &[Position]) -> Result<(), SourceError> {
        Ok(())
    }

    fn wants_settlements(&self) -> bool {
        true
    }

    async fn settle(&self, settlements: Vec<Settlement>) {
        self.desk.settle(settlements);
    }

    fn redelivery(&self) -> Option<Duration> {
        Some(self.redelivery)
    }

    /// Answers those who still wait, and with the last of the server's sources stops listening.
    async fn close(&self) {
        if !self.closed.swap(true, Relaxed) {
            self.desk.close();
            self.listener.release().await;
        }
    }
}
