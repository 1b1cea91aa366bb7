//! A record as the server keeps it: kind, run, fingerprint, version, then by kind
//!
//! - done: time in 8 bytes, reply;
//! - parked: the row's version, its due time, length of lane, lane, offset, row;
//! - dead: nothing.

use bytes::Bytes;
use semel_core::{Fingerprint, ParkedRow, RecordState, RunId, Version};

use crate::codec::{CodecError, damaged, decode};

pub(super) const DONE: u8 = 0;
pub(super) const DONE_WITH_REPLY: u8 = 1;
pub(super) const PARKED: u8 = 2;
pub(super) const DEAD: u8 = 3;

/// Numbers in the server's scripts are doubles: larger ones mean "never".
pub(super) fn latest(number: u64) -> u64 {
    number.min(1 << 53)
}

/// A record that was looked up.
pub(super) struct Stored<'a> {
    kind: u8,
    run: RunId,
    fingerprint: Fingerprint,
    rest: &'a [u8],
}

impl<'a> Stored<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, CodecError> {
        Self::parse_parts(value).ok_or_else(cut_short)
    }

    fn parse_parts(value: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = value.split_first()?;
        let (run, rest) = rest.split_first_chunk::<16>()?;
        let (fingerprint, rest) = rest.split_first_chunk::<16>()?;
        let (_version, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            kind,
            run: RunId::from_bytes(*run),
            fingerprint: Fingerprint::from_bytes(*fingerprint),
            rest,
        })
    }

    /// The state, where done records before `visible_ms` do not count.
    pub(super) fn state(&self, visible_ms: u64) -> Result<RecordState, CodecError> {
        let fingerprint = self.fingerprint;
        match self.kind {
            DONE | DONE_WITH_REPLY => {
                let (time_ms, reply) = number(self.rest)?;
                if time_ms < visible_ms {
                    return Ok(RecordState::Absent);
                }
                let reply = (self.kind == DONE_WITH_REPLY).then(|| Bytes::copy_from_slice(reply));
                Ok(RecordState::Done {
                    fingerprint,
                    run: self.run,
                    reply,
                })
            }
            PARKED => Ok(RecordState::Parked {
                fingerprint,
                version: number(self.rest)?.0,
            }),
            DEAD => Ok(RecordState::Dead { fingerprint }),
            _ => Err(damaged("record", "its kind is not known")),
        }
    }

    /// The parked row, if that is what it is.
    pub(super) fn row(&self) -> Result<Option<ParkedRow>, CodecError> {
        if self.kind != PARKED {
            return Ok(None);
        }
        let (version, rest) = number(self.rest)?;
        let (_due, rest) = number(rest)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let blob = usize::try_from(u32::from_be_bytes(*length))
            .ok()
            .and_then(|lane| rest.get(lane + 8..))
            .ok_or_else(cut_short)?;
        let row: ParkedRow = decode("parked row", blob)?;
        Ok(Some(ParkedRow {
            version,
            fingerprint: self.fingerprint,
            ..row
        }))
    }

    /// Whether it is done, at or after this time.
    pub(super) fn is_done(&self, visible_ms: u64) -> bool {
        matches!(self.state(visible_ms), Ok(RecordState::Done { .. }))
    }
}

fn number(bytes: &[u8]) -> Result<(Version, &[u8]), CodecError> {
    let (number, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut_short)?;
    Ok((u64::from_be_bytes(*number), rest))
}

fn cut_short() -> CodecError {
    damaged("record", "it is cut short")
}
