//! The plugin's durable state.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Backend;
use crate::{OrFail, Result};

/// The plugin's durable values by name: see [`Context::state`](crate::Context::state).
///
/// Writes are staged and committed together with everything else the run asks for, or not
/// at all. Reads see this run's own writes. Read-modify-write is safe as it stands: should
/// another message change what was read, the host runs the handler again.
///
/// Values are JSON; the `_bytes` variants store bytes as they are.
#[derive(Clone, Copy)]
pub struct State<'c>(pub(crate) &'c dyn Backend);

impl State<'_> {
    /// The value under a name, if there is one.
    ///
    /// # Errors
    /// A rejection if the stored value is not the JSON of a `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.get_bytes(name) else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .or_reject(format_args!(
                "the state value `{name}` is not what the handler expects"
            ))
    }

    /// Stages a value, replacing the old one.
    ///
    /// # Errors
    /// A rejection if the value has no JSON form or the run's limits are used up.
    pub fn put(&self, name: &str, value: &(impl Serialize + ?Sized)) -> Result {
        let bytes = serde_json::to_vec(value)
            .or_reject(format_args!("the state value `{name}` has no JSON form"))?;
        self.put_bytes(name, &bytes)
    }

    /// Stages a removal. Removing what isn't there is no error.
    ///
    /// # Errors
    /// A rejection if the run's limits are used up.
    pub fn delete(&self, name: &str) -> Result {
        self.0.delete(name).map_err(|error| error.on_state(name))
    }

    /// Stages an addition to a counter that starts at 0. Additions commute: any number of
    /// messages may add to one name at the same time, where `get` and `put` would make
    /// them wait for each other. [`get`](Self::get) reads a counter as an integer.
    ///
    /// Adding to a value that is no integer, or past 64 bits, turns the message into a dead
    /// letter.
    ///
    /// # Errors
    /// A rejection if the run's limits are used up.
    pub fn add(&self, name: &str, delta: i64) -> Result {
        self.0
            .add(name, delta)
            .map_err(|error| error.on_state(name))
    }

    /// The bytes under a name, if there are any.
    pub fn get_bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name)
    }

    /// Stages bytes, replacing the old value.
    ///
    /// # Errors
    /// A rejection if the run's limits are used up.
    pub fn put_bytes(&self, name: &str, value: &[u8]) -> Result {
        self.0
            .put(name, value)
            .map_err(|error| error.on_state(name))
    }
}

impl fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}
