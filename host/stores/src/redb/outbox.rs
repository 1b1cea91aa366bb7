//! Outgoing messages and the order of their lanes.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use semel_core::{
    Effects, MessageId, OutboxLane, OutboxRow, Outgoing, PluginName, RowId, Run, Verdict, Version,
};
use serde::Serialize;

use super::Broken;
use super::tables::{OUTBOX, OUTBOX_LANES, outbox_lane_prefix, row_key};
use crate::codec::{CompositeKey, decode, encode};

/// The tables of the outbox inside a write transaction.
pub(super) struct OutboxTables<'t> {
    rows: Table<'t, &'static [u8; 12], &'static [u8]>,
    lanes: Table<'t, &'static [u8], ()>,
}

/// An [`OutboxRow`] as [`Run::outbox_rows`] makes it, without a copy of the message. Same form.
#[derive(Serialize)]
struct NewOutboxRow<'a> {
    id: RowId,
    plugin: &'a PluginName,
    message_id: &'a MessageId,
    lane: Option<&'a OutboxLane>,
    due_ms: u64,
    outgoing: &'a Outgoing,
}

impl<'t> OutboxTables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Broken> {
        Ok(Self {
            rows: transaction.open_table(OUTBOX)?,
            lanes: transaction.open_table(OUTBOX_LANES)?,
        })
    }

    /// Writes what a run publishes.
    pub(super) fn publish(
        &mut self,
        run: &Run,
        effects: &Effects,
        version: Version,
    ) -> Result<(), Broken> {
        if effects.outgoing.is_empty() {
            return Ok(());
        }
        let run_lane = run.lane.as_ref().map(|lane| OutboxLane {
            plugin: run.record.plugin.clone(),
            lane: lane.clone(),
        });
        for (ordinal, outgoing) in (0..).zip(&effects.outgoing) {
            let id = RowId { version, ordinal };
            let lane = run_lane.as_ref().filter(|_| outgoing.delay_ms.is_none());
            let delayed = |ms| run.ended_ms.saturating_add(ms);
            let blob = encode(&NewOutboxRow {
                id,
                plugin: &run.record.plugin,
                message_id: &MessageId::derive(&run.record, ordinal),
                lane,
                due_ms: outgoing.delay_ms.map_or(0, delayed),
                outgoing,
            });
            self.insert(id, lane, &blob)?;
        }
        Ok(())
    }

    /// Puts a row back that was taken out.
    pub(super) fn restore(&mut self, row: &OutboxRow) -> Result<(), Broken> {
        self.insert(row.id, row.lane.as_ref(), &encode(row))
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

    /// Whether no row of the run's lane is older than what it published in `version`.
    pub(super) fn is_clear(&self, run: &Run, version: Version) -> Result<bool, Broken> {
        let (Some(lane), Verdict::Done(effects)) = (&run.lane, &run.verdict) else {
            return Ok(true);
        };
        if effects.outgoing.iter().all(|out| out.delay_ms.is_some()) {
            return Ok(true);
        }
        let prefix = outbox_lane_prefix(&run.record.plugin, lane);
        let own = prefix.clone().number(version);
        let mut older = self.lanes.range(prefix.as_bytes()..own.as_bytes())?;
        Ok(older.next().transpose()?.is_none())
    }

    fn insert(&mut self, id: RowId, lane: Option<&OutboxLane>, blob: &[u8]) -> Result<(), Broken> {
        self.rows.insert(&row_key(id), blob)?;
        if let Some(lane) = lane {
            self.lanes.insert(lane_key(lane, id).as_bytes(), ())?;
        }
        Ok(())
    }
}

fn lane_key(lane: &OutboxLane, id: RowId) -> CompositeKey {
    outbox_lane_prefix(&lane.plugin, &lane.lane).last(&row_key(id))
}
