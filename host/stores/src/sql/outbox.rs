//! Outgoing messages.

use std::collections::BTreeMap;
use std::fmt::Write;

use semel_core::{DeadLetter, OutboxRow, OutboxScan, RowId, StoreError};

use super::SqlStore;
use super::answer::{Cells, take};
use super::questions::lock;
use super::rows::insert_letters;
use super::schema::outbox_lane_id;
use super::server::{Failure, Patience};
use super::text::{limit, signed};

/// Rows that are deleted in a statement.
const CHUNK: usize = 500;

impl SqlStore {
    pub(super) async fn scan_outbox(
        &self,
        scan: &OutboxScan,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let mut conditions = String::from("1 = 1");
        if let Some(lane) = &scan.lane {
            let lane = self.server.words().bytes(&outbox_lane_id(lane));
            let _ = write!(conditions, " AND lane = {lane}");
        }
        if let Some(RowId { version, ordinal }) = scan.after {
            let version = signed(version);
            // The first part alone lets the server start in the middle of its index.
            let _ = write!(
                conditions,
                " AND version >= {version} AND (version > {version} OR ordinal > {ordinal})"
            );
        }
        let ask = format!(
            "SELECT version, ordinal, content FROM {} WHERE {conditions} \
             ORDER BY version, ordinal LIMIT {}",
            self.tables.outbox,
            limit(scan.limit)
        );
        let mut sets = self.server.ask_text(ask).await?;
        let mut rows = take(&mut sets, 0);
        rows.iter_mut().map(outbox_row).collect()
    }

    pub(super) async fn confirm_outgoing(&self, rows: &[RowId]) -> Result<(), StoreError> {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        for chunk in rows.chunks(CHUNK) {
            // Deleting again what is gone changes nothing, so a lost reply does no harm.
            self.server.ask_text(self.delete_rows(chunk)).await?;
        }
        Ok(())
    }

    fn delete_rows(&self, rows: &[RowId]) -> String {
        format!("DELETE FROM {} WHERE {}", self.tables.outbox, these(rows))
    }

    pub(super) async fn refuse_outgoing(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let mut patience = Patience::default();
        loop {
            match self.try_refuse(letters).await {
                Ok(()) => return Ok(()),
                Err(failure) => patience.after(failure).await?,
            }
        }
    }

    async fn try_refuse(&self, letters: &[DeadLetter]) -> Result<(), Failure> {
        let row_of = |letter: &DeadLetter| letter.outgoing.as_ref().map(|row| row.id);
        let mut rows: Vec<_> = letters.iter().filter_map(row_of).collect();
        rows.sort_unstable();
        if rows.is_empty() {
            return Ok(());
        }
        let words = self.server.words();
        let mut conversation = self.server.converse().await?;
        let mut script = self.server.script();
        script.add(words.begin);
        script.add(&lock(words, &self.tables));
        // A relay may confirm one of them meanwhile, without the lock of commits.
        let there = script.add(&format!(
            "SELECT version, ordinal FROM {} WHERE {} ORDER BY version, ordinal FOR UPDATE",
            self.tables.outbox,
            these(&rows)
        ));
        let mut sets = conversation.run_all(script).await?;
        let mut rows = Vec::new();
        for mut row in take(&mut sets, there) {
            rows.push(row_id(&mut row)?);
        }
        let refused = letters
            .iter()
            .filter(|letter| row_of(letter).is_some_and(|id| rows.contains(&id)));
        let mut script = self.server.script();
        if !rows.is_empty() {
            script.add(&self.delete_rows(&rows));
        }
        insert_letters(&mut script, &self.tables, &words.or_leave("id"), refused);
        script.add("COMMIT");
        conversation.commit(script).await
    }
}

/// A condition: one of these rows.
fn these(rows: &[RowId]) -> String {
    let mut by_ordinal: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    for row in rows {
        let versions = by_ordinal.entry(row.ordinal).or_default();
        versions.push(signed(row.version));
    }
    let mut text = String::from("(1 = 0");
    for (ordinal, versions) in by_ordinal {
        let _ = write!(text, " OR (ordinal = {ordinal} AND version IN (");
        for (at, version) in versions.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{version}");
        }
        text.push_str("))");
    }
    text.push(')');
    text
}

fn row_id(row: &mut Cells) -> Result<RowId, StoreError> {
    Ok(RowId {
        version: row.number()?,
        ordinal: u32::try_from(row.number()?).unwrap_or(u32::MAX),
    })
}

fn outbox_row(row: &mut Cells) -> Result<OutboxRow, StoreError> {
    let id = row_id(row)?;
    let outgoing: OutboxRow = row.decoded("outgoing message")?;
    Ok(OutboxRow { id, ..outgoing })
}
