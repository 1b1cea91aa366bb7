//! What is swept.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use semel_core::crash::CrashPoint;

use crate::servers::store::StoreKind;

/// A store and a way for messages through the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Configuration {
    /// Where everything durable is.
    pub store: StoreKind,
    /// Where messages come from and go to.
    pub route: Route,
}

/// A source and a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// From a file to a file.
    File,
    /// From a RocketMQ topic to another.
    RocketMq,
    /// The same, with messages published as transactional ones.
    Transactional,
    /// From HTTP requests to a file.
    Http,
    /// From a Kafka topic to another.
    Kafka,
    /// From RabbitMQ queues, one for each plugin, to another.
    RabbitMq,
}

impl Route {
    /// Whether messages come from a broker.
    pub fn has_broker(self) -> bool {
        !matches!(self, Self::File | Self::Http)
    }
}

impl Configuration {
    /// Every one.
    pub const ALL: [Self; 24] = [
        Self::new(StoreKind::Redb, Route::File),
        Self::new(StoreKind::Redis, Route::File),
        Self::new(StoreKind::Mysql, Route::File),
        Self::new(StoreKind::Postgres, Route::File),
        Self::new(StoreKind::Redb, Route::Http),
        Self::new(StoreKind::Redis, Route::Http),
        Self::new(StoreKind::Mysql, Route::Http),
        Self::new(StoreKind::Postgres, Route::Http),
        Self::new(StoreKind::Redb, Route::RocketMq),
        Self::new(StoreKind::Redis, Route::RocketMq),
        Self::new(StoreKind::Mysql, Route::RocketMq),
        Self::new(StoreKind::Postgres, Route::RocketMq),
        Self::new(StoreKind::Redb, Route::Transactional),
        Self::new(StoreKind::Redis, Route::Transactional),
        Self::new(StoreKind::Mysql, Route::Transactional),
        Self::new(StoreKind::Postgres, Route::Transactional),
        Self::new(StoreKind::Redb, Route::Kafka),
        Self::new(StoreKind::Redis, Route::Kafka),
        Self::new(StoreKind::Mysql, Route::Kafka),
        Self::new(StoreKind::Postgres, Route::Kafka),
        Self::new(StoreKind::Redb, Route::RabbitMq),
        Self::new(StoreKind::Redis, Route::RabbitMq),
        Self::new(StoreKind::Mysql, Route::RabbitMq),
        Self::new(StoreKind::Postgres, Route::RabbitMq),
    ];

    const fn new(store: StoreKind, route: Route) -> Self {
        Self { store, route }
    }

    /// Whether the sink refuses messages whose headers are too wide.
    pub fn refuses(self) -> bool {
        matches!(self.route, Route::RocketMq | Route::Transactional)
    }

    /// Whether so many hosts at a time apply a lane in the order in which it was sent.
    pub fn applies_in_order(self, hosts: usize) -> bool {
        match self.route {
            Route::Http => false,
            // Each of several hosts has a part of the queue.
            Route::RabbitMq => hosts == 1,
            _ => true,
        }
    }

    /// Whether offsets are the same for every host, so that a letter with no more than a position
    /// is the same letter.
    pub fn has_positions(self) -> bool {
        !matches!(self.route, Route::Http | Route::RabbitMq)
    }

    /// Whether what is published keeps the order of lanes.
    pub fn keeps_order(self) -> bool {
        self.route != Route::Transactional
    }

    /// The crash points that it can't pass. Every other one must be passed in a recording.
    pub fn never_passes(self) -> Vec<CrashPoint> {
        use CrashPoint::{
            CommitWritten, EndAfter, EndBefore, FenceAfter, FenceBefore, PrepareAfter,
            PrepareBefore, RefuseAfter, RefuseBefore, SettleAfter, SettleBefore, StatementsAfter,
            StatementsBefore,
        };
        let mut never = Vec::new();
        if self.route != Route::Http {
            // Nobody waits at the source.
            never.extend([SettleBefore, SettleAfter]);
        }
        if self.route != Route::Transactional {
            never.extend([PrepareBefore, PrepareAfter, EndBefore, EndAfter]);
            never.extend([FenceBefore, FenceAfter]);
        }
        if self.store == StoreKind::Redis {
            // The server runs the transaction.
            never.push(CommitWritten);
        }
        if !self.store.has_tables() {
            never.extend([StatementsBefore, StatementsAfter]);
        }
        if !self.refuses() {
            never.extend([RefuseBefore, RefuseAfter]);
        }
        never
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match self.route {
            Route::File => "file",
            Route::Http => "http",
            Route::RocketMq => "rocketmq",
            Route::Transactional => "rocketmq-transactional",
            Route::Kafka => "kafka",
            Route::RabbitMq => "rabbitmq",
        };
        write!(f, "{}/{route}", self.store)
    }
}

impl FromStr for Configuration {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|configuration| configuration.to_string() == text)
            .with_context(|| {
                let names = Self::ALL.map(|configuration| configuration.to_string());
                format!("`{text}` is none of {}", names.join(", "))
            })
    }
}
