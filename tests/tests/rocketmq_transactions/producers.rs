//! What the pieces do by themselves: half messages, their ends, check-backs, and the sink of
//! what they leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use semel_brokers::{
    RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqTransactionalSink,
    RocketMqTransactions, RocketMqTransactionsConfig,
};
use semel_core::memory::MemoryStore;
use semel_core::{Admin, Message, OutboxRow, Outcome, Run, Sink, Store, Transactions};
use semel_tests::conformance::store::build::{self, Changed};
use semel_tests::orders::Orders;

const QUEUES: u32 = 2;

/// The destination of the runs that are built here.
const DESTINATION: &str = "points-granted";

/// A message that consumers are to see is there within this time.
const SOON: Duration = Duration::from_secs(5);

/// A half message whose end was not heard of is asked for, and settled, within this time.
const CHECK_BACK: Duration = Duration::from_secs(20);

/// What is not to be seen is waited for so long: it would have been.
const SETTLED: Duration = Duration::from_secs(9);

/// A host's part in it.
struct Producer {
    client: RocketMqClient,
    transactions: Arc<RocketMqTransactions>,
    sink: RocketMqTransactionalSink,
}

impl Producer {
    async fn start(orders: &Orders, store: &Arc<dyn Admin>) -> Result<Self> {
        let client = RocketMqClient::start()?;
        let name_server = orders.name_server();
        let destinations = BTreeMap::from([(DESTINATION.to_owned(), orders.published.clone())]);
        let plain = RocketMqSinkConfig {
            name_server: name_server.clone(),
            producer_group: format!("{}-relay", orders.topic),
            destinations: destinations.clone(),
        };
        let config = RocketMqTransactionsConfig {
            name_server,
            producer_group: format!("{}-transactions", orders.topic),
            destinations,
        };
        let transactions = Arc::new(RocketMqTransactions::new(&client, config));
        transactions
            .start(Arc::clone(store) as Arc<dyn Store>)
            .await;
        let plain = Arc::new(RocketMqSink::new(&client, plain));
        Ok(Self {
            sink: RocketMqTransactionalSink::new(Arc::clone(&transactions), plain),
            transactions,
            client,
        })
    }

    /// Lets everything go at once, as far as the broker can tell.
    async fn stop(self) {
        self.transactions.close().await;
        self.sink.close().await;
        self.client.shutdown().await;
    }

    async fn publish(&self, row: &OutboxRow) -> Result<()> {
        Ok(self
            .sink
            .publish(std::slice::from_ref(row))
            .await
            .remove(0)?)
    }
}

fn store() -> Arc<dyn Admin> {
    Arc::new(MemoryStore::new())
}

/// A run of a new key that publishes one message.
fn run() -> Run {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Relaxed);
    build::done(format!("order \0{number}")).publishing(&number.to_string(), None)
}

fn row(run: &Run) -> OutboxRow {
    run.outbox_rows(1).remove(0)
}

/// The copies of a row's message that consumers have seen.
fn copies(orders: &Orders, row: &OutboxRow) -> Vec<Message> {
    let id = row.message_id.as_str();
    orders.seen().into_iter().filter(|m| m.id == id).collect()
}

#[tokio::test]
async fn a_half_message_is_seen_once_its_run_is_applied() -> Result<()> {
    let orders = Orders::new(QUEUES).await?;
    let producer = Producer::start(&orders, &store()).await?;
    let runs = [run(), run()];
    let prepared = producer.transactions.prepare(&runs).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(orders.seen().is_empty(), "half messages are seen");
    prepared.end(&[true, false]).await;
    orders.reach(1, SOON).await?;

    // Its row was not published yet, and is not: it would be a second copy.
    producer.publish(&row(&runs[0])).await?;
    tokio::time::sleep(SETTLED).await;
    let seen = orders.seen();
    let [message] = seen.as_slice() else {
        panic!("not one message: {seen:?}");
    };
    let sent = row(&runs[0]).outgoing;
    assert_eq!(message.id, row(&runs[0]).message_id.as_str());
    assert_eq!(
        (&message.headers, &message.body),
        (&sent.headers, &sent.body)
    );
    producer.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_was_never_a_half_message_is_published_plainly() -> Result<()> {
    let orders = Orders::new(QUEUES).await?;
    let producer = Producer::start(&orders, &store()).await?;
    let left = row(&run());
    // Another message that bears the id of the first among its keys is not the first.
    let mut naming = row(&run());
    naming.outgoing.key = Some(Bytes::from(left.message_id.to_string()));
    producer.publish(&naming).await?;
    orders.reach(1, SOON).await?;
    producer.publish(&left).await?;
    orders.reach(2, SOON).await?;
    assert_eq!(copies(&orders, &left).len(), 1);
    producer.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_message_with_a_delay_is_no_half_message() -> Result<()> {
    let orders = Orders::new(QUEUES).await?;
    let producer = Producer::start(&orders, &store()).await?;
    let run = build::done("later").publishing("1", Some(1));
    producer
        .transactions
        .prepare(std::slice::from_ref(&run))
        .await
        .end(&[true])
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(orders.seen().is_empty());
    producer.publish(&row(&run)).await?;
    orders.reach(1, SOON).await?;
    producer.stop().await;
    Ok(())
}

/// A host dies after the half messages: of one run before its commit, of the other after it.
#[tokio::test]
async fn a_host_that_starts_answers_for_one_that_is_gone() -> Result<()> {
    let orders = Orders::new(QUEUES).await?;
    let store = store();
    let producer = Producer::start(&orders, &store).await?;
    let (done, open) = (run(), run());
    let runs = [done.clone(), open.clone()];
    let _never_ended = producer.transactions.prepare(&runs).await;
    build::apply(&store, &done).await;
    producer.stop().await;

    let successor = Producer::start(&orders, &store).await?;
    orders.reach(1, CHECK_BACK).await?;
    tokio::time::sleep(SETTLED).await;
    assert_eq!(copies(&orders, &row(&done)).len(), 1);
    assert!(copies(&orders, &row(&open)).is_empty());
    let late = build::commit_one(&store, &open).await;
    assert_eq!(
        late,
        Outcome::Conflict,
        "a run whose message was rolled back is fenced"
    );
    // The same message in a new run is another matter.
    let again = Run {
        id: build::run_id(),
        ..open
    };
    let prepared = successor
        .transactions
        .prepare(std::slice::from_ref(&again))
        .await;
    build::apply(&store, &again).await;
    prepared.end(&[true]).await;
    orders.reach(2, SOON).await?;
    successor.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_topic_that_is_missing_holds_up_nothing() -> Result<()> {
    let mut orders = Orders::new(QUEUES).await?;
    orders.published = "no-such-topic".to_owned();
    let producer = Producer::start(&orders, &store()).await?;
    let run = run();
    producer
        .transactions
        .prepare(std::slice::from_ref(&run))
        .await
        .end(&[true])
        .await;
    let error = producer.publish(&row(&run)).await.unwrap_err();
    ensure!(error.to_string().contains("`no-such-topic`"), "{error}");
    producer.stop().await;
    Ok(())
}
