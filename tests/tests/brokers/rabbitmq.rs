//! RabbitMQ, a real broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use semel_brokers::{
    RabbitMqDestination, RabbitMqSink, RabbitMqSinkConfig, RabbitMqSource, RabbitMqSourceConfig,
};
use semel_core::{Header, OutboxRow, Position, Sink, SinkError, Source, SourceError};
use semel_tests::conformance::broker::{
    DESTINATION, last_positions, message, receive_at_least, receive_the_rest, row, rows_in_lanes,
};
use semel_tests::servers::rabbitmq::RabbitMq;

use crate::shared::{
    Course, Place, Suite, come_and_go, measure, nobody_listens, notice_outage, publish,
    publish_again, publish_in_vain, send,
};

/// A queue of its own on a broker.
struct Queue {
    url: String,
    queue: String,
}

impl Queue {
    /// On the broker that the tests share.
    async fn shared() -> Result<Self> {
        Self::on(RabbitMq::shared().await?, &[]).await
    }

    async fn on(broker: &RabbitMq, arguments: &[(&str, AMQPValue)]) -> Result<Self> {
        let queue = Self::named(broker);
        broker.declare_queue_with(&queue.queue, arguments).await?;
        Ok(queue)
    }

    /// One that is not there yet.
    fn named(broker: &RabbitMq) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        Self {
            url: broker.url(),
            queue: format!("q{}-{number}", std::process::id()),
        }
    }

    fn source(&self) -> RabbitMqSource {
        self.source_with("")
    }

    fn source_with(&self, parameters: &str) -> RabbitMqSource {
        RabbitMqSource::new(RabbitMqSourceConfig {
            url: format!("{}{parameters}", self.url).parse().unwrap(),
            queues: vec![self.queue.clone()],
            redelivery: None,
        })
    }

    fn sink(&self) -> RabbitMqSink {
        self.sink_to(&[(DESTINATION, "", &self.queue)])
    }

    fn sink_to(&self, destinations: &[(&str, &str, &str)]) -> RabbitMqSink {
        let destinations = destinations.iter().map(|(name, exchange, routing_key)| {
            let to = RabbitMqDestination {
                exchange: (*exchange).to_owned(),
                routing_key: (*routing_key).to_owned(),
            };
            ((*name).to_owned(), to)
        });
        RabbitMqSink::new(RabbitMqSinkConfig {
            url: self.url.parse().unwrap(),
            destinations: destinations.collect::<BTreeMap<_, _>>(),
        })
    }

    async fn send(&self, rows: &[OutboxRow]) -> Result<()> {
        send(self.sink(), rows).await
    }
}

impl Place for Queue {
    type Source = RabbitMqSource;
    type Sink = RabbitMqSink;

    fn name(&self) -> &str {
        &self.queue
    }

    fn consumer(&self) -> Result<RabbitMqSource> {
        Ok(self.source())
    }

    fn reader(&self, _number: u64) -> RabbitMqSource {
        self.source()
    }

    fn producer(&self) -> RabbitMqSink {
        self.sink()
    }
}

mod source {
    use super::*;
    semel_tests::source_conformance!(Suite(Queue::shared().await?));
}

mod sink {
    use super::*;
    // One that hands over all of them, as none is acknowledged.
    semel_tests::sink_conformance!({
        let mut queue = Queue::shared().await?;
        queue.url += "/%2F?prefetch=5000";
        Suite(queue)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_consumers_come_and_go() -> Result<()> {
    let queue = Queue::shared().await?;
    let course = Course {
        messages: 3000,
        pace: Duration::from_millis(50),
        rounds: 4,
        alone: Duration::from_millis(500),
        together: Duration::from_millis(500),
        rebalances: false,
    };
    let gone = AtomicU64::new(0);
    let come = || Ok(queue.source_with("?prefetch=300"));
    let go = async |source: RabbitMqSource| {
        // Without a word, every other time.
        if gone.fetch_add(1, Relaxed).is_multiple_of(2) {
            source.close().await;
        }
    };
    come_and_go(course, &queue.sink(), come, go).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_and_sink_come_back_after_the_broker_was_killed() -> Result<()> {
    let mut broker = RabbitMq::start().await?;
    let queue = Queue::on(&broker, &[]).await?;
    let (source, sink) = (queue.source(), queue.sink());
    let rows = rows_in_lanes(40, 4);
    publish(&sink, &rows[..20]).await?;
    let first = receive_at_least(&source, 20).await?;
    let half = Position {
        partition: first[9].position.partition.clone(),
        offset: first[9].position.offset,
    };
    source.acknowledge(&[half]).await?;
    // An acknowledgement is not answered. This is, after it.
    tokio::time::sleep(Duration::from_secs(1)).await;

    broker.kill();
    let outage = Instant::now();
    publish_in_vain(&sink, &rows[20..]).await;
    notice_outage(&source).await?;
    // What is recorded after the channel is gone can't be acknowledged, and that is no fault.
    source.acknowledge(&last_positions(&first)).await?;
    assert!(
        outage.elapsed() < Duration::from_secs(20),
        "{:?}",
        outage.elapsed()
    );

    broker.restart().await?;
    let back = Instant::now();
    publish_again(&sink, &rows[20..], back).await;
    // What was not acknowledged comes again, at higher offsets than before.
    let again = receive_at_least(&source, 30).await?;
    println!("the source was back {:?} after the broker", back.elapsed());
    let ids: BTreeSet<_> = again.iter().map(|d| message(d).id.as_str()).collect();
    assert_eq!(ids.len(), 30);
    for delivery in &first[10..] {
        assert!(ids.contains(message(delivery).id.as_str()));
    }
    let highest = first.iter().map(|d| d.position.offset).max();
    assert!(again.iter().all(|d| Some(d.position.offset) > highest));
    // A position of the old channel acknowledges nothing of the new one.
    source.acknowledge(&last_positions(&first)).await?;
    source.close().await;
    let source = queue.source();
    assert_eq!(receive_at_least(&source, 30).await?.len(), 30);
    source.close().await;
    sink.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_never_there_is_unavailable() -> Result<()> {
    let queue = Queue {
        // The discard port, where nothing listens.
        url: "amqp://me:s3cret@127.0.0.1:9".to_owned(),
        queue: "nowhere".to_owned(),
    };
    let error = nobody_listens(&queue.source(), &queue.sink()).await;
    assert!(
        error.contains("127.0.0.1:9") && !error.contains("s3cret"),
        "{error}"
    );
    Ok(())
}

/// What an operator can mend is no fault of the message, which must not be buried for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_takes_waits_and_holds_up_nothing_else() -> Result<()> {
    let broker = RabbitMq::shared().await?;
    let queue = Queue::shared().await?;
    let full = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    let full = Queue::on(broker, &full).await?;
    let exchange = format!("{}-exchange", queue.queue);
    broker.bind(&exchange, "some.key", &queue.queue).await?;
    let sink = queue.sink_to(&[
        (DESTINATION, &exchange, "some.key"),
        ("no-queue", "", "no-such-queue"),
        ("no-binding", &exchange, "other.key"),
        ("no-exchange", "no-such-exchange", "key"),
        ("full", "", &full.queue),
    ]);
    let mut rows: Vec<_> = (0..8).map(|number| row(number, None)).collect();
    let broken = [(1, "no-queue"), (2, "no-binding"), (3, "no-exchange")];
    for (at, destination) in broken {
        rows[at].outgoing.destination = destination.into();
    }
    let results = sink.publish(&rows).await;
    for (at, result) in results.iter().enumerate() {
        match broken.iter().find(|(broken, _)| *broken == at) {
            None => assert!(result.is_ok(), "row {at}: {result:?}"),
            Some((_, what)) => {
                let waits = matches!(result, Err(SinkError::Unavailable(_)));
                assert!(waits, "{what}: {result:?}");
            }
        }
    }
    let text = |at: usize| results[at].as_ref().unwrap_err().to_string();
    assert!(text(1).contains("`no-such-queue`"), "{}", text(1));
    assert!(text(2).contains("`other.key`"), "{}", text(2));
    assert!(text(3).contains("no-such-exchange"), "{}", text(3));

    // A full queue takes a little more than it says.
    let mut row = row(100, None);
    row.outgoing.destination = "full".into();
    let mut results = Vec::new();
    for _ in 0..20 {
        results.extend(sink.publish(std::slice::from_ref(&row)).await);
    }
    let last = results.last().unwrap();
    assert!(matches!(last, Err(SinkError::Unavailable(_))), "{last:?}");
    sink.close().await;
    let source = queue.source();
    let deliveries = receive_at_least(&source, 5).await?;
    let headers = [Header {
        name: "amqp:routing-key".to_owned(),
        value: "some.key".to_owned(),
    }];
    assert_eq!(message(&deliveries[0]).headers, headers);
    source.close().await;
    Ok(())
}

/// Whoever shares a channel with a message that ends it is not refused with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_large_is_refused_and_no_other() -> Result<()> {
    let broker = RabbitMq::start_with(&["max_message_size = 100000"]).await?;
    let queue = Queue::on(&broker, &[]).await?;
    let mut rows: Vec<_> = (0..20).map(|number| row(number, None)).collect();
    rows.push(row(20, Some("a")));
    rows.push(row(21, Some("a")));
    for large in [7, 20] {
        rows[large].outgoing.body = Bytes::from(vec![0; 100_001]);
    }
    // Headers that would break the connection.
    rows[8].outgoing.headers = vec![Header {
        name: "wide".to_owned(),
        value: "x".repeat(200_000),
    }];
    let sink = queue.sink();
    let results = sink.publish(&rows).await;
    for (at, result) in results.iter().enumerate() {
        match at {
            7 | 8 | 20 => assert!(
                matches!(result, Err(SinkError::Refused(_))),
                "row {at}: {result:?}"
            ),
            21 => assert!(matches!(result, Err(SinkError::Held)), "{result:?}"),
            _ => assert!(result.is_ok(), "row {at}: {result:?}"),
        }
    }
    // The lane goes on when the relay has buried its first.
    sink.publish(&rows[21..]).await.remove(0)?;
    sink.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_queue_is_said_and_declared_if_it_may_be() -> Result<()> {
    let queue = Queue::named(RabbitMq::shared().await?);
    let source = queue.source();
    let error = source.receive(1).await.unwrap_err();
    assert!(matches!(error, SourceError::Unavailable(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&queue.queue) && text.contains("declare=quorum"),
        "{text}"
    );
    // One that is there is taken as it is.
    for parameters in ["?declare=quorum-single", "?declare=quorum", ""] {
        let source = queue.source_with(parameters);
        source.receive(1).await?;
        source.close().await;
    }
    // The first one finds it when it asks again.
    source.receive(1).await?;
    source.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_queue_gives_the_next_host_what_one_left() -> Result<()> {
    for (parameters, is_shared) in [("?declare=quorum", true), ("?declare=quorum-single", false)] {
        let queue = Queue::named(RabbitMq::shared().await?);
        let first = queue.source_with(parameters);
        first.receive(1).await?;
        let rows = rows_in_lanes(10, 1);
        queue.send(&rows).await?;
        let received = receive_at_least(&first, 10).await?;
        let second = queue.source();
        assert!(receive_the_rest(&second).await?.is_empty());
        first.acknowledge(&[received[3].position.clone()]).await?;
        first.close().await;
        let taken = receive_at_least(&second, 6).await?;
        let ids: Vec<&str> = taken.iter().map(|it| &*message(it).id).collect();
        let left = rows[4..].iter().map(|row| row.message_id.as_str());
        assert_eq!(ids, Vec::from_iter(left));

        // While both are there, a single active consumer has all.
        let third = queue.source();
        assert!(receive_the_rest(&third).await?.is_empty());
        queue.send(&rows_in_lanes(20, 1)).await?;
        let both = receive_the_rest(&third).await?.len();
        assert_eq!(both > 0, is_shared, "{both} of 20");
        second.close().await;
        third.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_is_unavailable_until_it_is_back() -> Result<()> {
    let broker = RabbitMq::shared().await?;
    let queue = Queue::shared().await?;
    let source = queue.source();
    source.receive(1).await?;
    broker.delete_queue(&queue.queue).await?;
    let deleted = Instant::now();
    while source.receive(1).await.is_ok() {
        assert!(deleted.elapsed() < Duration::from_secs(10));
    }
    broker.declare_queue(&queue.queue).await?;
    queue.send(&[row(0, None)]).await?;
    receive_at_least(&source, 1).await?;
    source.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_send_is_read_as_text() -> Result<()> {
    let broker = RabbitMq::shared().await?;
    let queue = Queue::shared().await?;
    let (connection, channel) = broker.channel().await?;
    let mut table = FieldTable::default();
    let inner = FieldTable::from(BTreeMap::from([("a".into(), AMQPValue::Void)]));
    let values = [
        ("bytes", AMQPValue::LongString(b"\xff\0".to_vec().into())),
        ("flag", AMQPValue::Boolean(true)),
        ("number", AMQPValue::LongInt(-7)),
        ("table", AMQPValue::FieldTable(inner)),
    ];
    for (name, value) in values {
        table.insert(name.into(), value);
    }
    let properties = [
        BasicProperties::default()
            .with_message_id("theirs".into())
            .with_type("order".into())
            .with_timestamp(1_700_000_000)
            .with_headers(table),
        BasicProperties::default(),
    ];
    for properties in properties {
        let options = BasicPublishOptions::default();
        let name = queue.queue.as_str().into();
        channel
            .basic_publish("".into(), name, options, b"{}", properties)
            .await?;
    }
    let source = queue.source();
    let deliveries = receive_at_least(&source, 2).await?;
    let (first, second) = (message(&deliveries[0]), message(&deliveries[1]));
    let headers: Vec<_> = first
        .headers
        .iter()
        .map(|h| (&*h.name, &*h.value))
        .collect();
    let expected = [
        ("bytes", "/wA="),
        ("flag", "true"),
        ("number", "-7"),
        ("table", r#"{"a":null}"#),
        ("amqp:type", "order"),
    ];
    assert_eq!(headers, expected);
    assert_eq!(
        (first.id.as_str(), first.timestamp_ms),
        ("theirs", 1_700_000_000_000)
    );
    // Nothing of it is the same for every delivery, so it has no id.
    assert_eq!(second.id, "");
    source.close().await;
    connection.close(200, "OK".into()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_no_text_arrive_in_base64() -> Result<()> {
    let queue = Queue::shared().await?;
    let mut rows = [row(0, None), row(1, None)];
    rows[0].outgoing.key = Some(Bytes::from_static(b"\xff\0"));
    // A name of the broker's, whose value it would not take.
    rows[1].outgoing.headers = vec![Header {
        name: "CC".to_owned(),
        value: "elsewhere".to_owned(),
    }];
    queue.send(&rows).await?;
    let source = queue.source();
    let deliveries = receive_at_least(&source, 2).await?;
    assert_eq!(message(&deliveries[0]).keys, [STANDARD.encode(b"\xff\0")]);
    let headers = &message(&deliveries[1]).headers;
    assert_eq!(*headers, rows[1].outgoing.headers);
    source.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_messages_take_seconds() -> Result<()> {
    let queue = Queue::shared().await?;
    let rate = measure(20_000, &queue.sink(), &queue.source()).await?;
    assert!(rate > 500.0);
    Ok(())
}
