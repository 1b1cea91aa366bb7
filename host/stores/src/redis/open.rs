//! What is asked of a server before it is trusted.

use std::fs;
use std::path::PathBuf;

use redis::{Client as Server, IntoConnectionInfo, TlsCertificates};
use rustls::crypto::aws_lc_rs;

use super::RedisStore;
use super::client::{Client, Script};
use super::keys::Keys;
use super::survey::survey;
use crate::OpenError;
use crate::examine::judge;
use crate::url::without_password;

/// What a URL says.
pub(super) struct Address {
    server: String,
    prefix: String,
    /// Whom to trust in place of the well-known authorities.
    ca: Option<PathBuf>,
    /// How many replicas must confirm each commit.
    pub(super) replicas: u32,
}

impl Address {
    fn parse(url: &str) -> Result<Self, String> {
        let (server, query) = url.split_once('?').unwrap_or((url, ""));
        let mut address = Self {
            server: server.to_owned(),
            prefix: "semel".to_owned(),
            ca: None,
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
                "ca" if is_encrypted(server) => address.ca = Some(value.into()),
                "ca" => return Err("`ca=` goes with `rediss://`".to_owned()),
                _ => {
                    return Err(format!(
                        "the setting `{name}` is not known; there are `prefix`, `wait` and `ca`"
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

    fn server(&self) -> Result<Server, String> {
        let info = self.server.as_str().into_connection_info();
        let info = info.map_err(|error| error.to_string())?;
        if !is_encrypted(&self.server) {
            return Server::open(info).map_err(|error| error.to_string());
        }
        let root_cert = self.ca.as_ref().map(|path| {
            fs::read(path).map_err(|error| format!("`ca={}`: {error}", path.display()))
        });
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: root_cert.transpose()?,
        };
        // The client takes the process's provider, which is not settled where two are built in.
        let _ = aws_lc_rs::default_provider().install_default();
        Server::build_with_tls(info, certificates).map_err(|error| error.to_string())
    }
}

fn is_encrypted(server: &str) -> bool {
    server.starts_with("rediss:")
}

pub(super) async fn open(url: &str) -> Result<RedisStore, OpenError> {
    let (client, address) = connect(url).await?;
    let findings = survey(&client, &address).await;
    let judged = findings.map_err(|error| error.to_string());
    judged
        .and_then(|findings| judge("Redis", &findings))
        .map_err(|reason| refused(url, reason))?;
    Ok(store(client, &address))
}

/// A connection to a server that is not trusted yet.
pub(super) async fn connect(url: &str) -> Result<(Client, Address), OpenError> {
    let invalid = |reason: String| OpenError::Url {
        url: without_password(url),
        reason,
    };
    let address = Address::parse(url).map_err(invalid)?;
    let server = address.server().map_err(invalid)?;
    let client = Client::connect(&server, address.replicas).await;
    let client = client.map_err(|error| {
        let reason =
            format!("it can't be reached ({error}): check that a Redis server listens there");
        refused(url, reason)
    })?;
    Ok((client, address))
}

/// The store on a server.
pub(super) fn store(client: Client, address: &Address) -> RedisStore {
    RedisStore {
        client,
        keys: Keys::new(&address.prefix),
        commit: Script::new(include_str!("commit.lua")),
        confirm: Script::new(include_str!("confirm.lua")),
        expire: Script::new(include_str!("expire.lua")),
        replay: Script::new(include_str!("replay.lua")),
        replay_outgoing: Script::new(include_str!("replay_outgoing.lua")),
        refuse: Script::new(include_str!("refuse.lua")),
        fence: Script::new(include_str!("fence.lua")),
    }
}

fn refused(url: &str, reason: String) -> OpenError {
    OpenError::Refused {
        store: format!("the Redis store {}", without_password(url)),
        reason,
    }
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
        let server = Address::parse("rediss://h?ca=/nowhere").unwrap().server();
        let error = server.err().unwrap();
        assert!(error.contains("`ca=/nowhere`: No such file"), "{error}");
        for (url, says) in [
            ("redis://h?prefx=a", "`prefx` is not known"),
            ("redis://h?wait=x", "`wait=x`"),
            ("redis://h?prefix=a{b}", "`a{b}`"),
            ("redis://h?prefix=", "prefix ``"),
            ("redis://h?ca=/c", "goes with `rediss://`"),
        ] {
            let error = Address::parse(url).err().unwrap();
            assert!(error.contains(says), "{error}");
        }
    }
}
