//! What a [`Context`](crate::Context) passes calls on to: the host's imports in a plugin,
//! the test harness elsewhere.

use crate::sql::{SqlError, SqlRows, SqlValue, Staged};
use crate::{Error, Level, Outgoing, reject, retry};

/// The contract's imports.
pub(crate) trait Backend {
    fn get(&self, name: &str) -> Option<Vec<u8>>;
    fn put(&self, name: &str, value: &[u8]) -> Result<(), EffectError>;
    fn delete(&self, name: &str) -> Result<(), EffectError>;
    fn add(&self, name: &str, delta: i64) -> Result<(), EffectError>;
    fn publish(&self, outgoing: Outgoing) -> Result<String, EffectError>;
    fn execute(&self, statement: Staged) -> Result<(), SqlError>;
    fn query(&self, text: &str, parameters: &[SqlValue]) -> Result<SqlRows, SqlError>;
    fn config(&self, name: &str) -> Option<String>;
    fn idempotency_key(&self, label: &str) -> String;
    /// At most [`MAX_RANDOM_BYTES`].
    fn random(&self, len: u32) -> Vec<u8>;
    fn log(&self, level: Level, text: &str);
}

/// How many random bytes one call gives.
pub(crate) const MAX_RANDOM_BYTES: usize = 64 * 1024;

/// Why the host refused an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EffectError {
    /// The operator has not granted it.
    Denied,
    /// The run has used up its limit.
    LimitExceeded,
}

impl EffectError {
    /// What it means for the message when it meets a state write.
    pub(crate) fn on_state(self, name: &str) -> Error {
        match self {
            Self::Denied => retry(format_args!(
                "the operator denies writing the state `{name}`"
            )),
            Self::LimitExceeded => reject(format_args!(
                "writing the state `{name}` goes beyond the run's limits on effects"
            )),
        }
    }

    /// What it means for the message when it meets an outgoing message. A grant can be given
    /// while the message is parked, so that a missing one is a retry.
    pub(crate) fn on_publish(self, destination: &str) -> Error {
        match self {
            Self::Denied => retry(format_args!(
                "the operator has not granted the destination `{destination}`"
            )),
            Self::LimitExceeded => reject(format_args!(
                "publishing to `{destination}` goes beyond the run's limits on effects"
            )),
        }
    }
}
