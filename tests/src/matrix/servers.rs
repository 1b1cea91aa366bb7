use std::sync::Arc;

use anyhow::Result;
use tokio::sync::OnceCell;

use super::{SourceKind, StoreKind};
use crate::servers::kafka::Kafka;
use crate::servers::mariadb::MariadbServer;
use crate::servers::postgres::PostgresServer;
use crate::servers::rabbitmq::RabbitMq;
use crate::servers::redis::RedisServer;
use crate::servers::rocketmq::{FORGETFUL, RocketMq};

/// Servers, each started when it is first needed, and stopped when this is dropped.
#[derive(Debug, Default)]
pub struct Servers {
    redis: OnceCell<RedisServer>,
    mysql: OnceCell<Arc<MariadbServer>>,
    postgres: OnceCell<Arc<PostgresServer>>,
    rocketmq: OnceCell<RocketMq>,
    kafka: OnceCell<Kafka>,
    rabbitmq: OnceCell<RabbitMq>,
}

impl Servers {
    /// The URL of a new store. `name` is one that no other has.
    pub(super) async fn store(&self, kind: StoreKind, name: &str) -> Result<String> {
        Ok(match kind {
            // In the directory in which the host runs.
            StoreKind::Redb => "redb:data".to_owned(),
            StoreKind::Redis => {
                let redis = self.redis.get_or_try_init(RedisServer::start_synced);
                format!("{}?prefix={name}", redis.await?.url())
            }
            StoreKind::Mysql => {
                let start = || async { MariadbServer::start().await.map(Arc::new) };
                self.mysql.get_or_try_init(start).await?.database()?
            }
            StoreKind::Postgres => {
                let start = || async { PostgresServer::start().await.map(Arc::new) };
                self.postgres.get_or_try_init(start).await?.database()?
            }
        })
    }

    pub(super) async fn rocketmq(&self) -> Result<&RocketMq> {
        let start = || RocketMq::start_with(&FORGETFUL);
        self.rocketmq.get_or_try_init(start).await
    }

    pub(super) async fn kafka(&self) -> Result<&Kafka> {
        self.kafka.get_or_try_init(Kafka::start).await
    }

    pub(super) async fn rabbitmq(&self) -> Result<&RabbitMq> {
        self.rabbitmq.get_or_try_init(RabbitMq::start).await
    }

    /// Stops a source's broker, which needs no memory any more.
    pub fn stop(&mut self, kind: SourceKind) {
        match kind {
            SourceKind::RocketMq => drop(self.rocketmq.take()),
            SourceKind::Kafka => drop(self.kafka.take()),
            SourceKind::RabbitMq => drop(self.rabbitmq.take()),
            SourceKind::Http | SourceKind::File => {}
        }
    }
}
