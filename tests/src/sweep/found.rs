//! What is found in the system at the end of a trial.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use semel_core::{
    Admin, BusinessKey, DeadLetter, PluginName, QueryLimits, RecordId, RecordState, SqlGrants,
    SqlValue,
};
use serde::Deserialize;

use super::Books;
use crate::servers::store::TABLE;

/// The plugin without lanes.
pub const FREE: &str = "free";

/// The plugin whose lanes are the users.
pub const LANED: &str = "laned";

/// Both: the same module under two names.
pub const PLUGINS: [&str; 2] = [FREE, LANED];

/// How many rows are asked for at a time.
const PAGE: usize = 10_000;

/// Everything.
#[derive(Clone, Debug)]
pub struct Found {
    /// By plugin.
    pub plugins: BTreeMap<&'static str, PluginFound>,
    /// What consumers have seen, in the order of each stream.
    pub published: Vec<Published>,
    /// Outgoing messages left in the store.
    pub outbox: u64,
}

/// What the store has of a plugin.
#[derive(Clone, Debug, Default)]
pub struct PluginFound {
    /// The effects on users, in the order in which they were applied.
    pub histories: BTreeMap<String, Vec<String>>,
    /// How often each key was counted.
    pub counts: BTreeMap<String, i64>,
    /// How often each key of the books is in the table beside the store's, if there is one.
    pub rows: Option<BTreeMap<String, usize>>,
    /// The records of all keys in the books.
    pub records: HashMap<String, RecordState>,
    /// All dead letters.
    pub letters: Vec<DeadLetter>,
    /// Messages that are parked.
    pub parked: u64,
}

/// An outgoing message as a consumer sees it.
#[derive(Clone, Debug)]
pub struct Published {
    /// By which it is known again.
    pub message_id: String,
    /// A file or a queue, within which there is an order.
    pub stream: String,
    /// The content.
    pub body: Tallied,
}

/// What `tally` publishes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash)]
pub struct Tallied {
    /// Who published it.
    pub plugin: String,
    /// The business key.
    pub id: String,
    /// The lane.
    pub user: String,
    /// Which of the order's messages it is.
    pub ordinal: usize,
    /// The order's place in the user's history, from 1.
    pub place: usize,
}

impl Found {
    /// Reads a store that no host has open.
    pub async fn read(store: &dyn Admin, books: &Books, published: Vec<Published>) -> Result<Self> {
        let mut plugins = BTreeMap::new();
        for plugin in PLUGINS {
            plugins.insert(plugin, PluginFound::read(store, plugin, books).await?);
        }
        Ok(Self {
            plugins,
            published,
            outbox: store.outbox_len().await?,
        })
    }
}

impl PluginFound {
    async fn read(store: &dyn Admin, plugin: &str, books: &Books) -> Result<Self> {
        let mut found = Self::default();
        for entry in store.list_state(plugin, "", None, PAGE).await? {
            let (name, value) = (entry.name.as_str(), &entry.value);
            let wrong = || format!("the state `{name}` is {}", value.escape_ascii());
            if let Some(user) = name.strip_prefix("history/") {
                let orders = serde_json::from_slice(value).with_context(wrong)?;
                found.histories.insert(user.to_owned(), orders);
            } else if let Some(id) = name.strip_prefix("count/") {
                let count = serde_json::from_slice(value).with_context(wrong)?;
                found.counts.insert(id.to_owned(), count);
            } else {
                bail!("nobody wrote the state `{name}`");
            }
        }
        found.rows = rows(store, plugin, books).await?;
        let plugin = PluginName::new(plugin);
        for id in books.entries.keys() {
            let record = RecordId {
                plugin: plugin.clone(),
                key: BusinessKey::new(id.clone()),
            };
            let (state, _) = store.record(&record).await?;
            found.records.insert(id.clone(), state);
        }
        found.letters = store.list_dead(Some(&plugin), None, PAGE).await?;
        (found.parked, _) = store.parked(&plugin).await?;
        Ok(found)
    }
}

/// How often each key of the books is in the table, where the store has one beside it.
async fn rows(
    store: &dyn Admin,
    plugin: &str,
    books: &Books,
) -> Result<Option<BTreeMap<String, usize>>> {
    let grants = SqlGrants {
        select: vec![TABLE.to_owned()],
        ..SqlGrants::default()
    };
    let Ok(tables) = store.sql(&grants).await else {
        return Ok(None);
    };
    let limits = QueryLimits {
        rows: PAGE,
        bytes: 1 << 20,
    };
    let mut found = BTreeMap::new();
    for id in books.entries.keys() {
        let text = format!("SELECT id FROM {TABLE} WHERE plugin = ? AND id = ?");
        let parameters = [plugin, id].map(|text| SqlValue::Text(text.to_owned()));
        let answer = tables.query(&text, parameters.to_vec(), limits).await?;
        found.insert(id.clone(), answer.rows.len());
    }
    Ok(Some(found))
}
