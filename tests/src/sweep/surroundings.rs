//! The servers that trials run on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result, bail};
use tokio::sync::{Mutex, OnceCell};

use super::broker::Broker;
use super::configuration::Route;
use crate::proxy::Proxy;
use crate::servers::redis::RedisServer;

/// After how many seconds of silence a broker takes a client for dead. Those that live are
/// never silent for longer than 2 seconds.
const SILENCE: u64 = 6;

/// Servers, started when they are first needed. Each trial has a place of its own on them.
#[derive(Default)]
pub struct Surroundings {
    redis: OnceCell<Redis>,
    rocketmq: OnceCell<Broker>,
    kafka: OnceCell<Broker>,
    places: AtomicUsize,
    proxies: bool,
}

/// A Redis server that syncs each write before it answers.
pub struct Redis {
    /// The server itself.
    pub server: Mutex<RedisServer>,
    /// Where replies can be lost, if it was started for that.
    pub proxy: Option<Proxy>,
    port: u16,
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

    /// The Redis server.
    pub async fn redis(&self) -> Result<&Redis> {
        self.redis
            .get_or_try_init(|| async {
                let server = RedisServer::start_synced().await?;
                let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                let proxy = match self.proxies {
                    true => Some(Proxy::start(address(0), address(server.port())).await?),
                    false => None,
                };
                Ok(Redis {
                    port: server.port(),
                    server: Mutex::new(server),
                    proxy,
                })
            })
            .await
    }

    /// The cluster that messages come from on a route. There is none where they come from a file
    /// or by HTTP.
    pub async fn broker(&self, route: Route) -> Result<&Broker> {
        let start = || async {
            match self.proxies {
                true => Broker::behind_proxy().await,
                false => Broker::start(SILENCE).await,
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

impl Redis {
    /// The store's URL for a trial's hosts.
    pub fn url(&self, place: &str) -> String {
        let through = self.proxy.as_ref().map(|proxy| proxy.address().port());
        store_url(through.unwrap_or(self.port), place)
    }

    /// The same past the proxy.
    pub fn direct_url(&self, place: &str) -> String {
        store_url(self.port, place)
    }
}

fn store_url(port: u16, place: &str) -> String {
    format!("redis://127.0.0.1:{port}/0?prefix={place}")
}
