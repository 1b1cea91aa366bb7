//! The invariants of what goes out: each committed message is a promise to publish it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use semel_core::{DeadLetter, DeadLetterId, MessageId, OutboxLane, OutboxRow, RowId};

use crate::oracle::Broken;

#[derive(Default)]
pub struct Promises {
    by_id: BTreeMap<MessageId, Promise>,
    by_row: HashMap<RowId, MessageId>,
    /// Rows that were neither seen nor refused yet.
    open: HashMap<OutboxLane, BTreeSet<RowId>>,
}

/// A committed outgoing message.
struct Promise {
    row: OutboxRow,
    /// Consumers have it.
    seen: bool,
    /// The broker said that it will never take it.
    refused: bool,
    place: Place,
}

/// Where a message that consumers don't have must be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Outbox,
    Letter,
    /// An operator dropped it.
    Gone,
}

impl Promises {
    pub fn promise(&mut self, rows: Vec<OutboxRow>) -> Result<(), Broken> {
        for row in rows {
            if let Some(lane) = &row.lane {
                self.open.entry(lane.clone()).or_default().insert(row.id);
            }
            self.by_row.insert(row.id, row.message_id.clone());
            let id = row.message_id.clone();
            let promise = Promise {
                row,
                seen: false,
                refused: false,
                place: Place::Outbox,
            };
            let before = self.by_id.insert(id.clone(), promise);
            ensure!(before.is_none(), "{id} is promised twice");
        }
        Ok(())
    }

    /// Consumers see a message: those of a lane in order.
    pub fn published(&mut self, row: &OutboxRow) -> Result<(), Broken> {
        let promise = self.promise_of(row)?;
        ensure!(
            promise.row.id == row.id,
            "{} is in the outbox twice",
            row.message_id
        );
        let first = !promise.seen && !promise.refused;
        if let Some(lane) = &row.lane
            && first
        {
            let open = self.open.entry(lane.clone()).or_default();
            ensure!(
                open.first() >= Some(&row.id),
                "{} is published before {:?} of its lane",
                row.id,
                open.first()
            );
        }
        self.shown(row)
    }

    /// Consumers see a message, whenever that is.
    pub fn shown(&mut self, row: &OutboxRow) -> Result<(), Broken> {
        let promise = self.promise_of(row)?;
        promise.seen = true;
        let id = promise.row.id;
        self.close(row, id);
        Ok(())
    }

    fn promise_of(&mut self, row: &OutboxRow) -> Result<&mut Promise, Broken> {
        let promise = self.by_id.get_mut(&row.message_id);
        let promise = promise.ok_or_else(|| format!("{} was never committed", row.message_id))?;
        let committed = OutboxRow {
            id: row.id,
            ..promise.row.clone()
        };
        ensure!(
            committed == *row,
            "{row:?} goes out, and {committed:?} was committed"
        );
        Ok(promise)
    }

    fn close(&mut self, row: &OutboxRow, id: RowId) {
        if let Some(lane) = &row.lane {
            self.open.entry(lane.clone()).or_default().remove(&id);
        }
    }

    /// The broker will never take a message.
    pub fn refuses(&mut self, row: &OutboxRow) -> Result<(), Broken> {
        self.promise_of(row)?.refused = true;
        self.close(row, row.id);
        Ok(())
    }

    /// Rows leave the outbox as published.
    pub fn confirmed(&mut self, rows: &[RowId]) -> Result<(), Broken> {
        for id in rows {
            let promise = self.by_row.get(id).and_then(|id| self.by_id.get(id));
            ensure!(
                promise.is_some_and(|promise| promise.seen),
                "row {id} goes unpublished"
            );
        }
        Ok(())
    }

    /// Rows leave the outbox as dead letters, unless they are gone already.
    pub fn refused(&mut self, letters: &[DeadLetter]) -> Result<(), Broken> {
        for letter in letters {
            let row = letter
                .outgoing
                .as_ref()
                .ok_or("a refused letter without its row")?;
            let promise = self
                .by_id
                .get_mut(&row.message_id)
                .ok_or("a letter never promised")?;
            ensure!(
                promise.refused,
                "{} is buried and was not refused",
                row.message_id
            );
            if promise.place == Place::Outbox {
                promise.place = Place::Letter;
            }
        }
        Ok(())
    }

    /// An operator puts a refused message back.
    pub fn replayed(&mut self, row: &OutboxRow) {
        self.put(row, Place::Outbox);
    }

    /// An operator drops a refused message.
    pub fn dropped(&mut self, row: &OutboxRow) {
        self.put(row, Place::Gone);
    }

    fn put(&mut self, row: &OutboxRow, place: Place) {
        if let Some(promise) = self.by_id.get_mut(&row.message_id) {
            promise.place = place;
        }
    }

    /// Tests that nothing is lost, and gives the letters that there must be.
    pub fn settled(&self) -> Result<Vec<DeadLetterId>, Broken> {
        let mut letters = Vec::new();
        for (id, promise) in &self.by_id {
            match promise.place {
                _ if promise.seen => {}
                Place::Outbox => return Err(format!("{id} was never published")),
                Place::Letter => letters.push(DeadLetterId::of_outgoing(&promise.row)),
                Place::Gone => {}
            }
        }
        Ok(letters)
    }
}
