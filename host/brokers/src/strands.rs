//! Rows that go out one after the other, beside others that need not wait for them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::OnceLock;

use futures::stream::{self, StreamExt};
use semel_core::{OutboxLane, OutboxRow, SinkError};

/// Why a row was not published.
pub(crate) struct Failure {
    pub(crate) error: SinkError,
    /// Whether the others need not be tried either.
    pub(crate) outage: bool,
}

impl Failure {
    /// One that goes for its row, or for its destination, alone.
    pub(crate) fn single(error: SinkError) -> Self {
        Self {
            error,
            outage: false,
        }
    }

    /// One that goes for all that is published there.
    pub(crate) fn outage(error: SinkError) -> Self {
        Self {
            error,
            outage: true,
        }
    }
}

/// Publishes rows, those of a lane one after the other and only once the one before is
/// confirmed, at most `in_flight` at a time.
///
/// To send a lane's rows without waiting would be faster, and wrong: where the first times out
/// and the second arrives, consumers see the second before the first.
pub(crate) async fn publish_strands<'r, F>(
    rows: &'r [OutboxRow],
    in_flight: usize,
    publish: impl Fn(&'r OutboxRow) -> F,
) -> Vec<Result<(), SinkError>>
where
    F: Future<Output = Result<(), Failure>>,
{
    // Once the broker is gone, what is left is not tried.
    let outage = OnceLock::new();
    let strands: Vec<_> = strands(rows)
        .into_iter()
        .map(|strand| publish_strand(rows, strand, &publish, &outage))
        .collect();
    let mut results = vec![Ok(()); rows.len()];
    let mut published = stream::iter(strands).buffer_unordered(in_flight);
    while let Some(strand) = published.next().await {
        for (at, result) in strand {
            results[at] = result;
        }
    }
    results
}

async fn publish_strand<'r, F>(
    rows: &'r [OutboxRow],
    strand: Vec<usize>,
    publish: &impl Fn(&'r OutboxRow) -> F,
    outage: &OnceLock<SinkError>,
) -> Vec<(usize, Result<(), SinkError>)>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut results = Vec::with_capacity(strand.len());
    let mut held = false;
    for at in strand {
        let result = match outage.get() {
            _ if held => Err(SinkError::Held),
            Some(outage) => Err(outage.clone()),
            None => publish(&rows[at]).await.map_err(|failure| {
                if failure.outage {
                    outage.get_or_init(|| failure.error.clone());
                }
                failure.error
            }),
        };
        held |= result.is_err();
        results.push((at, result));
    }
    results
}

/// The indices of rows: those of each lane together, in order, and each other one by itself.
fn strands(rows: &[OutboxRow]) -> Vec<Vec<usize>> {
    let mut strands: Vec<Vec<usize>> = Vec::new();
    let mut lanes: HashMap<&OutboxLane, usize> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        match &row.lane {
            Some(lane) => {
                let strand = *lanes.entry(lane).or_insert(strands.len());
                if strand == strands.len() {
                    strands.push(Vec::new());
                }
                strands[strand].push(at);
            }
            None => strands.push(vec![at]),
        }
    }
    strands
}
