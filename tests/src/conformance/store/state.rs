//! State: what a handler read must still stand when it commits.

use std::sync::Arc;

use bytes::Bytes;
use semel_core::{Admin, Cause, Outcome, StateOp, Versioned};

use super::build::*;

/// A value and the version of the commit that wrote it.
pub async fn put_and_read(store: Arc<dyn Admin>) {
    assert_eq!(read(&store, "x").await, Versioned::default());
    let run = done("k").putting("x", "1").putting("empty", "");
    let version = apply(&store, &run).await;
    let value = |text: &'static str| Versioned {
        version,
        value: Some(Bytes::from_static(text.as_bytes())),
    };
    assert_eq!(read(&store, "x").await, value("1"));
    assert_eq!(read(&store, "empty").await, value(""));
    let keys = [state("empty"), state("none"), state("x"), state("x")];
    let values = store.read(&keys).await.unwrap();
    assert_eq!(
        values,
        [value(""), Versioned::default(), value("1"), value("1")]
    );
    apply(&store, &done("l").writing("x", StateOp::Delete)).await;
    assert_eq!(read(&store, "x").await, Versioned::default());
    apply(&store, &done("m").writing("x", StateOp::Delete)).await;
}

/// What was read and changed since.
pub async fn a_stale_read_conflicts(store: Arc<dyn Admin>) {
    let base = apply(&store, &done("1").putting("x", "1")).await;
    let run = |key| done(key).reading("x", base, &[]).putting("y", "1");
    apply(&store, &run("2")).await;
    apply(&store, &done("3").putting("x", "1")).await;
    assert_eq!(commit_one(&store, &run("4")).await, Outcome::Conflict);
    let deleted = apply(&store, &done("5").writing("x", StateOp::Delete)).await;
    assert_eq!(commit_one(&store, &run("6")).await, Outcome::Conflict);
    let invented = done("7").reading("x", deleted, &[]);
    assert_eq!(commit_one(&store, &invented).await, Outcome::Conflict);
    apply(&store, &done("8").reading("x", 0, &[])).await;
    let one_of_two = done("9").reading("x", 0, &[]).reading("y", 0, &[]);
    assert_eq!(commit_one(&store, &one_of_two).await, Outcome::Conflict);
}

/// A handler that saw torn state must not park or bury a good message.
pub async fn a_stale_read_conflicts_also_when_failing(store: Arc<dyn Admin>) {
    apply(&store, &done("1").putting("x", "1")).await;
    for run in [
        park("k", 5),
        dead("k", Cause::Rejected),
        dead("k", Cause::Exhausted),
    ] {
        let run = run.reading("x", 0, &[]);
        assert_eq!(commit_one(&store, &run).await, Outcome::Conflict);
    }
    assert_eq!(store.parked(&plugin()).await.unwrap(), (0, None));
    assert_eq!(store.list_dead(None, None, 9).await.unwrap(), []);
}

/// Absence is a read like any other.
pub async fn reading_nothing_stands_while_there_is_nothing(store: Arc<dyn Admin>) {
    apply(&store, &done("1").reading("x", 0, &[]).putting("x", "1")).await;
    let second = done("2").reading("x", 0, &[]).putting("x", "2");
    assert_eq!(commit_one(&store, &second).await, Outcome::Conflict);
    assert_eq!(text(&store, "x").await.as_deref(), Some("1"));
}

/// Rule 13: a run that saw the staged writes of earlier runs of its batch.
pub async fn reads_through_the_batch(store: Arc<dyn Admin>) {
    let base = apply(&store, &done("0").putting("x", "0")).await;
    let batch = [
        done("1").reading("x", base, &[]).putting("x", "1"),
        done("2").reading("x", base, &[0]).putting("x", "2"),
        done("3").reading("y", 0, &[]).putting("y", "3"),
        done("4")
            .reading("x", base, &[0, 1])
            .reading("y", 0, &[2])
            .putting("z", "4"),
    ];
    let outcomes = commit(&store, &batch).await;
    assert!(outcomes.iter().all(applied), "{outcomes:?}");
    assert_eq!(text(&store, "x").await.as_deref(), Some("2"));
    let version = read(&store, "x").await.version;
    assert_eq!(version, self::version(&outcomes[1]));
}

/// What the batch wrote before counts, seen or not.
pub async fn reads_that_missed_a_run_of_the_batch_conflict(store: Arc<dyn Admin>) {
    let batch = [
        done("1").putting("x", "1"),
        done("2").reading("x", 0, &[]),
        done("3").adding("n", 1),
        done("4").adding("n", 1),
        done("5").reading("n", 0, &[2]),
        done("6").reading("n", 0, &[2, 3]),
        done("7").reading("n", 1, &[2, 3]),
    ];
    let outcomes = commit(&store, &batch).await;
    assert_eq!(outcomes[1], Outcome::Conflict);
    assert_eq!(outcomes[4], Outcome::Conflict);
    assert!(applied(&outcomes[5]), "{outcomes:?}");
    assert_eq!(outcomes[6], Outcome::Conflict);
}

/// What was seen of a run that came to nothing never was.
pub async fn reads_that_saw_a_refused_run_conflict(store: Arc<dyn Admin>) {
    apply(&store, &done("dup")).await;
    let batch = [
        done("dup").putting("x", "1"),
        done("2").reading("x", 0, &[0]).putting("x", "2"),
        done("3").reading("x", 0, &[]).putting("x", "3"),
        done("4").reading("x", 0, &[1]),
        done("5").reading("x", 0, &[2]),
    ];
    let outcomes = commit(&store, &batch).await;
    assert_eq!(outcomes[0], Outcome::Duplicate);
    assert_eq!(outcomes[1], Outcome::Conflict);
    assert!(applied(&outcomes[2]));
    assert_eq!(outcomes[3], Outcome::Conflict);
    assert!(applied(&outcomes[4]));
}

/// Chains of all operations on one key.
pub async fn reads_see_deletes_and_adds_of_the_batch(store: Arc<dyn Admin>) {
    let base = apply(&store, &done("0").putting("x", "7")).await;
    let batch = [
        done("1").writing("x", StateOp::Delete),
        done("2").adding("x", 5),
        done("3").reading("x", base, &[0, 1]).adding("x", -6),
        done("4").putting("x", "40"),
        done("5").adding("x", 2),
        done("6").reading("x", base, &[0, 1, 2, 3, 4]),
        done("7").writing("new", StateOp::Delete),
        done("8").reading("new", 0, &[6]),
    ];
    let outcomes = commit(&store, &batch).await;
    assert!(outcomes.iter().all(applied), "{outcomes:?}");
    assert_eq!(text(&store, "x").await.as_deref(), Some("42"));
    assert_eq!(read(&store, "x").await.version, version(&outcomes[4]));
    assert_eq!(read(&store, "new").await, Versioned::default());
}

/// Rule 12: an addition validates nothing and still makes reads stale.
pub async fn blind_adds_commute_and_change_the_version(store: Arc<dyn Admin>) {
    let first = apply(&store, &done("1").adding("n", 5)).await;
    let second = apply(&store, &done("2").adding("n", -7)).await;
    assert!(second > first);
    let stored = read(&store, "n").await;
    assert_eq!(stored.version, second);
    assert_eq!(stored.value.as_deref(), Some(&b"-2"[..]));
    let stale = done("3").reading("n", first, &[]);
    assert_eq!(commit_one(&store, &stale).await, Outcome::Conflict);
    let zero = apply(&store, &done("4").adding("n", 0)).await;
    assert_eq!(read(&store, "n").await.version, zero);
}

/// Rule 11: no version comes back with a value that is deleted and written anew.
pub async fn a_value_written_anew_has_a_new_version(store: Arc<dyn Admin>) {
    let first = apply(&store, &done("1").putting("x", "1")).await;
    apply(&store, &done("2").writing("x", StateOp::Delete)).await;
    let again = apply(&store, &done("3").putting("x", "1")).await;
    assert_ne!(first, again);
    let stale = done("4").reading("x", first, &[]);
    assert_eq!(commit_one(&store, &stale).await, Outcome::Conflict);
    apply(&store, &done("5").reading("x", again, &[])).await;
}

/// What is not decimal text of a 64-bit integer can't be added to.
pub async fn not_a_counter_is_refused(store: Arc<dyn Admin>) {
    let not_counters = [
        "",
        " 1",
        "1 ",
        "1.0",
        "0x1",
        "abc",
        "-",
        "+",
        "--1",
        "1e3",
        "NaN",
        "1_0",
        "١",
        "\0",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999",
    ];
    for (i, text) in not_counters.iter().enumerate() {
        apply(&store, &done(format!("put {i}")).putting("x", text)).await;
        let run = done(format!("add {i}"))
            .putting("other", "1")
            .adding("x", 1);
        let outcome = commit_one(&store, &run).await;
        assert_eq!(outcome, Outcome::NotACounter(state("x")), "{text:?}");
    }
    assert_eq!(text(&store, "other").await, None);
    apply(
        &store,
        &done("bytes").writing("x", StateOp::Put(Bytes::from_static(b"\xff1"))),
    )
    .await;
    let run = done("add").adding("x", 1);
    assert_eq!(
        commit_one(&store, &run).await,
        Outcome::NotACounter(state("x"))
    );
}

/// A sum that leaves 64 bits is refused.
pub async fn counters_do_not_overflow(store: Arc<dyn Admin>) {
    apply(&store, &done("max").adding("max", i64::MAX)).await;
    apply(&store, &done("min").adding("min", i64::MIN)).await;
    for (i, (name, delta)) in [
        ("max", 1),
        ("max", i64::MAX),
        ("min", -1),
        ("min", i64::MIN),
    ]
    .into_iter()
    .enumerate()
    {
        let run = done(i.to_string()).adding(name, delta);
        assert_eq!(
            commit_one(&store, &run).await,
            Outcome::NotACounter(state(name))
        );
    }
    assert_eq!(text(&store, "max").await, Some(i64::MAX.to_string()));
    assert_eq!(text(&store, "min").await, Some(i64::MIN.to_string()));
}

/// All 64 bits count.
pub async fn extreme_counters(store: Arc<dyn Admin>) {
    const BEYOND_DOUBLES: i64 = (1 << 53) + 1;
    let sums = [
        (i64::MAX, i64::MIN),
        (i64::MIN, i64::MAX),
        (i64::MAX - 1, 1),
        (i64::MIN + 1, -1),
        (BEYOND_DOUBLES, 1),
        (BEYOND_DOUBLES, 2),
        (-BEYOND_DOUBLES, -2),
        (i64::MAX - 7, -(1 << 61)),
        (0, i64::MIN),
        (999_999_999_999_999_999, 1),
        (1_000_000_000_000_000_000, -1),
        (-1, 1),
        (10_000_000, -10_000_000),
        (123_456_789_012_345_678, 987_654_321_098_765_432),
        (-123_456_789_012_345_678, 987_654_321_098_765_432),
        (123_456_789_012_345_678, -987_654_321_098_765_432),
    ];
    for (i, (a, b)) in sums.into_iter().enumerate() {
        apply(&store, &done(format!("a{i}")).putting("x", &a.to_string())).await;
        apply(&store, &done(format!("b{i}")).adding("x", b)).await;
        assert_eq!(
            text(&store, "x").await,
            Some((a + b).to_string()),
            "{a} + {b}"
        );
    }
}

/// Text that means a number though one would not write it so.
pub async fn odd_counters(store: Arc<dyn Admin>) {
    for (i, (before, after)) in [
        ("007", "8"),
        ("+5", "6"),
        ("-0", "1"),
        ("-000", "1"),
        ("+00000000000000000000000000041", "42"),
        ("-00000000000000000000000000001", "0"),
    ]
    .into_iter()
    .enumerate()
    {
        apply(&store, &done(format!("put {i}")).putting("x", before)).await;
        apply(&store, &done(format!("add {i}")).adding("x", 1)).await;
        assert_eq!(
            text(&store, "x").await.as_deref(),
            Some(after),
            "{before} + 1"
        );
    }
}

/// Each addition of a batch is on top of the one before.
pub async fn adds_in_a_batch_see_each_other(store: Arc<dyn Admin>) {
    let batch: Vec<_> = (1..=100)
        .map(|i| done(i.to_string()).adding("n", i))
        .collect();
    let outcomes = commit(&store, &batch).await;
    assert!(outcomes.iter().all(applied));
    assert_eq!(text(&store, "n").await.as_deref(), Some("5050"));
    assert_eq!(read(&store, "n").await.version, version(&outcomes[99]));
}

/// Also where a value of the batch is what does not add up.
pub async fn counters_in_a_batch_do_not_overflow(store: Arc<dyn Admin>) {
    let batch = [
        done("1").adding("n", i64::MAX),
        done("2").adding("n", 1),
        done("3").adding("n", -1),
        done("4").adding("n", 1),
        done("5").putting("t", "abc"),
        done("6").adding("t", 1),
        done("7").writing("t", StateOp::Delete),
        done("8").adding("t", 1),
    ];
    let outcomes = commit(&store, &batch).await;
    let refused: Vec<_> = (0..8).filter(|&i| !applied(&outcomes[i])).collect();
    assert_eq!(refused, [1, 5]);
    assert_eq!(outcomes[1], Outcome::NotACounter(state("n")));
    assert_eq!(outcomes[5], Outcome::NotACounter(state("t")));
    assert_eq!(text(&store, "n").await, Some(i64::MAX.to_string()));
    assert_eq!(text(&store, "t").await.as_deref(), Some("1"));
}

/// By name, by prefix, page by page, one namespace only.
pub async fn state_is_listed_in_order(store: Arc<dyn Admin>) {
    let names = ["b", "a", "user:10", "user:1", "user:2", "usez", "user", "ü"];
    let mut run = done("k");
    for name in names {
        run = run.putting(name, name);
    }
    let version = apply(&store, &run).await;
    let mut other = done("other").putting("user:1", "theirs");
    if let semel_core::Verdict::Done(effects) = &mut other.verdict {
        effects.writes[0].key.namespace = "pointsuser:".into();
    }
    apply(&store, &other).await;
    apply(&store, &done("gone").writing("a", StateOp::Delete)).await;
    let list = async |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let entries = store
            .list_state("points", prefix, after, limit)
            .await
            .unwrap();
        assert!(
            entries
                .iter()
                .all(|e| e.version == version && e.value == e.name)
        );
        entries.into_iter().map(|entry| entry.name).collect()
    };
    let all = ["b", "user", "user:1", "user:10", "user:2", "usez", "ü"];
    assert_eq!(list("", None, 99).await, all);
    assert_eq!(list("", None, 1).await, all[..1]);
    assert_eq!(list("user:", None, 99).await, all[2..5]);
    assert_eq!(list("user:", None, 2).await, all[2..4]);
    assert_eq!(list("user:", Some("user:10"), 2).await, all[4..5]);
    assert_eq!(list("", Some("user:1"), 2).await, all[3..5]);
    assert_eq!(list("user", Some("a"), 2).await, all[1..3]);
    assert_eq!(list("user:", Some("v"), 99).await, [""; 0]);
    assert_eq!(list("none", None, 99).await, [""; 0]);
    assert_eq!(store.list_state("point", "", None, 99).await.unwrap(), []);
}

/// As large as a handler may make them.
pub async fn large_values(store: Arc<dyn Admin>) {
    let large = "é\0".repeat((4 << 20) / 3);
    apply(&store, &done("k").putting("x", &large)).await;
    assert_eq!(text(&store, "x").await.as_deref(), Some(&*large));
    apply(&store, &done("m").publishing(&large, None)).await;
    let scan = semel_core::OutboxScan {
        limit: 9,
        ..Default::default()
    };
    let rows = store.outbox(&scan).await.unwrap();
    assert_eq!(rows[0].outgoing.body, large);
    let parked = park("p", 5).with_body(large.as_bytes());
    apply(&store, &parked).await;
    let rows = store.due(&plugin(), 5, 9).await.unwrap();
    assert_eq!(rows[0].message.body, large);
}
