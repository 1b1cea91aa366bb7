//! A run that asks to be committed, and what becomes of it.

use crate::{
    DeadLetter, Effects, Fingerprint, Lane, LanePosition, MessageId, Miss, OutboxLane, OutboxRow,
    ParkedRow, Position, RecordId, RowId, RunId, StateKey, Statement, Version,
};

/// One run of a handler, ready for its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which run.
    pub id: RunId,
    /// For which record.
    pub record: RecordId,
    /// Of the message's body.
    pub fingerprint: Fingerprint,
    /// Where the message was received.
    pub position: Position,
    /// Its lane, if the plugin declares one.
    pub lane: Option<Lane>,
    /// What the check found; parking is conditional on it.
    pub expected: Expected,
    /// [`Checked::bucket`](crate::Checked::bucket) of that check.
    pub bucket: u64,
    /// What the handler read. All of it must still stand, whatever the verdict.
    pub reads: Vec<Read>,
    /// When it ended, in milliseconds since 1970-01-01 UTC. Delays count from here.
    pub ended_ms: u64,
    /// What is to become of the message.
    pub verdict: Verdict,
}

impl Run {
    /// The outbox rows that applying it in commit `version` makes. They are the same for
    /// whoever asks: the store that keeps them and the host that publishes them at once.
    pub fn outbox_rows(&self, version: Version) -> Vec<OutboxRow> {
        let Verdict::Done(effects) = &self.verdict else {
            return Vec::new();
        };
        let plugin = &self.record.plugin;
        let lane = self.lane.as_ref();
        let lane = lane.map(|lane| OutboxLane {
            plugin: plugin.clone(),
            lane: lane.clone(),
        });
        let rows = effects.outgoing.iter().zip(0..);
        rows.map(|(outgoing, ordinal)| OutboxRow {
            id: RowId { version, ordinal },
            plugin: plugin.clone(),
            message_id: MessageId::derive(&self.record, ordinal),
            lane: lane.clone().filter(|_| outgoing.delay_ms.is_none()),
            due_ms: outgoing
                .delay_ms
                .map_or(0, |delay| self.ended_ms.saturating_add(delay)),
            outgoing: outgoing.clone(),
        })
        .collect()
    }

    /// The statements on the user's own tables that applying it carries out.
    pub fn statements(&self) -> &[Statement] {
        match &self.verdict {
            Verdict::Done(effects) => &effects.statements,
            Verdict::Park(_) | Verdict::Dead(_) => &[],
        }
    }

    /// Its place in its lane.
    pub fn lane_position(&self) -> Option<LanePosition> {
        self.lane.as_ref().map(|lane| LanePosition {
            partition: self.position.partition.clone(),
            lane: lane.clone(),
            offset: self.position.offset,
        })
    }
}

/// The record as the check found it. Anything but absent and parked never runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No record.
    Absent,
    /// The parked row of this version.
    Parked(Version),
}

/// A value that the handler read.
///
/// It stands if the value's version at the start of the commit is `base`, and the runs of
/// this batch that were applied before and wrote the key are exactly `seen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Which value.
    pub key: StateKey,
    /// The version that the store gave for it.
    pub base: Version,
    /// The runs of this batch whose staged writes the handler saw on top: indices into the
    /// batch, ascending.
    pub seen: Vec<u32>,
}

/// What a run asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The handler succeeded: apply its effects and mark the record done.
    Done(Effects),
    /// The handler failed for now: keep the message for another attempt.
    Park(Park),
    /// The handler failed for good: bury the message.
    Dead(Box<DeadLetter>),
}

/// A message to keep in the store until it is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Park {
    /// The row to write. Its version is set by the store.
    pub row: Box<ParkedRow>,
    /// Whether it only waits behind its lane's predecessor. Such a row does not test for it.
    pub behind: bool,
}

/// What became of one run of a commit. Nothing of a run is written unless it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its verdict is durable now. The answer is the same when the commit is sent again
    /// because the reply was lost.
    Applied {
        /// The commit's number: the version of all that it wrote.
        version: Version,
        /// Whether no older outgoing message of the same lane was waiting.
        outbox_clear: bool,
    },
    /// The record was done or dead already, by a message with the same payload.
    Duplicate,
    /// The record belongs to a message with another payload.
    Mismatch,
    /// The record is not the one that the check found, so parking would undo someone's work.
    AlreadyParked,
    /// A parked message of the lane comes first.
    Behind,
    /// A read went stale, an earlier run of the lane was not applied, or the check is older
    /// than the retention: check and run again. It counts as no attempt.
    Conflict,
    /// An addition met something that is no counter.
    NotACounter(StateKey),
    /// A statement on the user's own tables was not carried through.
    Missed(Miss),
}
