//! What there is to say of a store, without changing it.

use std::fmt;
use std::path::Path;

use semel_core::{Admin, Finding, Level, PluginName, SqlGrants, StoreError};

use crate::url::is_database;
use crate::{RedbStore, RedisStore, SqlStore};

/// Dead letters that are counted at most, and at a time.
const LETTERS: u64 = 10_000;
const PAGE: usize = 100;

/// Looks at the store that a URL names, as [`open`](crate::open) would before it trusts it, and
/// at how much waits there. Nothing is created, migrated or changed. What `open` refuses is a
/// [`Failure`](Level::Failure), what it warns of a [`Warning`](Level::Warning).
pub async fn examine(url: &str, plugins: &[PluginName]) -> Vec<Finding> {
    match url.split_once(':') {
        Some(("redb", directory)) if !directory.is_empty() => {
            RedbStore::examine(Path::new(directory), plugins)
        }
        Some(("redis" | "rediss", _)) => RedisStore::examine(url, plugins).await,
        _ if is_database(url) => SqlStore::examine(url, plugins).await,
        // There is nothing else, or nothing that opening could change.
        _ => match crate::open(url).await {
            Ok(_) => vec![
                Finding::warning("durability", "it forgets everything when the host ends")
                    .advise("take it for trials alone"),
            ],
            Err(error) => vec![Finding::failure("URL", error.to_string())],
        },
    }
}

/// Looks at the tables beside a store in a database that are granted to a plugin, of which
/// nothing is changed. What [`Store::sql`](semel_core::Store::sql) refuses is a
/// [`Failure`](Level::Failure).
pub async fn examine_grants(url: &str, grants: &SqlGrants) -> Vec<Finding> {
    SqlStore::examine_grants(url, grants).await
}

/// What opening makes of what was found: it ends with the first failure, and warns in the log.
pub(crate) fn judge(store: impl fmt::Display, findings: &[Finding]) -> Result<(), String> {
    for finding in findings {
        match finding.level {
            Level::Failure => return Err(finding.to_string()),
            Level::Warning => tracing::warn!("{store}: {finding}"),
            Level::Good | Level::Note => {}
        }
    }
    Ok(())
}

/// A finding for whatever can't be asked for.
pub(crate) fn unanswered(subject: &str, error: &StoreError) -> Finding {
    Finding::failure(subject, error.to_string())
}

/// How much waits in a store.
pub(crate) async fn contents(
    store: &dyn Admin,
    plugins: &[PluginName],
) -> Result<Vec<Finding>, StoreError> {
    let mut dead = 0;
    let mut after = None;
    while dead < LETTERS {
        let letters = store.list_dead(None, after.as_ref(), PAGE).await?;
        dead += letters.len() as u64;
        match letters.into_iter().last() {
            Some(last) => after = Some(last.id),
            None => break,
        }
    }
    let mut parked = Vec::with_capacity(plugins.len());
    for plugin in plugins {
        parked.push((plugin, store.parked(plugin).await?.0));
    }
    Ok(counts(store.outbox_len().await?, dead, &parked))
}

/// Counts as findings.
pub(crate) fn counts(outbox: u64, dead: u64, parked: &[(&PluginName, u64)]) -> Vec<Finding> {
    let mut findings = vec![Finding::note(
        "outbox",
        format!("outgoing messages that wait: {outbox}"),
    )];
    findings.push(match dead {
        0 => Finding::note("dead letters", "none"),
        dead => {
            let or_more = if dead >= LETTERS { " or more" } else { "" };
            Finding::note("dead letters", format!("{dead}{or_more}"))
                .advise("`semel dead list` shows why")
        }
    });
    findings.extend(parked.iter().map(|(plugin, count)| {
        let found = format!("messages of `{plugin}` that wait for another attempt: {count}");
        Finding::note("parked", found)
    }));
    findings
}
