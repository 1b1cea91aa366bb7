use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use semel_core::{
    Delivery, Message, OutboxRow, Partition, Payload, Position, Received, Source, SourceError,
};

use super::{awkward_rows, rows_in_lanes};

/// How long a source may take to hand over what there is.
const PATIENCE: Duration = Duration::from_secs(150);

/// How long a source that has given everything is watched for more.
const SILENCE: Duration = Duration::from_millis(1500);

/// A stream of messages, and sources that read it.
#[async_trait]
pub trait SourceFixture: Send {
    /// Appends messages with the id, key, headers and body of these rows. Those of a lane go
    /// to one partition, in order.
    async fn produce(&mut self, rows: &[OutboxRow]) -> Result<()>;

    /// A source as a host that was just started opens it.
    async fn open(&mut self) -> Result<Arc<dyn Source>>;

    /// Whether a new source starts where the last one acknowledged. A file is read from its
    /// start each time.
    fn remembers(&self) -> bool {
        true
    }
}

/// Receives until `count` different messages have come, and as long as more may come.
pub async fn receive_at_least(source: &dyn Source, count: usize) -> Result<Vec<Delivery>> {
    let mut all = Vec::new();
    let mut ids = BTreeSet::new();
    let started = Instant::now();
    while ids.len() < count {
        anyhow::ensure!(
            started.elapsed() < PATIENCE,
            "only {} of {count} messages came in {PATIENCE:?}",
            ids.len()
        );
        match source.receive(64).await {
            Ok(Received::Batch(batch)) => {
                ids.extend(batch.iter().map(|delivery| message(delivery).id.clone()));
                all.extend(batch);
            }
            Ok(Received::End) => break,
            Err(SourceError::Unavailable(_)) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

/// What comes until nothing has come for a while.
pub async fn receive_the_rest(source: &dyn Source) -> Result<Vec<Delivery>> {
    let mut all = Vec::new();
    let mut heard = Instant::now();
    while heard.elapsed() < SILENCE {
        match source.receive(64).await? {
            Received::End => break,
            Received::Batch(batch) if batch.is_empty() => {}
            Received::Batch(batch) => {
                heard = Instant::now();
                all.extend(batch);
            }
        }
    }
    Ok(all)
}

/// The message of a delivery that must have one.
pub fn message(delivery: &Delivery) -> &Message {
    match &delivery.payload {
        Payload::Message(message) => message,
        Payload::Malformed { reason, .. } => {
            panic!("{} is malformed: {reason}", delivery.position)
        }
    }
}

fn by_partition(deliveries: &[Delivery]) -> BTreeMap<Partition, Vec<u64>> {
    let mut partitions: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
    for Delivery { position, .. } in deliveries {
        let offsets = partitions.entry(position.partition.clone()).or_default();
        offsets.push(position.offset);
    }
    partitions
}

/// The position up to which each partition was handed over.
pub fn last_positions(deliveries: &[Delivery]) -> Vec<Position> {
    let last = |(partition, offsets): (Partition, Vec<u64>)| Position {
        partition,
        offset: *offsets.iter().max().expect("a partition has messages"),
    };
    by_partition(deliveries).into_iter().map(last).collect()
}

fn ids(deliveries: &[Delivery]) -> BTreeSet<String> {
    let ids = deliveries
        .iter()
        .map(|delivery| message(delivery).id.clone());
    ids.collect()
}

fn expected_ids(rows: &[OutboxRow]) -> BTreeSet<String> {
    let ids = rows.iter().map(|row| row.message_id.as_str().to_owned());
    ids.collect()
}

/// Each message comes once, offsets ascend in each partition, and lanes keep their order.
pub async fn hands_over_everything_in_order(fixture: &mut dyn SourceFixture) -> Result<()> {
    let rows = rows_in_lanes(700, 7);
    fixture.produce(&rows).await?;
    let source = fixture.open().await?;
    let mut deliveries = receive_at_least(&*source, rows.len()).await?;
    deliveries.extend(receive_the_rest(&*source).await?);
    source.close().await;

    assert_eq!(deliveries.len(), rows.len(), "each message once");
    assert_eq!(ids(&deliveries), expected_ids(&rows));
    for (partition, offsets) in by_partition(&deliveries) {
        assert!(
            offsets.is_sorted_by(|a, b| a < b),
            "{partition}: {offsets:?}"
        );
    }
    let place: HashMap<_, _> = deliveries
        .iter()
        .enumerate()
        .map(|(place, delivery)| (message(delivery).id.as_str(), place))
        .collect();
    for lane in 0..7 {
        let places: Vec<_> = rows[lane..]
            .iter()
            .step_by(7)
            .map(|row| place[row.message_id.as_str()])
            .collect();
        assert!(places.is_sorted(), "lane {lane}: {places:?}");
    }
    Ok(())
}

/// Keys, headers and bodies arrive as they were sent, byte for byte.
pub async fn keeps_contents(fixture: &mut dyn SourceFixture) -> Result<()> {
    let rows = awkward_rows();
    fixture.produce(&rows).await?;
    let source = fixture.open().await?;
    let deliveries = receive_at_least(&*source, rows.len()).await?;
    source.close().await;

    let by_id: HashMap<_, _> = deliveries
        .iter()
        .map(|delivery| (message(delivery).id.as_str(), message(delivery)))
        .collect();
    for row in &rows {
        let message = by_id[row.message_id.as_str()];
        let key = row.outgoing.key.as_ref();
        let key = key.map(|key| String::from_utf8_lossy(key).into_owned());
        assert_eq!(message.keys, Vec::from_iter(key), "row {}", row.id);
        assert_eq!(message.headers, row.outgoing.headers, "row {}", row.id);
        assert!(message.body == row.outgoing.body, "row {}: body", row.id);
        assert_eq!(&*message.topic, &*row.outgoing.destination);
        assert!(message.timestamp_ms > 1_600_000_000_000, "a time of today");
    }
    Ok(())
}

/// No batch is larger than asked for, and asking for little loses nothing.
pub async fn respects_the_limit(fixture: &mut dyn SourceFixture) -> Result<()> {
    let rows = rows_in_lanes(100, 3);
    fixture.produce(&rows).await?;
    let source = fixture.open().await?;
    let mut all = Vec::new();
    let started = Instant::now();
    for limit in [1, 2, 3, 5, 7].into_iter().cycle() {
        assert!(started.elapsed() < PATIENCE);
        match source.receive(limit).await? {
            Received::Batch(batch) => {
                assert!(batch.len() <= limit, "{} of {limit}", batch.len());
                all.extend(batch);
            }
            Received::End => break,
        }
        if all.len() >= rows.len() {
            break;
        }
    }
    source.close().await;
    assert_eq!(ids(&all), expected_ids(&rows));
    Ok(())
}

/// A source that is opened again gives what was not acknowledged, and where it remembers,
/// nothing else.
pub async fn redelivers_what_is_not_acknowledged(fixture: &mut dyn SourceFixture) -> Result<()> {
    let rows = rows_in_lanes(200, 8);
    fixture.produce(&rows).await?;
    let source = fixture.open().await?;
    let first = receive_at_least(&*source, rows.len()).await?;
    let mut acknowledged = Vec::new();
    for (partition, offsets) in by_partition(&first) {
        let offset = offsets[offsets.len() / 2];
        acknowledged.push(Position { partition, offset });
    }
    source.acknowledge(&acknowledged).await?;
    source.close().await;

    let is_acknowledged = |delivery: &&Delivery| {
        acknowledged.iter().any(|position| {
            position.partition == delivery.position.partition
                && position.offset >= delivery.position.offset
        })
    };
    let (below, above): (Vec<_>, Vec<_>) =
        first.iter().partition(|delivery| is_acknowledged(delivery));
    let source = fixture.open().await?;
    let expected = if fixture.remembers() {
        above.len()
    } else {
        rows.len()
    };
    let mut second = receive_at_least(&*source, expected).await?;
    second.extend(receive_the_rest(&*source).await?);
    source.close().await;

    let again = ids(&second);
    for delivery in above {
        assert!(
            again.contains(&message(delivery).id),
            "{}",
            delivery.position
        );
    }
    if fixture.remembers() {
        for delivery in below {
            assert!(
                !again.contains(&message(delivery).id),
                "{}",
                delivery.position
            );
        }
    }
    Ok(())
}

/// Where acknowledgements lag behind and the host crashes, again and again, each message was
/// either acknowledged or comes again.
pub async fn loses_nothing_when_acknowledgements_lag(
    fixture: &mut dyn SourceFixture,
) -> Result<()> {
    let rows = rows_in_lanes(300, 5);
    fixture.produce(&rows).await?;
    let mut recorded: BTreeSet<String> = BTreeSet::new();
    for round in 0..3 {
        let source = fixture.open().await?;
        let mut received = Vec::new();
        let started = Instant::now();
        // A third more each time, acknowledged up to the batch before the last.
        while received.len() < 80 && started.elapsed() < PATIENCE {
            match source.receive(20).await? {
                Received::End => break,
                Received::Batch(batch) => {
                    let settled = received.len();
                    source
                        .acknowledge(&last_positions(&received[..settled]))
                        .await?;
                    recorded.extend(ids(&received));
                    received.extend(batch);
                }
            }
        }
        if round % 2 == 0 {
            // A crash: nothing is closed in order.
            drop(source);
        } else {
            source.close().await;
        }
    }
    let missing = expected_ids(&rows).difference(&recorded).count();
    let source = fixture.open().await?;
    let expected = if fixture.remembers() {
        missing
    } else {
        rows.len()
    };
    let started = Instant::now();
    let mut last = BTreeSet::new();
    while !expected_ids(&rows).is_subset(&(&last | &recorded)) {
        assert!(started.elapsed() < PATIENCE, "{expected} were to come");
        match source.receive(64).await? {
            Received::Batch(batch) => last.extend(ids(&batch)),
            Received::End => break,
        }
    }
    source.close().await;
    assert_eq!(&last | &recorded, expected_ids(&rows));
    Ok(())
}

/// An acknowledgement that goes back, as one of a host that was slow does, loses nothing.
pub async fn going_back_is_harmless(fixture: &mut dyn SourceFixture) -> Result<()> {
    let rows = rows_in_lanes(60, 1);
    fixture.produce(&rows).await?;
    let source = fixture.open().await?;
    let first = receive_at_least(&*source, rows.len()).await?;
    let partition = &first[0].position.partition;
    for place in [40, 20] {
        let position = first[place].position.clone();
        assert_eq!(&position.partition, partition, "a lane is in one partition");
        source.acknowledge(&[position]).await?;
    }
    source.close().await;

    let source = fixture.open().await?;
    let second = receive_at_least(&*source, rows.len() - 41).await?;
    let mut again = ids(&second);
    again.extend(ids(&receive_the_rest(&*source).await?));
    source.close().await;
    for delivery in &first[41..] {
        assert!(
            again.contains(&message(delivery).id),
            "{}",
            delivery.position
        );
    }
    Ok(())
}

/// Closing and asking an idle source take a bounded time.
pub async fn never_hangs(fixture: &mut dyn SourceFixture) -> Result<()> {
    let limit = Duration::from_secs(30);
    fixture.produce(&rows_in_lanes(1, 1)).await?;
    let source = fixture.open().await?;
    receive_at_least(&*source, 1).await?;
    tokio::time::timeout(limit, async {
        for _ in 0..3 {
            source.receive(10).await?;
        }
        source.close().await;
        anyhow::Ok(())
    })
    .await??;
    Ok(())
}

/// One test for each duty of a source, with the fixture that the expression makes.
#[macro_export]
macro_rules! source_conformance {
    ($fixture:expr) => {
        $crate::source_conformance!(
            $fixture,
            hands_over_everything_in_order,
            keeps_contents,
            respects_the_limit,
            redelivers_what_is_not_acknowledged,
            loses_nothing_when_acknowledgements_lag,
            going_back_is_harmless,
            never_hangs,
        );
    };
    ($fixture:expr, $($duty:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $duty() -> anyhow::Result<()> {
                let mut fixture = $fixture;
                $crate::conformance::broker::$duty(&mut fixture).await
            }
        )*
    };
}
