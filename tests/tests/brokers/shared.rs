//! What the tests of brokers with a server share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use semel_core::{
    Delivery, OutboxRow, Payload, Position, Received, Sink, SinkError, Source, SourceError,
};
use semel_tests::conformance::broker::{
    DESTINATION, Published, SinkFixture, SourceFixture, last_positions, message, receive_at_least,
    receive_the_rest, row, rows_in_lanes,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How long a sink or a source may take to say that its broker is gone.
const NOTICE: Duration = Duration::from_secs(20);

/// A topic or a queue that one test has for itself.
pub trait Place: Send + Sync {
    type Source: Source + 'static;
    type Sink: Sink + 'static;

    /// Its name.
    fn name(&self) -> &str;

    /// A source as a host that was just started opens it.
    fn consumer(&self) -> Result<Self::Source>;

    /// A source from which all comes, whatever others acknowledged. No other has this `number`.
    fn reader(&self, number: u64) -> Self::Source;

    fn producer(&self) -> Self::Sink;
}

/// A place as the conformance suites use it.
pub struct Suite<P>(pub P);

#[async_trait]
impl<P: Place> SourceFixture for Suite<P> {
    async fn produce(&mut self, rows: &[OutboxRow]) -> Result<()> {
        send(self.0.producer(), rows).await
    }

    async fn open(&mut self) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(Renamed {
            source: self.0.consumer()?,
            topic: self.0.name().to_owned(),
        }))
    }
}

#[async_trait]
impl<P: Place> SinkFixture for Suite<P> {
    async fn open(&mut self) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(self.0.producer()))
    }

    async fn published(&mut self, count: usize) -> Result<Vec<Published>> {
        static READERS: AtomicU64 = AtomicU64::new(0);
        let source = self.0.reader(READERS.fetch_add(1, Relaxed));
        let mut deliveries = receive_at_least(&source, count.min(20)).await?;
        deliveries.extend(receive_the_rest(&source).await?);
        // Not acknowledged, so that they can be looked at again.
        source.close().await;
        Ok(deliveries.iter().map(seen).collect())
    }

    fn broken_destination(&self) -> Option<&'static str> {
        Some("mapped to nothing")
    }
}

/// A message as a consumer sees it.
fn seen(delivery: &Delivery) -> Published {
    let message = message(delivery);
    Published {
        id: message.id.clone(),
        key: message.keys.first().map(|key| Bytes::from(key.clone())),
        headers: message.headers.clone(),
        body: message.body.clone(),
    }
}

/// A source whose topic is taken for the suites' destination.
struct Renamed<S> {
    source: S,
    topic: String,
}

#[async_trait]
impl<S: Source> Source for Renamed<S> {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let mut received = self.source.receive(limit).await?;
        if let Received::Batch(batch) = &mut received {
            for delivery in batch {
                assert_eq!(*message(delivery).topic, *self.topic);
                if let Payload::Message(message) = &mut delivery.payload {
                    Arc::make_mut(message).topic = DESTINATION.into();
                }
            }
        }
        Ok(received)
    }

    async fn acknowledge(&self, positions: &[Position]) -> Result<(), SourceError> {
        self.source.acknowledge(positions).await
    }

    async fn close(&self) {
        self.source.close().await;
    }
}

/// Publishes rows, each of which must be confirmed.
pub async fn publish(sink: &dyn Sink, rows: &[OutboxRow]) -> Result<()> {
    for result in sink.publish(rows).await {
        result?;
    }
    Ok(())
}

/// The same with a sink that nobody else needs.
pub async fn send(sink: impl Sink, rows: &[OutboxRow]) -> Result<()> {
    publish(&sink, rows).await?;
    sink.close().await;
    Ok(())
}

/// How two consumers of a group relieve each other.
pub struct Course {
    /// How many messages a producer sends, 50 at a time.
    pub messages: u64,
    /// How long it rests between them.
    pub pace: Duration,
    /// How often a second consumer comes and one of the two goes.
    pub rounds: u32,
    /// How long there is one consumer.
    pub alone: Duration,
    /// How long there are two.
    pub together: Duration,
    /// Whether an acknowledgement may fail while the broker shares out anew.
    pub rebalances: bool,
}

/// A consumer that receives, records and acknowledges until it is told to stop.
struct Host<S> {
    stop: Arc<AtomicBool>,
    running: JoinHandle<Result<S>>,
}

/// Consumers come by `come` and go by `go` while messages are sent, of which none is lost.
pub async fn come_and_go<S: Source + 'static>(
    course: Course,
    sink: &dyn Sink,
    come: impl Fn() -> Result<S>,
    go: impl AsyncFn(S),
) -> Result<()> {
    let rows = rows_in_lanes(course.messages, 12);
    let recorded = Arc::new(Mutex::new(BTreeSet::new()));
    let producer = async {
        for some in rows.chunks(50) {
            publish(sink, some).await?;
            sleep(course.pace).await;
        }
        sink.close().await;
        anyhow::Ok(())
    };
    let start = || {
        let stop = Arc::new(AtomicBool::new(false));
        let (recorded, stopped) = (Arc::clone(&recorded), Arc::clone(&stop));
        let running = tokio::spawn(run(come()?, recorded, stopped, course.rebalances));
        anyhow::Ok(Host { stop, running })
    };
    let end = async |host: Host<S>| {
        host.stop.store(true, Relaxed);
        go(host.running.await??).await;
        anyhow::Ok(())
    };
    let consumers = async {
        let mut first = start()?;
        for round in 0..course.rounds {
            sleep(course.alone).await;
            let second = start()?;
            sleep(course.together).await;
            // In turn the newcomer leaves, and the one that was there.
            let leaver = match round % 2 {
                0 => second,
                _ => std::mem::replace(&mut first, second),
            };
            end(leaver).await?;
        }
        let deadline = Instant::now() + Duration::from_secs(90);
        while recorded.lock().unwrap().len() < rows.len() {
            ensure!(
                Instant::now() < deadline,
                "{} of {} messages arrived",
                recorded.lock().unwrap().len(),
                rows.len()
            );
            sleep(Duration::from_millis(100)).await;
        }
        end(first).await
    };
    let (sent, consumed) = tokio::join!(producer, consumers);
    sent?;
    consumed?;
    assert_eq!(recorded.lock().unwrap().len(), rows.len());
    Ok(())
}

async fn run<S: Source>(
    source: S,
    recorded: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    rebalances: bool,
) -> Result<S> {
    while !stop.load(Relaxed) {
        let Received::Batch(batch) = source.receive(100).await? else {
            break;
        };
        // What is received and not yet recorded is what a rebalance may lose.
        sleep(Duration::from_millis(5)).await;
        let ids: Vec<_> = batch.iter().map(|d| message(d).id.clone()).collect();
        recorded.lock().unwrap().extend(ids);
        match source.acknowledge(&last_positions(&batch)).await {
            Err(SourceError::Unavailable(_)) if rebalances => {}
            result => result?,
        }
    }
    Ok(source)
}

/// Publishes while the broker is gone: each row waits, and that is soon said.
pub async fn publish_in_vain(sink: &dyn Sink, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
    let outage = Instant::now();
    let results = sink.publish(rows).await;
    for result in &results {
        let waits = matches!(result, Err(SinkError::Unavailable(_) | SinkError::Held));
        assert!(waits, "{result:?}");
    }
    let elapsed = outage.elapsed();
    assert!(elapsed < NOTICE, "{elapsed:?}");
    results
}

/// Receives until the source says that its broker is gone.
pub async fn notice_outage(source: &dyn Source) -> Result<()> {
    let outage = Instant::now();
    loop {
        match source.receive(10).await {
            Err(SourceError::Unavailable(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => assert!(outage.elapsed() < NOTICE, "nothing was noticed"),
        }
    }
}

/// Publishes rows until each is confirmed, as the relay does, after the broker came `back`.
pub async fn publish_again(sink: &dyn Sink, rows: &[OutboxRow], back: Instant) {
    let mut left = rows.to_vec();
    while !left.is_empty() {
        assert!(
            back.elapsed() < Duration::from_secs(60),
            "the sink did not come back"
        );
        let results = sink.publish(&left).await;
        let mut results = results.into_iter();
        left.retain(|_| results.next().is_some_and(|result| result.is_err()));
        sleep(Duration::from_millis(200)).await;
    }
    println!("the sink was back {:?} after the broker", back.elapsed());
}

/// Receives these rows after the broker came `back`.
pub async fn receive_again(
    source: &dyn Source,
    rows: &[OutboxRow],
    back: Instant,
) -> Result<Vec<Delivery>> {
    let again = receive_at_least(source, rows.len()).await?;
    println!("the source was back {:?} after the broker", back.elapsed());
    let ids: BTreeSet<_> = again.iter().map(|d| message(d).id.as_str()).collect();
    let is_there = |row: &OutboxRow| ids.contains(row.message_id.as_str());
    assert!(rows.iter().all(is_there));
    Ok(again)
}

/// Where nobody listens, source and sink say so in time. The answer is what the source says.
pub async fn nobody_listens(source: &dyn Source, sink: &dyn Sink) -> String {
    let started = Instant::now();
    let error = source.receive(1).await.unwrap_err();
    assert!(matches!(&error, SourceError::Unavailable(_)), "{error}");
    let results = sink.publish(&[row(0, None), row(1, Some("a"))]).await;
    assert!(
        results
            .iter()
            .all(|r| matches!(r, Err(SinkError::Unavailable(_)))),
        "{results:?}"
    );
    source.close().await;
    sink.close().await;
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(60), "{elapsed:?}");
    error.to_string()
}

/// Publishes and receives so many messages. The answer is how many were received a second.
pub async fn measure(messages: u64, sink: &dyn Sink, source: &dyn Source) -> Result<f64> {
    let rows = rows_in_lanes(messages, 64);
    let started = Instant::now();
    for some in rows.chunks(1000) {
        publish(sink, some).await?;
    }
    let rate = |since: Instant| rows.len() as f64 / since.elapsed().as_secs_f64();
    println!("published {:.0} messages/s", rate(started));
    sink.close().await;

    // It takes a while to connect.
    let mut seen = receive_at_least(source, 1).await?.len();
    let started = Instant::now();
    while seen < rows.len() {
        let Received::Batch(batch) = source.receive(1024).await? else {
            break;
        };
        source.acknowledge(&last_positions(&batch)).await?;
        seen += batch.len();
    }
    let received = rate(started);
    println!("received {received:.0} messages/s");
    source.close().await;
    Ok(received)
}
