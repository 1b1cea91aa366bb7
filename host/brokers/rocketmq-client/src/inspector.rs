use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use async_trait::async_trait;
use rocketmq_client_rust::{BrokerAdmin, ClientResult, DefaultMQAdminExt, TopicAdmin};

use crate::RocketMqClient;

/// The id that a broker's master has among its copies.
const MASTER: u64 = 0;

/// What one broker has of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicShare {
    /// The broker's name.
    pub broker: String,
    /// The address of its master, while there is one.
    pub master: Option<String>,
    /// How many copies of it there are, with the master.
    pub copies: usize,
    /// Queues that can be read, where reading is permitted.
    pub readable: u32,
    /// Queues that can be written to, where writing is permitted.
    pub writable: u32,
}

/// Looks at a cluster, and changes nothing there.
#[async_trait]
pub trait Inspector: Send + Sync {
    /// Which brokers have a topic. None where the name server knows no such topic.
    async fn topic(&self, topic: &str) -> ClientResult<Option<Vec<TopicShare>>>;
    /// The settings of the broker at this address, by name.
    async fn settings(&self, broker: &str) -> ClientResult<HashMap<String, String>>;
    /// What the broker at this address tells of itself, by name.
    async fn status(&self, broker: &str) -> ClientResult<HashMap<String, String>>;
    /// Lets go of connections.
    async fn shutdown(self: Box<Self>);
}

impl RocketMqClient {
    /// Starts an inspector whose requests take no longer than `limit` each.
    pub async fn inspector(
        &self,
        name_server: &str,
        limit: Duration,
    ) -> ClientResult<Box<dyn Inspector>> {
        // Two of one name are refused.
        let group = format!("semel-{:016x}", RandomState::new().hash_one(limit));
        let runtime = self.runtime();
        let mut admin = DefaultMQAdminExt::with_admin_ext_group_and_timeout(runtime, group, limit);
        *admin.client_config_mut() = self.config_for(name_server, "-inspector");
        let admin: Box<dyn Startable> = Box::new(admin);
        admin.start().await
    }
}

#[async_trait]
trait Startable: Send {
    async fn start(self: Box<Self>) -> ClientResult<Box<dyn Inspector>>;
}

#[async_trait]
impl Startable for DefaultMQAdminExt {
    async fn start(mut self: Box<Self>) -> ClientResult<Box<dyn Inspector>> {
        DefaultMQAdminExt::start(&mut self).await?;
        Ok(self)
    }
}

#[async_trait]
impl Inspector for DefaultMQAdminExt {
    async fn topic(&self, topic: &str) -> ClientResult<Option<Vec<TopicShare>>> {
        let route = TopicAdmin::examine_topic_route_info(self.inner(), topic.into()).await?;
        Ok(route.map(|route| {
            let shares = route.queue_datas.iter().map(|queues| {
                let addresses = route
                    .broker_datas
                    .iter()
                    .find(|broker| broker.broker_name() == queues.broker_name())
                    .map(|broker| broker.broker_addrs());
                let permitted =
                    |bit: u32, number| if queues.perm() & bit == 0 { 0 } else { number };
                TopicShare {
                    broker: queues.broker_name().to_string(),
                    master: addresses
                        .and_then(|addresses| addresses.get(&MASTER))
                        .map(ToString::to_string),
                    copies: addresses.map_or(0, HashMap::len),
                    readable: permitted(4, queues.read_queue_nums()),
                    writable: permitted(2, queues.write_queue_nums()),
                }
            });
            shares.collect()
        }))
    }

    async fn settings(&self, broker: &str) -> ClientResult<HashMap<String, String>> {
        let settings = BrokerAdmin::get_broker_config(self.inner(), broker.into()).await?;
        Ok(owned(settings))
    }

    async fn status(&self, broker: &str) -> ClientResult<HashMap<String, String>> {
        let status = BrokerAdmin::fetch_broker_runtime_stats(self.inner(), broker.into()).await?;
        Ok(owned(status.table))
    }

    async fn shutdown(mut self: Box<Self>) {
        DefaultMQAdminExt::shutdown(&mut self).await;
    }
}

fn owned(table: HashMap<impl ToString, impl ToString>) -> HashMap<String, String> {
    let pairs = table.iter();
    pairs
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}
