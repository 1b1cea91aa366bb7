use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{OutboxRow, Sink, SinkError};

/// What becomes of a row that is given to a [`MemorySink`].
#[derive(Clone, Debug)]
pub enum Fate {
    /// It is published and confirmed.
    Confirm,
    /// It is not published.
    Fail(SinkError),
    /// It is published, but the confirmation is lost on the way back.
    LoseReply,
}

type Rule = Arc<dyn Fn(&OutboxRow) -> Fate + Send + Sync>;

/// A sink that remembers what was published, and fails where a test wants it to.
#[derive(Clone)]
pub struct MemorySink {
    published: Arc<Mutex<Vec<OutboxRow>>>,
    rule: Arc<Mutex<Rule>>,
    held: watch::Sender<bool>,
}

impl MemorySink {
    /// A sink that confirms everything.
    pub fn new() -> Self {
        Self {
            published: Arc::default(),
            rule: Arc::new(Mutex::new(Arc::new(|_| Fate::Confirm))),
            held: watch::Sender::new(false),
        }
    }

    /// Every row that reached the "broker", in order; one that was published twice is there
    /// twice.
    pub fn published(&self) -> Vec<OutboxRow> {
        lock(&self.published).clone()
    }

    /// Decides from now on what becomes of each row.
    pub fn decide(&self, rule: impl Fn(&OutboxRow) -> Fate + Send + Sync + 'static) {
        *lock(&self.rule) = Arc::new(rule);
    }

    /// Lets calls of [`publish`](Sink::publish) wait until [`release`](Self::release).
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets waiting calls go on.
    pub fn release(&self) {
        self.held.send_replace(false);
    }
}

impl Default for MemorySink {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySink")
            .field("published", &lock(&self.published).len())
            .field("held", &*self.held.borrow())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        let mut held = self.held.subscribe();
        // Fails only once the sender is gone, and `self` has it.
        let _ = held.wait_for(|held| !held).await;
        let rule = lock(&self.rule).clone();
        let mut failed = HashSet::new();
        let mut publish_one = |row: &OutboxRow| {
            if row.lane.as_ref().is_some_and(|lane| failed.contains(lane)) {
                return Err(SinkError::Held);
            }
            let result = match rule(row) {
                Fate::Confirm => {
                    lock(&self.published).push(row.clone());
                    Ok(())
                }
                Fate::LoseReply => {
                    lock(&self.published).push(row.clone());
                    Err(SinkError::Unavailable("the reply was lost".to_owned()))
                }
                Fate::Fail(error) => Err(error),
            };
            if result.is_err() {
                failed.extend(row.lane.clone());
            }
            result
        };
        rows.iter().map(&mut publish_one).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
