//! The seam to everything durable.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    CheckQuery, Checked, DeadLetter, OutboxLane, OutboxRow, Outcome, ParkedRow, PluginName,
    RecordId, RowId, Run, RunId, SqlAccess, SqlGrants, StateKey, Versioned,
};

/// Keeps records, state, outgoing messages, parked messages and dead letters.
///
/// Every method is linearizable: what one call wrote, all later calls on any host see. What
/// a method wrote is durable, as the store's settings define it, when the method returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Looks up records, in the order of the queries.
    async fn check(&self, queries: &[CheckQuery]) -> Result<Vec<Checked>, StoreError>;

    /// Looks up state values, in the order of the keys.
    async fn read(&self, keys: &[StateKey]) -> Result<Vec<Versioned>, StoreError>;

    /// Applies runs in order, in one durable transaction. For each run, the first test that
    /// fails decides:
    ///
    /// 1. The record bears this run's id → `Applied` again, with the same version.
    /// 2. The record is done or dead → `Duplicate`, or `Mismatch` by the fingerprint; it is
    ///    parked with another fingerprint → `Mismatch`.
    /// 3. The check's bucket expired, or the run is fenced → `Conflict`.
    /// 4. An earlier run of the same plugin, partition and lane in this batch ended in
    ///    anything but a duplicate or an applied done or dead → `Conflict`. A row that is
    ///    parked *as* waiting behind may follow others that were parked, but none that is
    ///    recorded nowhere: it would overtake it.
    /// 5. Parking, and the record is not as expected → `AlreadyParked`. A dead letter whose
    ///    cause is `Exhausted` is tested likewise.
    /// 6. A parked row of the same plugin, partition and lane has a smaller offset →
    ///    `Behind`. Rows that are parked *as* waiting behind are not tested.
    /// 7. A read does not stand (see [`Read`](crate::Read)) → `Conflict`.
    /// 8. An addition does not add up → `NotACounter`.
    /// 9. A statement on the user's own tables matches another number of rows than it must, or
    ///    the database refuses it → `Missed`.
    /// 10. Otherwise state, outgoing messages and record are written, the statements are carried
    ///     out and a parked row of the record is deleted, all together → `Applied`.
    async fn commit(&self, runs: &[Run]) -> Result<Vec<Outcome>, StoreError>;

    /// Keeps dead letters that end no record. Burying one again changes nothing.
    async fn bury(&self, letters: &[DeadLetter]) -> Result<(), StoreError>;

    /// Parked rows of a plugin that are due at `now_ms` and not behind another of their
    /// lane, those due longest first.
    async fn due(
        &self,
        plugin: &PluginName,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<ParkedRow>, StoreError>;

    /// How many messages of a plugin are parked, and when the first is due.
    async fn parked(&self, plugin: &PluginName) -> Result<(u64, Option<u64>), StoreError>;

    /// Outgoing messages that wait to be published, ascending by [`RowId`].
    async fn outbox(&self, scan: &OutboxScan) -> Result<Vec<OutboxRow>, StoreError>;

    /// Deletes outgoing messages that the broker has confirmed.
    async fn confirm(&self, rows: &[RowId]) -> Result<(), StoreError>;

    /// Takes outgoing messages that a broker will never take out of the outbox and keeps them
    /// as dead letters, all together. A letter whose row is gone changes nothing.
    async fn refuse(&self, letters: &[DeadLetter]) -> Result<(), StoreError>;

    /// How many outgoing messages wait.
    async fn outbox_len(&self) -> Result<u64, StoreError>;

    /// Whether the record is done by this run. If it is not, it never will be: the run is
    /// *fenced*, and every later commit refuses it. Both in one durable transaction.
    ///
    /// A fence may be forgotten together with done records of its time: a run of that time can
    /// no longer be committed then.
    async fn fence(&self, record: &RecordId, run: RunId) -> Result<bool, StoreError>;

    /// The user's own tables beside the store's, as a plugin with these grants may use them. A
    /// table whose changes would not be kept and taken back with the store's can't be granted.
    async fn sql(&self, grants: &SqlGrants) -> Result<Arc<dyn SqlAccess>, StoreError> {
        let _ = grants;
        Err(StoreError::failed(
            "it keeps no tables of yours: `sql` needs a store in a MySQL, MariaDB or PostgreSQL \
             database",
        ))
    }

    /// Drops the done records of a plugin that are older than its retention.
    /// Returns how many time buckets went.
    async fn expire(
        &self,
        plugin: &PluginName,
        retention: Duration,
        now_ms: u64,
    ) -> Result<u64, StoreError>;
}

/// Which outgoing messages to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxScan {
    /// Only those above this one.
    pub after: Option<RowId>,
    /// Only those of this lane.
    pub lane: Option<OutboxLane>,
    /// At most this many.
    pub limit: usize,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached or is out of service. Nothing may be assumed about the request: it
    /// may have been carried out, or may be yet.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// The client's own error.
        #[source]
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// It can't go on without someone's help: the disk is full, a file is corrupt, a setting
    /// would lose data.
    #[error("the store failed: {reason}")]
    Failed {
        /// What happened and what to do.
        reason: String,
        /// The client's own error.
        #[source]
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
}

impl StoreError {
    /// Out of service for now.
    pub fn unavailable(
        reason: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Unavailable {
            reason: reason.into(),
            source: Some(Arc::new(source)),
        }
    }

    /// Out of service until someone acts.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            source: None,
        }
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
