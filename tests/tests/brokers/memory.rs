//! The source and the sink that other tests rely on.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use semel_core::memory::{Fate, MemorySink, MemorySource};
use semel_core::{
    Message, OutboxRow, Payload, Position, Received, Sink, SinkError, Source, SourceError,
};
use semel_tests::conformance::broker::{Published, SinkFixture, SourceFixture, message, row};

struct MemoryStream(Arc<MemorySource>);

fn as_message(row: &OutboxRow) -> Message {
    let key = row.outgoing.key.as_ref();
    Message {
        id: row.message_id.as_str().to_owned(),
        topic: row.outgoing.destination.clone(),
        keys: key
            .map(|key| String::from_utf8_lossy(key).into_owned())
            .into_iter()
            .collect(),
        headers: row.outgoing.headers.clone(),
        body: row.outgoing.body.clone(),
        timestamp_ms: 1_700_000_000_000,
    }
}

#[async_trait]
impl SourceFixture for MemoryStream {
    async fn produce(&mut self, rows: &[OutboxRow]) -> Result<()> {
        for row in rows {
            let lane = row.lane.as_ref().map(|lane| lane.lane.to_string());
            let partition = lane.unwrap_or_else(|| "none".to_owned());
            self.0.push(&partition, as_message(row));
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<Arc<dyn Source>> {
        self.0.restart();
        Ok(Arc::clone(&self.0) as Arc<dyn Source>)
    }
}

mod source {
    use super::*;
    semel_tests::source_conformance!(MemoryStream(Arc::default()));
}

struct MemoryTopic(MemorySink);

#[async_trait]
impl SinkFixture for MemoryTopic {
    async fn open(&mut self) -> Result<Arc<dyn Sink>> {
        self.0.decide(|row| match &*row.outgoing.destination {
            "broken" => Fate::Fail(SinkError::Unavailable("broken".to_owned())),
            _ => Fate::Confirm,
        });
        Ok(Arc::new(self.0.clone()))
    }

    async fn published(&mut self, _count: usize) -> Result<Vec<Published>> {
        Ok(self.0.published().iter().map(Published::from).collect())
    }

    fn broken_destination(&self) -> Option<&'static str> {
        Some("broken")
    }
}

mod sink {
    use super::*;
    semel_tests::sink_conformance!(MemoryTopic(MemorySink::new()));
}

fn batch(received: Result<Received, SourceError>) -> Vec<(String, u64)> {
    match received.unwrap() {
        Received::End => panic!("the source ended"),
        Received::Batch(batch) => batch
            .into_iter()
            .map(|delivery| {
                let Position { partition, offset } = delivery.position;
                (partition.to_string(), offset)
            })
            .collect(),
    }
}

fn places(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    let place = |&(name, offset): &(&str, u64)| (name.to_owned(), offset);
    expected.iter().map(place).collect()
}

#[tokio::test]
async fn partitions_take_turns_and_a_restart_goes_back() {
    let source = MemorySource::new();
    for (partition, number) in [("a", 0), ("a", 1), ("b", 2), ("c", 3), ("b", 4)] {
        source.push(partition, as_message(&row(number, None)));
    }
    let first = batch(source.receive(4).await);
    assert_eq!(first, places(&[("a", 0), ("b", 0), ("c", 0), ("a", 1)]));
    let position = Position {
        partition: semel_core::Partition::new("a"),
        offset: 0,
    };
    source.acknowledge(&[position]).await.unwrap();
    assert_eq!(source.acknowledged("a"), Some(0));
    assert_eq!(source.acknowledged("b"), None);

    source.reassign("a");
    assert_eq!(
        batch(source.receive(9).await),
        places(&[("b", 1), ("a", 1)])
    );
    source.restart();
    let again = batch(source.receive(9).await);
    assert_eq!(again, places(&[("a", 1), ("b", 0), ("c", 0), ("b", 1)]));
    assert!(!source.all_acknowledged());
}

#[tokio::test]
async fn it_ends_when_it_is_finished_and_fails_when_told() {
    let source = MemorySource::new();
    assert!(batch(source.receive(1).await).is_empty());
    source.push_malformed("a", "no message", "raw");
    source.finish();
    source.fail_next(SourceError::Unavailable("gone".to_owned()));
    assert!(matches!(
        source.receive(1).await,
        Err(SourceError::Unavailable(_))
    ));
    let Received::Batch(batch) = source.receive(1).await.unwrap() else {
        panic!("the source ended");
    };
    assert!(matches!(&batch[0].payload, Payload::Malformed { raw, .. } if *raw == "raw"));
    assert!(matches!(source.receive(1).await, Ok(Received::End)));
}

#[tokio::test]
async fn what_was_never_given_cannot_be_acknowledged() {
    let source = MemorySource::new();
    let position = source.push("a", as_message(&row(0, None)));
    let early = source.acknowledge(std::slice::from_ref(&position)).await;
    assert!(matches!(early, Err(SourceError::Failed(_))));
    source.receive(1).await.unwrap();
    source.acknowledge(&[position]).await.unwrap();
    assert!(source.all_acknowledged());
}

#[tokio::test]
async fn a_sink_holds_and_loses_replies_when_told() {
    let sink = MemorySink::new();
    sink.hold();
    let rows = [row(0, None)];
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), sink.publish(&rows));
    assert!(waiting.await.is_err());
    assert!(sink.published().is_empty());
    sink.release();
    sink.decide(|_| Fate::LoseReply);
    assert!(sink.publish(&rows).await[0].is_err());
    assert_eq!(sink.published().len(), 1, "published all the same");
}

#[test]
fn messages_are_as_the_rows_say() {
    let mut row = row(3, None);
    row.outgoing.body = Bytes::from_static(b"\xff");
    let source = MemorySource::new();
    source.push("a", as_message(&row));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let Received::Batch(batch) = runtime.block_on(source.receive(1)).unwrap() else {
        panic!("the source ended");
    };
    assert_eq!(message(&batch[0]).body, row.outgoing.body);
}
