//! Parked messages.

use std::sync::Arc;

use semel_core::{Admin, Cause, Outcome, RecordState, Verdict};

use super::build::*;

/// Parking is compare-and-set on the record.
pub async fn parking_needs_what_the_check_found(store: Arc<dyn Admin>) {
    let version = apply(&store, &park("k", 5)).await;
    assert_eq!(parked_version(&store, &record("k")).await, version);
    let blind = park("k", 9);
    assert_eq!(commit_one(&store, &blind).await, Outcome::AlreadyParked);
    let stale = park("k", 9).found(version + 1_000);
    assert_eq!(commit_one(&store, &stale).await, Outcome::AlreadyParked);
    let vanished = park("gone", 9).found(version);
    assert_eq!(commit_one(&store, &vanished).await, Outcome::AlreadyParked);
    assert_eq!(due(&store, 5).await, ["k"]);
    apply(&store, &park("k", 9).found(version)).await;
    assert_eq!(due(&store, 5).await, [""; 0]);
    assert_eq!(due(&store, 9).await, ["k"]);
}

/// Versions tell attempts apart, so the old one can be taken once only.
pub async fn parking_again_changes_the_version(store: Arc<dyn Admin>) {
    let first = apply(&store, &park("k", 5)).await;
    let second = apply(&store, &park("k", 5).found(first)).await;
    assert!(second > first);
    let late = park("k", 5).found(first);
    assert_eq!(commit_one(&store, &late).await, Outcome::AlreadyParked);
    assert_eq!(parked_version(&store, &record("k")).await, second);
    assert_eq!(store.parked(&plugin()).await.unwrap(), (1, Some(5)));
}

/// The last failed attempt buries only the row that it ran.
pub async fn exhausted_needs_what_the_check_found(store: Arc<dyn Admin>) {
    let version = apply(&store, &park("k", 5)).await;
    let blind = dead("k", Cause::Exhausted);
    assert_eq!(commit_one(&store, &blind).await, Outcome::AlreadyParked);
    apply(&store, &dead("k", Cause::Exhausted).found(version)).await;
    let state = check(&store, &record("k")).await.state;
    assert!(matches!(state, RecordState::Dead { .. }), "{state:?}");
    assert_eq!(store.parked(&plugin()).await.unwrap(), (0, None));
    apply(&store, &dead("fresh", Cause::Exhausted)).await;
}

/// A success counts whoever parked the message meanwhile, and takes the row away.
pub async fn done_overtakes_a_parked_row(store: Arc<dyn Admin>) {
    apply(&store, &park("k", 5)).await;
    apply(&store, &done("k").adding("n", 1)).await;
    let state = check(&store, &record("k")).await.state;
    assert!(matches!(state, RecordState::Done { .. }), "{state:?}");
    assert_eq!(due(&store, u64::MAX).await, [""; 0]);
    assert_eq!(store.record(&record("k")).await.unwrap().1, None);
    assert_eq!(store.parked(&plugin()).await.unwrap(), (0, None));
}

/// So does a rejection.
pub async fn rejected_overtakes_a_parked_row(store: Arc<dyn Admin>) {
    apply(&store, &park("k", 5)).await;
    apply(&store, &dead("k", Cause::Rejected)).await;
    assert_eq!(store.parked(&plugin()).await.unwrap(), (0, None));
    assert_eq!(due(&store, u64::MAX).await, [""; 0]);
}

/// In the order of due times.
pub async fn due_rows_come_longest_due_first(store: Arc<dyn Admin>) {
    let times = [
        ("c", 300),
        ("a", 900),
        ("b", 100),
        ("d", 1 << 40),
        ("e", 100),
    ];
    for (key, due_ms) in times {
        apply(&store, &park(key, due_ms)).await;
    }
    assert_eq!(due(&store, 99).await, [""; 0]);
    assert_eq!(due(&store, 100).await, ["b", "e"]);
    assert_eq!(due(&store, 1_000).await, ["b", "e", "c", "a"]);
    assert_eq!(due(&store, u64::MAX).await, ["b", "e", "c", "a", "d"]);
}

/// At most as many as asked for, the longest due.
pub async fn due_is_limited(store: Arc<dyn Admin>) {
    let batch: Vec<_> = (0..20).map(|i| park(format!("{i:02}"), 100 - i)).collect();
    commit(&store, &batch).await;
    let rows = store.due(&plugin(), 100, 3).await.unwrap();
    let keys: Vec<_> = rows.iter().map(|row| row.record.key.to_string()).collect();
    assert_eq!(keys, ["19", "18", "17"]);
}

/// How many are parked, and when to look again.
pub async fn parked_counts_and_tells_the_first_due(store: Arc<dyn Admin>) {
    assert_eq!(store.parked(&plugin()).await.unwrap(), (0, None));
    apply(&store, &park("a", 700)).await;
    apply(&store, &park("b", 600)).await;
    assert_eq!(store.parked(&plugin()).await.unwrap(), (2, Some(600)));
    apply(&store, &done("b")).await;
    assert_eq!(store.parked(&plugin()).await.unwrap(), (1, Some(700)));
}

/// Whatever a message carries comes back.
pub async fn a_row_is_read_as_written(store: Arc<dyn Admin>) {
    let run = park("k", 5)
        .in_lane("lane \0 ö", 1 << 50)
        .with_body(&[0, 255, 13, 10]);
    let version = apply(&store, &run).await;
    let Verdict::Park(park) = run.verdict else {
        unreachable!()
    };
    let mut expected = *park.row;
    expected.version = version;
    assert_eq!(
        store.due(&plugin(), 5, 9).await.unwrap(),
        [expected.clone()]
    );
    let state = RecordState::Parked {
        fingerprint: expected.fingerprint,
        version,
    };
    assert_eq!(
        store.record(&record("k")).await.unwrap(),
        (state, Some(expected))
    );
}
