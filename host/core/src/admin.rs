//! What an operator may look at and change.

use async_trait::async_trait;

use crate::{
    DeadLetter, DeadLetterId, ParkedRow, PluginName, RecordId, RecordState, Store, StoreError,
    Version,
};

/// A store as the commands see it.
#[async_trait]
pub trait Admin: Store {
    /// State values of a namespace whose name starts with `prefix`, ascending by name, above
    /// `after`, at most `limit`.
    async fn list_state(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreError>;

    /// A record and, where it is parked, its row.
    async fn record(
        &self,
        record: &RecordId,
    ) -> Result<(RecordState, Option<ParkedRow>), StoreError>;

    /// Dead letters, of one plugin or all, ascending by id, above `after`, at most `limit`.
    async fn list_dead(
        &self,
        plugin: Option<&PluginName>,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// One dead letter.
    async fn dead(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, StoreError>;

    /// Turns a dead letter that ends a record into a parked message that is due at once, with
    /// no attempts counted, and one that is an outgoing message into a row of the outbox, at
    /// its old place. False if there is no such letter or it is of another kind.
    async fn replay(&self, id: &DeadLetterId, now_ms: u64) -> Result<bool, StoreError>;

    /// Forgets a dead letter. Its record stays dead, so redeliveries are still dropped. False
    /// if there is no such letter.
    async fn drop_dead(&self, id: &DeadLetterId) -> Result<bool, StoreError>;

    /// Counts what is in the store. Takes time in proportion to it.
    async fn stats(&self, plugin: &PluginName) -> Result<StoreStats, StoreError>;
}

/// A state value with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// The name that the handler uses.
    pub name: String,
    /// The commit that last wrote it.
    pub version: Version,
    /// The value.
    pub value: bytes::Bytes,
}

/// How much there is of a plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Done records.
    pub done: u64,
    /// Parked messages.
    pub parked: u64,
    /// Dead letters, with or without a record.
    pub dead: u64,
    /// Outgoing messages of all plugins that are not confirmed yet.
    pub outbox: u64,
}
