//! What is measured: each row of the table, and what it goes through.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ValueEnum;
use semel_brokers::{
    RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource, RocketMqSourceConfig,
};
use semel_core::memory::MemoryStore;
use semel_core::{Delivery, Message, Sink, Source, Store};
use semel_stores::RedbStore;
use semel_tests::outgoing;
use semel_tests::servers::redis::RedisServer;
use semel_tests::servers::rocketmq::RocketMq;
use tempfile::TempDir;

use crate::disk::Disk;
use crate::feed::{Discard, Feed};
use crate::handlers::{Handler, Handlers, Kind};
use crate::lap::{self, Course, Sample};
use crate::load::Load;

/// The queues of a topic.
const QUEUES: u32 = 8;

/// Messages in one call when the broker is filled.
const FILL: usize = 1_024;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// Memory to memory, a handler that does nothing.
    HostMinimal,
    /// Memory to memory, the points handler.
    HostPoints,
    /// Memory to redb, synced.
    Redb,
    /// Memory to Redis, synced every second.
    RedisEverysec,
    /// Memory to Redis, synced with each write.
    RedisAlways,
    /// RocketMQ to Redis (synced every second) and back to RocketMQ.
    Rocketmq,
    /// Nothing but duplicates, memory.
    DuplicatesMemory,
    /// Nothing but duplicates, redb.
    DuplicatesRedb,
}

/// A row, set up to be run again and again.
pub struct Arena {
    handler: Handler,
    load: Load,
    deliveries: Arc<[Delivery]>,
    place: Place,
    laps: usize,
}

/// Where the messages come from and go to.
enum Place {
    Memory,
    Redb(TempDir),
    Redis(RedisServer),
    RocketMq(Box<Cluster>),
    /// A store that has seen every message.
    Full(
        Arc<dyn Store>,
        #[allow(dead_code, reason = "it keeps the files while the store is open")] Option<TempDir>,
    ),
}

struct Cluster {
    rocketmq: RocketMq,
    client: RocketMqClient,
    redis: RedisServer,
}

impl Row {
    /// What the row is about.
    pub fn title(self) -> &'static str {
        match self {
            Self::HostMinimal => "host only, minimal handler",
            Self::HostPoints => "host only, points handler",
            Self::Redb => "redb, points handler",
            Self::RedisEverysec => "Redis (everysec), points handler",
            Self::RedisAlways => "Redis (always), points handler",
            Self::Rocketmq => "RocketMQ → Redis → RocketMQ, points handler",
            Self::DuplicatesMemory => "duplicates only, memory",
            Self::DuplicatesRedb => "duplicates only, redb",
        }
    }

    /// What has happened when a message is acknowledged.
    pub fn durability(self) -> &'static str {
        match self {
            Self::HostMinimal | Self::HostPoints | Self::DuplicatesMemory => {
                "none: store in memory"
            }
            Self::Redb | Self::DuplicatesRedb => "every message fsynced before its acknowledgement",
            Self::RedisEverysec => {
                "appendonly, appendfsync everysec: up to 1 s lost if Redis's machine fails"
            }
            Self::RedisAlways => {
                "appendonly, appendfsync always: fsynced before its acknowledgement"
            }
            Self::Rocketmq => {
                "Redis appendonly, appendfsync everysec; RocketMQ flushDiskType ASYNC_FLUSH (its default)"
            }
        }
    }

    /// Whether handlers run at all, so that there is something to compare.
    pub fn runs_handlers(self) -> bool {
        !matches!(self, Self::DuplicatesMemory | Self::DuplicatesRedb)
    }

    fn load(self, messages: usize) -> Load {
        match self {
            Self::HostMinimal => Load::plain(messages),
            Self::HostPoints | Self::DuplicatesMemory | Self::DuplicatesRedb => {
                Load::orders(messages)
            }
            Self::Redb | Self::RedisEverysec | Self::RedisAlways | Self::Rocketmq => {
                Load::orders_with_duplicates(messages)
            }
        }
    }
}

impl Arena {
    /// Starts servers and fills what must be full.
    pub async fn set_up(
        row: Row,
        messages: usize,
        handlers: &Handlers,
        disk: &Disk,
    ) -> Result<Self> {
        let handler = match row {
            Row::HostMinimal => &handlers.minimal,
            _ => &handlers.points,
        };
        let load = row.load(messages);
        let place = match row {
            Row::HostMinimal | Row::HostPoints => Place::Memory,
            Row::Redb => Place::Redb(disk.directory()?),
            Row::RedisEverysec => Place::Redis(RedisServer::start().await?),
            Row::RedisAlways => Place::Redis(RedisServer::start_synced().await?),
            Row::Rocketmq => Place::RocketMq(Box::new(Cluster::start(&load).await?)),
            Row::DuplicatesMemory => Place::Full(Arc::new(MemoryStore::new()), None),
            Row::DuplicatesRedb => {
                let directory = disk.directory()?;
                let store = RedbStore::open(directory.path())?;
                Place::Full(Arc::new(store), Some(directory))
            }
        };
        let mut arena = Self {
            handler: handler.clone(),
            deliveries: load.deliveries(),
            load,
            place,
            laps: 0,
        };
        if matches!(arena.place, Place::Full(..)) {
            let course = arena.course(arena.load.unique).await?;
            lap::run(course, &arena.handler, Kind::Native).await?;
            // As they were, they would be next to each other in the store.
            arena.deliveries = arena.load.shuffled().deliveries();
        }
        Ok(arena)
    }

    /// Runs the row once.
    pub async fn run(&mut self, kind: Kind) -> Result<Sample> {
        let to_apply = match self.place {
            Place::Full(..) => 0,
            _ => self.load.unique,
        };
        let course = self.course(to_apply).await?;
        lap::run(course, &self.handler, kind).await
    }

    async fn course(&mut self, to_apply: usize) -> Result<Course> {
        self.laps += 1;
        let name = format!("lap{}", self.laps);
        let feed = || Arc::new(Feed::new(Arc::clone(&self.deliveries))) as Arc<dyn Source>;
        let discard = || Arc::new(Discard) as Arc<dyn Sink>;
        let (source, store, sink, servers) = match &self.place {
            Place::Memory => (
                feed(),
                Arc::new(MemoryStore::new()) as _,
                discard(),
                Vec::new(),
            ),
            Place::Redb(directory) => {
                let store = RedbStore::open(&directory.path().join(&name))?;
                (feed(), Arc::new(store) as _, discard(), Vec::new())
            }
            Place::Redis(redis) => (
                feed(),
                redis_store(redis, &name).await?,
                discard(),
                Vec::from_iter(redis.pid()),
            ),
            Place::RocketMq(cluster) => {
                let store = redis_store(&cluster.redis, &name).await?;
                let mut servers = cluster.rocketmq.pids();
                servers.extend(cluster.redis.pid());
                (cluster.source(&name), store, cluster.sink(OUTPUT), servers)
            }
            Place::Full(store, _) => (feed(), Arc::clone(store), discard(), Vec::new()),
        };
        Ok(Course {
            source,
            store,
            sink,
            servers,
            messages: self.load.messages.len(),
            to_apply,
        })
    }

    /// Stops the servers.
    pub async fn tear_down(self) {
        if let Place::RocketMq(cluster) = self.place {
            cluster.client.shutdown().await;
        }
    }
}

const INPUT: &str = "orders";
const OUTPUT: &str = "points-granted";

impl Cluster {
    async fn start(load: &Load) -> Result<Self> {
        let redis = RedisServer::start().await?;
        let rocketmq = RocketMq::start().await?;
        for topic in [INPUT, OUTPUT] {
            rocketmq.create_topic(topic, QUEUES).await?;
        }
        let cluster = Self {
            rocketmq,
            client: RocketMqClient::start()?,
            redis,
        };
        cluster.fill(load).await?;
        Ok(cluster)
    }

    /// Sends all messages, for every run to read from the beginning.
    async fn fill(&self, load: &Load) -> Result<()> {
        let sink = self.sink(INPUT);
        let row = |(number, message): (u64, &Arc<Message>)| {
            let record = number.to_be_bytes().to_vec();
            outgoing::row("bench", record, INPUT, message.body.clone())
        };
        let rows: Vec<_> = (0..).zip(load.messages.iter()).map(row).collect();
        for batch in rows.chunks(FILL) {
            for result in sink.publish(batch).await {
                result.context("filling the input topic")?;
            }
        }
        sink.close().await;
        Ok(())
    }

    fn source(&self, group: &str) -> Arc<dyn Source> {
        let config = RocketMqSourceConfig {
            name_server: self.rocketmq.name_server(),
            group: format!("bench-{group}"),
            topics: vec![INPUT.to_owned()],
            redelivery: RocketMqSourceConfig::DEFAULT_REDELIVERY,
        };
        Arc::new(RocketMqSource::new(&self.client, config))
    }

    fn sink(&self, topic: &str) -> Arc<dyn Sink> {
        let config = RocketMqSinkConfig {
            producer_group: format!("bench-{topic}"),
            name_server: self.rocketmq.name_server(),
            destinations: BTreeMap::from([(topic.to_owned(), topic.to_owned())]),
        };
        Arc::new(RocketMqSink::new(&self.client, config))
    }
}

/// A store of its own on a server that others use as well.
async fn redis_store(server: &RedisServer, prefix: &str) -> Result<Arc<dyn Store>> {
    let url = format!("{}?prefix={prefix}", server.url());
    Ok(semel_stores::open(&url).await? as _)
}
