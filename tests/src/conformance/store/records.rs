//! Records: what is handled once is not handled again.

use std::sync::Arc;

use semel_core::{Admin, Cause, CheckQuery, Fingerprint, OutboxScan, Outcome, RecordState};

use super::build::*;

/// A message that was never seen is handled, and known after.
pub async fn fresh_is_applied(store: Arc<dyn Admin>) {
    let run = done("k");
    assert_eq!(check(&store, &run.record).await.state, RecordState::Absent);
    let outcome = commit_one(&store, &run).await;
    assert!(version(&outcome) > 0);
    let expected = RecordState::Done {
        fingerprint: run.fingerprint,
        run: run.id,
        reply: None,
    };
    assert_eq!(check(&store, &run.record).await.state, expected);
    assert_eq!(store.record(&run.record).await.unwrap(), (expected, None));
}

/// Another run of the same message is dropped.
pub async fn second_is_a_duplicate(store: Arc<dyn Admin>) {
    apply(&store, &done("k").adding("n", 1)).await;
    let second = done("k").adding("n", 1);
    assert_eq!(commit_one(&store, &second).await, Outcome::Duplicate);
    apply(&store, &dead("d", Cause::Rejected)).await;
    assert_eq!(commit_one(&store, &done("d")).await, Outcome::Duplicate);
    assert_eq!(commit_one(&store, &park("d", 1)).await, Outcome::Duplicate);
    assert_eq!(text(&store, "n").await.as_deref(), Some("1"));
}

/// The same key with another payload is told apart.
pub async fn other_payload_is_a_mismatch(store: Arc<dyn Admin>) {
    apply(&store, &done("k")).await;
    let other = done("k").with_body(b"other").adding("n", 1);
    assert_eq!(commit_one(&store, &other).await, Outcome::Mismatch);
    assert_eq!(text(&store, "n").await, None);
    let found = check(&store, &record("k")).await.state.fingerprint();
    assert_eq!(found, Some(Fingerprint::of(b"body")));
}

/// Also where the record is dead.
pub async fn other_payload_of_a_dead_record_is_a_mismatch(store: Arc<dyn Admin>) {
    apply(&store, &dead("k", Cause::Rejected)).await;
    let other = done("k").with_body(b"other");
    assert_eq!(commit_one(&store, &other).await, Outcome::Mismatch);
}

/// Also where it is parked, whatever the verdict.
pub async fn other_payload_of_a_parked_record_is_a_mismatch(store: Arc<dyn Admin>) {
    let version = apply(&store, &park("k", 5)).await;
    for other in [
        done("k"),
        park("k", 9).found(version),
        dead("k", Cause::Rejected),
    ] {
        let other = other.with_body(b"other");
        assert_eq!(commit_one(&store, &other).await, Outcome::Mismatch);
    }
    assert_eq!(parked_version(&store, &record("k")).await, version);
}

/// A commit whose reply was lost is answered as the first time, and changes nothing.
pub async fn same_run_again_is_applied_with_the_same_version(store: Arc<dyn Admin>) {
    let run = done("k").adding("n", 1).publishing("m", None);
    let first = commit_one(&store, &run).await;
    apply(&store, &done("between").adding("n", 1)).await;
    assert_eq!(commit_one(&store, &run).await, first);
    assert_eq!(text(&store, "n").await.as_deref(), Some("2"));
    let all = OutboxScan {
        limit: 9,
        ..OutboxScan::default()
    };
    assert_eq!(store.outbox(&all).await.unwrap().len(), 1);
}

/// A whole batch too, even though its reads are stale by its own writes.
pub async fn whole_batch_again_is_applied_with_the_same_versions(store: Arc<dyn Admin>) {
    let batch = [
        done("a")
            .reading("x", 0, &[])
            .putting("x", "1")
            .in_lane("l", 1),
        done("b")
            .reading("x", 0, &[0])
            .putting("x", "2")
            .in_lane("l", 2),
        dead("c", Cause::Exhausted).in_lane("l", 3),
        done("d").publishing("m", None).in_lane("l", 4),
        park("e", 7).in_lane("l", 5),
        done("f").in_lane("l", 6),
    ];
    let first = commit(&store, &batch).await;
    assert_eq!(first.iter().filter(|outcome| applied(outcome)).count(), 5);
    assert_eq!(first[5], Outcome::Conflict);
    assert_eq!(commit(&store, &batch).await, first);
}

/// A run that parked is known again as long as no other run wrote its record.
pub async fn same_run_again_after_parking(store: Arc<dyn Admin>) {
    let first = park("k", 5);
    let version = apply(&store, &first).await;
    assert_eq!(apply(&store, &first).await, version);
    let second = park("k", 9).found(version);
    let later = apply(&store, &second).await;
    assert!(later > version);
    assert_eq!(commit_one(&store, &first).await, Outcome::AlreadyParked);
    assert_eq!(apply(&store, &second).await, later);
}

/// Two runs of one record in one batch: the first wins.
pub async fn same_record_twice_in_a_batch(store: Arc<dyn Admin>) {
    let batch = [
        done("k").adding("n", 1),
        done("k").adding("n", 1),
        done("k").with_body(b"other").adding("n", 1),
        park("p", 3),
        park("p", 4),
        done("p").adding("n", 1),
        done("p").adding("n", 1),
    ];
    let outcomes = commit(&store, &batch).await;
    assert!(applied(&outcomes[0]));
    assert_eq!(outcomes[1], Outcome::Duplicate);
    assert_eq!(outcomes[2], Outcome::Mismatch);
    assert!(applied(&outcomes[3]));
    assert_eq!(outcomes[4], Outcome::AlreadyParked);
    assert!(applied(&outcomes[5]));
    assert_eq!(outcomes[6], Outcome::Duplicate);
    assert_eq!(text(&store, "n").await.as_deref(), Some("2"));
    assert_eq!(store.parked(&plugin()).await.unwrap(), (0, None));
}

/// Each applied run has a version of its own, ascending.
pub async fn versions_are_unique(store: Arc<dyn Admin>) {
    let mut last = 0;
    for round in 0..3 {
        let batch: Vec<_> = (0..10).map(|i| done(format!("{round}-{i}"))).collect();
        for outcome in commit(&store, &batch).await {
            assert!(version(&outcome) > last);
            last = version(&outcome);
        }
    }
}

/// The reply is given to duplicates, also an empty one.
pub async fn reply_is_kept(store: Arc<dyn Admin>) {
    for (key, reply) in [
        ("a", &b"\0\xff granted"[..]),
        ("b", b""),
        ("c", &[7; 70_000]),
    ] {
        apply(&store, &done(key).replying(reply)).await;
        let RecordState::Done { reply: kept, .. } = check(&store, &record(key)).await.state else {
            panic!("not done");
        };
        assert_eq!(kept.as_deref(), Some(reply));
    }
}

/// One answer a query, in order, also for a record asked twice.
pub async fn check_answers_in_order(store: Arc<dyn Admin>) {
    apply(&store, &done("b")).await;
    apply(&store, &park("c", 1)).await;
    apply(&store, &dead("d", Cause::Rejected)).await;
    let queries: Vec<_> = ["a", "b", "c", "d", "b"]
        .iter()
        .map(|key| CheckQuery {
            record: record(key),
            lane: None,
        })
        .collect();
    let states: Vec<_> = store.check(&queries).await.unwrap();
    assert!(matches!(states[0].state, RecordState::Absent));
    assert!(matches!(states[1].state, RecordState::Done { .. }));
    assert!(matches!(states[2].state, RecordState::Parked { .. }));
    assert!(matches!(states[3].state, RecordState::Dead { .. }));
    assert_eq!(states[4].state, states[1].state);
}

/// The same key of two plugins is two records.
pub async fn plugins_do_not_share_records(store: Arc<dyn Admin>) {
    apply(&store, &done("k")).await;
    let other = done("k").of_plugin("audit");
    assert_eq!(
        check(&store, &other.record).await.state,
        RecordState::Absent
    );
    apply(&store, &other).await;
    apply(&store, &park("p", 1).of_plugin("audit")).await;
    assert_eq!(store.parked(&plugin()).await.unwrap(), (0, None));
    apply(&store, &park("p", 1)).await;
}

/// State, outgoing messages and record are written together or not at all.
pub async fn nothing_of_a_refused_run_is_written(store: Arc<dyn Admin>) {
    apply(&store, &done("first").putting("x", "1")).await;
    let refused = done("k")
        .putting("y", "1")
        .reading("x", 0, &[])
        .publishing("m", None)
        .replying(b"r");
    let neighbour = done("n").putting("z", "1");
    let outcomes = commit(&store, &[refused, neighbour]).await;
    assert_eq!(outcomes[0], Outcome::Conflict);
    assert!(applied(&outcomes[1]));
    assert_eq!(text(&store, "y").await, None);
    assert_eq!(text(&store, "z").await.as_deref(), Some("1"));
    assert_eq!(check(&store, &record("k")).await.state, RecordState::Absent);
    let all = OutboxScan {
        limit: 9,
        ..OutboxScan::default()
    };
    assert_eq!(store.outbox(&all).await.unwrap(), []);
}

/// Nothing asked, nothing answered.
pub async fn empty_requests_are_answered(store: Arc<dyn Admin>) {
    assert_eq!(store.check(&[]).await.unwrap(), []);
    assert_eq!(store.read(&[]).await.unwrap(), []);
    assert_eq!(store.commit(&[]).await.unwrap(), []);
    store.bury(&[]).await.unwrap();
    store.confirm(&[]).await.unwrap();
    assert_eq!(store.outbox(&OutboxScan::default()).await.unwrap(), []);
    assert_eq!(store.due(&plugin(), u64::MAX, 0).await.unwrap(), []);
}
