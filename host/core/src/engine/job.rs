//! One message on its way from receive to acknowledge.

use std::sync::Arc;
use std::time::Instant;

use super::config::EngineConfig;
use super::versioning::Revision;
use crate::{
    AfterMiss, Expected, Fingerprint, Lane, LanePosition, Message, Miss, ParkedRow, Position,
    RecordId, RunId, StateKey, Stats,
};

/// So many times a handler is run again at once because its statements missed; then it counts as
/// a failure. Whoever came first has most likely committed by the second.
const MISSES: u32 = 8;

/// After so many misses it runs while no other does.
const CONTENDED: u32 = 2;

/// A message that passed the check and is to be run.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) record: RecordId,
    pub(super) message: Arc<Message>,
    pub(super) fingerprint: Fingerprint,
    pub(super) position: Position,
    pub(super) lane: Option<Lane>,
    /// Failures before.
    pub(super) attempt: u32,
    /// Times that a statement missed since the last attempt began.
    pub(super) misses: u32,
    /// Whether others of its record wait for what becomes of it.
    pub(super) leads: bool,
    /// Where it came from; only what the source delivered is acknowledged.
    pub(super) origin: Origin,
    /// The check's answer.
    pub(super) expected: Expected,
    pub(super) bucket: u64,
    /// What to do instead of calling the handler.
    pub(super) fate: Fate,
    /// Its place among the versions of its entity, if the plugin's messages are numbered.
    pub(super) revision: Option<Revision>,
    /// Since when it waits for an earlier version.
    pub(super) waits_since_ms: Option<u64>,
    /// The last run that was sent to a commit. A record that bears it is this job's own.
    pub(super) sent: Option<RunId>,
    pub(super) received: Instant,
    /// When the source was asked for it, in milliseconds since 1970-01-01 UTC.
    pub(super) since_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Delivered by the source.
    Source,
    /// Taken up from the store.
    Parked,
}

/// What becomes of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The handler decides.
    Run,
    /// It waits behind a parked message of its lane.
    Behind,
    /// It could not be committed, for this reason, which may pass.
    Failed(String),
    /// It can't be committed, for this reason, and is to be buried.
    Doomed(String),
}

impl Job {
    pub(super) fn from_parked(row: ParkedRow, config: &EngineConfig) -> Self {
        let (fate, revision) = match Revision::of(config, &row.message) {
            Ok(revision) => (Fate::Run, revision),
            Err(error) => (Fate::Doomed(error.to_string()), None),
        };
        Self {
            record: row.record,
            message: Arc::new(row.message),
            fingerprint: row.fingerprint,
            position: row.position,
            lane: row.lane,
            attempt: row.attempt,
            misses: 0,
            leads: false,
            origin: Origin::Parked,
            expected: Expected::Parked(row.version),
            bucket: 0,
            fate,
            revision,
            waits_since_ms: row.waits_since_ms,
            sent: None,
            received: Instant::now(),
            // Parked rows don't expire.
            since_ms: u64::MAX,
        }
    }

    /// The entity of which only one message runs at a time, unless a lane sees to the order.
    pub(super) fn entity(&self) -> Option<&StateKey> {
        let revision = self.revision.as_ref().filter(|_| self.lane.is_none());
        revision.map(|revision| &revision.entity)
    }

    /// Whether it is to run while no other does: its statements missed, and most likely for
    /// others of this host, of whose rows nobody sees the new versions before they are committed.
    pub(super) fn is_contended(&self) -> bool {
        self.misses >= CONTENDED && self.fate == Fate::Run
    }

    /// A statement of its run missed: what to do next.
    pub(super) fn missed(&mut self, Miss { reason, then }: Miss) {
        self.misses += 1;
        match then {
            AfterMiss::RunAgain if self.misses < MISSES => {}
            AfterMiss::RunAgain | AfterMiss::Retry => self.fate = Fate::Failed(reason),
            AfterMiss::Reject => self.fate = Fate::Doomed(reason),
        }
    }

    /// Counts a message that is done.
    pub(super) fn count_done(&self, stats: &Stats) {
        match &self.revision {
            Some(revision) if revision.stale => stats.stale.add(1),
            _ => stats.applied.add(1),
        }
    }

    pub(super) fn lane_position(&self) -> Option<LanePosition> {
        self.lane.as_ref().map(|lane| LanePosition {
            partition: self.position.partition.clone(),
            lane: lane.clone(),
            offset: self.position.offset,
        })
    }
}
