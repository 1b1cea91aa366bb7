use anyhow::Result;
use tokio::sync::OnceCell;

use super::SourceKind;
use crate::servers::kafka::Kafka;
use crate::servers::rabbitmq::RabbitMq;
use crate::servers::rocketmq::{FORGETFUL, RocketMq};
use crate::servers::store::{StoreKind, StoreServers};

/// Servers, each started when it is first needed, and stopped when this is dropped.
#[derive(Debug, Default)]
pub struct Servers {
    stores: StoreServers,
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
            shared => {
                let server = self.stores.get(shared).await?;
                server.url(&name.replace('-', "_"))
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
