//! Apache Kafka, a real broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::message::{Header as SentHeader, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use semel_brokers::{KafkaCluster, KafkaSink, KafkaSinkConfig, KafkaSource, KafkaSourceConfig};
use semel_core::{OutboxRow, Partition, Received, Sink, SinkError, Source, SourceError};
use semel_tests::conformance::broker::{
    DESTINATION, last_positions, message, receive_at_least, row, rows_in_lanes,
};
use semel_tests::servers::kafka::Kafka;

use crate::shared::{
    Course, Place, Suite, come_and_go, measure, nobody_listens, notice_outage, publish,
    publish_again, publish_in_vain, receive_again, send,
};

const PARTITIONS: i32 = 4;

/// A topic of its own on a broker.
struct Topic {
    cluster: KafkaCluster,
    topic: String,
}

impl Topic {
    /// On the broker that the tests share.
    async fn shared() -> Result<Self> {
        Self::on(Kafka::shared().await?, &[]).await
    }

    async fn on(broker: &Kafka, settings: &[(&str, &str)]) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let topic = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        broker
            .create_topic_with(&topic, PARTITIONS, settings)
            .await?;
        Ok(Self {
            cluster: KafkaCluster::at(broker.servers()),
            topic,
        })
    }

    fn config(&self, group: &str) -> KafkaSourceConfig {
        KafkaSourceConfig {
            cluster: self.cluster.clone(),
            group: format!("{}-{group}", self.topic),
            instance: None,
            topics: vec![self.topic.clone()],
            redelivery: KafkaSourceConfig::DEFAULT_REDELIVERY,
        }
    }

    fn source(&self, group: &str) -> KafkaSource {
        KafkaSource::new(self.config(group))
    }

    fn sink(&self) -> KafkaSink {
        KafkaSink::new(KafkaSinkConfig {
            cluster: self.cluster.clone(),
            destinations: BTreeMap::from([(DESTINATION.to_owned(), self.topic.clone())]),
        })
    }

    async fn send(&self, rows: &[OutboxRow]) -> Result<()> {
        send(self.sink(), rows).await
    }
}

impl Place for Topic {
    type Source = KafkaSource;
    type Sink = KafkaSink;

    fn name(&self) -> &str {
        &self.topic
    }

    fn consumer(&self) -> Result<KafkaSource> {
        Ok(self.source("consumer"))
    }

    fn reader(&self, number: u64) -> KafkaSource {
        self.source(&format!("reader-{number}"))
    }

    fn producer(&self) -> KafkaSink {
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
        pace: Duration::from_millis(60),
        rounds: 3,
        alone: Duration::from_millis(1500),
        together: Duration::from_secs(3),
        rebalances: true,
    };
    let come = || Ok(topic.source("group"));
    let go = async |source: KafkaSource| source.close().await;
    come_and_go(course, &topic.sink(), come, go).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_shared_and_one_that_was_revoked_is_acknowledged_in_vain() -> Result<()> {
    let topic = Topic::shared().await?;
    let sink = topic.sink();
    let (first, second) = (topic.source("group"), topic.source("group"));
    topic.send(&rows_in_lanes(40, 40)).await?;
    let received = receive_at_least(&first, 40).await?;
    // The second one joins, and takes over half of the partitions from where the group is.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut taken: BTreeSet<Partition> = BTreeSet::new();
    let mut ids = BTreeSet::new();
    while taken.len() < 2 {
        assert!(Instant::now() < deadline, "taken over: {taken:?}");
        for source in [&first, &second] {
            let Received::Batch(batch) = source.receive(64).await? else {
                continue;
            };
            if std::ptr::eq(source, &second) {
                taken.extend(batch.iter().map(|d| d.position.partition.clone()));
                ids.extend(batch.iter().map(|d| message(d).id.clone()));
            }
        }
    }
    let positions = last_positions(&received);
    let (revoked, kept): (Vec<_>, Vec<_>) = positions
        .into_iter()
        .partition(|position| taken.contains(&position.partition));
    // By now the first one knows what it has lost: it must neither fail nor hold up the others.
    first.acknowledge(&revoked).await?;
    first.acknowledge(&kept).await?;
    first.close().await;
    let broker = Kafka::shared().await?;
    let group = format!("{}-group", topic.topic);
    for (positions, is_committed) in [(&kept, true), (&revoked, false)] {
        for position in positions {
            let number = position.partition.as_str().rsplit_once('/').unwrap().1;
            let committed = broker
                .committed(&group, &topic.topic, number.parse()?)
                .await?;
            let expected = is_committed.then_some(position.offset + 1);
            assert_eq!(committed, expected, "{position}");
        }
    }
    second.close().await;
    sink.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_starts_again_where_it_was_and_only_once_at_a_time() -> Result<()> {
    let topic = Topic::shared().await?;
    let mut config = topic.config("group");
    config.instance = Some("host-1".to_owned());
    topic.send(&rows_in_lanes(20, 4)).await?;
    let first = KafkaSource::new(config.clone());
    let received = receive_at_least(&first, 20).await?;
    first.acknowledge(&last_positions(&received)).await?;
    let second = KafkaSource::new(config);
    topic.send(&[row(20, None)]).await?;
    let again = receive_at_least(&second, 1).await?;
    assert_eq!(message(&again[0]).id, row(20, None).message_id.as_str());
    // The first one is told that it was replaced, and does not go on.
    let deadline = Instant::now() + Duration::from_secs(20);
    let error = loop {
        match first.receive(1).await {
            Err(SourceError::Failed(reason)) => break reason,
            _ => assert!(Instant::now() < deadline, "it was not fenced"),
        }
    };
    assert!(error.contains("`host-1`"), "{error}");
    first.close().await;
    second.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_and_sink_come_back_after_the_broker_was_killed() -> Result<()> {
    let mut broker = Kafka::start().await?;
    let topic = Topic::on(&broker, &[]).await?;
    let (source, sink) = (topic.source("group"), topic.sink());
    let rows = rows_in_lanes(40, 4);
    publish(&sink, &rows[..20]).await?;
    let first = receive_at_least(&source, 20).await?;
    source.acknowledge(&last_positions(&first)).await?;

    broker.kill();
    // A commit fails in a bounded time, and is tried again. Later the partitions are no longer
    // this one's, and there is nothing to commit.
    let outage = Instant::now();
    let error = source.acknowledge(&last_positions(&first)).await;
    assert!(
        matches!(error, Err(SourceError::Unavailable(_))),
        "{error:?}"
    );
    assert!(outage.elapsed() < Duration::from_secs(10));
    publish_in_vain(&sink, &rows[20..]).await;
    notice_outage(&source).await?;
    // While the engine pauses, the client goes on to find that nobody is there.
    tokio::time::sleep(Duration::from_secs(8)).await;

    broker.restart().await?;
    let back = Instant::now();
    publish_again(&sink, &rows[20..], back).await;
    // All of that is told as one, or the engine would pause for each.
    let mut failures = 0;
    let mut again = Vec::new();
    while again.is_empty() {
        match source.receive(1).await {
            Ok(Received::Batch(batch)) => again.extend(batch),
            Err(error) => {
                failures += 1;
                assert!(failures <= 3, "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    let mut rest = rows[20..].to_vec();
    rest.retain(|row| row.message_id.as_str() != message(&again[0]).id);
    again.extend(receive_again(&source, &rest, back).await?);
    while let Err(error) = source.acknowledge(&last_positions(&again)).await {
        assert!(back.elapsed() < Duration::from_secs(90), "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    source.close().await;
    sink.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_never_there_is_unavailable() -> Result<()> {
    let topic = Topic {
        // The discard port, where nothing listens.
        cluster: KafkaCluster::at("127.0.0.1:9"),
        topic: "nowhere".to_owned(),
    };
    let error = nobody_listens(&topic.source("group"), &topic.sink()).await;
    assert!(error.contains("127.0.0.1:9"), "{error}");
    Ok(())
}

/// What an operator can mend is no fault of the message, which must not be buried for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_said_and_found_when_it_is_there() -> Result<()> {
    let broker = Kafka::shared().await?;
    let missing = Topic {
        cluster: KafkaCluster::at(broker.servers()),
        topic: format!("missing-{}", std::process::id()),
    };
    let (source, sink) = (missing.source("group"), missing.sink());
    let refused = sink.publish(&[row(0, None)]).await.remove(0).unwrap_err();
    assert!(matches!(refused, SinkError::Unavailable(_)), "{refused}");
    let error = source.receive(1).await.unwrap_err();
    assert!(matches!(error, SourceError::Unavailable(_)), "{error}");
    for error in [refused.to_string(), error.to_string()] {
        assert!(
            error.contains(&missing.topic) && error.contains("create it"),
            "{error}"
        );
    }
    broker.create_topic(&missing.topic, 1).await?;
    let created = Instant::now();
    while let Err(error) = sink.publish(&[row(0, None)]).await.remove(0) {
        assert!(created.elapsed() < Duration::from_secs(60), "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    receive_at_least(&source, 1).await?;
    source.close().await;
    sink.close().await;
    Ok(())
}

/// Whoever shares a batch with a message that is too large is not refused with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_large_is_refused_and_no_other() -> Result<()> {
    let settings = [("max.message.bytes", "2000")];
    let topic = Topic::on(Kafka::shared().await?, &settings).await?;
    let mut rows: Vec<_> = (0..40).map(|number| row(number, None)).collect();
    rows.push(row(40, Some("a")));
    rows.push(row(41, Some("a")));
    for large in [7, 40] {
        rows[large].outgoing.body = Bytes::from(vec![0; 3000]);
    }
    let sink = topic.sink();
    let results = sink.publish(&rows).await;
    for (at, result) in results.iter().enumerate() {
        match at {
            7 | 40 => assert!(matches!(result, Err(SinkError::Refused(_))), "{result:?}"),
            41 => assert!(matches!(result, Err(SinkError::Held)), "{result:?}"),
            _ => assert!(result.is_ok(), "row {at}: {result:?}"),
        }
    }
    // The lane goes on when the relay has buried its first.
    sink.publish(&rows[41..]).await.remove(0)?;
    sink.close().await;
    Ok(())
}

/// A compacted topic takes no message without a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_the_key_that_its_topic_needs_is_refused() -> Result<()> {
    let settings = [("cleanup.policy", "compact")];
    let topic = Topic::on(Kafka::shared().await?, &settings).await?;
    let mut rows = [row(0, None), row(1, None)];
    rows[0].outgoing.key = None;
    let sink = topic.sink();
    let results = sink.publish(&rows).await;
    let refused = matches!(results[0], Err(SinkError::Refused(_)));
    assert!(refused && results[1].is_ok(), "{results:?}");
    sink.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_left_to_the_broker_to_delay() -> Result<()> {
    let topic = Topic::shared().await?;
    let mut row = row(0, None);
    row.due_ms = u64::MAX;
    assert!(!topic.sink().delays(&row));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_text_arrives_in_base64() -> Result<()> {
    let topic = Topic::shared().await?;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", topic.cluster.servers())
        .create()?;
    let headers = OwnedHeaders::new()
        .insert(SentHeader {
            key: "bytes",
            value: Some(&b"\xff\0"[..]),
        })
        .insert(SentHeader::<&[u8]> {
            key: "null",
            value: None,
        });
    let record = FutureRecord::to(&topic.topic)
        .partition(2)
        .key(&b"\xff\0"[..])
        .payload(&b"{}"[..])
        .headers(headers);
    let sent = producer.send(record, Duration::from_secs(10)).await;
    sent.map_err(|(error, _)| error)?;
    // And a tombstone, of which nothing is there at all.
    let record = FutureRecord::<[u8], [u8]>::to(&topic.topic).partition(2);
    let sent = producer.send(record, Duration::from_secs(10)).await;
    sent.map_err(|(error, _)| error)?;

    let source = topic.source("group");
    let deliveries = receive_at_least(&source, 2).await?;
    let (first, second) = (message(&deliveries[0]), message(&deliveries[1]));
    assert_eq!(first.keys, [STANDARD.encode(b"\xff\0")]);
    let headers: Vec<_> = first
        .headers
        .iter()
        .map(|h| (&*h.name, &*h.value))
        .collect();
    assert_eq!(headers, [("bytes", "/wA="), ("null", "")]);
    assert_eq!(first.id, format!("kafka:{}/2:0", topic.topic));
    assert!(second.keys.is_empty() && second.body.is_empty());
    source.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_messages_take_seconds() -> Result<()> {
    let topic = Topic::shared().await?;
    let rate = measure(50_000, &topic.sink(), &topic.source("group")).await?;
    assert!(rate > 2000.0);
    Ok(())
}
