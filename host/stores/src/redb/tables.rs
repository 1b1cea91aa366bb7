//! What stands where in the file.

use bytes::Bytes;
use redb::{ReadableTable, TableDefinition};
use semel_core::{
    Fingerprint, Lane, Partition, PluginName, RecordId, RecordState, RowId, RunId, StateKey,
    Version,
};

use super::Broken;
use crate::codec::{CompositeKey, damaged};

pub(super) type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// `format` and `sequence`.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Plugin → the time below which checks are too old.
pub(super) const HORIZONS: TableDefinition<&str, u64> = TableDefinition::new("horizons");
/// Plugin and start of a time bucket → its end. Its done records are in a table of their own.
pub(super) const BUCKETS: TableDefinition<&[u8], u64> = TableDefinition::new("buckets");
/// Namespace and name → version and value.
pub(super) const STATE: Rows = TableDefinition::new("state");
/// Plugin and business key → a parked or dead record.
pub(super) const RECORDS: Rows = TableDefinition::new("records");
/// Plugin and business key → the parked row.
pub(super) const PARKED: Rows = TableDefinition::new("parked");
/// Plugin → how many rows it has parked.
pub(super) const PARKED_COUNTS: TableDefinition<&str, u64> = TableDefinition::new("parked-counts");
/// Plugin, partition, lane, offset and business key → due time, for parked rows with a lane.
pub(super) const LANES: TableDefinition<&[u8], u64> = TableDefinition::new("lanes");
/// Plugin, due time and business key, for parked rows that are not behind another.
pub(super) const DUE: TableDefinition<&[u8], ()> = TableDefinition::new("due");
/// Dead letter id → dead letter.
pub(super) const DEAD: TableDefinition<&str, &[u8]> = TableDefinition::new("dead");
/// Row id → outgoing message.
pub(super) const OUTBOX: TableDefinition<&[u8; 12], &[u8]> = TableDefinition::new("outbox");
/// Plugin, lane and row id, for outgoing messages with a lane.
pub(super) const OUTBOX_LANES: TableDefinition<&[u8], ()> = TableDefinition::new("outbox-lanes");

/// Plugin and run id → bucket time in which the run was fenced.
pub(super) const FENCES: TableDefinition<&[u8], u64> = TableDefinition::new("fences");

/// The name of the table with a bucket's done records: business key → [`DoneRecord`].
pub(super) fn done_table(plugin: &PluginName, start_ms: u64) -> String {
    format!("done:{plugin}:{start_ms}")
}

pub(super) fn state_key(key: &StateKey) -> CompositeKey {
    CompositeKey::new(key.namespace.as_bytes()).last(key.name.as_bytes())
}

pub(super) fn record_key(record: &RecordId) -> CompositeKey {
    CompositeKey::new(record.plugin.as_str().as_bytes()).last(record.key.as_bytes())
}

pub(super) fn lane_prefix(plugin: &PluginName, partition: &Partition, lane: &Lane) -> CompositeKey {
    CompositeKey::new(plugin.as_str().as_bytes())
        .part(partition.as_str().as_bytes())
        .part(lane.as_bytes())
}

pub(super) fn due_key(plugin: &PluginName, due_ms: u64, key: &[u8]) -> CompositeKey {
    CompositeKey::new(plugin.as_str().as_bytes())
        .number(due_ms)
        .last(key)
}

pub(super) fn outbox_lane_prefix(plugin: &PluginName, lane: &Lane) -> CompositeKey {
    CompositeKey::new(plugin.as_str().as_bytes()).part(lane.as_bytes())
}

pub(super) fn fence_key(plugin: &PluginName, run: RunId) -> CompositeKey {
    CompositeKey::new(plugin.as_str().as_bytes()).last(run.as_bytes())
}

pub(super) fn row_key(id: RowId) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&id.version.to_be_bytes());
    key[8..].copy_from_slice(&id.ordinal.to_be_bytes());
    key
}

/// The number that follows `prefix` in a key, and what follows the number.
pub(super) fn number_after<'k>(
    prefix: &CompositeKey,
    key: &'k [u8],
) -> Result<(u64, &'k [u8]), Broken> {
    let (number, rest) = key
        .get(prefix.as_bytes().len()..)
        .and_then(|rest| rest.split_first_chunk::<8>())
        .ok_or_else(|| damaged("key", "it is too short"))?;
    Ok((u64::from_be_bytes(*number), rest))
}

/// A state value: 8 bytes of version, then the value.
pub(super) fn state_value(version: Version, value: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(value);
}

pub(super) fn split_state_value(stored: &[u8]) -> Result<(Version, &[u8]), Broken> {
    let (version, value) = stored
        .split_first_chunk::<8>()
        .ok_or_else(|| damaged("state value", "it is too short"))?;
    Ok((Version::from_le_bytes(*version), value))
}

/// A record in any table: which run wrote it, and how it stands.
#[derive(Clone, Debug)]
pub(super) struct StoredRecord {
    pub(super) run: RunId,
    pub(super) version: Version,
    pub(super) fingerprint: Fingerprint,
    pub(super) fate: StoredFate,
}

#[derive(Clone, Debug)]
pub(super) enum StoredFate {
    Parked(Version),
    Done(Option<Bytes>),
    Dead,
}

const DONE: u8 = 0;
const DONE_WITH_REPLY: u8 = 1;
const PARKED_RECORD: u8 = 2;
const DEAD_RECORD: u8 = 3;

impl StoredRecord {
    /// Layout: kind, run, fingerprint, version as 7-bit groups, then by kind the reply or the
    /// parked row's version in 8 bytes. A done record without reply takes 33 bytes and its
    /// version's few.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(match self.fate {
            StoredFate::Done(None) => DONE,
            StoredFate::Done(Some(_)) => DONE_WITH_REPLY,
            StoredFate::Parked(_) => PARKED_RECORD,
            StoredFate::Dead => DEAD_RECORD,
        });
        out.extend_from_slice(self.run.as_bytes());
        out.extend_from_slice(self.fingerprint.as_bytes());
        let mut version = self.version;
        while version >= 0x80 {
            out.push((version & 0x7f) as u8 | 0x80);
            version >>= 7;
        }
        out.push(version as u8);
        match &self.fate {
            StoredFate::Done(Some(reply)) => out.extend_from_slice(reply),
            StoredFate::Parked(version) => out.extend_from_slice(&version.to_le_bytes()),
            StoredFate::Done(None) | StoredFate::Dead => {}
        }
    }

    pub(super) fn parse(stored: &[u8]) -> Result<Self, Broken> {
        Self::parse_parts(stored).ok_or_else(|| damaged("record", "it is cut short").into())
    }

    fn parse_parts(stored: &[u8]) -> Option<Self> {
        let (&kind, rest) = stored.split_first()?;
        let (run, rest) = rest.split_first_chunk::<16>()?;
        let (fingerprint, mut rest) = rest.split_first_chunk::<16>()?;
        let mut version = 0;
        for shift in (0..64).step_by(7) {
            let (&group, after) = rest.split_first()?;
            rest = after;
            version |= u64::from(group & 0x7f) << shift;
            if group < 0x80 {
                break;
            }
        }
        let fate = match kind {
            DONE => StoredFate::Done(None),
            DONE_WITH_REPLY => StoredFate::Done(Some(Bytes::copy_from_slice(rest))),
            PARKED_RECORD => StoredFate::Parked(Version::from_le_bytes(*rest.first_chunk::<8>()?)),
            DEAD_RECORD => StoredFate::Dead,
            _ => return None,
        };
        Some(Self {
            run: RunId::from_bytes(*run),
            version,
            fingerprint: Fingerprint::from_bytes(*fingerprint),
            fate,
        })
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.fate, StoredFate::Done(_))
    }

    /// As a check answers.
    pub(super) fn into_state(self) -> RecordState {
        let fingerprint = self.fingerprint;
        match self.fate {
            StoredFate::Parked(version) => RecordState::Parked {
                fingerprint,
                version,
            },
            StoredFate::Done(reply) => RecordState::Done {
                fingerprint,
                run: self.run,
                reply,
            },
            StoredFate::Dead => RecordState::Dead { fingerprint },
        }
    }
}

/// Finds a record in a table, if it is there.
pub(super) fn find(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<StoredRecord>, Broken> {
    match table.get(key)? {
        Some(stored) => StoredRecord::parse(stored.value()).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written() {
        for version in [1, 127, 128, 300_000, u64::MAX] {
            for fate in [
                StoredFate::Done(None),
                StoredFate::Done(Some(Bytes::new())),
                StoredFate::Done(Some(Bytes::from_static(b"ok"))),
                StoredFate::Parked(9),
                StoredFate::Dead,
            ] {
                let record = StoredRecord {
                    run: RunId::new(3, 4),
                    version,
                    fingerprint: Fingerprint::of(b"x"),
                    fate,
                };
                let mut out = Vec::new();
                record.write(&mut out);
                let again = StoredRecord::parse(&out).unwrap();
                assert_eq!(again.version, version);
                assert_eq!(again.clone().into_state(), record.clone().into_state());
                assert!(StoredRecord::parse(&out[..20]).is_err());
            }
        }
    }

    #[test]
    fn a_done_record_is_small() {
        let record = StoredRecord {
            run: RunId::new(1, 2),
            version: 10_000_000,
            fingerprint: Fingerprint::of(b"x"),
            fate: StoredFate::Done(None),
        };
        let mut out = Vec::new();
        record.write(&mut out);
        assert!(out.len() <= 38, "{} bytes", out.len());
    }
}
