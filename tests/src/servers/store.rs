//! The servers of stores, of whatever kind.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};
use tokio::sync::{Mutex, OnceCell};

use super::mariadb::MariadbServer;
use super::postgres::PostgresServer;
use super::redis::RedisServer;
use crate::proxy::Proxy;

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreKind {
    /// The embedded one.
    Redb,
    /// A server, which syncs each write before it answers.
    Redis,
    /// A MariaDB server, which syncs its log at each commit.
    Mysql,
    /// A PostgreSQL server, which does, too.
    Postgres,
}

/// A server of each kind, started when it is first needed.
#[derive(Debug, Default)]
pub struct StoreServers {
    redis: OnceCell<StoreServer>,
    mysql: OnceCell<StoreServer>,
    postgres: OnceCell<StoreServer>,
    proxies: bool,
}

/// A store that many hosts may share. It syncs each write before it answers.
#[derive(Debug)]
pub struct StoreServer {
    /// The server itself.
    pub server: Mutex<Program>,
    /// Where replies can be lost, if it was started for that.
    pub proxy: Option<Proxy>,
    port: u16,
    /// The URL of the store of this name at a port.
    url: fn(port: u16, name: &str) -> String,
}

/// A table beside the stores of a database, for rows of a plugin and a business key.
pub const TABLE: &str = "tallied";

const CREATE_TABLE: &str = "CREATE TABLE tallied (plugin VARCHAR(20) NOT NULL, id VARCHAR(60) NOT NULL); \
                            CREATE INDEX tallied_ids ON tallied (id)";

/// A server that can be killed.
#[derive(Debug)]
pub enum Program {
    /// Redis.
    Redis(RedisServer),
    /// MariaDB.
    Mysql(MariadbServer),
    /// PostgreSQL.
    Postgres(PostgresServer),
}

impl StoreKind {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Redb, Self::Redis, Self::Mysql, Self::Postgres];

    /// Whether several hosts can share one.
    pub fn is_shared(self) -> bool {
        self != Self::Redb
    }

    /// Whether plugins can have tables beside the store's.
    pub fn has_tables(self) -> bool {
        matches!(self, Self::Mysql | Self::Postgres)
    }

    /// What a commit is when it is answered.
    pub fn durability(self) -> &'static str {
        match self {
            Self::Redb => "fsync at each commit",
            Self::Redis => "appendfsync always",
            Self::Mysql => "InnoDB, innodb_flush_log_at_trx_commit=1",
            Self::Postgres => "synchronous_commit=on",
        }
    }

    /// What the URL of such a store begins with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::Redis => "redis",
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl StoreServers {
    /// Servers whose replies can be lost.
    pub fn with_proxies() -> Self {
        Self {
            proxies: true,
            ..Self::default()
        }
    }

    /// The server of a store that hosts can share.
    pub async fn get(&self, kind: StoreKind) -> Result<&StoreServer> {
        let cell = match kind {
            StoreKind::Redb => bail!("redb has no server"),
            StoreKind::Redis => &self.redis,
            StoreKind::Mysql => &self.mysql,
            StoreKind::Postgres => &self.postgres,
        };
        cell.get_or_try_init(|| StoreServer::start(kind, self.proxies))
            .await
    }
}

impl StoreServer {
    async fn start(kind: StoreKind, behind_proxy: bool) -> Result<Self> {
        type Url = fn(u16, &str) -> String;
        let (server, port, url): (_, _, Url) = match kind {
            StoreKind::Redb => bail!("redb has no server"),
            StoreKind::Redis => {
                let server = RedisServer::start_synced().await?;
                let port = server.port();
                (Program::Redis(server), port, |port, name| {
                    format!("redis://127.0.0.1:{port}/0?prefix={name}")
                })
            }
            StoreKind::Mysql => {
                let server = MariadbServer::start().await?;
                server.sql("CREATE DATABASE stores")?;
                server.sql(&format!("USE stores; {CREATE_TABLE}"))?;
                let port = server.port();
                (Program::Mysql(server), port, |port, name| {
                    format!("mysql://semel:secret@127.0.0.1:{port}/stores?prefix={name}")
                })
            }
            StoreKind::Postgres => {
                let server = PostgresServer::start().await?;
                server.sql("CREATE DATABASE stores")?;
                server.sql_in("stores", CREATE_TABLE)?;
                let port = server.port();
                (Program::Postgres(server), port, |port, name| {
                    format!("postgres://semel@127.0.0.1:{port}/stores?prefix={name}")
                })
            }
        };
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let proxy = match behind_proxy {
            true => Some(Proxy::start(address(0), address(port)).await?),
            false => None,
        };
        Ok(Self {
            server: Mutex::new(server),
            proxy,
            port,
            url,
        })
    }

    /// The URL for hosts of the store of this name, of which there is one on this server. The
    /// name is made of a-z, 0-9 and `_`.
    pub fn url(&self, name: &str) -> String {
        let through = self.proxy.as_ref().map(|proxy| proxy.address().port());
        (self.url)(through.unwrap_or(self.port), name)
    }

    /// The same past the proxy.
    pub fn direct_url(&self, name: &str) -> String {
        (self.url)(self.port, name)
    }
}

impl Program {
    /// Kills it at once.
    pub fn kill(&mut self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Mysql(server) => server.kill(),
            Self::Postgres(server) => server.kill(),
        }
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) -> Result<()> {
        match self {
            Self::Redis(server) => server.restart().await,
            Self::Mysql(server) => server.restart().await,
            Self::Postgres(server) => server.restart().await,
        }
    }
}
