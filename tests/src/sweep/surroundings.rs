//! The servers that trials run on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result, bail};
use tokio::sync::{Mutex, OnceCell};

use super::broker::Broker;
use super::configuration::{Route, StoreKind};
use crate::proxy::Proxy;
use crate::servers::mariadb::MariadbServer;
use crate::servers::postgres::PostgresServer;
use crate::servers::redis::RedisServer;

/// Servers, started when they are first needed. Each trial has a place of its own on them.
#[derive(Default)]
pub struct Surroundings {
    redis: OnceCell<StoreServer>,
    mysql: OnceCell<StoreServer>,
    postgres: OnceCell<StoreServer>,
    rocketmq: OnceCell<Broker>,
    kafka: OnceCell<Broker>,
    places: AtomicUsize,
    proxies: bool,
}

/// A store that many hosts may share. It syncs each write before it answers.
pub struct StoreServer {
    /// The server itself.
    pub server: Mutex<Program>,
    /// Where replies can be lost, if it was started for that.
    pub proxy: Option<Proxy>,
    port: u16,
    /// The URL of a trial's store at a port.
    url: fn(port: u16, place: &str) -> String,
}

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

impl Surroundings {
    /// Servers whose replies can be lost.
    pub fn with_proxies() -> Self {
        Self {
            proxies: true,
            ..Self::default()
        }
    }

    /// A name that no other trial here has.
    pub fn place(&self) -> String {
        format!("t{}", self.places.fetch_add(1, Relaxed))
    }

    /// The server of a store that hosts can share.
    pub async fn store(&self, kind: StoreKind) -> Result<&StoreServer> {
        let cell = match kind {
            StoreKind::Redb => bail!("redb has no server"),
            StoreKind::Redis => &self.redis,
            StoreKind::Mysql => &self.mysql,
            StoreKind::Postgres => &self.postgres,
        };
        cell.get_or_try_init(|| StoreServer::start(kind, self.proxies))
            .await
    }

    /// The cluster that messages come from on a route. There is none where they come from a file
    /// or by HTTP.
    pub async fn broker(&self, route: Route) -> Result<&Broker> {
        let start = || async {
            match self.proxies {
                true => Broker::behind_proxy().await,
                false => Broker::start().await,
            }
        };
        match route {
            Route::File | Route::Http => bail!("there is no broker on this route"),
            Route::RocketMq | Route::Transactional => {
                let started = self.rocketmq.get_or_try_init(start).await;
                started.context("RocketMQ does not start")
            }
            Route::Kafka => {
                let started = self.kafka.get_or_try_init(Broker::kafka).await;
                started.context("Kafka does not start")
            }
        }
    }

    /// Lets go of clients, before the servers end with this value.
    pub async fn close(&self) {
        for broker in [&self.rocketmq, &self.kafka] {
            if let Some(broker) = broker.get() {
                broker.close().await;
            }
        }
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
                (Program::Redis(server), port, |port, place| {
                    format!("redis://127.0.0.1:{port}/0?prefix={place}")
                })
            }
            StoreKind::Mysql => {
                let server = MariadbServer::start().await?;
                server.sql("CREATE DATABASE sweep")?;
                let port = server.port();
                (Program::Mysql(server), port, |port, place| {
                    format!("mysql://semel:secret@127.0.0.1:{port}/sweep?prefix={place}")
                })
            }
            StoreKind::Postgres => {
                let server = PostgresServer::start().await?;
                server.sql("CREATE DATABASE sweep")?;
                let port = server.port();
                (Program::Postgres(server), port, |port, place| {
                    format!("postgres://semel@127.0.0.1:{port}/sweep?prefix={place}")
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

    /// The store's URL for a trial's hosts.
    pub fn url(&self, place: &str) -> String {
        let through = self.proxy.as_ref().map(|proxy| proxy.address().port());
        (self.url)(through.unwrap_or(self.port), place)
    }

    /// The same past the proxy.
    pub fn direct_url(&self, place: &str) -> String {
        (self.url)(self.port, place)
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
