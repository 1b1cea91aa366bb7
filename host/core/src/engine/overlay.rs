//! The state as runs see it: the store's values with the writes of staged runs on top.
//!
//! Runs that ended are *staged*: they form the next batch, in this order, and later runs read
//! through their writes. While a batch is being committed, whoever reads a value that it
//! writes waits for the outcome, so no run ever rests on a commit that may yet fail.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::cache::ValueCache;
use super::job::Job;
use crate::{
    LanePosition, Outcome, Read, Run, Seen, Snapshot, StateKey, StateOp, Store, StoreError,
    Verdict, Versioned,
};

/// A batch is conflict-prone when more than one in this many of its runs went stale ...
const CONFLICT_SHARE: usize = 20;
/// ... and then this many batches are read from the store alone: another host writes the
/// same values, so what was kept of them is likely stale.
const DISTRUSTED_BATCHES: u32 = 64;

pub(super) struct Overlay {
    store: std::sync::Arc<dyn Store>,
    inner: Mutex<Inner>,
    /// Rung when a commit ended: readers of values in doubt wait for it, in their order. (A
    /// watch channel would wake them in a random one.)
    settled: Notify,
    /// Rung when a run is staged.
    staged: Notify,
}

struct Inner {
    cache: ValueCache,
    batch: Vec<Staged>,
    /// The number of the first staged run: numbers count up for as long as the engine lives.
    first: u64,
    writers: HashMap<StateKey, Vec<(u64, StateOp)>>,
    committing: HashSet<StateKey>,
    committing_lanes: HashSet<Place>,
    /// Lanes of which a staged run has statements on the user's own tables: what those do is seen
    /// by nobody before they are committed.
    sealed_lanes: HashSet<Place>,
    /// Lanes of which a run was not applied: nothing of them is staged until they are mended.
    broken_lanes: HashSet<Place>,
    distrust: u32,
    /// Commits that ended.
    settled: u64,
}

/// A lane within a partition.
pub(super) type Place = (crate::Partition, crate::Lane);

/// A run that waits for its commit, with the message that it is for.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) job: Job,
    pub(super) run: Run,
}

/// What came of staging a run.
#[derive(Debug)]
pub(super) enum Staging {
    /// It is part of the next batch.
    Done,
    /// A value that it read has changed meanwhile: run again.
    Stale(Job),
    /// An earlier message of its lane is being committed: run again after that.
    Held(Job),
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").finish_non_exhaustive()
    }
}

pub(super) fn place(position: LanePosition) -> Place {
    (position.partition, position.lane)
}

impl Overlay {
    pub(super) fn new(store: std::sync::Arc<dyn Store>, cached_values: usize) -> Self {
        Self {
            store,
            inner: Mutex::new(Inner {
                cache: ValueCache::new(cached_values),
                batch: Vec::new(),
                first: 0,
                writers: HashMap::new(),
                committing: HashSet::new(),
                committing_lanes: HashSet::new(),
                sealed_lanes: HashSet::new(),
                broken_lanes: HashSet::new(),
                distrust: 0,
                settled: 0,
            }),
            settled: Notify::new(),
            staged: Notify::new(),
        }
    }

    /// Makes a run part of the next batch, if everything that it read still stands.
    pub(super) fn stage(&self, job: Job, mut run: Run, reads: HashMap<StateKey, Seen>) -> Staging {
        let mut inner = self.lock();
        let lane = run.lane_position().map(place);
        if lane.as_ref().is_some_and(|lane| inner.is_held(lane)) {
            return Staging::Held(job);
        }
        if !reads.iter().all(|(key, seen)| inner.stands(key, seen)) {
            return Staging::Stale(job);
        }
        let first = inner.first;
        run.reads = reads
            .into_iter()
            .map(|(key, seen)| to_read(key, &seen, first))
            .collect();
        // The order of a hash map must not reach the store: it would make runs irreproducible.
        run.reads.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let number = first + inner.batch.len() as u64;
        if let Verdict::Done(effects) = &run.verdict {
            for write in &effects.writes {
                let writers = inner.writers.entry(write.key.clone()).or_default();
                writers.push((number, write.op.clone()));
            }
        }
        if !run.statements().is_empty() {
            inner.sealed_lanes.extend(lane);
        }
        inner.batch.push(Staged { job, run });
        drop(inner);
        self.staged.notify_one();
        Staging::Done
    }

    /// How many runs are staged.
    pub(super) fn len(&self) -> usize {
        self.lock().batch.len()
    }

    /// Waits until a run is staged.
    pub(super) async fn staged(&self) {
        self.staged.notified().await;
    }

    /// Takes the staged runs for their commit. One batch is committed at a time.
    pub(super) fn take_batch(&self) -> Vec<Staged> {
        let mut inner = self.lock();
        let batch = std::mem::take(&mut inner.batch);
        inner.first += batch.len() as u64;
        let written = std::mem::take(&mut inner.writers);
        inner.committing = written.into_keys().collect();
        inner.sealed_lanes.clear();
        inner.committing_lanes = batch
            .iter()
            .filter_map(|staged| staged.run.lane_position().map(place))
            .collect();
        batch
    }

    /// Whether messages of this lane have to wait for earlier ones: a batch that is being
    /// committed has some, one of them staged statements, or one of them was not applied.
    pub(super) fn is_held(&self, lane: &Place) -> bool {
        self.lock().is_held(lane)
    }

    /// Whether a batch that is being committed has messages of this lane.
    pub(super) fn is_committing(&self, lane: &Place) -> bool {
        self.lock().committing_lanes.contains(lane)
    }

    /// The messages of a broken lane are about to be checked again.
    pub(super) fn mend(&self, lane: &Place) {
        self.lock().broken_lanes.remove(lane);
    }

    /// Learns the outcomes of the batch that was taken; none if they are unknown. Lanes of
    /// which a run was not applied are broken from here on.
    pub(super) fn settle(&self, batch: &[Staged], outcomes: Option<&[Outcome]>) {
        let mut inner = self.lock();
        for (index, staged) in batch.iter().enumerate() {
            if let Some(lane) = staged.run.lane_position().map(place)
                && !outcomes.is_some_and(|outcomes| lane_goes_on(&staged.run, &outcomes[index]))
            {
                inner.broken_lanes.insert(lane);
            }
        }
        let mut conflicts = 0;
        for (index, staged) in batch.iter().enumerate() {
            let outcome = outcomes.map(|outcomes| &outcomes[index]);
            match outcome {
                Some(Outcome::Applied { version, .. }) => inner.keep(&staged.run, *version),
                _ => {
                    conflicts += usize::from(matches!(outcome, Some(Outcome::Conflict)));
                    inner.forget(&staged.run);
                }
            }
        }
        if conflicts * CONFLICT_SHARE > batch.len() {
            inner.distrust = DISTRUSTED_BATCHES;
            inner.cache.clear();
        } else {
            inner.distrust = inner.distrust.saturating_sub(1);
        }
        inner.committing.clear();
        inner.committing_lanes.clear();
        inner.settled += 1;
        drop(inner);
        self.settled.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nothing panics while it holds the overlay")
    }
}

impl Inner {
    fn is_held(&self, lane: &Place) -> bool {
        [
            &self.committing_lanes,
            &self.sealed_lanes,
            &self.broken_lanes,
        ]
        .into_iter()
        .any(|held| held.contains(lane))
    }

    /// Whether a value is what a run saw.
    fn stands(&self, key: &StateKey, seen: &Seen) -> bool {
        let writers = self.writers.get(key).map_or(&[][..], Vec::as_slice);
        let base = self
            .cache
            .peek(key)
            .is_none_or(|kept| kept.version == seen.base);
        base && !self.committing.contains(key)
            && writers.iter().map(|(number, _)| number).eq(&seen.staged)
    }

    /// The value as seen through the staged writes.
    fn through(&self, key: &StateKey, stored: Versioned) -> Seen {
        let writers = self.writers.get(key).map_or(&[][..], Vec::as_slice);
        let value = writers.iter().fold(stored.value, |value, (_, op)| {
            // An addition that fails here fails at the commit as well, which says so.
            op.apply(value.as_ref()).unwrap_or(value)
        });
        let staged = writers.iter().map(|(number, _)| *number).collect();
        Seen {
            value,
            base: stored.version,
            staged,
        }
    }

    /// Remembers what an applied run wrote. The sum that an addition came to is not known.
    fn keep(&mut self, run: &Run, version: u64) {
        let Verdict::Done(effects) = &run.verdict else {
            return;
        };
        for write in &effects.writes {
            let value: Option<Bytes> = match &write.op {
                StateOp::Put(value) => Some(value.clone()),
                StateOp::Delete => None,
                StateOp::Add(_) => {
                    self.cache.remove(&write.key);
                    continue;
                }
            };
            if self.distrust == 0 {
                let version = if value.is_some() { version } else { 0 };
                self.cache
                    .insert(write.key.clone(), Versioned { version, value });
            }
        }
    }

    /// Forgets everything that a run touched which was not applied.
    fn forget(&mut self, run: &Run) {
        run.reads
            .iter()
            .for_each(|read| self.cache.remove(&read.key));
        if let Verdict::Done(effects) = &run.verdict {
            effects
                .writes
                .iter()
                .for_each(|write| self.cache.remove(&write.key));
        }
    }
}

/// Whether the next message of the lane may take effect after this one.
pub(super) fn lane_goes_on(run: &Run, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Applied { .. } => !matches!(run.verdict, Verdict::Park(_)),
        Outcome::Duplicate => true,
        _ => false,
    }
}

fn to_read(key: StateKey, seen: &Seen, first: u64) -> Read {
    let index = |number: &u64| u32::try_from(number - first).expect("a batch fits 32 bits");
    Read {
        key,
        base: seen.base,
        seen: seen.staged.iter().map(index).collect(),
    }
}

#[async_trait]
impl Snapshot for Overlay {
    fn peek(&self, key: &StateKey) -> Option<Seen> {
        let mut inner = self.lock();
        if inner.committing.contains(key) {
            return None;
        }
        let kept = inner.cache.get(key)?;
        Some(inner.through(key, kept))
    }

    async fn get(&self, key: &StateKey) -> Result<Seen, StoreError> {
        loop {
            let settled = self.settled.notified();
            if let Some(seen) = self.peek(key) {
                return Ok(seen);
            }
            let generation = {
                let inner = self.lock();
                (!inner.committing.contains(key)).then_some(inner.settled)
            };
            let Some(generation) = generation else {
                settled.await;
                continue;
            };
            let mut values = self.store.read(std::slice::from_ref(key)).await?;
            let stored = values
                .pop()
                .ok_or_else(|| StoreError::failed("a read without answer"))?;
            let mut inner = self.lock();
            // A commit that ended or began meanwhile may have changed the value.
            if inner.settled != generation || inner.committing.contains(key) {
                continue;
            }
            if inner.distrust == 0 {
                inner.cache.insert(key.clone(), stored.clone());
            }
            return Ok(inner.through(key, stored));
        }
    }
}
