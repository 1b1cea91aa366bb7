//! For each rule, the small world in which the protocol without it fails, and what fails.

use crate::invariants::{
    COUNTED, FINAL, INVISIBLE, LANE_ORDER, ONCE, RECORDED, SAME_MESSAGE, SENT_IN_ORDER,
    SERIALIZABLE, SETTLED, WHOLE,
};
use crate::retention::{ONCE_FOR_GOOD, Retention, RetentionRule};
use crate::scenarios::{
    A, B, C, CALM, CRASH, D, LOST, ZOMBIE, apart, batch_and, checked_back, flaky, given_up,
    retention, succeeds, wild, world,
};
use crate::transactional::{DELIVERED, NO_PHANTOM, Transactional, TransactionalRule};
use crate::{Faults, Handler, Message, Protocol, Rule, Rules, StateKey};

/// The world and the invariant for a rule of the protocol.
pub fn of(rule: Rule) -> (Protocol, &'static str) {
    use Handler::{Add, AddAndCopy, Copy, Delete, Increment, IncrementBoth, Put};
    use Handler::{RejectsUnequal, RetriesUnequal};
    use StateKey::{X, Y};
    let payloads = [flaky(0, A), succeeds(1, A).other_payload()];
    let duplicates = [wild(0, A), wild(1, A)];
    let lane = [
        flaky(0, A).lane(0),
        succeeds(1, B).lane(0),
        succeeds(2, C).lane(0),
    ];
    let sent = succeeds(0, A).lane(0).sends();
    let lost_publish = Faults {
        lost_publishes: 1,
        ..CALM
    };
    let operator = Faults {
        operations: 1,
        ..ZOMBIE
    };
    let (protocol, invariant) = match rule {
        Rule::MismatchIsBuriedByTheCheck
        | Rule::CommitTestsPayload
        | Rule::CommitTestsParkedPayload
        | Rule::BuriedIsDurable => (world(&payloads, CALM), RECORDED),
        Rule::CommitTestsDone => (world(&duplicates, CALM), ONCE),
        Rule::CommitTestsDead => (world(&duplicates, CALM), FINAL),
        Rule::ParkingCompares => (world(&duplicates, CALM), COUNTED),
        Rule::ExhaustionCompares => {
            let protocol = world(&duplicates[..1], operator);
            (
                Protocol {
                    attempts: 1,
                    ..protocol
                },
                COUNTED,
            )
        }
        Rule::VersionsAreUnique => (world(&[flaky(0, A)], operator), COUNTED),
        Rule::DoneDeletesTheRow => (world(&duplicates[..1], CALM), ONCE),
        Rule::LaneRunsInOrder | Rule::CommitTestsLane => (world(&lane[..2], CALM), LANE_ORDER),
        Rule::WaitingKeepsItsPlace | Rule::RefusalHoldsTheWaiting => {
            let protocol = Protocol {
                window: 3,
                ..world(&lane, CALM)
            };
            (protocol, LANE_ORDER)
        }
        Rule::RefusalHoldsTheLane => {
            let mut topic = batch_and(Increment, Handler::Succeeds, Put(7));
            topic[..2]
                .iter_mut()
                .for_each(|message| message.lane = Some(0));
            (world(&topic, CALM), LANE_ORDER)
        }
        Rule::ReadsAreTested => (world(&apart(Increment, Increment), CALM), SERIALIZABLE),
        Rule::UnwrittenReadsAreTested => {
            (world(&apart(Copy(X, Y), Copy(Y, X)), CALM), SERIALIZABLE)
        }
        Rule::RejectionTestsReads => (
            world(&apart(IncrementBoth, RejectsUnequal), CALM),
            SERIALIZABLE,
        ),
        Rule::ParkingTestsReads => (
            world(&apart(IncrementBoth, RetriesUnequal), CALM),
            SERIALIZABLE,
        ),
        Rule::EffectsWithRecord => (world(&[succeeds(0, A)], CRASH), ONCE),
        Rule::OutboxWithRecord | Rule::PublishedIsDeleted => (world(&[sent], CRASH), WHOLE),
        Rule::RowsOfTheWinner => (world(&[sent], ZOMBIE), SAME_MESSAGE),
        Rule::OwnRunIsRecognised => {
            let faults = Faults {
                resent: 1,
                operations: 1,
                ..LOST
            };
            (world(&[Message::new(0, A, Handler::Rejects)], faults), ONCE)
        }
        Rule::VersionsNeverRestart => {
            let topic = [
                Message::new(0, A, Put(5)),
                Message::new(1, B, Delete),
                Message::new(2, C, Put(9)),
                Message::new(0, D, Copy(X, Y)).partition(1),
            ];
            (world(&topic, CALM), SERIALIZABLE)
        }
        Rule::AdditionsBumpTheVersion => (world(&apart(Add(5), Increment), CALM), SERIALIZABLE),
        Rule::AdditionsAddAtTheCommit => (world(&apart(Add(3), Add(5)), CALM), SERIALIZABLE),
        Rule::StagingTestsReads | Rule::OverlayReadsAreTested | Rule::VersionsAreNotGuessed => {
            let topic = batch_and(Copy(Y, X), Increment, AddAndCopy(5));
            (world(&topic, CALM), SERIALIZABLE)
        }
        Rule::UnknownIsCheckedAgain => (world(&[succeeds(0, A)], LOST), RECORDED),
        Rule::AcknowledgedIsDurable => (world(&[succeeds(0, A)], CRASH), RECORDED),
        Rule::PrefixIsAcknowledged => (world(&[succeeds(0, A), succeeds(1, B)], CALM), RECORDED),
        Rule::DeadLetterFreesTheLane => {
            let topic = [wild(0, A).lane(0), succeeds(1, B).lane(0)];
            (world(&topic, CALM), SETTLED)
        }
        Rule::WaitingIsTakenUp => (world(&lane[..2], CALM), SETTLED),
        Rule::DroppedLeavesATombstone => (world(&duplicates, operator), FINAL),
        Rule::CommittedIsPublished => (world(&[sent], CALM), INVISIBLE),
        Rule::ConfirmedIsDeleted => (world(&[sent], lost_publish), WHOLE),
        Rule::LowestIsPublished => {
            let topic = [sent, succeeds(1, B).lane(0).sends()];
            (world(&topic, CALM), SENT_IN_ORDER)
        }
        Rule::IdOfTheMessage => (world(&[sent], lost_publish), SAME_MESSAGE),
        Rule::SweepBeginsAtTheLowest => {
            let protocol = world(&[sent], lost_publish);
            (
                Protocol {
                    hosts: 1,
                    ..protocol
                },
                SETTLED,
            )
        }
        Rule::PrefixIsDelivered => (world(&lane[..2], ZOMBIE), LANE_ORDER),
    };
    let rules = Rules::without(rule);
    (Protocol { rules, ..protocol }, invariant)
}

/// The same for a rule of retention.
pub fn of_retention(rule: RetentionRule) -> (Retention, &'static str) {
    (retention(Rules::without(rule)), ONCE_FOR_GOOD)
}

/// The same for a rule of transactional delivery.
pub fn of_transactional(rule: TransactionalRule) -> (Transactional, &'static str) {
    let rules = Rules::without(rule);
    match rule {
        TransactionalRule::HalfBearsTheRun | TransactionalRule::AbsentIsNotCommitted => {
            (checked_back(rules), NO_PHANTOM)
        }
        TransactionalRule::RowIsKept | TransactionalRule::SentIsNotConfirmed => {
            (given_up(rules), DELIVERED)
        }
        _ => (checked_back(rules), DELIVERED),
    }
}
