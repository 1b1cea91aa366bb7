//! A small world for engines: sources, store, sink, clock and handler in memory, on paused
//! time, so that the same input gives the same run.
#![allow(dead_code, reason = "each test binary uses its own part of the world")]

pub mod chaos;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use semel_core::memory::{Answer, MemorySink, MemorySource, MemoryStore, NativeRunner};
use semel_core::{
    BusinessKey, Clock, Engine, EngineConfig, EngineParts, Failure, FlowLimits, Grants, Header,
    Message, Outgoing, PluginName, RecordId, Relay, RelayConfig, RelayHandle, RetryPolicy,
    RunContext, Runner, Source, SqlAccess, Stats, Transactions, Versioning,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub const PLUGIN: &str = "ledger";
/// Why an order is rejected that saw a state which never was.
pub const TORN: &str = "the accounts do not add up";

/// Wall-clock time that follows the runtime's paused clock.
pub struct VirtualClock {
    start: tokio::time::Instant,
}

impl VirtualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: tokio::time::Instant::now(),
        })
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000 + self.start.elapsed().as_millis() as u64
    }
}

/// What the test handler is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Order {
    pub key: String,
    pub from: String,
    pub to: String,
    pub amount: i64,
    pub lane: String,
    /// Fails this many times before it succeeds.
    pub failures: u32,
    pub reject: bool,
}

pub fn order(key: &str) -> Order {
    Order {
        key: key.into(),
        from: "a".into(),
        to: "b".into(),
        amount: 1,
        lane: "l".into(),
        failures: 0,
        reject: false,
    }
}

pub fn message(order: &Order) -> Message {
    Message {
        id: format!("id-{}", order.key),
        topic: "orders".into(),
        keys: vec![],
        headers: vec![Header {
            name: "h".into(),
            value: "v".into(),
        }],
        body: serde_json::to_vec(order).unwrap().into(),
        timestamp_ms: 1,
    }
}

/// Moves an amount between two accounts, appends its key to a log that every order writes,
/// counts, and publishes what it saw. The accounts sum up to 0 at any time; an order that sees
/// otherwise saw a state that never was, and is rejected for it.
pub fn ledger() -> Arc<dyn Runner> {
    Arc::new(NativeRunner::new(|context| Box::pin(handle(context))))
}

async fn handle(context: &mut RunContext) -> Answer {
    let order: Order =
        serde_json::from_slice(&context.message().body.clone()).map_err(|error| {
            Failure::Reject {
                reason: error.to_string(),
            }
        })?;
    let mut sum = 0;
    for account in ["a", "b", "c"] {
        sum += balance(context, account).await?;
        tokio::task::yield_now().await;
    }
    if sum != 0 {
        return Err(Failure::Reject {
            reason: TORN.into(),
        });
    }
    let from = balance(context, &order.from).await?;
    if context.attempt() < order.failures {
        return Err(Failure::Retry {
            reason: "not yet".into(),
            after_ms: None,
        });
    }
    if order.reject {
        return Err(Failure::Reject {
            reason: "no".into(),
        });
    }
    context
        .put(&order.from, (from - order.amount).to_string().into())
        .unwrap();
    let to = balance(context, &order.to).await?;
    context
        .put(&order.to, (to + order.amount).to_string().into())
        .unwrap();
    let log = context
        .get("log")
        .await
        .map_err(|_| Failure::Aborted)?
        .unwrap_or_default();
    let log = [&log[..], order.key.as_bytes(), b" "].concat();
    context.put("log", log.into()).unwrap();
    context.add("count", 1).unwrap();
    let body = format!("{{\"key\":\"{}\",\"from\":{from},\"to\":{to}}}", order.key);
    let outgoing = Outgoing {
        destination: "out".into(),
        key: None,
        headers: vec![],
        body: body.into(),
        delay_ms: None,
    };
    context.publish(outgoing).unwrap();
    Ok(Some(order.key.into()))
}

async fn balance(context: &mut RunContext, account: &str) -> Result<i64, Failure> {
    let value = context.get(account).await.map_err(|_| Failure::Aborted)?;
    Ok(value.map_or(0, |value| {
        std::str::from_utf8(&value).unwrap().parse().unwrap()
    }))
}

pub fn record(key: &str) -> RecordId {
    RecordId {
        plugin: PluginName::new(PLUGIN),
        key: BusinessKey::new(key.as_bytes().to_vec()),
    }
}

/// Everything but the engines.
#[derive(Clone)]
pub struct World {
    pub store: MemoryStore,
    pub sink: MemorySink,
    pub clock: Arc<VirtualClock>,
    pub stats: Arc<Stats>,
    pub runner: Arc<dyn Runner>,
    pub order_by: bool,
    pub versioning: Option<Versioning>,
    pub retry: RetryPolicy,
    pub flow: FlowLimits,
    pub relay: RelayConfig,
    pub transactions: Option<Arc<dyn Transactions>>,
    pub sql: Option<Arc<dyn SqlAccess>>,
    instances: Arc<AtomicU64>,
}

impl World {
    pub fn new() -> Self {
        let clock = VirtualClock::new();
        Self {
            store: MemoryStore::with_clock(clock.clone()),
            sink: MemorySink::new(),
            clock,
            stats: Arc::default(),
            runner: ledger(),
            order_by: false,
            versioning: None,
            retry: RetryPolicy {
                max_attempts: 3,
                first_delay: Duration::from_millis(100),
                max_delay: Duration::from_secs(1),
            },
            flow: FlowLimits {
                batch: 8,
                in_flight: 32,
                ..FlowLimits::default()
            },
            relay: RelayConfig::default(),
            transactions: None,
            sql: None,
            instances: Arc::default(),
        }
    }

    pub fn relay(&self) -> (Relay, RelayHandle) {
        let store = Arc::new(self.store.clone());
        let sink = Arc::new(self.sink.clone());
        Relay::new(
            self.relay,
            store,
            sink,
            self.clock.clone(),
            self.stats.clone(),
        )
    }

    pub fn engine(&self, source: &Arc<MemorySource>, relay: RelayHandle) -> Engine {
        self.engine_of(source.clone(), relay)
    }

    pub fn engine_of(&self, source: Arc<dyn Source>, relay: RelayHandle) -> Engine {
        let config = EngineConfig {
            plugin: PluginName::new(PLUGIN),
            key: "json:/key".parse().unwrap(),
            order_by: self.order_by.then(|| "json:/lane".parse().unwrap()),
            versioning: self.versioning.clone(),
            grants: Arc::new(Grants {
                namespace: PLUGIN.into(),
                sql: self.sql.clone(),
                ..Grants::default()
            }),
            retention: Duration::from_secs(7 * 86_400),
            retry: self.retry,
            flow: self.flow,
            wait_for_parked: true,
            instance: self.instances.fetch_add(1, Ordering::Relaxed),
        };
        let parts = EngineParts {
            source,
            store: Arc::new(self.store.clone()),
            runner: self.runner.clone(),
            clock: self.clock.clone(),
            relay,
            transactions: self.transactions.clone(),
            workers: Handle::current(),
            stats: self.stats.clone(),
        };
        Engine::new(config, parts)
    }

    /// Runs one engine over a source until it ends, and the relay until the outbox is empty.
    pub async fn finish(&self, source: &Arc<MemorySource>) {
        source.finish();
        let (relay, handle) = self.relay();
        let (finish, stop) = (CancellationToken::new(), CancellationToken::new());
        let engine = self.engine(source, handle);
        let relay = tokio::spawn(relay.run(finish.clone(), stop));
        engine.run(CancellationToken::new()).await.unwrap();
        finish.cancel();
        relay.await.unwrap().unwrap();
    }

    pub async fn state(&self, name: &str) -> Option<String> {
        use semel_core::{StateKey, Store};
        let key = StateKey {
            namespace: PLUGIN.into(),
            name: name.into(),
        };
        let mut values = self.store.read(&[key]).await.unwrap();
        values
            .remove(0)
            .value
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    pub async fn log(&self) -> Vec<String> {
        let log = self.state("log").await.unwrap_or_default();
        log.split_whitespace().map(str::to_owned).collect()
    }
}
