//! What is stored under which key.
//!
//! All keys begin with `{PREFIX}:`, a hash tag, so that a cluster keeps them together. What
//! follows is a letter and, where there is more than one of the kind, a composite key:
//!
//! | key | type | content |
//! |---|---|---|
//! | `v` | string | the last version given out |
//! | `h` | hash | plugin → retention, time of the oldest done record that counts, of the oldest check |
//! | `l` | sorted set | parked rows in lanes: lane, offset, due time, business key |
//! | `c` | hash | plugin → number of parked rows |
//! | `o` | sorted set | outgoing messages: row id, length of lane, lane, message |
//! | `p` | sorted set | outgoing messages in lanes: lane, row id |
//! | `x` | hash | dead letter id → dead letter |
//! | `y` | sorted set | dead letter ids |
//! | `r` plugin, business key | string | a record, with the row where it is parked |
//! | `s` namespace, name | string | version in 8 bytes, state value |
//! | `n` namespace | sorted set | names of state values |
//! | `f` plugin | sorted set | fenced run ids, by the time of their fencing |
//! | `d` plugin | sorted set | business keys of parked rows that are not behind another, by due time |
//!
//! Sorted sets without scores are ordered by their members' bytes.

use semel_core::{Lane, LanePosition, PluginName, RecordId, RowId, StateKey};

use crate::codec::CompositeKey;

/// Makes keys.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    tag: Vec<u8>,
}

macro_rules! fixed {
    ($($name:ident = $letter:literal),* $(,)?) => {$(
        pub(super) fn $name(&self) -> Vec<u8> {
            self.key($letter, &[])
        }
    )*};
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            tag: format!("{{{prefix}}}:").into_bytes(),
        }
    }

    fixed! {
        sequence = b'v', horizons = b'h', lanes = b'l', counts = b'c', outbox = b'o',
        outbox_lanes = b'p', dead = b'x', dead_ids = b'y',
    }

    /// The fixed keys, in the order of the scripts.
    pub(super) fn fixed(&self) -> [Vec<u8>; 8] {
        [
            self.sequence(),
            self.horizons(),
            self.lanes(),
            self.counts(),
            self.outbox(),
            self.outbox_lanes(),
            self.dead(),
            self.dead_ids(),
        ]
    }

    /// The keys of the scripts that move messages between outbox and dead letters.
    pub(super) fn outgoing_and_dead(&self) -> [Vec<u8>; 4] {
        [
            self.outbox(),
            self.outbox_lanes(),
            self.dead(),
            self.dead_ids(),
        ]
    }

    pub(super) fn record(&self, record: &RecordId) -> Vec<u8> {
        let plugin = CompositeKey::new(record.plugin.as_str().as_bytes());
        self.key(b'r', plugin.last(record.key.as_bytes()).as_bytes())
    }

    /// A pattern for `SCAN` of a plugin's records.
    pub(super) fn records_of(&self, plugin: &PluginName) -> Vec<u8> {
        let prefix = self.key(
            b'r',
            CompositeKey::new(plugin.as_str().as_bytes()).as_bytes(),
        );
        let mut pattern = Vec::with_capacity(prefix.len() + 8);
        for byte in prefix {
            if br"*?[]\^".contains(&byte) {
                pattern.push(b'\\');
            }
            pattern.push(byte);
        }
        pattern.push(b'*');
        pattern
    }

    pub(super) fn state(&self, key: &StateKey) -> Vec<u8> {
        let namespace = CompositeKey::new(key.namespace.as_bytes());
        self.key(b's', namespace.last(key.name.as_bytes()).as_bytes())
    }

    pub(super) fn names(&self, namespace: &str) -> Vec<u8> {
        self.key(b'n', namespace.as_bytes())
    }

    pub(super) fn fences(&self, plugin: &PluginName) -> Vec<u8> {
        self.key(b'f', plugin.as_str().as_bytes())
    }

    pub(super) fn due(&self, plugin: &PluginName) -> Vec<u8> {
        self.key(b'd', plugin.as_str().as_bytes())
    }

    fn key(&self, letter: u8, rest: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.tag.len() + 1 + rest.len());
        key.extend_from_slice(&self.tag);
        key.push(letter);
        key.extend_from_slice(rest);
        key
    }
}

/// What the members of a lane begin with.
pub(super) fn lane(plugin: &PluginName, at: &LanePosition) -> Vec<u8> {
    CompositeKey::new(plugin.as_str().as_bytes())
        .part(at.partition.as_str().as_bytes())
        .part(at.lane.as_bytes())
        .as_bytes()
        .to_vec()
}

/// What the members of a lane of the outbox begin with.
pub(super) fn outbox_lane(plugin: &PluginName, lane: &Lane) -> Vec<u8> {
    CompositeKey::new(plugin.as_str().as_bytes())
        .part(lane.as_bytes())
        .as_bytes()
        .to_vec()
}

pub(super) fn row_id(id: RowId) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&id.version.to_be_bytes());
    key[8..].copy_from_slice(&id.ordinal.to_be_bytes());
    key
}

pub(super) fn parse_row_id(key: &[u8]) -> Option<(RowId, &[u8])> {
    let (version, rest) = key.split_first_chunk::<8>()?;
    let (ordinal, rest) = rest.split_first_chunk::<4>()?;
    let id = RowId {
        version: u64::from_be_bytes(*version),
        ordinal: u32::from_be_bytes(*ordinal),
    };
    Some((id, rest))
}

/// The end of a range by bytes.
pub(super) fn bound(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bound = vec![kind];
    for part in parts {
        bound.extend_from_slice(part);
    }
    bound
}
