use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use semel_core::{OutboxRow, Prepared, Run, Store, Transactions};
use semel_rocketmq_client::{
    Decision, HalfMessage, Message, MessageQueue, ProducerSettings, RocketMqClient,
    TransactionalProducer,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::check_back::StoreCheckBack;
use super::errors::describe;
use super::message::{has_id, to_half};
use super::routes::{Routes, choose};
use crate::lock::lock;

/// How long starting waits for the broker. It goes on in the background after.
const START: Duration = Duration::from_secs(10);

/// How long the half messages of a batch may take. The batch's commit waits for them.
const PREPARE: Duration = Duration::from_secs(3);

/// How long no half message is tried after a batch of which none was confirmed, lest a broker
/// that is down delays every commit; and how long after a start that failed the next one is.
const REST: Duration = Duration::from_secs(30);

/// How long sending the ends of transactions, a search, or closing may take.
const EXCHANGE: Duration = Duration::from_secs(5);

/// How many half messages are under way at a time.
const IN_FLIGHT: usize = 32;

/// How old a message may be that is looked for: brokers keep them for three days by default.
const AGE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Which destinations to publish to in transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketMqTransactionsConfig {
    /// The name servers' addresses, separated by `;`.
    pub name_server: String,
    /// The producer group: the same on all hosts of one store, and on no others.
    pub producer_group: String,
    /// The topic of each destination's name.
    pub destinations: BTreeMap<String, String>,
}

/// Publishes to RocketMQ topics in transactions around the store's commit.
///
/// A half message bears what the plain message has, its run and its record. It goes out before
/// the commit of its run, and is ended after it. A half message that the broker did not
/// confirm is left to the outbox, as is a message with a delay. If the broker does not hear of
/// the end, it asks any host of the producer group, which asks the store; a host that starts
/// answers for those that are gone.
///
/// Between the messages of a lane there is no order.
pub struct RocketMqTransactions {
    shared: Arc<Shared>,
    /// Connects.
    starting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    client: RocketMqClient,
    config: RocketMqTransactionsConfig,
    producer: OnceLock<Arc<dyn TransactionalProducer>>,
    routes: Routes,
    turn: AtomicUsize,
    /// No half message is sent before.
    rest_until: Mutex<Instant>,
}

impl RocketMqTransactions {
    /// Transactions that have not started: what is published waits in the outbox.
    pub fn new(client: &RocketMqClient, config: RocketMqTransactionsConfig) -> Self {
        let shared = Shared {
            client: client.clone(),
            config,
            producer: OnceLock::new(),
            routes: Routes::default(),
            turn: AtomicUsize::new(0),
            rest_until: Mutex::new(Instant::now()),
        };
        Self {
            shared: Arc::new(shared),
            starting: Mutex::new(None),
        }
    }

    /// Connects, and answers check-backs from `store` from now on. Call it once, before the
    /// first message: another host may have died and left half messages.
    pub async fn start(&self, store: Arc<dyn Store>) {
        let shared = Arc::clone(&self.shared);
        let mut starting = tokio::spawn(async move { shared.connect(store).await });
        if timeout(START, &mut starting).await.is_err() {
            let servers = &self.shared.config.name_server;
            tracing::warn!("RocketMQ at {servers} does not answer; messages wait in the outbox");
            *lock(&self.starting) = Some(starting);
        }
    }

    /// Whether consumers can see the message of this row already.
    pub(super) async fn is_visible(&self, row: &OutboxRow) -> bool {
        let (Some(topic), Some(producer)) = (self.shared.topic(row), self.shared.producer.get())
        else {
            return false;
        };
        let id = &row.message_id;
        let found = timeout(EXCHANGE, producer.find(topic, id.as_str(), AGE)).await;
        found.is_ok_and(|found| found.iter().any(|message| has_id(message, id)))
    }

    /// Lets go of connections. Check-backs are left to other hosts.
    pub async fn close(&self) {
        if let Some(starting) = lock(&self.starting).take() {
            starting.abort();
        }
        if let Some(producer) = self.shared.producer.get()
            && timeout(EXCHANGE, producer.shutdown()).await.is_err()
        {
            tracing::debug!("the transactional producer did not stop in time");
        }
    }
}

impl fmt::Debug for RocketMqTransactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocketMqTransactions")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Transactions for RocketMqTransactions {
    fn covers(&self, destination: &str) -> bool {
        self.shared.config.destinations.contains_key(destination)
    }

    async fn prepare(&self, runs: &[Run]) -> Box<dyn Prepared> {
        let mut halves = Vec::new();
        if let Some(producer) = self.shared.producer.get()
            && *lock(&self.shared.rest_until) <= Instant::now()
        {
            self.shared
                .send_halves(&**producer, runs, &mut halves)
                .await;
        }
        let producer = self.shared.producer.get().map(Arc::clone);
        Box::new(Halves { producer, halves })
    }
}

impl Shared {
    async fn connect(&self, store: Arc<dyn Store>) {
        let config = &self.config;
        let settings = ProducerSettings {
            name_server: config.name_server.clone(),
            group: config.producer_group.clone(),
            send_timeout: PREPARE,
        };
        let topics: Vec<String> = config.destinations.values().cloned().collect();
        let check_back = Arc::new(StoreCheckBack::new(store));
        loop {
            let check_back = Arc::clone(&check_back);
            let started = self
                .client
                .transactional_producer(&settings, &topics, check_back);
            match started.await {
                Ok(producer) => {
                    // It is called once.
                    let _ = self.producer.set(producer);
                    tracing::info!(group = config.producer_group, "answers check-backs");
                    return;
                }
                Err(error) => tracing::error!(
                    group = config.producer_group,
                    "no transactions for now, messages are published from the outbox alone: {}",
                    describe(&error)
                ),
            }
            sleep(REST).await;
        }
    }

    /// The topic of a row that a half message may have been sent for.
    fn topic(&self, row: &OutboxRow) -> Option<&str> {
        let topic = self.config.destinations.get(&*row.outgoing.destination)?;
        (row.due_ms == 0).then_some(topic)
    }

    /// Sends the half messages of these runs. Those that are confirmed come to `halves`, with
    /// the index of their run.
    async fn send_halves(
        &self,
        producer: &dyn TransactionalProducer,
        runs: &[Run],
        halves: &mut Vec<(usize, HalfMessage)>,
    ) {
        let mut failed = None;
        let send = async {
            let messages = self.messages(producer, runs, &mut failed).await;
            let mut sends = stream::iter(messages)
                .map(|(run, queue, message)| async move {
                    let sent = producer.prepare(queue, message, PREPARE).await;
                    sent.map(|half| (run, half))
                })
                .buffer_unordered(IN_FLIGHT);
            while let Some(sent) = sends.next().await {
                match sent {
                    Ok(half) => halves.push(half),
                    Err(error) => failed = Some(describe(&error)),
                }
            }
        };
        if timeout(PREPARE, send).await.is_err() {
            failed = Some("no answer".to_owned());
        }
        let Some(reason) = failed else { return };
        if halves.is_empty() {
            *lock(&self.rest_until) = Instant::now() + REST;
        }
        tracing::warn!(
            "RocketMQ at {}: half messages are not confirmed and left to the outbox: {reason}",
            self.config.name_server
        );
    }

    /// The half messages of these runs with the queues that they go to.
    async fn messages(
        &self,
        producer: &dyn TransactionalProducer,
        runs: &[Run],
        failed: &mut Option<String>,
    ) -> Vec<(usize, MessageQueue, Message)> {
        let mut messages = Vec::new();
        let turn = self.turn.fetch_add(1, Relaxed);
        for (index, run) in runs.iter().enumerate() {
            // The commit that gives them their version is to come.
            for row in run.outbox_rows(0) {
                let Some(topic) = self.topic(&row) else {
                    continue;
                };
                match self.routes.queues(producer, topic).await {
                    Ok(queues) => {
                        // What RocketMQ can't carry is refused when it is published plainly.
                        if let Ok(message) = to_half(&row, topic, run) {
                            let queue = choose(&queues, &row, turn).clone();
                            messages.push((index, queue, message));
                        }
                    }
                    Err(reason) => *failed = Some(reason),
                }
            }
        }
        messages
    }
}

/// Half messages that the broker has confirmed, with the indices of their runs.
struct Halves {
    producer: Option<Arc<dyn TransactionalProducer>>,
    halves: Vec<(usize, HalfMessage)>,
}

#[async_trait]
impl Prepared for Halves {
    async fn end(self: Box<Self>, applied: &[bool]) {
        let Some(producer) = self.producer.filter(|_| !self.halves.is_empty()) else {
            return;
        };
        let decide = |(run, half)| match applied.get(run) {
            Some(true) => (half, Decision::Commit),
            _ => (half, Decision::Rollback),
        };
        let ends = self.halves.into_iter().map(decide).collect();
        let sent = timeout(EXCHANGE, producer.end(ends)).await;
        // The broker asks back.
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("ends of transactions: {}", describe(&error)),
            Err(_) => tracing::debug!("the ends of transactions were not sent in time"),
        }
    }
}
