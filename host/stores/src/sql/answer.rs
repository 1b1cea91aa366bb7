//! What a server answered.

use bytes::Bytes;
use semel_core::{BusinessKey, PluginName, RecordId, RunId, StateKey, StoreError};
use serde::de::DeserializeOwned;

use crate::codec::{CodecError, CompositeKey, damaged, decode};

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Number(i64),
    Bytes(Bytes),
}

/// The answer to one statement.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    pub(super) rows: Vec<Cells>,
    /// How many rows it changed.
    pub(super) changed: u64,
}

/// A row, taken from left to right.
#[derive(Clone, Debug)]
pub(super) struct Cells(std::vec::IntoIter<Cell>);

impl Cells {
    pub(super) fn new(cells: Vec<Cell>) -> Self {
        Self(cells.into_iter())
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        self.number_or_null()?.ok_or_else(unexpected)
    }

    pub(super) fn number_or_null(&mut self) -> Result<Option<u64>, StoreError> {
        match self.0.next() {
            Some(Cell::Number(number)) => u64::try_from(number).map(Some).map_err(|_| unexpected()),
            Some(Cell::Null) => Ok(None),
            _ => Err(unexpected()),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, StoreError> {
        self.bytes_or_null()?.ok_or_else(unexpected)
    }

    pub(super) fn bytes_or_null(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.0.next() {
            Some(Cell::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Cell::Null) => Ok(None),
            _ => Err(unexpected()),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        match self.0.next() {
            Some(Cell::Bytes(bytes)) => String::from_utf8(bytes.to_vec()).map_err(|_| unexpected()),
            Some(Cell::Number(number)) => Ok(number.to_string()),
            Some(Cell::Null) => Ok(String::new()),
            None => Err(unexpected()),
        }
    }

    pub(super) fn plugin(&mut self) -> Result<PluginName, StoreError> {
        Ok(PluginName::new(&self.text()?))
    }

    /// The two parts of an id, the first of which is text.
    pub(super) fn parts(&mut self) -> Result<(String, Bytes), StoreError> {
        let id = self.bytes()?;
        let (first, rest) = CompositeKey::split(&id).ok_or_else(unexpected)?;
        let first = std::str::from_utf8(first).map_err(|_| unexpected())?;
        Ok((first.to_owned(), id.slice_ref(rest)))
    }

    pub(super) fn record(&mut self) -> Result<RecordId, StoreError> {
        let (plugin, key) = self.parts()?;
        Ok(RecordId {
            plugin: PluginName::new(&plugin),
            key: BusinessKey::new(key),
        })
    }

    pub(super) fn state_key(&mut self) -> Result<StateKey, StoreError> {
        let (namespace, name) = self.parts()?;
        let name = std::str::from_utf8(&name).map_err(|_| unexpected())?;
        Ok(StateKey {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    pub(super) fn id(&mut self) -> Result<[u8; 16], StoreError> {
        let bytes = self.bytes()?;
        bytes[..].try_into().map_err(|_| unexpected())
    }

    pub(super) fn run(&mut self) -> Result<RunId, StoreError> {
        Ok(RunId::from_bytes(self.id()?))
    }

    pub(super) fn decoded<T: DeserializeOwned>(
        &mut self,
        what: &'static str,
    ) -> Result<T, StoreError> {
        decode(what, &self.bytes()?).map_err(broken)
    }
}

/// Takes the set of a statement out of an answer.
pub(super) fn take(sets: &mut [Set], at: usize) -> Vec<Cells> {
    sets.get_mut(at)
        .map(|set| std::mem::take(&mut set.rows))
        .unwrap_or_default()
}

pub(super) fn broken(error: CodecError) -> StoreError {
    StoreError::failed(format!("the database: {error}"))
}

pub(super) fn unexpected() -> StoreError {
    broken(damaged("row", "a column is not as it was written"))
}
