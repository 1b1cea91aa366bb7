//! Transactions at several brokers at once.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use semel_core::{Prepared, Run, Transactions};

/// All of these as one; none where there are none.
pub fn combined(mut all: Vec<Arc<dyn Transactions>>) -> Option<Arc<dyn Transactions>> {
    match all.len() {
        0 | 1 => all.pop(),
        _ => Some(Arc::new(Combined(all))),
    }
}

struct Combined(Vec<Arc<dyn Transactions>>);

struct CombinedPrepared(Vec<Box<dyn Prepared>>);

#[async_trait]
impl Transactions for Combined {
    fn covers(&self, destination: &str) -> bool {
        self.0.iter().any(|each| each.covers(destination))
    }

    async fn prepare(&self, runs: &[Run]) -> Box<dyn Prepared> {
        let prepared = join_all(self.0.iter().map(|each| each.prepare(runs))).await;
        Box::new(CombinedPrepared(prepared))
    }
}

#[async_trait]
impl Prepared for CombinedPrepared {
    async fn end(self: Box<Self>, applied: &[bool]) {
        join_all(self.0.into_iter().map(|each| each.end(applied))).await;
    }
}
