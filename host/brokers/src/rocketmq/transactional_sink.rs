use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use semel_core::{OutboxRow, Sink, SinkError};

use super::RocketMqTransactions;

/// How many rows are looked for at a time.
const SEARCHES: usize = 32;

/// Publishes the rows that transactions left in the outbox.
///
/// A row whose message consumers can see is confirmed; any other is published plainly, under
/// the same id. So it is seen twice where the end of its transaction comes late, and never
/// lost where that does not come at all.
pub struct RocketMqTransactionalSink {
    transactions: Arc<RocketMqTransactions>,
    plain: Arc<dyn Sink>,
}

impl RocketMqTransactionalSink {
    /// Publishes to `plain` what consumers don't have from `transactions`.
    pub fn new(transactions: Arc<RocketMqTransactions>, plain: Arc<dyn Sink>) -> Self {
        Self {
            transactions,
            plain,
        }
    }
}

impl fmt::Debug for RocketMqTransactionalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocketMqTransactionalSink")
            .field("transactions", &self.transactions)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for RocketMqTransactionalSink {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        let searches: Vec<_> = rows
            .iter()
            .map(|row| self.transactions.is_visible(row))
            .collect();
        let visible: Vec<bool> = stream::iter(searches).buffered(SEARCHES).collect().await;
        let left: Vec<OutboxRow> = rows
            .iter()
            .zip(&visible)
            .filter(|(_, visible)| !**visible)
            .map(|(row, _)| row.clone())
            .collect();
        let mut published = self.plain.publish(&left).await.into_iter();
        let result = |visible| match visible {
            true => Some(Ok(())),
            false => published.next(),
        };
        visible.into_iter().filter_map(result).collect()
    }

    fn delays(&self, row: &OutboxRow) -> bool {
        self.plain.delays(row)
    }

    async fn close(&self) {
        self.plain.close().await;
    }
}
