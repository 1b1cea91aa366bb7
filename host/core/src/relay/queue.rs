//! Which rows may be published now: those that are due, to destinations that are neither busy
//! nor resting, and of a lane only the lowest ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::{OutboxLane, OutboxRow, RowId};

/// A destination is left in peace for at most this many times the first pause.
const LONGEST_PAUSE: u32 = 64;

/// Rows that the relay holds.
#[derive(Default)]
pub(super) struct Queue {
    /// To be published, lowest first.
    ready: BTreeMap<RowId, OutboxRow>,
    /// Not due yet, by time.
    delayed: BTreeMap<(u64, RowId), OutboxRow>,
    destinations: BTreeMap<Arc<str>, Destination>,
    /// Lanes of which a row is being published.
    busy_lanes: BTreeSet<OutboxLane>,
}

#[derive(Default)]
struct Destination {
    /// Rows are being published there.
    busy: bool,
    /// It failed: nothing is published there before.
    rests_until: Option<Instant>,
    pause: Duration,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.delayed.len()
    }

    pub(super) fn contains(&self, row: &OutboxRow) -> bool {
        self.ready.contains_key(&row.id) || self.delayed.contains_key(&(row.due_ms, row.id))
    }

    pub(super) fn insert(&mut self, row: OutboxRow) {
        self.ready.insert(row.id, row);
    }

    /// Keeps a row until it is due.
    pub(super) fn delay(&mut self, row: OutboxRow) {
        self.delayed.insert((row.due_ms, row.id), row);
    }

    /// Rows whose time has come may be published.
    pub(super) fn release(&mut self, now_ms: u64) {
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now_ms
        {
            let row = first.remove();
            self.ready.insert(row.id, row);
        }
    }

    /// When the first delayed row is due, in milliseconds since 1970-01-01 UTC.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// Rows to publish now, for each destination at most `limit`. A lane's rows go out in
    /// order, also where they go to several destinations.
    pub(super) fn take(&mut self, limit: usize, now: Instant) -> Vec<(Arc<str>, Vec<OutboxRow>)> {
        let mut taken: BTreeMap<Arc<str>, Vec<RowId>> = BTreeMap::new();
        let mut lanes: BTreeMap<&OutboxLane, &Arc<str>> = BTreeMap::new();
        let mut held: BTreeSet<&OutboxLane> = BTreeSet::new();
        for (id, row) in &self.ready {
            let destination = &row.outgoing.destination;
            let lane_goes_on = row.lane.as_ref().is_none_or(|lane| {
                !held.contains(lane)
                    && !self.busy_lanes.contains(lane)
                    && lanes.get(lane).is_none_or(|other| *other == destination)
            });
            let full = taken.get(destination).is_some_and(|ids| ids.len() == limit);
            if lane_goes_on && !full && self.is_free(destination, now) {
                taken.entry(Arc::clone(destination)).or_default().push(*id);
                lanes.extend(row.lane.as_ref().map(|lane| (lane, destination)));
            } else {
                held.extend(&row.lane);
            }
        }
        let taken = taken.into_iter().map(|(destination, ids)| {
            let rows: Vec<OutboxRow> = ids.iter().filter_map(|id| self.ready.remove(id)).collect();
            self.busy_lanes
                .extend(rows.iter().filter_map(|row| row.lane.clone()));
            self.destinations
                .entry(Arc::clone(&destination))
                .or_default()
                .busy = true;
            (destination, rows)
        });
        taken.collect()
    }

    /// Rows that were taken are back from their destination.
    pub(super) fn returned(&mut self, destination: &Arc<str>, rows: &[OutboxRow]) {
        for lane in rows.iter().filter_map(|row| row.lane.as_ref()) {
            self.busy_lanes.remove(lane);
        }
        if let Some(destination) = self.destinations.get_mut(destination) {
            destination.busy = false;
        }
    }

    /// A destination took everything.
    pub(super) fn succeeded(&mut self, destination: &Arc<str>) {
        self.destinations.remove(destination);
    }

    /// A destination failed: lets it rest, each time twice as long, and says how long.
    pub(super) fn failed(
        &mut self,
        destination: &Arc<str>,
        first_pause: Duration,
        now: Instant,
    ) -> Duration {
        let destination = self
            .destinations
            .entry(Arc::clone(destination))
            .or_default();
        let pause = (destination.pause * 2).clamp(first_pause, first_pause * LONGEST_PAUSE);
        destination.pause = pause;
        destination.rests_until = Some(now + pause);
        pause
    }

    /// When a resting destination may be tried again.
    pub(super) fn next_try(&self, now: Instant) -> Option<Instant> {
        let rests = self
            .destinations
            .values()
            .filter(|destination| !destination.busy);
        rests
            .filter_map(|destination| destination.rests_until)
            .filter(|until| *until > now)
            .min()
    }

    fn is_free(&self, destination: &Arc<str>, now: Instant) -> bool {
        self.destinations
            .get(destination)
            .is_none_or(|found| !found.busy && found.rests_until.is_none_or(|until| until <= now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lane, MessageId, Outgoing, PluginName, RecordId};

    fn row(version: u64, destination: &str, lane: Option<&str>) -> OutboxRow {
        let plugin = PluginName::new("p");
        let record = RecordId {
            plugin: plugin.clone(),
            key: crate::BusinessKey::new(version.to_string()),
        };
        OutboxRow {
            id: RowId {
                version,
                ordinal: 0,
            },
            message_id: MessageId::derive(&record, 0),
            lane: lane.map(|lane| OutboxLane {
                plugin: plugin.clone(),
                lane: Lane::new(lane.to_owned()),
            }),
            plugin,
            due_ms: 0,
            outgoing: Outgoing {
                destination: destination.into(),
                key: None,
                headers: Vec::new(),
                body: Default::default(),
                delay_ms: None,
            },
        }
    }

    fn queue(rows: &[(u64, &str, Option<&str>)]) -> Queue {
        let mut queue = Queue::default();
        for (version, destination, lane) in rows {
            queue.insert(row(*version, destination, *lane));
        }
        queue
    }

    fn versions(taken: &[(Arc<str>, Vec<OutboxRow>)]) -> Vec<(&str, Vec<u64>)> {
        let of = |rows: &[OutboxRow]| rows.iter().map(|row| row.id.version).collect();
        taken
            .iter()
            .map(|(name, rows)| (&**name, of(rows)))
            .collect()
    }

    #[test]
    fn a_lane_goes_to_one_destination_at_a_time() {
        let mut queue = queue(&[
            (1, "a", Some("l")),
            (2, "b", Some("l")),
            (3, "a", Some("l")),
        ]);
        let now = Instant::now();
        let first = queue.take(10, now);
        assert_eq!(
            versions(&first),
            [("a", vec![1])],
            "2 waits for 1, and 3 for 2"
        );
        assert!(queue.take(10, now).is_empty());
        queue.returned(&first[0].0, &first[0].1);
        assert_eq!(versions(&queue.take(10, now)), [("b", vec![2])]);
    }

    #[test]
    fn a_resting_destination_holds_its_lanes_and_nothing_else() {
        let mut queue = queue(&[(1, "a", Some("l")), (2, "b", Some("l")), (3, "b", None)]);
        let now = Instant::now();
        let pause = queue.failed(&"a".into(), Duration::from_secs(1), now);
        assert_eq!(versions(&queue.take(10, now)), [("b", vec![3])]);
        assert_eq!(queue.next_try(now), Some(now + pause));
        assert_eq!(versions(&queue.take(10, now + pause)), [("a", vec![1])]);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_end_with_success() {
        let mut queue = Queue::default();
        let (a, second) = (Arc::from("a"), Duration::from_secs(1));
        let now = Instant::now();
        let pauses: Vec<_> = (0..8)
            .map(|_| queue.failed(&a, second, now).as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64]);
        queue.succeeded(&a);
        assert_eq!(queue.failed(&a, second, now), second);
    }
}
