//! Version numbers: a message that is not newer than what was applied of its entity is stale,
//! and one that skips versions may wait for those before it.
//!
//! The version last applied is a state value. It is read as a handler reads, so the commit
//! tests it, and written with the effects of the run that it belongs to. So two messages of an
//! entity never both take the same step, on whichever hosts they run, and no lock is needed.
//!
//! A message that waits is a parked row like any other. What is remembered of it here only
//! saves time: it follows its predecessor at once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::Engine;
use super::config::{EngineConfig, FlowLimits};
use super::execute::{Executor, parked_row};
use super::job::{Job, Origin};
use crate::versioning::parse_version;
use crate::{
    Cause, Effects, Expected, Message, Park, Seen, Snapshot, StateKey, StateOp, Verdict, Version,
    VersionError, Versioning, Write,
};

/// A message that waits looks again after this time whether another host brought it its turn,
/// and then each time after half as long as it has waited.
const FIRST_LOOK_MS: u64 = 100;

/// A message's place among the versions of its entity.
#[derive(Clone, Debug)]
pub(super) struct Revision {
    /// Where the version is kept that was last applied.
    pub(super) entity: StateKey,
    pub(super) number: u64,
    /// Whether it came too late when it was last looked at.
    pub(super) stale: bool,
}

/// Whether a message may be handled.
enum Turn {
    Now,
    /// It is not newer than what was applied.
    Stale,
    /// This version comes first; look again after so many milliseconds.
    Early(u64, u64),
}

/// Messages that wait for earlier versions, as far as this engine knows them.
pub(super) struct Waiters(Mutex<Waiting>);

struct Waiting {
    /// In order, so that a simulated run can be repeated.
    entities: BTreeMap<StateKey, BTreeMap<u64, Waiter>>,
    /// What finds no room here waits in the store alone.
    room: usize,
    room_bytes: usize,
}

struct Waiter {
    job: Job,
    since_ms: u64,
}

impl Revision {
    /// Of a message, if the plugin's messages are numbered.
    pub(super) fn of(
        config: &EngineConfig,
        message: &Message,
    ) -> Result<Option<Self>, VersionError> {
        let Some(rules) = &config.versioning else {
            return Ok(None);
        };
        let (entity, number) = rules.of(message)?;
        Ok(Some(Self {
            entity: StateKey {
                namespace: Versioning::namespace(&config.plugin),
                name: entity.into(),
            },
            number,
            stale: false,
        }))
    }

    fn turn(
        &self,
        last: Option<u64>,
        since_ms: u64,
        now_ms: u64,
        rules: &Versioning,
        waiters: &Waiters,
    ) -> Turn {
        if last.is_some_and(|last| self.number <= last) {
            return Turn::Stale;
        }
        let wants = last.map(|last| last + 1).or(rules.first);
        let (Some(wants), Some(bound)) = (wants, rules.wait) else {
            return Turn::Now;
        };
        if self.number <= wants {
            return Turn::Now;
        }
        let waiting = waiters.lock();
        let waited_ms = now_ms.saturating_sub(waiting.since(self, since_ms));
        let step_ms = (waited_ms / 2).max(FIRST_LOOK_MS);
        match milliseconds(bound).saturating_sub(waited_ms) {
            0 if waiting.is_lowest(self, wants) => Turn::Now,
            0 => Turn::Early(wants, FIRST_LOOK_MS),
            left_ms => Turn::Early(wants, left_ms.min(step_ms)),
        }
    }
}

impl Waiters {
    /// Room for as much again as may be in flight.
    pub(super) fn new(flow: &FlowLimits) -> Self {
        Self(Mutex::new(Waiting {
            entities: BTreeMap::new(),
            room: flow.in_flight,
            room_bytes: flow.in_flight_bytes,
        }))
    }

    /// The version after one that was applied, if it waits.
    fn next(&self, applied: &Revision) -> Option<Job> {
        let waiting = self.lock();
        let waiters = waiting.entities.get(&applied.entity)?;
        let next = waiters.get(&applied.number.checked_add(1)?)?;
        Some(next.job.clone())
    }

    /// The lowest version of each entity of which one has waited since `since_ms` or longer.
    fn overdue(&self, since_ms: u64) -> Vec<Job> {
        let waiting = self.lock();
        let overdue = waiting.entities.values().filter(|waiters| {
            let mut waiters = waiters.values();
            waiters.any(|waiter| waiter.since_ms <= since_ms)
        });
        overdue
            .filter_map(|waiters| waiters.values().next())
            .map(|waiter| waiter.job.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .lock()
            .expect("nothing panics while it holds the messages that wait")
    }
}

impl Waiting {
    fn insert(&mut self, revision: &Revision, job: Job, since_ms: u64) {
        let size = job.message.size();
        if self.room == 0 || self.room_bytes < size {
            return;
        }
        let waiters = self.entities.entry(revision.entity.clone()).or_default();
        // Of two messages with one version either will do: the other will be stale.
        if let Entry::Vacant(place) = waiters.entry(revision.number) {
            place.insert(Waiter { job, since_ms });
            self.room -= 1;
            self.room_bytes -= size;
        }
    }

    fn remove(&mut self, revision: &Revision, job: &Job) {
        let Some(waiters) = self.entities.get_mut(&revision.entity) else {
            return;
        };
        if let Entry::Occupied(place) = waiters.entry(revision.number)
            && place.get().job.record == job.record
        {
            self.room += 1;
            self.room_bytes += place.remove().job.message.size();
        }
        if waiters.is_empty() {
            self.entities.remove(&revision.entity);
        }
    }

    /// Since when a message, or one that comes after it, has waited: when that has waited long
    /// enough, this one still goes first.
    fn since(&self, revision: &Revision, since_ms: u64) -> u64 {
        let waiters = self.entities.get(&revision.entity).into_iter();
        waiters
            .flat_map(|waiters| waiters.range(revision.number..))
            .map(|(_, waiter)| waiter.since_ms)
            .fold(since_ms, u64::min)
    }

    /// Whether none waits that is to come before, from version `wants` on.
    fn is_lowest(&self, revision: &Revision, wants: u64) -> bool {
        let waiters = self.entities.get(&revision.entity);
        waiters.is_none_or(|waiters| waiters.range(wants..revision.number).next().is_none())
    }
}

impl Executor {
    /// Calls the handler if it is the message's turn. None if the store failed it.
    pub(super) async fn decide(&self, job: &mut Job) -> Option<(Verdict, HashMap<StateKey, Seen>)> {
        let (Some(revision), Some(rules)) = (&job.revision, &self.config.versioning) else {
            return self.call(job).await;
        };
        let Revision { entity, number, .. } = revision.clone();
        let seen = match self.overlay.get(&entity).await {
            Ok(seen) => seen,
            Err(error) => {
                if let Some(held_back) = self.dropped.pass() {
                    let plugin = &self.config.plugin;
                    tracing::warn!(%plugin, %error, held_back, "the run is dropped");
                }
                return None;
            }
        };
        let last = match &seen.value {
            None => None,
            Some(value) => match std::str::from_utf8(value).ok().and_then(parse_version) {
                None => {
                    let reason = format!(
                        "what is kept as the last version of `{}` is no number",
                        entity.name
                    );
                    let verdict = self.dead(job, Cause::NoVersion, reason, None);
                    return Some((verdict, HashMap::from([(entity, seen)])));
                }
                last => last,
            },
        };
        let now_ms = self.clock.now_ms();
        let since_ms = job.waits_since_ms.unwrap_or(now_ms);
        let turn = revision.turn(last, since_ms, now_ms, rules, &self.waiters);
        let stale = matches!(turn, Turn::Stale);
        let (verdict, mut reads) = match turn {
            Turn::Now => {
                let (mut verdict, reads) = self.call(job).await?;
                if let Verdict::Done(effects) = &mut verdict {
                    effects.writes.push(Write {
                        key: entity.clone(),
                        op: StateOp::Put(number.to_string().into()),
                    });
                }
                (verdict, reads)
            }
            Turn::Stale => (Verdict::Done(Effects::default()), HashMap::new()),
            Turn::Early(wants, step_ms) => {
                let reason = format!("waits for version {wants} of `{}`", entity.name);
                let mut row = parked_row(job, job.attempt, now_ms.saturating_add(step_ms), reason);
                row.waits_since_ms = Some(since_ms);
                let row = Box::new(row);
                (Verdict::Park(Park { row, behind: false }), HashMap::new())
            }
        };
        job.revision = Some(Revision {
            entity: entity.clone(),
            number,
            stale,
        });
        reads.insert(entity, seen);
        Some((verdict, reads))
    }
}

impl Engine {
    /// A message is applied: the next version may follow, if it waits.
    pub(super) fn follow(&mut self, applied: Option<&Revision>) {
        if let Some(revision) = applied {
            let next = self.executor.waiters.next(revision);
            self.take_up(next);
        }
    }

    /// Takes up messages that have waited long enough for versions which did not come.
    pub(super) fn give_up_gaps(&mut self) {
        let bound = self.config.versioning.as_ref().and_then(|rules| rules.wait);
        if let Some(bound) = bound {
            let now_ms = self.parts.clock.now_ms();
            let since_ms = now_ms.saturating_sub(milliseconds(bound));
            let overdue = self.executor.waiters.overdue(since_ms);
            self.take_up(overdue);
        }
    }

    /// A message was parked, as `version`, to wait for its turn.
    pub(super) fn waits(&mut self, job: Job, since_ms: u64, version: Version) {
        if let Some(revision) = job.revision.clone() {
            let job = Job {
                origin: Origin::Parked,
                expected: Expected::Parked(version),
                waits_since_ms: Some(since_ms),
                ..job
            };
            let mut waiting = self.executor.waiters.lock();
            waiting.insert(&revision, job, since_ms);
        }
    }

    /// A message's fate is recorded: if it waited, it does so no longer.
    pub(super) fn waits_no_longer(&mut self, job: &Job) {
        if let Some(revision) = &job.revision {
            self.executor.waiters.lock().remove(revision, job);
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
