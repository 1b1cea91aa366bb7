//! Apache RocketMQ, a real broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use semel_brokers::{
    RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource, RocketMqSourceConfig,
};
use semel_core::{
    Clock, Delivery, OutboxRow, Received, Sink, SinkError, Source, SourceError, SystemClock,
};
use semel_tests::conformance::broker::{
    DESTINATION, Published, SinkFixture, SourceFixture, last_positions, message, receive_at_least,
    receive_the_rest, row, rows_in_lanes,
};
use semel_tests::servers::rocketmq::RocketMq;

const QUEUES: u32 = 4;

/// A topic of its own on a broker.
struct Topic {
    client: RocketMqClient,
    name_server: String,
    topic: String,
}

impl Topic {
    /// On the broker that the tests share.
    async fn shared() -> Result<Self> {
        Self::on(RocketMq::shared().await?).await
    }

    async fn on(broker: &RocketMq) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let topic = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        broker.create_topic(&topic, QUEUES).await?;
        Ok(Self {
            client: RocketMqClient::start()?,
            name_server: broker.name_server(),
            topic,
        })
    }

    fn source(&self, group: &str) -> RocketMqSource {
        self.source_of(&self.client, group)
    }

    fn source_of(&self, client: &RocketMqClient, group: &str) -> RocketMqSource {
        let config = RocketMqSourceConfig {
            name_server: self.name_server.clone(),
            group: format!("{}-{group}", self.topic),
            topics: vec![self.topic.clone()],
            redelivery: RocketMqSourceConfig::DEFAULT_REDELIVERY,
        };
        RocketMqSource::new(client, config)
    }

    fn sink(&self) -> RocketMqSink {
        let config = RocketMqSinkConfig {
            name_server: self.name_server.clone(),
            producer_group: format!("{}-producer", self.topic),
            destinations: BTreeMap::from([(DESTINATION.to_owned(), self.topic.clone())]),
        };
        RocketMqSink::new(&self.client, config)
    }

    async fn send(&self, rows: &[OutboxRow]) -> Result<()> {
        let sink = self.sink();
        for result in sink.publish(rows).await {
            result?;
        }
        sink.close().await;
        Ok(())
    }
}

/// A topic whose name is taken for the suite's destination.
struct Renamed {
    source: RocketMqSource,
    topic: String,
}

#[async_trait]
impl Source for Renamed {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let mut received = self.source.receive(limit).await?;
        if let Received::Batch(batch) = &mut received {
            for delivery in batch {
                assert_eq!(*message(delivery).topic, *self.topic);
                if let semel_core::Payload::Message(message) = &mut delivery.payload {
                    Arc::make_mut(message).topic = DESTINATION.into();
                }
            }
        }
        Ok(received)
    }

    async fn acknowledge(&self, positions: &[semel_core::Position]) -> Result<(), SourceError> {
        self.source.acknowledge(positions).await
    }

    async fn close(&self) {
        self.source.close().await;
    }
}

#[async_trait]
impl SourceFixture for Topic {
    async fn produce(&mut self, rows: &[OutboxRow]) -> Result<()> {
        self.send(rows).await
    }

    async fn open(&mut self) -> Result<Arc<dyn Source>> {
        // A host of its own: what a crash leaves behind is another client.
        let client = RocketMqClient::start()?;
        Ok(Arc::new(Renamed {
            source: self.source_of(&client, "consumer"),
            topic: self.topic.clone(),
        }))
    }
}

mod source {
    use super::*;
    semel_tests::source_conformance!(Topic::shared().await?);
}

#[async_trait]
impl SinkFixture for Topic {
    async fn open(&mut self) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(self.sink()))
    }

    async fn published(&mut self, count: usize) -> Result<Vec<Published>> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let group = format!("reader-{}", COUNT.fetch_add(1, Relaxed));
        let source = self.source(&group);
        let mut deliveries = receive_at_least(&source, count.min(20)).await?;
        deliveries.extend(receive_the_rest(&source).await?);
        source.close().await;
        let seen = |delivery: &Delivery| {
            let message = message(delivery);
            Published {
                id: message.id.clone(),
                key: message.keys.first().map(|key| Bytes::from(key.clone())),
                headers: message.headers.clone(),
                body: message.body.clone(),
            }
        };
        Ok(deliveries.iter().map(seen).collect())
    }

    fn broken_destination(&self) -> Option<&'static str> {
        Some("mapped to nothing")
    }
}

mod sink {
    use super::*;
    semel_tests::sink_conformance!(Topic::shared().await?);
}

/// A host of a consumer group: receives, records and acknowledges until it is told to stop.
async fn host(
    source: RocketMqSource,
    recorded: Arc<std::sync::Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
) -> Result<u64> {
    while !stop.load(Relaxed) {
        let Received::Batch(batch) = source.receive(100).await? else {
            break;
        };
        // What is received and not yet recorded is what a rebalance may lose.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let ids: Vec<_> = batch.iter().map(|d| message(d).id.clone()).collect();
        recorded.lock().unwrap().extend(ids);
        source.acknowledge(&last_positions(&batch)).await?;
    }
    source.close().await;
    Ok(source.gaps())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_consumers_come_and_go() -> Result<()> {
    let topic = Topic::shared().await?;
    let rows = rows_in_lanes(6000, 12);
    let recorded = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let producer = async {
        let sink = topic.sink();
        for some in rows.chunks(50) {
            for result in sink.publish(some).await {
                result?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        sink.close().await;
        anyhow::Ok(())
    };
    let start = || {
        let client = RocketMqClient::start()?;
        let stop = Arc::new(AtomicBool::new(false));
        let source = topic.source_of(&client, "group");
        let running = tokio::spawn(host(source, Arc::clone(&recorded), Arc::clone(&stop)));
        anyhow::Ok((client, stop, running))
    };
    let consumers = async {
        let mut first = start()?;
        let mut gaps = 0;
        for round in 0..3 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let second = start()?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            // In turn the newcomer leaves, and the one that was there.
            let leaver = if round % 2 == 0 {
                second
            } else {
                std::mem::replace(&mut first, second)
            };
            leaver.1.store(true, Relaxed);
            gaps += leaver.2.await??;
            leaver.0.shutdown().await;
        }
        let deadline = Instant::now() + Duration::from_secs(90);
        while recorded.lock().unwrap().len() < rows.len() {
            anyhow::ensure!(
                Instant::now() < deadline,
                "{} of {} messages arrived",
                recorded.lock().unwrap().len(),
                rows.len()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        first.1.store(true, Relaxed);
        gaps += first.2.await??;
        first.0.shutdown().await;
        anyhow::Ok(gaps)
    };
    let (sent, gaps) = tokio::join!(producer, consumers);
    sent?;
    println!("gaps that were read again: {}", gaps?);
    assert_eq!(recorded.lock().unwrap().len(), rows.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_and_sink_come_back_after_the_broker_was_killed() -> Result<()> {
    let mut broker = RocketMq::start().await?;
    let topic = Topic::on(&broker).await?;
    let (source, sink) = (topic.source("group"), topic.sink());
    let rows = rows_in_lanes(40, 4);
    for result in sink.publish(&rows[..20]).await {
        result?;
    }
    let first = receive_at_least(&source, 20).await?;
    source.acknowledge(&last_positions(&first)).await?;
    // The client sends offsets one way; the broker writes them down every five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;

    broker.kill();
    let outage = Instant::now();
    let results = sink.publish(&rows[20..]).await;
    assert!(
        results
            .iter()
            .all(|r| matches!(r, Err(SinkError::Unavailable(_)))),
        "{results:?}"
    );
    assert!(
        outage.elapsed() < Duration::from_secs(20),
        "{:?}",
        outage.elapsed()
    );
    let outage = Instant::now();
    loop {
        match source.receive(10).await {
            Err(SourceError::Unavailable(_)) => break,
            Err(error) => return Err(error.into()),
            Ok(_) => assert!(
                outage.elapsed() < Duration::from_secs(20),
                "nothing was noticed"
            ),
        }
    }

    broker.restart().await?;
    let back = Instant::now();
    let mut left = rows[20..].to_vec();
    while !left.is_empty() {
        assert!(
            back.elapsed() < Duration::from_secs(60),
            "the sink did not come back"
        );
        let results = sink.publish(&left).await;
        let mut results = results.into_iter();
        left.retain(|_| results.next().is_some_and(|result| result.is_err()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("the sink was back {:?} after the broker", back.elapsed());
    let again = receive_at_least(&source, 20).await?;
    println!("the source was back {:?} after the broker", back.elapsed());
    let ids: BTreeSet<_> = again.iter().map(|d| message(d).id.as_str()).collect();
    assert!(
        rows[20..]
            .iter()
            .all(|row| ids.contains(row.message_id.as_str()))
    );
    source.close().await;
    sink.close().await;
    topic.client.shutdown().await;
    Ok(())
}

/// A broker does not write commits down at once, and those to come tell it nothing of a queue
/// that has no more messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_forgot_of_a_group_is_committed_again() -> Result<()> {
    let mut broker = RocketMq::start().await?;
    let topic = Topic::on(&broker).await?;
    let (source, sink) = (topic.source("group"), topic.sink());
    for result in sink.publish(&rows_in_lanes(20, 4)).await {
        result?;
    }
    let group = format!("{}-group", topic.topic);
    let left = |broker: &RocketMq| -> Result<u64> {
        let left = (0..QUEUES).map(|queue| {
            let committed = broker.committed(&group, &topic.topic, queue)?;
            Ok(broker.end_of(&topic.topic, queue)? - committed.unwrap_or(0))
        });
        left.sum()
    };
    let all = receive_at_least(&source, 20).await?;
    source.acknowledge(&last_positions(&all)).await?;
    let (mut forgets, mut tries) = (false, 0);
    // Unless it just wrote them down.
    while !forgets {
        tries += 1;
        assert!(tries < 5, "the broker forgets nothing");
        broker.kill();
        broker.restart().await?;
        forgets = left(&broker)? > 0;
        let back = Instant::now();
        while left(&broker)? > 0 {
            // The client rests for half a minute after an outage.
            assert!(back.elapsed() < Duration::from_secs(150), "not committed");
            if let Err(error) = source.receive(10).await {
                assert!(matches!(error, SourceError::Unavailable(_)), "{error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    source.close().await;
    sink.close().await;
    topic.client.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_never_there_is_unavailable() -> Result<()> {
    let topic = Topic {
        client: RocketMqClient::start()?,
        // The discard port, where nothing listens.
        name_server: "127.0.0.1:9".to_owned(),
        topic: "nowhere".to_owned(),
    };
    let started = Instant::now();
    let (source, sink) = (topic.source("group"), topic.sink());
    let error = source.receive(1).await.unwrap_err();
    assert!(matches!(&error, SourceError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    let results = sink.publish(&[row(0, None), row(1, Some("a"))]).await;
    assert!(
        results
            .iter()
            .all(|r| matches!(r, Err(SinkError::Unavailable(_)))),
        "{results:?}"
    );
    source.close().await;
    sink.close().await;
    topic.client.shutdown().await;
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_and_a_message_too_large_are_said() -> Result<()> {
    let topic = Topic::shared().await?;
    let mut rows = vec![row(0, Some("a")), row(1, Some("a")), row(2, Some("b"))];
    rows[0].outgoing.body = Bytes::from(vec![0; 5 << 20]);
    let results = topic.sink().publish(&rows).await;
    assert!(
        matches!(results[0], Err(SinkError::Refused(_))),
        "{:?}",
        results[0]
    );
    assert!(
        matches!(results[1], Err(SinkError::Held)),
        "{:?}",
        results[1]
    );
    assert!(results[2].is_ok(), "{:?}", results[2]);

    let missing = Topic {
        client: topic.client.clone(),
        name_server: topic.name_server.clone(),
        topic: "no-such-topic".to_owned(),
    };
    let error = missing
        .sink()
        .publish(&[row(0, None)])
        .await
        .remove(0)
        .unwrap_err();
    assert!(error.to_string().contains("`no-such-topic`"), "{error}");
    Ok(())
}

/// What an operator can mend is no fault of the message, which must not be buried for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_closed_or_deleted_keeps_messages_waiting() -> Result<()> {
    let broker = RocketMq::shared().await?;
    let (closed, deleted) = (Topic::on(broker).await?, Topic::on(broker).await?);
    let knows_it = deleted.sink();
    knows_it.publish(&[row(0, None)]).await.remove(0)?;
    broker.forbid_writing(&closed.topic, QUEUES).await?;
    broker.delete_topic(&deleted.topic).await?;
    // Which of the broker and the name server says so depends on what the client knows already.
    let reasons = [
        "no queue to write to",
        "the topic is missing",
        "no route to the topic",
    ];
    for sink in [closed.sink(), knows_it] {
        let result = sink.publish(&[row(1, None)]).await.remove(0);
        let error = result.expect_err("nothing can be written");
        assert!(matches!(error, SinkError::Unavailable(_)), "{error}");
        let says = |reason| error.to_string().contains(reason);
        assert!(reasons.into_iter().any(says), "{error}");
        sink.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_due_in_days_is_left_to_the_relay() -> Result<()> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let topic = Topic::shared().await?;
    let sink = topic.sink();
    let mut row = row(0, None);
    for (days, delays) in [(0, true), (1, true), (3, false)] {
        row.due_ms = SystemClock.now_ms() + days * DAY_MS;
        assert_eq!(sink.delays(&row), delays, "in {days} days");
    }
    // What it says it takes, it takes.
    row.due_ms = SystemClock.now_ms() + 2 * DAY_MS - 60_000;
    assert!(sink.delays(&row));
    sink.publish(&[row]).await.remove(0)?;
    sink.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_due_later_is_delayed_by_the_broker() -> Result<()> {
    let topic = Topic::shared().await?;
    let mut rows = [row(0, None), row(1, None)];
    let due_ms = SystemClock.now_ms() + 4000;
    rows[0].due_ms = due_ms;
    topic.send(&rows).await?;
    let source = topic.source("group");
    let first = receive_at_least(&source, 1).await?;
    assert_eq!(message(&first[0]).id, rows[1].message_id.as_str());
    let second = receive_at_least(&source, 1).await?;
    assert_eq!(message(&second[0]).id, rows[0].message_id.as_str());
    assert!(SystemClock.now_ms() + 1000 >= due_ms, "it came too early");
    source.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_no_text_arrive_in_base64() -> Result<()> {
    let topic = Topic::shared().await?;
    let mut rows = [row(0, None)];
    rows[0].outgoing.key = Some(Bytes::from_static(b"\xff\0"));
    topic.send(&rows).await?;
    let source = topic.source("group");
    let deliveries = receive_at_least(&source, 1).await?;
    assert_eq!(message(&deliveries[0]).keys, [STANDARD.encode(b"\xff\0")]);
    source.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_messages_take_seconds() -> Result<()> {
    let topic = Topic::shared().await?;
    let rows = rows_in_lanes(50_000, 64);
    let sink = topic.sink();
    let started = Instant::now();
    for some in rows.chunks(1000) {
        for result in sink.publish(some).await {
            result?;
        }
    }
    let rate = |since: Instant| rows.len() as f64 / since.elapsed().as_secs_f64();
    println!("published {:.0} messages/s", rate(started));
    sink.close().await;

    let source = topic.source("group");
    source.receive(1).await?;
    let started = Instant::now();
    let mut seen = 1;
    while seen < rows.len() {
        let Received::Batch(batch) = source.receive(1024).await? else {
            break;
        };
        source.acknowledge(&last_positions(&batch)).await?;
        seen += batch.len();
    }
    println!("received {:.0} messages/s", rate(started));
    assert_eq!(source.gaps(), 0);
    assert!(rate(started) > 2000.0);
    source.close().await;
    Ok(())
}
