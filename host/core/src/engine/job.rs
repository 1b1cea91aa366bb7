//! One message on its way from receive to acknowledge.

use std::sync::Arc;
use std::time::Instant;

use crate::{
    Expected, Fingerprint, Lane, LanePosition, Message, ParkedRow, Position, RecordId, RunId,
};

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
    /// Where it came from; only what the source delivered is acknowledged.
    pub(super) origin: Origin,
    /// The check's answer.
    pub(super) expected: Expected,
    pub(super) bucket: u64,
    /// What to do instead of calling the handler.
    pub(super) fate: Fate,
    /// The last run that was sent to a commit. A record that bears it is this job's own.
    pub(super) sent: Option<RunId>,
    pub(super) received: Instant,
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
    /// It can't be committed, for this reason, and is to be buried.
    Doomed(String),
}

impl Job {
    pub(super) fn from_parked(row: ParkedRow, bucket: u64) -> Self {
        Self {
            record: row.record,
            message: Arc::new(row.message),
            fingerprint: row.fingerprint,
            position: row.position,
            lane: row.lane,
            attempt: row.attempt,
            origin: Origin::Parked,
            expected: Expected::Parked(row.version),
            bucket,
            fate: Fate::Run,
            sent: None,
            received: Instant::now(),
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
