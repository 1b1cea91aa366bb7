//! The small worlds in which all that can happen is explored.

use crate::invariants::{ALL_DONE, EXHAUSTED, MISMATCHED, RETRIED, SENT_AGAIN, WAITED};
use crate::retention::{Retention, RetentionRule};
use crate::transactional::{Transactional, TransactionalRule};
use crate::{Faults, Handler, Message, Protocol, Rules, StateKey};

/// A small world.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is about.
    pub name: &'static str,
    /// The model.
    pub protocol: Protocol,
    /// What must happen in it, lest it prove nothing.
    pub reaches: &'static [&'static str],
    /// Whether it is quickly searched for cycles, too.
    pub is_tiny: bool,
}

pub(crate) const A: u8 = 0;
pub(crate) const B: u8 = 1;
pub(crate) const C: u8 = 2;
pub(crate) const D: u8 = 3;

pub(crate) const CALM: Faults = Faults {
    crashes: 0,
    zombies: 0,
    lost_replies: 0,
    resent: 0,
    lost_publishes: 0,
    operations: 0,
};
pub(crate) const CRASH: Faults = Faults { crashes: 1, ..CALM };
pub(crate) const ZOMBIE: Faults = Faults { zombies: 1, ..CALM };
pub(crate) const LOST: Faults = Faults {
    lost_replies: 1,
    ..CALM
};

/// Two hosts, two messages in flight, two attempts.
pub(crate) fn world(topic: &[Message], faults: Faults) -> Protocol {
    Protocol {
        topic: topic.to_vec(),
        hosts: 2,
        window: 2,
        attempts: 2,
        faults,
        rules: Rules::ALL,
    }
}

pub(crate) const fn flaky(offset: u8, key: u8) -> Message {
    Message::new(offset, key, Handler::Flaky)
}

pub(crate) const fn wild(offset: u8, key: u8) -> Message {
    Message::new(offset, key, Handler::Wild)
}

pub(crate) const fn succeeds(offset: u8, key: u8) -> Message {
    Message::new(offset, key, Handler::Succeeds)
}

/// Handlers of which each message is handled by another host.
pub(crate) fn apart(first: Handler, second: Handler) -> Vec<Message> {
    vec![
        Message::new(0, A, first),
        Message::new(0, B, second).partition(1),
    ]
}

/// Handlers whose runs form one batch, and one on another host.
pub(crate) fn batch_and(first: Handler, second: Handler, other: Handler) -> Vec<Message> {
    vec![
        Message::new(0, A, first),
        Message::new(1, B, second),
        Message::new(0, C, other).partition(1),
    ]
}

fn scenario(name: &'static str, protocol: Protocol, reaches: &'static [&'static str]) -> Scenario {
    Scenario {
        name,
        protocol,
        reaches,
        is_tiny: TINY.contains(&name),
    }
}

/// State, parking, a lane and the outbox together.
fn composed() -> [Message; 2] {
    [
        Message::new(0, A, Handler::FlakyIncrement).lane(0).sends(),
        Message::new(1, B, Handler::Increment).lane(0).sends(),
    ]
}

/// Worlds that are searched for cycles, too.
const TINY: &[&str] = &[
    "duplicates: a crash",
    "payloads: a lost reply",
    "lane of two: a lost reply",
    "reads: through the batch",
    "relays: a crash, a lost confirmation",
];

/// What is explored on every test run.
pub fn small() -> Vec<Scenario> {
    use Handler::{Add, AddAndCopy, Copy, Delete, Increment, IncrementBoth, Put};
    use Handler::{RejectsUnequal, RetriesUnequal};
    use StateKey::{X, Y};
    let zombie_or_lost = Faults {
        lost_replies: 1,
        ..ZOMBIE
    };
    let lane = [
        wild(0, A).lane(0),
        succeeds(1, B).lane(0),
        succeeds(2, C).lane(0),
    ];
    let sends = [
        succeeds(0, A).lane(0).sends(),
        succeeds(1, B).lane(0).sends(),
    ];
    vec![
        scenario(
            "duplicates: a crash",
            world(&[flaky(0, A), flaky(1, A)], CRASH),
            &[ALL_DONE, RETRIED, EXHAUSTED],
        ),
        scenario(
            "duplicates: a zombie",
            world(&[flaky(0, A), flaky(1, A)], ZOMBIE),
            &[ALL_DONE, RETRIED, EXHAUSTED],
        ),
        scenario(
            "one message: a crash, a zombie, a lost reply",
            world(
                &[flaky(0, A)],
                Faults {
                    crashes: 1,
                    ..zombie_or_lost
                },
            ),
            &[ALL_DONE, RETRIED, EXHAUSTED],
        ),
        scenario(
            "payloads: a lost reply",
            world(&[wild(0, A), wild(1, A).other_payload()], LOST),
            &[MISMATCHED, RETRIED, EXHAUSTED],
        ),
        scenario(
            "payloads: a zombie",
            world(&[flaky(0, A), succeeds(1, A).other_payload()], ZOMBIE),
            &[MISMATCHED, RETRIED, EXHAUSTED],
        ),
        scenario(
            "operator: a lost reply, sent again",
            world(
                &[Message::new(0, A, Handler::Rejects), succeeds(1, A)],
                Faults {
                    resent: 1,
                    operations: 1,
                    ..LOST
                },
            ),
            &[],
        ),
        scenario(
            "lane of two: a zombie",
            world(&[flaky(0, A).lane(0), succeeds(1, B).lane(0)], ZOMBIE),
            &[ALL_DONE, RETRIED, WAITED],
        ),
        scenario(
            "lane of two: a lost reply",
            world(&[flaky(0, A).lane(0), succeeds(1, B).lane(0)], LOST),
            &[ALL_DONE, RETRIED, WAITED],
        ),
        scenario(
            "lane of three",
            world(&lane, CALM),
            &[ALL_DONE, RETRIED, WAITED],
        ),
        scenario(
            "reads: torn",
            world(&apart(IncrementBoth, RejectsUnequal), CRASH),
            &[ALL_DONE],
        ),
        scenario(
            "reads: torn, then again",
            world(&apart(IncrementBoth, RetriesUnequal), LOST),
            &[ALL_DONE],
        ),
        scenario(
            "reads: each other's writes",
            world(&apart(Copy(X, Y), Copy(Y, X)), LOST),
            &[ALL_DONE],
        ),
        scenario(
            "reads: through the batch",
            world(&batch_and(Copy(Y, X), Increment, AddAndCopy(5)), CALM),
            &[ALL_DONE],
        ),
        scenario(
            "reads: additions",
            world(&batch_and(Add(3), Increment, Add(5)), CALM),
            &[ALL_DONE],
        ),
        scenario(
            "reads: deleted and written anew",
            world(
                &[
                    Message::new(0, A, Put(5)),
                    Message::new(1, B, Delete),
                    Message::new(2, C, Put(9)),
                    Message::new(0, D, Copy(X, Y)).partition(1),
                ],
                CALM,
            ),
            &[ALL_DONE],
        ),
        scenario(
            "relays: a crash, a lost confirmation",
            world(
                &[
                    succeeds(0, A).lane(0).sends(),
                    succeeds(1, B).lane(0).sends(),
                ],
                Faults {
                    lost_publishes: 1,
                    ..CRASH
                },
            ),
            &[ALL_DONE, SENT_AGAIN],
        ),
        scenario(
            "relays: a zombie",
            world(&sends, ZOMBIE),
            &[ALL_DONE, SENT_AGAIN],
        ),
        scenario(
            "composed: state, lane and outbox; a zombie, a lost confirmation",
            world(
                &[
                    Message::new(0, A, Increment).lane(0).sends(),
                    Message::new(1, B, Copy(X, Y)).lane(0).sends(),
                ],
                Faults {
                    lost_publishes: 1,
                    ..ZOMBIE
                },
            ),
            &[ALL_DONE, SENT_AGAIN],
        ),
        scenario(
            "composed: state, parking, lane and outbox",
            world(&composed(), CALM),
            &[ALL_DONE, RETRIED, WAITED],
        ),
    ]
}

/// Larger worlds, for a machine with time: each takes minutes and gigabytes.
pub fn large() -> Vec<Scenario> {
    let lane = [
        flaky(0, A).lane(0),
        succeeds(1, B).lane(0),
        succeeds(2, C).lane(0),
    ];
    let crash_and_zombie = Faults {
        crashes: 1,
        ..ZOMBIE
    };
    vec![
        scenario(
            "duplicates: a crash, a zombie",
            world(&[flaky(0, A), flaky(1, A)], crash_and_zombie),
            &[ALL_DONE, RETRIED, EXHAUSTED],
        ),
        scenario(
            "lane of two: a zombie, a lost reply",
            world(
                &lane[..2],
                Faults {
                    lost_replies: 1,
                    ..ZOMBIE
                },
            ),
            &[ALL_DONE, RETRIED, WAITED],
        ),
        scenario(
            "lane of three: a zombie",
            Protocol {
                window: 3,
                ..world(&lane, ZOMBIE)
            },
            &[ALL_DONE, RETRIED, WAITED],
        ),
        scenario(
            "composed: state, parking, lane and outbox; a zombie",
            world(&composed(), ZOMBIE),
            &[ALL_DONE, RETRIED, WAITED, SENT_AGAIN],
        ),
    ]
}

/// Three hosts that handle one message while time passes.
pub fn retention(rules: Rules<RetentionRule>) -> Retention {
    Retention { hosts: 3, rules }
}

/// Transactional delivery that relies on the broker, which has checks enough.
pub fn checked_back(rules: Rules<TransactionalRule>) -> Transactional {
    Transactional {
        hosts: 2,
        checks: 2,
        early: 2,
        faults: 1,
        outbox: false,
        rules,
    }
}

/// Transactional delivery whose broker gives up early, with the outbox to fall back on.
pub fn given_up(rules: Rules<TransactionalRule>) -> Transactional {
    Transactional {
        checks: 1,
        early: 1,
        faults: 2,
        outbox: true,
        ..checked_back(rules)
    }
}
