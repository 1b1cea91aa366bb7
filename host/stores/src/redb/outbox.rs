//! Outgoing messages and the order of their lanes.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use semel_core::{OutboxLane, OutboxRow, RowId, Version};

use super::Broken;
use super::tables::{OUTBOX, OUTBOX_LANES, outbox_lane_prefix, row_key};
use crate::codec::{CompositeKey, decode, encode};

/// The tables of the outbox inside a write transaction.
pub(super) struct OutboxTables<'t> {
    rows: Table<'t, &'static [u8; 12], &'static [u8]>,
    lanes: Table<'t, &'static [u8], ()>,
}

impl<'t> OutboxTables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Broken> {
        Ok(Self {
            rows: transaction.open_table(OUTBOX)?,
            lanes: transaction.open_table(OUTBOX_LANES)?,
        })
    }

    /// Keeps a row.
    pub(super) fn insert(&mut self, row: &OutboxRow) -> Result<(), Broken> {
        self.rows.insert(&row_key(row.id), &*encode(row))?;
        if let Some(lane) = &row.lane {
            self.lanes.insert(lane_key(lane, row.id).as_bytes(), ())?;
        }
        Ok(())
    }

    /// Deletes a row. Whether it was there.
    pub(super) fn remove(&mut self, id: RowId) -> Result<bool, Broken> {
        let Some(blob) = self.rows.remove(&row_key(id))? else {
            return Ok(false);
        };
        // Without lanes there is nothing to take out of their index.
        if !self.lanes.is_empty()? {
            let row: OutboxRow = decode("outgoing message", blob.value())?;
            if let Some(lane) = &row.lane {
                self.lanes.remove(lane_key(lane, id).as_bytes())?;
            }
        }
        Ok(true)
    }

    /// Whether no row of the lane is older than this version.
    pub(super) fn is_clear(&self, lane: &OutboxLane, version: Version) -> Result<bool, Broken> {
        let prefix = outbox_lane_prefix(&lane.plugin, &lane.lane);
        let own = prefix.clone().number(version);
        let mut older = self.lanes.range(prefix.as_bytes()..own.as_bytes())?;
        Ok(older.next().transpose()?.is_none())
    }
}

fn lane_key(lane: &OutboxLane, id: RowId) -> CompositeKey {
    outbox_lane_prefix(&lane.plugin, &lane.lane).last(&row_key(id))
}
