//! What is asked of a server before it is trusted.

use redis::{Client as Server, IntoConnectionInfo};
use semel_core::StoreError;

use super::RedisStore;
use super::client::{Client, Script};
use super::keys::Keys;
use crate::OpenError;
use crate::url::without_password;

/// What a URL says.
struct Address {
    server: String,
    prefix: String,
    replicas: u32,
}

impl Address {
    fn parse(url: &str) -> Result<Self, String> {
        let (server, query) = url.split_once('?').unwrap_or((url, ""));
        let mut address = Self {
            server: server.to_owned(),
            prefix: "semel".to_owned(),
            replicas: 0,
        };
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            match name {
                "prefix" => address.prefix = value.to_owned(),
                "wait" => {
                    address.replicas = value.parse().map_err(|_| {
                        format!("`wait={value}` is no number of replicas, such as `wait=1`")
                    })?;
                }
                _ => {
                    return Err(format!(
                        "the setting `{name}` is not known; there are `prefix` and `wait`"
                    ));
                }
            }
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if address.prefix.is_empty() || !address.prefix.chars().all(allowed) {
            return Err(format!(
                "the prefix `{}` is not made of a-z, A-Z, 0-9, `-`, `_`, `.` and `:`",
                address.prefix
            ));
        }
        Ok(address)
    }
}

pub(super) async fn open(url: &str) -> Result<RedisStore, OpenError> {
    let invalid = |reason: String| OpenError::Url {
        url: without_password(url),
        reason,
    };
    let address = Address::parse(url).map_err(invalid)?;
    let info = address.server.as_str().into_connection_info();
    let info = info.map_err(|error| invalid(error.to_string()))?;
    let refused = |reason: String| OpenError::Refused {
        store: format!("the Redis store {}", without_password(url)),
        reason,
    };
    let server = Server::open(info).map_err(|error| invalid(error.to_string()))?;
    let client = Client::connect(&server, address.replicas).await;
    let client = client.map_err(|error| {
        refused(format!(
            "it can't be reached ({error}): check that a Redis server listens there"
        ))
    })?;
    require_no_eviction(&client).await.map_err(&refused)?;
    warn_of_losses(&client)
        .await
        .map_err(|error| refused(error.to_string()))?;
    Ok(RedisStore {
        client,
        keys: Keys::new(&address.prefix),
        commit: Script::new(include_str!("commit.lua")),
        confirm: Script::new(include_str!("confirm.lua")),
        expire: Script::new(include_str!("expire.lua")),
        replay: Script::new(include_str!("replay.lua")),
        replay_outgoing: Script::new(include_str!("replay_outgoing.lua")),
        refuse: Script::new(include_str!("refuse.lua")),
        fence: Script::new(include_str!("fence.lua")),
    })
}

/// A server that evicts keys forgets what was done, and what was asked to be published.
async fn require_no_eviction(client: &Client) -> Result<(), String> {
    let memory = info(client, "memory")
        .await
        .map_err(|error| error.to_string())?;
    match field(&memory, "maxmemory_policy") {
        Some("noeviction") => Ok(()),
        Some(policy) => Err(format!(
            "its maxmemory-policy is `{policy}`, so it may drop records when memory runs short, \
             and messages would take effect twice. Type `redis-cli CONFIG SET maxmemory-policy \
             noeviction`, and write `maxmemory-policy noeviction` into redis.conf"
        )),
        None => Err(
            "it does not tell its maxmemory-policy: allow this user the command INFO".to_owned(),
        ),
    }
}

async fn warn_of_losses(client: &Client) -> Result<(), StoreError> {
    let persistence = info(client, "persistence").await?;
    if field(&persistence, "aof_enabled") != Some("1") {
        tracing::warn!(
            "Redis keeps no append-only file: what it acknowledged since its last snapshot is \
             lost when it crashes. `appendonly yes` and `appendfsync always` keep all of it"
        );
        return Ok(());
    }
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg("appendfsync");
    // A user that may not ask is not told.
    let sync: Vec<String> = client.look_up(&ask).await.unwrap_or_default();
    match sync.get(1).map(String::as_str) {
        Some("always") | None => {}
        Some(sync) => tracing::warn!(
            "Redis has `appendfsync {sync}`: what it acknowledged last may be lost when its \
             machine crashes. `appendfsync always` keeps all of it"
        ),
    }
    Ok(())
}

async fn info(client: &Client, section: &str) -> Result<String, StoreError> {
    let mut ask = redis::cmd("INFO");
    ask.arg(section);
    client.look_up(&ask).await
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_unknown_ones_refused() {
        let address = Address::parse("redis://h:1/2?prefix=a:b&wait=2").unwrap();
        assert_eq!(address.server, "redis://h:1/2");
        assert_eq!((address.prefix.as_str(), address.replicas), ("a:b", 2));
        assert_eq!(Address::parse("redis://h").unwrap().prefix, "semel");
        for (url, says) in [
            ("redis://h?prefx=a", "`prefx` is not known"),
            ("redis://h?wait=x", "`wait=x`"),
            ("redis://h?prefix=a{b}", "`a{b}`"),
            ("redis://h?prefix=", "prefix ``"),
        ] {
            let error = Address::parse(url).err().unwrap();
            assert!(error.contains(says), "{error}");
        }
    }
}
