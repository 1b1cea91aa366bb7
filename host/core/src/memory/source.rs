use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::{Delivery, Message, Partition, Payload, Position, Received, Source, SourceError};

/// How long [`MemorySource::receive`] waits for a message before it gives an empty batch.
const POLL: Duration = Duration::from_millis(100);

/// A source whose partitions are written by a test.
///
/// Offsets count from 0 in each partition. Messages are handed over one partition after the
/// other in turn, by name, so that the same script and the same calls give the same batches.
/// What [`acknowledge`](Source::acknowledge) says is kept as said, also if it goes back, as
/// brokers do.
#[derive(Debug, Default)]
pub struct MemorySource {
    script: Mutex<Script>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Script {
    partitions: BTreeMap<Partition, Log>,
    /// The partition that the last message came from.
    last: Option<Partition>,
    finished: bool,
    faults: Vec<SourceError>,
}

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Payload>,
    /// The offset to hand over next.
    next: usize,
    /// The first offset that is not acknowledged.
    watermark: usize,
    /// The first offset that was never handed over.
    reached: usize,
}

impl MemorySource {
    /// A source without messages. It stays open until [`finish`](Self::finish).
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message to a partition.
    pub fn push(&self, partition: &str, message: Message) -> Position {
        self.append(partition, Payload::Message(Arc::new(message)))
    }

    /// Appends bytes that are no message.
    pub fn push_malformed(
        &self,
        partition: &str,
        reason: impl Into<String>,
        raw: impl Into<Bytes>,
    ) -> Position {
        let payload = Payload::Malformed {
            reason: reason.into(),
            raw: raw.into(),
        };
        self.append(partition, payload)
    }

    /// Says that no more will be pushed: once everything is handed over, the source ends.
    pub fn finish(&self) {
        self.script().finished = true;
        self.changed.notify_waiters();
    }

    /// What a crash and a new start do: every partition goes on at its first message that is
    /// not acknowledged.
    pub fn restart(&self) {
        let mut script = self.script();
        script.last = None;
        for log in script.partitions.values_mut() {
            log.next = log.watermark;
        }
        drop(script);
        self.changed.notify_waiters();
    }

    /// What losing and regaining a partition does: it goes on at its first message that is
    /// not acknowledged, the others go on where they are.
    pub fn reassign(&self, partition: &str) {
        if let Some(log) = self.script().partitions.get_mut(&Partition::new(partition)) {
            log.next = log.watermark;
        }
        self.changed.notify_waiters();
    }

    /// Lets the next call of [`receive`](Source::receive) fail. Several faults are given in
    /// the order in which they were set.
    pub fn fail_next(&self, fault: SourceError) {
        self.script().faults.push(fault);
        self.changed.notify_waiters();
    }

    /// The highest offset of a partition up to which all is acknowledged.
    pub fn acknowledged(&self, partition: &str) -> Option<u64> {
        let script = self.script();
        let log = script.partitions.get(&Partition::new(partition))?;
        log.watermark.checked_sub(1).map(|offset| offset as u64)
    }

    /// Whether every message of every partition is acknowledged.
    pub fn all_acknowledged(&self) -> bool {
        let script = self.script();
        let mut logs = script.partitions.values();
        logs.all(|log| log.watermark == log.entries.len())
    }

    fn append(&self, partition: &str, payload: Payload) -> Position {
        let partition = Partition::new(partition);
        let mut script = self.script();
        let log = script.partitions.entry(partition.clone()).or_default();
        let offset = log.entries.len() as u64;
        log.entries.push(payload);
        drop(script);
        self.changed.notify_waiters();
        Position { partition, offset }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let deadline = tokio::time::Instant::now() + POLL;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no push goes unnoticed in between.
            changed.as_mut().enable();
            if let Some(answer) = self.script().take(limit) {
                return answer;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(Received::Batch(Vec::new()));
            }
        }
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        let mut script = self.script();
        for position in positions {
            let log = script
                .partitions
                .get_mut(&position.partition)
                .filter(|log| position.offset < log.reached as u64)
                .ok_or_else(|| {
                    SourceError::Failed(format!("{position} is acknowledged but was never given"))
                })?;
            log.watermark = position.offset as usize + 1;
        }
        Ok(())
    }
}

impl Script {
    /// What there is to say at once, if anything.
    fn take(&mut self, limit: usize) -> Option<Result<Received, SourceError>> {
        if !self.faults.is_empty() {
            return Some(Err(self.faults.remove(0)));
        }
        let mut batch = Vec::new();
        while batch.len() < limit
            && let Some(delivery) = self.take_one()
        {
            batch.push(delivery);
        }
        if !batch.is_empty() {
            return Some(Ok(Received::Batch(batch)));
        }
        let drained = self
            .partitions
            .values()
            .all(|log| log.next == log.entries.len());
        (self.finished && drained).then_some(Ok(Received::End))
    }

    fn take_one(&mut self) -> Option<Delivery> {
        let waiting = |(_, log): &(&Partition, &Log)| log.next < log.entries.len();
        let after = self.last.as_ref().and_then(|last| {
            use std::ops::Bound::{Excluded, Unbounded};
            let above = self.partitions.range((Excluded(last), Unbounded));
            above.clone().find(waiting)
        });
        let (name, _) = after.or_else(|| self.partitions.iter().find(waiting))?;
        let partition = name.clone();
        let log = self.partitions.get_mut(&partition)?;
        let offset = log.next;
        log.next += 1;
        log.reached = log.reached.max(log.next);
        let payload = log.entries[offset].clone();
        self.last = Some(partition.clone());
        let offset = offset as u64;
        Some(Delivery {
            position: Position { partition, offset },
            payload,
        })
    }
}
