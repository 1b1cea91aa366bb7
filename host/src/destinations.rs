//! Where the names that plugins publish to lead.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use semel_core::{OutboxLane, OutboxRow, Sink, SinkError};

/// Sends each outgoing message to the sink of its destination.
#[derive(Default)]
pub struct Router {
    sinks: Vec<Arc<dyn Sink>>,
    /// Indices into `sinks`.
    routes: HashMap<Arc<str>, usize>,
}

/// Rows that go to one sink at one time: indices into the rows of the call.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    sink: usize,
    rows: Vec<usize>,
}

impl Router {
    /// Leads these destinations to a sink.
    pub fn add(&mut self, destinations: impl IntoIterator<Item = Arc<str>>, sink: Arc<dyn Sink>) {
        let index = self.sinks.len();
        self.sinks.push(sink);
        let routes = destinations.into_iter().map(|name| (name, index));
        self.routes.extend(routes);
    }

    /// The sink that a destination leads to.
    #[cfg(feature = "http")]
    pub fn sink_named(&self, destination: &str) -> Option<Arc<dyn Sink>> {
        let index = self.routes.get(destination)?;
        Some(Arc::clone(&self.sinks[*index]))
    }

    fn sink_of(&self, row: &OutboxRow) -> Option<usize> {
        self.routes.get(&row.outgoing.destination).copied()
    }

    /// Splits rows into waves that go out one after the other. Within a wave each lane goes to
    /// one sink, which keeps its order; where a lane changes the sink, it waits for the next
    /// wave. Rows that are mapped to nothing are in no wave.
    fn waves(&self, rows: &[OutboxRow]) -> Vec<Vec<Part>> {
        let mut waves: Vec<Vec<Part>> = Vec::new();
        let mut lanes: HashMap<&OutboxLane, (usize, usize)> = HashMap::new();
        for (at, row) in rows.iter().enumerate() {
            let Some(sink) = self.sink_of(row) else {
                continue;
            };
            let wave = match row.lane.as_ref().and_then(|lane| lanes.get(lane)) {
                None => 0,
                Some(&(wave, before)) => wave + usize::from(before != sink),
            };
            if let Some(lane) = &row.lane {
                lanes.insert(lane, (wave, sink));
            }
            if waves.len() == wave {
                waves.push(Vec::new());
            }
            match waves[wave].iter_mut().find(|part| part.sink == sink) {
                Some(part) => part.rows.push(at),
                None => waves[wave].push(Part {
                    sink,
                    rows: vec![at],
                }),
            }
        }
        waves
    }

    async fn publish_part(&self, sink: usize, part: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        if part.is_empty() {
            return Vec::new();
        }
        self.sinks[sink].publish(part).await
    }
}

#[async_trait]
impl Sink for Router {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        // The common case needs no copies.
        if let [sink] = self.sinks.as_slice()
            && rows.iter().all(|row| self.sink_of(row).is_some())
        {
            return sink.publish(rows).await;
        }
        let mut results = vec![Err(SinkError::Held); rows.len()];
        // For each lane that has failed, its first row that did.
        let mut failed: HashMap<&OutboxLane, usize> = HashMap::new();
        for (at, row) in rows.iter().enumerate() {
            if self.sink_of(row).is_none() {
                results[at] = Err(SinkError::Unmapped(row.outgoing.destination.to_string()));
                if let Some(lane) = &row.lane {
                    failed.entry(lane).or_insert(at);
                }
            }
        }
        for wave in self.waves(rows) {
            let parts = wave.into_iter().map(|mut part| {
                part.rows.retain(|at| {
                    let lane = rows[*at].lane.as_ref();
                    lane.and_then(|lane| failed.get(lane))
                        .is_none_or(|first| at < first)
                });
                let batch: Vec<OutboxRow> = part.rows.iter().map(|&at| rows[at].clone()).collect();
                async move { (self.publish_part(part.sink, &batch).await, part.rows) }
            });
            for (published, part) in join_all(parts.collect::<Vec<_>>()).await {
                for (result, at) in published.into_iter().zip(part) {
                    if let (Err(_), Some(lane)) = (&result, &rows[at].lane) {
                        let first = failed.entry(lane).or_insert(at);
                        *first = at.min(*first);
                    }
                    results[at] = result;
                }
            }
        }
        results
    }

    fn delays(&self, row: &OutboxRow) -> bool {
        self.sink_of(row)
            .is_some_and(|sink| self.sinks[sink].delays(row))
    }

    async fn close(&self) {
        join_all(self.sinks.iter().map(|sink| sink.close())).await;
    }
}

/// The destinations that a plugin is granted: those that are mapped, and of them only those
/// that the operator allows it. None means any. An error names what is allowed and not mapped.
pub fn granted(
    mapped: Option<&HashSet<Arc<str>>>,
    allowed: Option<&[String]>,
) -> Result<Option<Vec<Arc<str>>>, String> {
    let Some(allowed) = allowed else {
        return Ok(mapped.map(|mapped| mapped.iter().cloned().collect()));
    };
    let names: Vec<Arc<str>> = allowed.iter().map(|name| name.as_str().into()).collect();
    if let Some(mapped) = mapped
        && let Some(missing) = names.iter().find(|name| !mapped.contains(*name))
    {
        return Err(missing.to_string());
    }
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use semel_core::memory::{Fate, MemorySink};
    use semel_core::{BusinessKey, Lane, MessageId, Outgoing, PluginName, RecordId, RowId};

    fn row(version: u64, destination: &str, lane: Option<&str>) -> OutboxRow {
        let plugin = PluginName::new("p");
        let record = RecordId {
            plugin: plugin.clone(),
            key: BusinessKey::new(version.to_string()),
        };
        OutboxRow {
            id: RowId {
                version,
                ordinal: 0,
            },
            plugin: plugin.clone(),
            message_id: MessageId::derive(&record, 0),
            lane: lane.map(|lane| OutboxLane {
                plugin,
                lane: Lane::new(lane.to_owned()),
            }),
            due_ms: 0,
            outgoing: Outgoing {
                destination: destination.into(),
                key: None,
                headers: vec![],
                body: bytes::Bytes::new(),
                delay_ms: None,
            },
        }
    }

    fn router() -> (Router, MemorySink, MemorySink) {
        let (a, b) = (MemorySink::new(), MemorySink::new());
        let mut router = Router::default();
        router.add(["a".into()], Arc::new(a.clone()));
        router.add(["b".into()], Arc::new(b.clone()));
        (router, a, b)
    }

    fn versions(sink: &MemorySink) -> Vec<u64> {
        sink.published().iter().map(|row| row.id.version).collect()
    }

    #[tokio::test]
    async fn every_row_goes_to_its_destination() {
        let (router, a, b) = router();
        let rows = [row(1, "a", None), row(2, "b", None), row(3, "a", None)];
        let results = router.publish(&rows).await;
        assert!(results.iter().all(Result::is_ok));
        assert_eq!((versions(&a), versions(&b)), (vec![1, 3], vec![2]));
    }

    #[tokio::test]
    async fn a_lane_waits_for_a_row_that_failed_in_another_sink() {
        let (router, a, b) = router();
        b.decide(|_| Fate::Fail(SinkError::Unavailable("down".into())));
        let rows = [
            row(1, "a", Some("l")),
            row(2, "b", Some("l")),
            row(3, "a", Some("l")),
            row(4, "a", Some("other")),
        ];
        let results = router.publish(&rows).await;
        assert!(results[0].is_ok() && results[3].is_ok());
        assert!(matches!(results[1], Err(SinkError::Unavailable(_))));
        assert!(matches!(results[2], Err(SinkError::Held)));
        assert_eq!(versions(&a), [1, 4]);
    }

    #[tokio::test]
    async fn what_is_mapped_to_nothing_holds_its_lane() {
        let (router, a, _) = router();
        let rows = [
            row(1, "a", Some("l")),
            row(2, "c", Some("l")),
            row(3, "a", Some("l")),
            row(4, "c", None),
        ];
        let results = router.publish(&rows).await;
        assert!(results[0].is_ok());
        assert!(matches!(results[1], Err(SinkError::Unmapped(_))));
        assert!(matches!(results[2], Err(SinkError::Held)));
        assert!(matches!(results[3], Err(SinkError::Unmapped(_))));
        assert_eq!(versions(&a), [1]);
    }

    #[test]
    fn a_plugin_is_granted_what_is_mapped_and_allowed() {
        let mapped: HashSet<Arc<str>> = ["a".into(), "b".into()].into();
        let names = |granted: Result<Option<Vec<Arc<str>>>, String>| {
            granted.map(|names| names.map(|names| names.len()))
        };
        let (a, c) = (["a".to_owned()], ["c".to_owned()]);
        assert_eq!(names(granted(None, None)), Ok(None));
        assert_eq!(names(granted(None, Some(&c))), Ok(Some(1)));
        assert_eq!(names(granted(Some(&mapped), None)), Ok(Some(2)));
        assert_eq!(names(granted(Some(&mapped), Some(&a))), Ok(Some(1)));
        assert_eq!(names(granted(Some(&mapped), Some(&c))), Err("c".into()));
    }
}
