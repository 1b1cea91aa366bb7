//! Apache RocketMQ, a real broker.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use semel_brokers::{
    RocketMqClient, RocketMqSink, RocketMqSinkConfig, RocketMqSource, RocketMqSourceConfig,
};
use semel_core::{Clock, OutboxRow, Sink, SinkError, Source, SourceError, SystemClock};
use semel_tests::conformance::broker::{
    DESTINATION, last_positions, message, receive_at_least, row, rows_in_lanes,
};
use semel_tests::servers::rocketmq::RocketMq;

use crate::shared::{
    Course, Place, Suite, come_and_go, measure, nobody_listens, notice_outage, publish,
    publish_again, publish_in_vain, receive_again, send,
};

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
        send(self.sink(), rows).await
    }
}

impl Place for Topic {
    type Source = RocketMqSource;
    type Sink = RocketMqSink;

    fn name(&self) -> &str {
        &self.topic
    }

    fn consumer(&self) -> Result<RocketMqSource> {
        // A host of its own: what a crash leaves behind is another client.
        let client = RocketMqClient::start()?;
        Ok(self.source_of(&client, "consumer"))
    }

    fn reader(&self, number: u64) -> RocketMqSource {
        self.source(&format!("reader-{number}"))
    }

    fn producer(&self) -> RocketMqSink {
        self.sink()
    }
}

mod source {
    use super::*;
    semel_tests::source_conformance!(Suite(Topic::shared().await?));
}

mod sink {
    use super::*;
    semel_tests::sink_conformance!(Suite(Topic::shared().await?));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_consumers_come_and_go() -> Result<()> {
    let topic = Topic::shared().await?;
    let course = Course {
        messages: 6000,
        pace: Duration::from_millis(100),
        rounds: 3,
        alone: Duration::from_millis(1500),
        together: Duration::from_secs(3),
        rebalances: false,
    };
    let (clients, gaps) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let come = || {
        let client = RocketMqClient::start()?;
        let source = topic.source_of(&client, "group");
        clients.lock().unwrap().push(client);
        Ok(source)
    };
    let go = async |source: RocketMqSource| {
        source.close().await;
        gaps.fetch_add(source.gaps(), Relaxed);
    };
    come_and_go(course, &topic.sink(), come, go).await?;
    println!("gaps that were read again: {}", gaps.into_inner());
    for client in clients.into_inner().unwrap() {
        client.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_and_sink_come_back_after_the_broker_was_killed() -> Result<()> {
    let mut broker = RocketMq::start().await?;
    let topic = Topic::on(&broker).await?;
    let (source, sink) = (topic.source("group"), topic.sink());
    let rows = rows_in_lanes(40, 4);
    publish(&sink, &rows[..20]).await?;
    let first = receive_at_least(&source, 20).await?;
    source.acknowledge(&last_positions(&first)).await?;
    // The client sends offsets one way; the broker writes them down every five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;

    broker.kill();
    let results = publish_in_vain(&sink, &rows[20..]).await;
    assert!(
        results
            .iter()
            .all(|r| matches!(r, Err(SinkError::Unavailable(_)))),
        "{results:?}"
    );
    notice_outage(&source).await?;

    broker.restart().await?;
    let back = Instant::now();
    publish_again(&sink, &rows[20..], back).await;
    receive_again(&source, &rows[20..], back).await?;
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
    publish(&sink, &rows_in_lanes(20, 4)).await?;
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
    let error = nobody_listens(&topic.source("group"), &topic.sink()).await;
    assert!(error.contains("127.0.0.1:9"), "{error}");
    topic.client.shutdown().await;
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
    let source = topic.source("group");
    let rate = measure(50_000, &topic.sink(), &source).await?;
    assert_eq!(source.gaps(), 0);
    assert!(rate > 2000.0);
    Ok(())
}
