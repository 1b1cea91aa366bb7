use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use semel_core::{Header, OutboxRow, Sink, SinkError};

use super::{awkward_rows, row, rows_in_lanes};

/// A sink, and how to see what it published.
#[async_trait]
pub trait SinkFixture: Send {
    /// A sink as a host that was just started opens it. The one before is closed.
    async fn open(&mut self) -> Result<Arc<dyn Sink>>;

    /// All that was published so far, at least `count` messages, in order for each lane.
    async fn published(&mut self, count: usize) -> Result<Vec<Published>>;

    /// A destination whose rows fail. None where rows fail all together.
    fn broken_destination(&self) -> Option<&'static str>;

    /// Whether a row that is published twice is there once.
    fn publishes_once(&self) -> bool {
        false
    }
}

/// A message as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The message id.
    pub id: String,
    /// The record key.
    pub key: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// The payload.
    pub body: Bytes,
}

impl From<&OutboxRow> for Published {
    fn from(row: &OutboxRow) -> Self {
        Self {
            id: row.message_id.as_str().to_owned(),
            key: row.outgoing.key.clone(),
            headers: row.outgoing.headers.clone(),
            body: row.outgoing.body.clone(),
        }
    }
}

async fn publish_well(sink: &dyn Sink, rows: &[OutboxRow]) {
    for (result, row) in sink.publish(rows).await.into_iter().zip(rows) {
        assert!(result.is_ok(), "row {}: {result:?}", row.id);
    }
}

/// Ids, keys, headers and bodies arrive as they were given, byte for byte.
pub async fn publishes_contents(fixture: &mut dyn SinkFixture) -> Result<()> {
    let rows = awkward_rows();
    let sink = fixture.open().await?;
    assert!(sink.publish(&[]).await.is_empty());
    for some in rows.chunks(5) {
        assert_eq!(sink.publish(some).await.len(), some.len());
    }
    sink.close().await;
    let published = fixture.published(rows.len()).await?;
    let by_id: HashMap<_, _> = published.iter().map(|m| (m.id.as_str(), m)).collect();
    assert_eq!(by_id.len(), rows.len());
    for row in &rows {
        let (seen, given) = (by_id[row.message_id.as_str()], Published::from(row));
        assert_eq!(seen.key, given.key, "row {}", row.id);
        assert_eq!(seen.headers, given.headers, "row {}", row.id);
        assert!(seen.body == given.body, "row {}: body", row.id);
    }
    Ok(())
}

/// Rows of a lane arrive in their order, within a call and from call to call.
pub async fn keeps_lanes_in_order(fixture: &mut dyn SinkFixture) -> Result<()> {
    let rows = rows_in_lanes(1000, 9);
    let sink = fixture.open().await?;
    for some in [&rows[..1], &rows[1..40], &rows[40..900], &rows[900..]] {
        publish_well(&*sink, some).await;
    }
    sink.close().await;
    let published = fixture.published(rows.len()).await?;
    let place: HashMap<_, _> = published
        .iter()
        .enumerate()
        .map(|(place, message)| (message.id.as_str(), place))
        .collect();
    assert_eq!(place.len(), rows.len());
    for lane in 0..9 {
        let places: Vec<_> = rows[lane..]
            .iter()
            .step_by(9)
            .map(|row| place[row.message_id.as_str()])
            .collect();
        assert!(places.is_sorted(), "lane {lane}: {places:?}");
    }
    Ok(())
}

/// Once a row fails, the later ones of its lane are not published; other lanes go on.
pub async fn holds_a_lane_behind_a_failure(fixture: &mut dyn SinkFixture) -> Result<()> {
    let Some(broken) = fixture.broken_destination() else {
        return Ok(());
    };
    let mut rows: Vec<_> = ["a", "b", "a", "b", "a", "a"]
        .into_iter()
        .zip(0..)
        .map(|(lane, number)| row(number, Some(lane)))
        .collect();
    rows.push(row(6, None));
    rows[2].outgoing.destination = broken.into();
    let sink = fixture.open().await?;
    let results = sink.publish(&rows).await;
    sink.close().await;
    let failed: Vec<_> = results.iter().map(Result::is_err).collect();
    assert_eq!(
        failed,
        [false, false, true, false, true, true, false],
        "{results:?}"
    );
    assert!(
        matches!(results[4], Err(SinkError::Held)),
        "{:?}",
        results[4]
    );

    let published = fixture.published(4).await?;
    let ids: BTreeSet<_> = published.iter().map(|m| m.id.clone()).collect();
    let expected = [0, 1, 3, 6].map(|index| rows[index].message_id.as_str().to_owned());
    assert_eq!(ids, BTreeSet::from(expected));
    Ok(())
}

/// A row that is published again, after a crash between publishing and confirming, bears the
/// same id and contents.
pub async fn publishing_again_is_recognisable(fixture: &mut dyn SinkFixture) -> Result<()> {
    let rows = rows_in_lanes(20, 4);
    let sink = fixture.open().await?;
    publish_well(&*sink, &rows).await;
    publish_well(&*sink, &rows[..10]).await;
    sink.close().await;
    let sink = fixture.open().await?;
    publish_well(&*sink, &rows).await;
    sink.close().await;

    let expected = if fixture.publishes_once() { 20 } else { 50 };
    let published = fixture.published(expected).await?;
    assert_eq!(published.len(), expected);
    for row in &rows {
        let same: Vec<_> = published
            .iter()
            .filter(|message| message.id == row.message_id.as_str())
            .collect();
        assert!(!same.is_empty());
        assert!(
            same.into_iter()
                .all(|message| *message == Published::from(row))
        );
    }
    Ok(())
}

/// Calls that overlap do not disturb each other.
pub async fn takes_calls_side_by_side(fixture: &mut dyn SinkFixture) -> Result<()> {
    let rows = rows_in_lanes(800, 8);
    let sink = fixture.open().await?;
    let by_lane = (0..8).map(|lane| {
        let rows: Vec<_> = rows[lane..].iter().step_by(8).cloned().collect();
        let sink = Arc::clone(&sink);
        async move {
            for some in rows.chunks(7) {
                publish_well(&*sink, some).await;
            }
        }
    });
    futures::future::join_all(by_lane).await;
    sink.close().await;
    let published = fixture.published(rows.len()).await?;
    let ids: BTreeSet<_> = published.iter().map(|m| m.id.as_str()).collect();
    assert_eq!((ids.len(), published.len()), (rows.len(), rows.len()));
    Ok(())
}

/// One test for each duty of a sink, with the fixture that the expression makes.
#[macro_export]
macro_rules! sink_conformance {
    ($fixture:expr) => {
        $crate::sink_conformance!(
            $fixture,
            publishes_contents,
            keeps_lanes_in_order,
            holds_a_lane_behind_a_failure,
            publishing_again_is_recognisable,
            takes_calls_side_by_side,
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
