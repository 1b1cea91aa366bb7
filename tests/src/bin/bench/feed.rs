//! Ends of the path that cost next to nothing, and a clock around a source.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use semel_core::{
    Delivery, Latency, OutboxRow, Partition, Position, Received, Sink, SinkError, Source,
    SourceError,
};

use crate::cpu::CpuTime;

/// Hands over messages from memory, then ends.
pub struct Feed {
    deliveries: Arc<[Delivery]>,
    next: AtomicUsize,
}

impl Feed {
    /// A source of these.
    pub fn new(deliveries: Arc<[Delivery]>) -> Self {
        Self {
            deliveries,
            next: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Source for Feed {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let start = self
            .next
            .fetch_add(limit, Relaxed)
            .min(self.deliveries.len());
        let end = (start + limit).min(self.deliveries.len());
        Ok(match &self.deliveries[start..end] {
            [] => Received::End,
            batch => Received::Batch(batch.to_vec()),
        })
    }

    async fn acknowledge(&self, _: &[Position]) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Confirms everything at once.
pub struct Discard;

#[async_trait]
impl Sink for Discard {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        rows.iter().map(|_| Ok(())).collect()
    }
}

/// Times every message of a source, from the return of `receive` to the return of the
/// `acknowledge` that covers it.
pub struct Timed {
    source: Arc<dyn Source>,
    servers: Vec<u32>,
    /// Where the batches that are not acknowledged as a whole end, and when they came.
    waiting: Mutex<HashMap<Partition, VecDeque<Stretch>>>,
    start: Mutex<Option<Start>>,
    acknowledged: AtomicUsize,
    /// From receive to acknowledge.
    pub latency: Latency,
}

/// Messages of a partition that came together.
struct Stretch {
    first: u64,
    last: u64,
    received: Instant,
}

/// When the first message came.
#[derive(Clone, Copy)]
pub struct Start {
    /// The time.
    pub at: Instant,
    /// CPU time used until then.
    pub cpu: CpuTime,
}

impl Timed {
    /// Times this source. Offsets of its partitions have no gaps.
    pub fn new(source: Arc<dyn Source>, servers: Vec<u32>) -> Self {
        Self {
            source,
            servers,
            waiting: Mutex::default(),
            start: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
            latency: Latency::default(),
        }
    }

    /// When the first message came.
    pub fn start(&self) -> Option<Start> {
        *lock(&self.start)
    }

    /// Messages that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Relaxed)
    }

    fn received(&self, deliveries: &[Delivery]) -> Result<(), SourceError> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let received = Instant::now();
        {
            let mut start = lock(&self.start);
            if start.is_none() {
                let cpu = CpuTime::now(&self.servers)
                    .map_err(|error| SourceError::Failed(error.to_string()))?;
                *start = Some(Start { at: received, cpu });
            }
        }
        let mut waiting = lock(&self.waiting);
        for stretch in deliveries.chunk_by(|a, b| a.position.partition == b.position.partition) {
            let (first, last) = (&stretch[0].position, &stretch[stretch.len() - 1].position);
            let entry = Stretch {
                first: first.offset,
                last: last.offset,
                received,
            };
            match waiting.get_mut(&first.partition) {
                Some(stretches) => stretches.push_back(entry),
                None => {
                    waiting.insert(first.partition.clone(), VecDeque::from([entry]));
                }
            }
        }
        Ok(())
    }

    fn settled(&self, position: &Position) {
        let now = Instant::now();
        let mut waiting = lock(&self.waiting);
        let Some(stretches) = waiting.get_mut(&position.partition) else {
            return;
        };
        while let Some(stretch) = stretches.front_mut()
            && stretch.first <= position.offset
        {
            let last = stretch.last.min(position.offset);
            let count = last + 1 - stretch.first;
            let took = now - stretch.received;
            (0..count).for_each(|_| self.latency.record(took));
            self.acknowledged.fetch_add(count as usize, Relaxed);
            stretch.first = last + 1;
            if stretch.first > stretch.last {
                stretches.pop_front();
            }
        }
    }
}

#[async_trait]
impl Source for Timed {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let received = self.source.receive(limit).await?;
        if let Received::Batch(deliveries) = &received {
            self.received(deliveries)?;
        }
        Ok(received)
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        self.source.acknowledge(positions).await?;
        positions.iter().for_each(|position| self.settled(position));
        Ok(())
    }

    async fn close(&self) {
        self.source.close().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
