//! From what an operator writes to a store.

use std::path::Path;
use std::sync::Arc;

use semel_core::Admin;
use semel_core::memory::MemoryStore;

use crate::{RedbStore, RedisStore, SqlStore};

/// Opens the store that a URL names:
///
/// | URL | store |
/// |---|---|
/// | `redb:DIRECTORY` | [`RedbStore`] in that directory |
/// | `redis://HOST:PORT/DB?prefix=NAME`, `rediss://…` with TLS | [`RedisStore`] on that server |
/// | `mysql://USER:PASSWORD@HOST:PORT/DATABASE?prefix=NAME` | [`SqlStore`] in that database |
/// | `postgres://USER:PASSWORD@HOST:PORT/DATABASE?prefix=NAME` | [`SqlStore`] in that database |
/// | `memory:` | [`MemoryStore`], which forgets everything at the end |
pub async fn open(url: &str) -> Result<Arc<dyn Admin>, OpenError> {
    let invalid = |reason: &str| OpenError::Url {
        url: without_password(url),
        reason: reason.to_owned(),
    };
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(invalid("it has no scheme"));
    };
    match scheme {
        "redb" if rest.is_empty() => Err(invalid("it names no directory")),
        "redb" => Ok(Arc::new(RedbStore::open(Path::new(rest))?)),
        "redis" | "rediss" => Ok(Arc::new(RedisStore::open(url).await?)),
        scheme if is_sql(scheme) => Ok(Arc::new(SqlStore::open(url).await?)),
        "memory" if rest.is_empty() => Ok(Arc::new(MemoryStore::new())),
        "memory" => Err(invalid("nothing may follow `memory:`")),
        _ => Err(invalid(&format!("the scheme `{scheme}` is not known"))),
    }
}

/// Creates the tables of the store that a URL names, or brings them up to date. Returns how many
/// steps that took; none for a store without tables.
pub async fn migrate(url: &str) -> Result<usize, OpenError> {
    match url.split_once(':') {
        Some((scheme, _)) if is_sql(scheme) => SqlStore::migrate(url).await,
        // The others need no one to make room for them, and say what is wrong with a URL.
        _ => open(url).await.map(|_| 0),
    }
}

/// Whether the store that a URL names is in a database, where users have tables of their own.
pub fn is_database(url: &str) -> bool {
    url.split_once(':')
        .is_some_and(|(scheme, _)| is_sql(scheme))
}

fn is_sql(scheme: &str) -> bool {
    matches!(scheme, "mysql" | "mariadb" | "postgres" | "postgresql")
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL can't be used.
    #[error(
        "`{url}` names no store: {reason}. Give `redb:DIRECTORY` (as in `redb:./semel-data`), \
         `redis://HOST:PORT/DB?prefix=NAME` (as in `redis://127.0.0.1:6379/0`), \
         `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, `postgres://USER:PASSWORD@HOST:PORT/DATABASE` \
         or `memory:`"
    )]
    Url {
        /// As given, without a password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store does not open.
    #[error("{store}: {reason}")]
    Refused {
        /// Which one.
        store: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// A URL that may be shown.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            let tail = &rest[authority.len()..];
            format!("{scheme}://{user}:***@{host}{tail}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_url_says_what_is_wrong_and_what_is_right() {
        for (url, says) in [
            ("semel-data", "it has no scheme"),
            ("oracle://x", "the scheme `oracle` is not known"),
            ("mysql://x", "it names no database"),
            ("redb:", "it names no directory"),
            ("memory:x", "nothing may follow"),
        ] {
            let Err(error) = open(url).await else {
                panic!("{url} opened");
            };
            let error = error.to_string();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("redb:./semel-data"), "{error}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = without_password("redis://me:se@cret@host:1/0?prefix=x");
        assert_eq!(shown, "redis://me:***@host:1/0?prefix=x");
        assert_eq!(without_password("redb:./a@b"), "redb:./a@b");
    }
}
