//! A handler that is a Rust closure.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{Failure, Finished, RunContext, Runner};

/// What a handler answers: a reply, or how it failed.
pub type Answer = Result<Option<Bytes>, Failure>;

/// Runs a closure where a sandbox would run a plugin: for tests, and to measure what the
/// sandbox costs.
pub struct NativeRunner<F> {
    handler: F,
}

impl<F> NativeRunner<F>
where
    F: for<'c> Fn(&'c mut RunContext) -> BoxFuture<'c, Answer> + Send + Sync + 'static,
{
    /// A runner of this handler.
    pub fn new(handler: F) -> Self {
        Self { handler }
    }
}

impl<F> fmt::Debug for NativeRunner<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeRunner").finish_non_exhaustive()
    }
}

#[async_trait]
impl<F> Runner for NativeRunner<F>
where
    F: for<'c> Fn(&'c mut RunContext) -> BoxFuture<'c, Answer> + Send + Sync + 'static,
{
    async fn run(&self, mut context: RunContext) -> Finished {
        let answer = (self.handler)(&mut context).await;
        Finished { context, answer }
    }
}
