//! The servers that trials run on.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result, bail};
use tokio::sync::OnceCell;

use super::broker::Broker;
use super::configuration::Route;
use crate::servers::store::{StoreKind, StoreServer, StoreServers};

/// Servers, started when they are first needed. Each trial has a place of its own on them.
#[derive(Default)]
pub struct Surroundings {
    stores: StoreServers,
    rocketmq: OnceCell<Broker>,
    kafka: OnceCell<Broker>,
    rabbitmq: OnceCell<Broker>,
    places: AtomicUsize,
    proxies: bool,
}

impl Surroundings {
    /// Servers whose replies can be lost.
    pub fn with_proxies() -> Self {
        Self {
            stores: StoreServers::with_proxies(),
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
        self.stores.get(kind).await
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
            Route::RabbitMq => {
                let start = || Broker::rabbitmq(self.proxies);
                let started = self.rabbitmq.get_or_try_init(start).await;
                started.context("RabbitMQ does not start")
            }
        }
    }

    /// Lets go of clients, before the servers end with this value.
    pub async fn close(&self) {
        for broker in [&self.rocketmq, &self.kafka, &self.rabbitmq] {
            if let Some(broker) = broker.get() {
                broker.close().await;
            }
        }
    }
}
