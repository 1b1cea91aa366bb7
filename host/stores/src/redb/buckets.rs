//! Which time buckets of done records there are.
//!
//! Done records are kept in a table per plugin and time bucket, so that expiry drops whole
//! tables. A bucket is open until its end; then the next commit opens another. Look-ups go
//! through all of a plugin's buckets, so these are few: a bucket is as wide as half the
//! retention, and a record lives between one and one and a half retentions.

use std::collections::HashMap;
use std::sync::Arc;

use redb::{ReadableTable, TableDefinition};
use semel_core::PluginName;

use super::Broken;
use super::tables::done_table;
use crate::codec::{CompositeKey, damaged};

/// The retention of plugins for which none was told.
const DEFAULT_RETENTION_MS: u64 = 7 * 24 * 3_600_000;

/// A table of done records.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Records of this time and later.
    pub(super) start_ms: u64,
    /// Records before this time only.
    pub(super) end_ms: u64,
    name: Arc<str>,
}

impl Bucket {
    pub(super) fn new(plugin: &PluginName, start_ms: u64, end_ms: u64) -> Self {
        Self {
            start_ms,
            end_ms,
            name: done_table(plugin, start_ms).into(),
        }
    }

    pub(super) fn table(&self) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
        TableDefinition::new(&self.name)
    }

    pub(super) fn key(&self, plugin: &PluginName) -> CompositeKey {
        CompositeKey::new(plugin.as_str().as_bytes()).number(self.start_ms)
    }
}

/// The buckets of one plugin.
#[derive(Clone, Debug)]
pub(super) struct PluginBuckets {
    /// Newest first.
    pub(super) live: Vec<Bucket>,
    /// Checks before this time are too old.
    pub(super) horizon_ms: u64,
    /// How wide the next one is.
    pub(super) width_ms: u64,
}

impl Default for PluginBuckets {
    fn default() -> Self {
        Self {
            live: Vec::new(),
            horizon_ms: 0,
            width_ms: DEFAULT_RETENTION_MS / 2,
        }
    }
}

impl PluginBuckets {
    /// The bucket time of what happens at `now_ms`. Never below the horizon: a clock that goes
    /// back must not stop all commits.
    pub(super) fn time_at(&self, now_ms: u64) -> u64 {
        now_ms.max(self.horizon_ms)
    }

    /// Whether the newest bucket takes records at `now_ms`.
    pub(super) fn is_open_at(&self, now_ms: u64) -> bool {
        let newest = self.live.first();
        newest.is_some_and(|bucket| self.time_at(now_ms) < bucket.end_ms)
    }

    /// Adds a bucket. The newest is no longer open at `now_ms`, or there is none.
    pub(super) fn open_at(&mut self, plugin: &PluginName, now_ms: u64) -> &Bucket {
        let start_ms = self.time_at(now_ms);
        let end_ms = start_ms.saturating_add(self.width_ms);
        self.live.insert(0, Bucket::new(plugin, start_ms, end_ms));
        &self.live[0]
    }
}

/// The buckets of all plugins.
pub(super) type AllBuckets = HashMap<PluginName, PluginBuckets>;

/// Reads all buckets from their tables.
pub(super) fn load(
    buckets: &impl ReadableTable<&'static [u8], u64>,
    horizons: &impl ReadableTable<&'static str, u64>,
) -> Result<AllBuckets, Broken> {
    let mut all = AllBuckets::new();
    for entry in horizons.iter()? {
        let (plugin, horizon) = entry?;
        let plugin = PluginName::new(plugin.value());
        all.entry(plugin).or_default().horizon_ms = horizon.value();
    }
    for entry in buckets.iter()? {
        let (key, end) = entry?;
        let (plugin, start_ms) =
            parse_key(key.value()).ok_or_else(|| damaged("bucket key", "it is cut short"))?;
        let bucket = Bucket::new(&plugin, start_ms, end.value());
        all.entry(plugin).or_default().live.insert(0, bucket);
    }
    Ok(all)
}

fn parse_key(key: &[u8]) -> Option<(PluginName, u64)> {
    let (rest, start) = key.split_last_chunk::<8>()?;
    let name_at = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let plugin = PluginName::new(std::str::from_utf8(&rest[name_at..]).ok()?);
    Some((plugin, u64::from_be_bytes(*start)))
}
