//! Outgoing messages.

use bytes::Bytes;
use redis::FromRedisValue;
use semel_core::{DeadLetter, DeadLetterId, OutboxRow, OutboxScan, RowId, StoreError};

use super::keys::{bound, outbox_lane, parse_row_id, row_id};
use super::{RedisStore, broken, decoded};
use crate::codec::{damaged, encode};

impl RedisStore {
    pub(super) async fn scan_outbox(
        &self,
        scan: &OutboxScan,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        if scan.limit == 0 {
            return Ok(Vec::new());
        }
        let first = scan.after.map_or([0; 12], |after| {
            row_id(RowId {
                ordinal: after.ordinal.saturating_add(1),
                ..after
            })
        });
        let limit = i64::try_from(scan.limit).unwrap_or(i64::MAX);
        let members: Vec<Bytes> = match &scan.lane {
            None => {
                let mut ask = redis::cmd("ZRANGEBYLEX");
                ask.arg(self.keys.outbox())
                    .arg(bound(b'[', &[&first]))
                    .arg("+")
                    .arg("LIMIT")
                    .arg(0)
                    .arg(limit);
                self.client.look_up(&ask).await?
            }
            Some(lane) => {
                let prefix = outbox_lane(&lane.plugin, &lane.lane);
                let mut ask = redis::cmd("ZRANGEBYLEX");
                ask.arg(self.keys.outbox_lanes())
                    .arg(bound(b'[', &[&prefix, &first]))
                    .arg(bound(b'(', &[&prefix, &[0xff; 13]]))
                    .arg("LIMIT")
                    .arg(0)
                    .arg(limit);
                let entries: Vec<Bytes> = self.client.look_up(&ask).await?;
                if entries.is_empty() {
                    return Ok(Vec::new());
                }
                let mut ask = redis::pipe();
                for entry in &entries {
                    let id = entry.get(prefix.len()..).unwrap_or_default();
                    ask.cmd("ZRANGEBYLEX")
                        .arg(self.keys.outbox())
                        .arg(bound(b'[', &[id]))
                        .arg(bound(b'(', &[id, &[0xff]]))
                        .arg("LIMIT")
                        .arg(0)
                        .arg(1);
                }
                let answers = self.client.look_up_all(&ask).await?;
                let mut members = Vec::with_capacity(answers.len());
                for answer in answers {
                    let found = Vec::<Bytes>::from_redis_value(answer);
                    let bad = |error| StoreError::failed(format!("Redis: {error}"));
                    members.extend(found.map_err(bad)?);
                }
                members
            }
        };
        members.iter().map(|member| outbox_row(member)).collect()
    }

    pub(super) async fn confirm_outgoing(&self, rows: &[RowId]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.iter().map(|row| row_id(*row)).collect();
        let ids: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
        let keys = [self.keys.outbox(), self.keys.outbox_lanes()];
        for ids in ids.chunks(4_000) {
            self.client.run::<u64>(&self.confirm, &keys, ids).await?;
        }
        Ok(())
    }

    pub(super) async fn refuse_outgoing(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let rows = letters.iter().filter_map(|letter| {
            let row = letter.outgoing.as_ref()?;
            let id = letter.id.as_str().as_bytes().to_vec();
            Some([row_id(row.id).to_vec(), id, encode(letter)])
        });
        let args: Vec<Vec<u8>> = rows.flatten().collect();
        if args.is_empty() {
            return Ok(());
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let keys = self.keys.outgoing_and_dead();
        self.client.run::<u64>(&self.refuse, &keys, &args).await?;
        Ok(())
    }

    /// Turns a dead letter into the row that it was.
    pub(super) async fn replay_outgoing(
        &self,
        id: &DeadLetterId,
        row: &OutboxRow,
    ) -> Result<bool, StoreError> {
        let keys = self.keys.outgoing_and_dead();
        let (member, lane_member) = outbox_members(row);
        let lane_member = lane_member.unwrap_or_default();
        let args: [&[u8]; 3] = [id.as_str().as_bytes(), &member, &lane_member];
        let replayed: u64 = self.client.run(&self.replay_outgoing, &keys, &args).await?;
        Ok(replayed == 1)
    }
}

/// A row as a member of the outbox, and of its lanes where it has one.
fn outbox_members(row: &OutboxRow) -> (Vec<u8>, Option<Vec<u8>>) {
    let id = row_id(row.id);
    let lane = row.lane.as_ref();
    let lane = lane.map(|lane| outbox_lane(&lane.plugin, &lane.lane));
    let lane_member = lane.as_ref().map(|lane| [&lane[..], &id].concat());
    let lane = lane.unwrap_or_default();
    let length = (lane.len() as u32).to_be_bytes();
    let member = [&id[..], &length, &lane, &encode(row)].concat();
    (member, lane_member)
}

/// A member of the outbox: row id, length of lane, lane, message.
fn outbox_row(member: &[u8]) -> Result<OutboxRow, StoreError> {
    let cut_short = || broken(damaged("outgoing message", "it is cut short"));
    let (id, rest) = parse_row_id(member).ok_or_else(cut_short)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
    let blob = usize::try_from(u32::from_be_bytes(*length))
        .ok()
        .and_then(|lane| rest.get(lane..))
        .ok_or_else(cut_short)?;
    let row: OutboxRow = decoded("outgoing message", blob)?;
    Ok(OutboxRow { id, ..row })
}
