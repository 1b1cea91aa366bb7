//! Access to a store for commands.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use semel_core::Admin;

use crate::config::{Config, DEFAULT_STORE};

/// Rows that commands fetch at a time.
pub const PAGE: usize = 500;

/// The store's URL: the command line's, else the configuration's, else the default.
pub fn store_url<'a>(given: Option<&'a str>, config: &'a Config) -> &'a str {
    given.or(config.store.as_deref()).unwrap_or(DEFAULT_STORE)
}

/// Opens a store to look at it. One that isn't there yet is not created.
pub async fn open(url: &str) -> Result<Arc<dyn Admin>> {
    if let Some(directory) = url.strip_prefix("redb:")
        && !directory.is_empty()
        && !Path::new(directory).exists()
    {
        bail!(
            "there is no store at `{directory}`: name the one that `semel run` uses with --store, or start this command in the same directory"
        );
    }
    Ok(semel_stores::open(url).await?)
}

/// A URL that may be shown: without its password.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            let path = &rest[authority.len()..];
            format!("{scheme}://{user}:…@{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            redacted("redis://me:s3cret@host:6379/1"),
            "redis://me:…@host:6379/1"
        );
        assert_eq!(redacted("redis://:p@ss@host"), "redis://:…@host");
        assert_eq!(redacted("redb:./semel-data"), "redb:./semel-data");
        assert_eq!(redacted("redis://host:6379"), "redis://host:6379");
    }
}
