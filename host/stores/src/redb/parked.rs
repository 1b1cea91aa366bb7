//! Parked rows, their lanes and their due times.
//!
//! Only rows that are not behind another of their lane (a lane's *head*) stand in the table of
//! due times, so looking for due rows never wades through those that wait behind.

use redb::{ReadableTable, Table, WriteTransaction};
use semel_core::{LanePosition, ParkedRow, PluginName, RecordId};

use super::Broken;
use super::tables::{
    DUE, LANES, PARKED, PARKED_COUNTS, due_key, lane_prefix, number_after, record_key,
};
use crate::codec::{CompositeKey, decode, encode};

/// The tables of parked rows inside a write transaction.
pub(super) struct ParkedTables<'t> {
    rows: Table<'t, &'static [u8], &'static [u8]>,
    counts: Table<'t, &'static str, u64>,
    lanes: Table<'t, &'static [u8], u64>,
    due: Table<'t, &'static [u8], ()>,
}

/// The rows of a lane with the smallest offset: one, unless a source numbers its messages
/// badly.
struct Heads {
    offset: u64,
    /// Business key and due time.
    rows: Vec<(Vec<u8>, u64)>,
}

impl<'t> ParkedTables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Broken> {
        Ok(Self {
            rows: transaction.open_table(PARKED)?,
            counts: transaction.open_table(PARKED_COUNTS)?,
            lanes: transaction.open_table(LANES)?,
            due: transaction.open_table(DUE)?,
        })
    }

    pub(super) fn is_behind(&self, plugin: &PluginName, at: &LanePosition) -> Result<bool, Broken> {
        is_behind(&self.lanes, plugin, at)
    }

    pub(super) fn insert(&mut self, record: &RecordId, row: &ParkedRow) -> Result<(), Broken> {
        let blob = encode(row);
        self.rows.insert(record_key(record).as_bytes(), &*blob)?;
        self.count(&record.plugin, |count| count + 1)?;
        let Some(at) = row.lane_position() else {
            return self.set_due(record, row.due_ms);
        };
        let prefix = lane_prefix(&record.plugin, &at.partition, &at.lane);
        let heads = self.heads(&prefix)?;
        let key = prefix.number(at.offset).last(record.key.as_bytes());
        self.lanes.insert(key.as_bytes(), row.due_ms)?;
        match heads {
            Some(heads) if heads.offset < at.offset => return Ok(()),
            Some(heads) if heads.offset > at.offset => {
                for (key, due_ms) in &heads.rows {
                    let key = due_key(&record.plugin, *due_ms, key);
                    self.due.remove(key.as_bytes())?;
                }
            }
            _ => {}
        }
        self.set_due(record, row.due_ms)
    }

    /// Deletes a record's row, if it has one.
    pub(super) fn remove(&mut self, record: &RecordId) -> Result<(), Broken> {
        let row: ParkedRow = match self.rows.remove(record_key(record).as_bytes())? {
            Some(blob) => decode("parked row", blob.value())?,
            None => return Ok(()),
        };
        self.count(&record.plugin, |count| count.saturating_sub(1))?;
        let key = due_key(&record.plugin, row.due_ms, record.key.as_bytes());
        let was_head = self.due.remove(key.as_bytes())?.is_some();
        let Some(at) = row.lane_position() else {
            return Ok(());
        };
        let prefix = lane_prefix(&record.plugin, &at.partition, &at.lane);
        let key = prefix.clone().number(at.offset).last(record.key.as_bytes());
        self.lanes.remove(key.as_bytes())?;
        if was_head && let Some(heads) = self.heads(&prefix)? {
            for (key, due_ms) in &heads.rows {
                let key = due_key(&record.plugin, *due_ms, key);
                self.due.insert(key.as_bytes(), ())?;
            }
        }
        Ok(())
    }

    fn set_due(&mut self, record: &RecordId, due_ms: u64) -> Result<(), Broken> {
        let key = due_key(&record.plugin, due_ms, record.key.as_bytes());
        self.due.insert(key.as_bytes(), ())?;
        Ok(())
    }

    fn count(&mut self, plugin: &PluginName, change: fn(u64) -> u64) -> Result<(), Broken> {
        let count = self.counts.get(plugin.as_str())?;
        let count = change(count.map_or(0, |count| count.value()));
        self.counts.insert(plugin.as_str(), count)?;
        Ok(())
    }

    fn heads(&self, lane: &CompositeKey) -> Result<Option<Heads>, Broken> {
        let mut heads: Option<Heads> = None;
        for entry in self.lanes.range(lane.as_bytes()..)? {
            let (key, due_ms) = entry?;
            if !key.value().starts_with(lane.as_bytes()) {
                break;
            }
            let (offset, business_key) = number_after(lane, key.value())?;
            let heads = heads.get_or_insert_with(|| Heads {
                offset,
                rows: Vec::new(),
            });
            if offset > heads.offset {
                break;
            }
            heads.rows.push((business_key.to_vec(), due_ms.value()));
        }
        Ok(heads)
    }
}

/// Whether a parked row of the lane has a smaller offset.
pub(super) fn is_behind(
    lanes: &impl ReadableTable<&'static [u8], u64>,
    plugin: &PluginName,
    at: &LanePosition,
) -> Result<bool, Broken> {
    let prefix = lane_prefix(plugin, &at.partition, &at.lane);
    let own = prefix.clone().number(at.offset);
    let mut before = lanes.range(prefix.as_bytes()..own.as_bytes())?;
    Ok(before.next().transpose()?.is_some())
}
