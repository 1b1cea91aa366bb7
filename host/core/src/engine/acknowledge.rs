//! Acknowledge: only the contiguous prefix of each partition, only after every message in it
//! is recorded.

use std::collections::{BTreeMap, HashMap};

use crate::{Partition, Position};

/// Tracks which messages of each partition are still on their way.
#[derive(Debug, Default)]
pub(super) struct Watermarks {
    partitions: HashMap<Partition, Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Offsets in flight. An offset counts twice if it was delivered again meanwhile.
    in_flight: BTreeMap<u64, u32>,
    highest: u64,
    /// Whether the prefix has grown since it was last taken.
    moved: bool,
}

impl Progress {
    /// The last offset of the prefix that is recorded as a whole.
    fn watermark(&self) -> Option<u64> {
        match self.in_flight.first_key_value() {
            None => Some(self.highest),
            Some((first, _)) => first.checked_sub(1),
        }
    }
}

impl Watermarks {
    /// A message was received.
    pub(super) fn begin(&mut self, position: &Position) {
        let progress = match self.partitions.get_mut(&position.partition) {
            Some(progress) => progress,
            None => self
                .partitions
                .entry(position.partition.clone())
                .or_default(),
        };
        *progress.in_flight.entry(position.offset).or_default() += 1;
        progress.highest = progress.highest.max(position.offset);
    }

    /// A message's record is durable.
    pub(super) fn finish(&mut self, position: &Position) {
        let Some(progress) = self.partitions.get_mut(&position.partition) else {
            return;
        };
        let Some(count) = progress.in_flight.get_mut(&position.offset) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            let first = progress
                .in_flight
                .first_key_value()
                .map(|(offset, _)| *offset);
            progress.in_flight.remove(&position.offset);
            progress.moved |= first == Some(position.offset);
        }
    }

    /// What may be acknowledged and was not taken before.
    pub(super) fn take(&mut self) -> Vec<Position> {
        let moved = self
            .partitions
            .iter_mut()
            .filter(|(_, progress)| progress.moved);
        moved
            .filter_map(|(partition, progress)| {
                progress.moved = false;
                let offset = progress.watermark()?;
                Some(Position {
                    partition: partition.clone(),
                    offset,
                })
            })
            .collect()
    }

    /// Whether there is anything to take.
    pub(super) fn moved(&self) -> bool {
        self.partitions.values().any(|progress| progress.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position {
            partition: Partition::new("p"),
            offset,
        }
    }

    #[test]
    fn only_the_recorded_prefix_is_acknowledged() {
        let mut marks = Watermarks::default();
        (1..=4).for_each(|offset| marks.begin(&at(offset)));
        marks.finish(&at(2));
        assert!(
            !marks.moved() && marks.take().is_empty(),
            "1 is still in flight"
        );
        marks.finish(&at(1));
        assert_eq!(marks.take(), [at(2)]);
        marks.finish(&at(4));
        assert!(marks.take().is_empty());
        marks.finish(&at(3));
        assert_eq!(marks.take(), [at(4)]);
        assert!(marks.take().is_empty());
    }

    #[test]
    fn gaps_in_offsets_are_no_obstacle() {
        let mut marks = Watermarks::default();
        [10, 20, 30]
            .iter()
            .for_each(|&offset| marks.begin(&at(offset)));
        marks.finish(&at(10));
        assert_eq!(marks.take(), [at(19)]);
        marks.finish(&at(20));
        marks.finish(&at(30));
        assert_eq!(marks.take(), [at(30)]);
    }

    #[test]
    fn a_redelivery_in_flight_holds_the_watermark() {
        let mut marks = Watermarks::default();
        [1, 2, 1]
            .iter()
            .for_each(|&offset| marks.begin(&at(offset)));
        marks.finish(&at(1));
        marks.finish(&at(2));
        assert!(marks.take().is_empty());
        marks.finish(&at(1));
        assert_eq!(marks.take(), [at(2)]);
    }
}
