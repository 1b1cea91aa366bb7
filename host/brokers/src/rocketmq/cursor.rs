//! Whether a queue was handed over without a gap.
//!
//! Offsets of a queue are contiguous. The client has lost messages where a queue went to
//! another consumer and came back (apache/rocketmq#2732, #1470, #10176), so what it hands over
//! is checked here, and sought again where something is missing.

/// How often the same gap is sought before it is believed: a broker deletes old messages.
const SEEKS: u32 = 3;

/// What this consumer has of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// The offset after the last one handed over.
    next: u64,
    /// The start of the last gap, and how often it was sought.
    sought: Option<(u64, u32)>,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Hand it over.
    Take,
    /// Go back to this offset first.
    SeekTo(u64),
    /// Hand it over: what is missing before it, from this offset on, is not there any more.
    TakeAfterHole(u64),
}

impl Cursor {
    /// A queue from which the group's first message to come is `next`.
    pub(super) fn new(next: u64) -> Self {
        Self { next, sought: None }
    }

    /// Whether a message at `offset` leaves a gap that has to be looked into.
    pub(super) fn is_gap(&self, offset: u64) -> bool {
        offset > self.next
    }

    /// Looks at the message at `offset`, where the group has committed everything below
    /// `committed`. Only the committed offset of a gap matters.
    pub(super) fn step(&mut self, offset: u64, committed: Option<u64>) -> Step {
        // Below `next` it is a redelivery. Below `committed` another consumer had the queue.
        let missing = self.next.max(committed.unwrap_or(0));
        if offset <= missing {
            self.next = offset + 1;
            return Step::Take;
        }
        let seeks = match self.sought {
            Some((start, seeks)) if start == missing => seeks,
            _ => 0,
        };
        if seeks >= SEEKS {
            self.sought = None;
            self.next = offset + 1;
            return Step::TakeAfterHole(missing);
        }
        self.sought = Some((missing, seeks + 1));
        Step::SeekTo(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_contiguous_or_comes_again_is_taken() {
        let mut cursor = Cursor::new(5);
        for offset in [5, 6, 7, 3, 4, 5, 6, 7, 8] {
            assert!(!cursor.is_gap(offset));
            assert_eq!(cursor.step(offset, None), Step::Take);
        }
    }

    #[test]
    fn a_gap_is_sought_and_then_read() {
        let mut cursor = Cursor::new(5);
        assert!(cursor.is_gap(7));
        assert_eq!(cursor.step(7, Some(2)), Step::SeekTo(5));
        assert_eq!(cursor.step(5, None), Step::Take);
        assert_eq!(cursor.step(6, None), Step::Take);
        assert_eq!(cursor.step(7, None), Step::Take);
    }

    #[test]
    fn what_another_consumer_committed_is_no_gap() {
        let mut cursor = Cursor::new(5);
        assert_eq!(cursor.step(9, Some(9)), Step::Take);
        assert_eq!(cursor.step(12, Some(11)), Step::SeekTo(11));
    }

    #[test]
    fn what_the_broker_deleted_is_passed_over_in_the_end() {
        let mut cursor = Cursor::new(0);
        for _ in 0..SEEKS {
            assert_eq!(cursor.step(100, Some(0)), Step::SeekTo(0));
        }
        assert_eq!(cursor.step(100, Some(0)), Step::TakeAfterHole(0));
        assert_eq!(cursor.step(101, None), Step::Take);
    }
}
