//! Look-ups inside one read transaction, which sees all that was committed before it began.

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableError};
use semel_core::{
    CheckQuery, Checked, DeadLetter, DeadLetterId, OutboxRow, OutboxScan, ParkedRow, PluginName,
    RecordId, RecordState, RowId, StateEntry, StateKey, StoreStats, Versioned,
};

use super::Broken;
use super::buckets::{AllBuckets, PluginBuckets};
use super::parked::is_behind;
use super::tables::{
    DEAD, DUE, LANES, OUTBOX, OUTBOX_LANES, PARKED, PARKED_COUNTS, RECORDS, STATE, StoredRecord,
    find, number_after, outbox_lane_prefix, record_key, row_key, split_state_value, state_key,
};
use crate::codec::{CompositeKey, decode};

type Blobs = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A read transaction.
pub(super) struct Reader<'a> {
    pub(super) transaction: ReadTransaction,
    /// Taken after the transaction began, so that it names all tables that this sees.
    pub(super) buckets: &'a AllBuckets,
}

impl Reader<'_> {
    /// `now_ms` was read before the transaction began: what was committed later is not older.
    pub(super) fn check(
        &self,
        queries: &[CheckQuery],
        now_ms: u64,
    ) -> Result<Vec<Checked>, Broken> {
        let records = self.transaction.open_table(RECORDS)?;
        let any_record = !records.is_empty()?;
        let lanes = self.transaction.open_table(LANES)?;
        let unknown = PluginBuckets::default();
        let mut of: Option<(&PluginName, Vec<Blobs>, u64)> = None;
        let mut answers = Vec::with_capacity(queries.len());
        for query in queries {
            let plugin = &query.record.plugin;
            if of.as_ref().is_none_or(|(of, ..)| *of != plugin) {
                let buckets = self.buckets.get(plugin).unwrap_or(&unknown);
                of = Some((plugin, self.done(plugin)?, buckets.time_at(now_ms)));
            }
            let Some((_, done, bucket)) = &of else {
                continue;
            };
            let parked_or_dead = any_record.then_some(&records);
            let record = lookup(parked_or_dead, done, &query.record)?;
            let behind = match &query.lane {
                Some(lane) => is_behind(&lanes, plugin, lane)?,
                None => false,
            };
            answers.push(Checked {
                state: record.map_or(RecordState::Absent, StoredRecord::into_state),
                behind,
                bucket: *bucket,
            });
        }
        Ok(answers)
    }

    pub(super) fn read(&self, keys: &[StateKey]) -> Result<Vec<Versioned>, Broken> {
        let state = self.transaction.open_table(STATE)?;
        keys.iter()
            .map(|key| {
                let Some(stored) = state.get(state_key(key).as_bytes())? else {
                    return Ok(Versioned::default());
                };
                let (version, value) = split_state_value(stored.value())?;
                Ok(Versioned {
                    version,
                    value: Some(Bytes::copy_from_slice(value)),
                })
            })
            .collect()
    }

    pub(super) fn due(
        &self,
        plugin: &PluginName,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<ParkedRow>, Broken> {
        let parked = self.transaction.open_table(PARKED)?;
        let due = self.transaction.open_table(DUE)?;
        let prefix = CompositeKey::new(plugin.as_str().as_bytes());
        let mut rows = Vec::new();
        for entry in due.range(prefix.as_bytes()..)?.take(limit) {
            let key = entry?.0;
            if !key.value().starts_with(prefix.as_bytes()) {
                break;
            }
            let (due_ms, business_key) = number_after(&prefix, key.value())?;
            if due_ms > now_ms {
                break;
            }
            let key = prefix.clone().last(business_key);
            if let Some(blob) = parked.get(key.as_bytes())? {
                rows.push(decode("parked row", blob.value())?);
            }
        }
        Ok(rows)
    }

    pub(super) fn parked(&self, plugin: &PluginName) -> Result<(u64, Option<u64>), Broken> {
        let count = self.parked_count(plugin)?;
        let due = self.transaction.open_table(DUE)?;
        let prefix = CompositeKey::new(plugin.as_str().as_bytes());
        let first = match due.range(prefix.as_bytes()..)?.next().transpose()? {
            Some((key, _)) if key.value().starts_with(prefix.as_bytes()) => {
                Some(number_after(&prefix, key.value())?.0)
            }
            _ => None,
        };
        Ok((count, first))
    }

    pub(super) fn outbox(&self, scan: &OutboxScan) -> Result<Vec<OutboxRow>, Broken> {
        let outbox = self.transaction.open_table(OUTBOX)?;
        let first = scan.after.map_or([0; 12], |after| {
            row_key(RowId {
                ordinal: after.ordinal.saturating_add(1),
                ..after
            })
        });
        let Some(lane) = &scan.lane else {
            return outbox
                .range::<&[u8; 12]>(&first..)?
                .take(scan.limit)
                .map(|entry| Ok(decode("outgoing message", entry?.1.value())?))
                .collect();
        };
        let lanes = self.transaction.open_table(OUTBOX_LANES)?;
        let prefix = outbox_lane_prefix(&lane.plugin, &lane.lane);
        let start = prefix.clone().last(&first);
        let mut rows = Vec::new();
        for entry in lanes.range(start.as_bytes()..)?.take(scan.limit) {
            let key = entry?.0;
            let Some(id) = key.value().strip_prefix(prefix.as_bytes()) else {
                break;
            };
            if let Ok(id) = <&[u8; 12]>::try_from(id)
                && let Some(blob) = outbox.get(id)?
            {
                rows.push(decode("outgoing message", blob.value())?);
            }
        }
        Ok(rows)
    }

    pub(super) fn outbox_len(&self) -> Result<u64, Broken> {
        Ok(self.transaction.open_table(OUTBOX)?.len()?)
    }

    pub(super) fn list_state(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, Broken> {
        let state = self.transaction.open_table(STATE)?;
        let space = CompositeKey::new(namespace.as_bytes());
        let wanted = space.clone().last(prefix.as_bytes());
        let after = after.map(|after| space.clone().last(after.as_bytes()));
        let start = after.as_ref().unwrap_or(&wanted).as_bytes();
        let mut entries = Vec::new();
        for entry in state.range(start.max(wanted.as_bytes())..)? {
            let (key, stored) = entry?;
            let key = key.value();
            if !key.starts_with(wanted.as_bytes()) || entries.len() == limit {
                break;
            }
            if after.as_ref().is_some_and(|after| key <= after.as_bytes()) {
                continue;
            }
            let (version, value) = split_state_value(stored.value())?;
            entries.push(StateEntry {
                name: String::from_utf8_lossy(&key[space.as_bytes().len()..]).into_owned(),
                version,
                value: Bytes::copy_from_slice(value),
            });
        }
        Ok(entries)
    }

    pub(super) fn record(&self, id: &RecordId) -> Result<(RecordState, Option<ParkedRow>), Broken> {
        let records = self.transaction.open_table(RECORDS)?;
        let record = lookup(Some(&records), &self.done(&id.plugin)?, id)?;
        let parked = self.transaction.open_table(PARKED)?;
        let row = match parked.get(record_key(id).as_bytes())? {
            Some(blob) => Some(decode("parked row", blob.value())?),
            None => None,
        };
        Ok((
            record.map_or(RecordState::Absent, StoredRecord::into_state),
            row,
        ))
    }

    pub(super) fn list_dead(
        &self,
        plugin: Option<&PluginName>,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Broken> {
        let dead = self.transaction.open_table(DEAD)?;
        let after = after.map_or("", DeadLetterId::as_str);
        let mut letters = Vec::new();
        for entry in dead.range(after..)? {
            if letters.len() == limit {
                break;
            }
            let letter: DeadLetter = decode("dead letter", entry?.1.value())?;
            if letter.id.as_str() > after && plugin.is_none_or(|plugin| letter.plugin == *plugin) {
                letters.push(letter);
            }
        }
        Ok(letters)
    }

    pub(super) fn dead(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, Broken> {
        let dead = self.transaction.open_table(DEAD)?;
        match dead.get(id.as_str())? {
            Some(blob) => Ok(Some(decode("dead letter", blob.value())?)),
            None => Ok(None),
        }
    }

    pub(super) fn stats(&self, plugin: &PluginName) -> Result<StoreStats, Broken> {
        let mut done = 0;
        for table in self.done(plugin)? {
            done += table.len()?;
        }
        Ok(StoreStats {
            done,
            parked: self.parked_count(plugin)?,
            dead: self.list_dead(Some(plugin), None, usize::MAX)?.len() as u64,
            outbox: self.outbox_len()?,
        })
    }

    fn parked_count(&self, plugin: &PluginName) -> Result<u64, Broken> {
        let counts = self.transaction.open_table(PARKED_COUNTS)?;
        let count = counts.get(plugin.as_str())?;
        Ok(count.map_or(0, |count| count.value()))
    }

    /// The plugin's done records, newest bucket first.
    fn done(&self, plugin: &PluginName) -> Result<Vec<Blobs>, Broken> {
        let mut tables = Vec::new();
        let buckets = self.buckets.get(plugin);
        for bucket in buckets.into_iter().flat_map(|buckets| &buckets.live) {
            match self.transaction.open_table(bucket.table()) {
                Ok(table) => tables.push(table),
                // It was opened after this transaction began, or dropped before.
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(tables)
    }
}

fn lookup(
    parked_or_dead: Option<&Blobs>,
    done: &[Blobs],
    id: &RecordId,
) -> Result<Option<StoredRecord>, Broken> {
    if let Some(table) = parked_or_dead
        && let Some(record) = find(table, record_key(id).as_bytes())?
    {
        return Ok(Some(record));
    }
    for table in done {
        if let Some(record) = find(table, id.key.as_bytes())? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}
