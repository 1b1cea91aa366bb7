//! Lanes: order within one partition and one lane.

use std::sync::Arc;

use semel_core::{Admin, Cause, Outcome, Partition};

use super::build::*;

/// A message waits behind a parked one with a smaller offset, and the check says so.
pub async fn later_message_is_behind(store: Arc<dyn Admin>) {
    apply(&store, &park("first", 5).in_lane("l", 10)).await;
    let mut later = done("later").in_lane("l", 11).adding("n", 1);
    assert!(check_run(&store, &later).await.behind);
    assert_eq!(commit_one(&store, &later).await, Outcome::Behind);
    assert_eq!(
        commit_one(&store, &park("later", 1).in_lane("l", 11)).await,
        Outcome::Behind
    );
    let rejected = dead("later", Cause::Rejected).in_lane("l", 11);
    assert_eq!(commit_one(&store, &rejected).await, Outcome::Behind);
    // An earlier one goes first.
    assert!(
        !check_run(&store, &done("earlier").in_lane("l", 9))
            .await
            .behind
    );
    apply(&store, &done("earlier").in_lane("l", 9)).await;
    apply(&store, &done("first").in_lane("l", 10)).await;
    later.bucket = 0;
    assert!(!check_run(&store, &later).await.behind);
    apply(&store, &later).await;
    assert_eq!(text(&store, "n").await.as_deref(), Some("1"));
}

/// A parked message is not behind itself.
pub async fn own_row_does_not_block(store: Arc<dyn Admin>) {
    let version = apply(&store, &park("k", 5).in_lane("l", 10)).await;
    let again = park("k", 9).in_lane("l", 10).found(version);
    assert!(!check_run(&store, &again).await.behind);
    apply(&store, &again).await;
    apply(&store, &done("k").in_lane("l", 10)).await;
}

/// Another lane, partition or plugin, and no lane at all, do not wait.
pub async fn other_lanes_are_free(store: Arc<dyn Admin>) {
    apply(&store, &park("first", 5).in_lane("l", 10)).await;
    let mut elsewhere = done("elsewhere").in_lane("l", 11);
    elsewhere.position.partition = Partition::new("rocketmq:orders/broker-a/4");
    let free = [
        done("a").in_lane("L", 11),
        done("b").in_lane("l ", 11),
        done("c").in_lane("", 11),
        done("d"),
        done("e").in_lane("l", 11).of_plugin("audit"),
        elsewhere,
    ];
    for run in &free {
        assert!(!check_run(&store, run).await.behind, "{run:?}");
        apply(&store, run).await;
    }
    let behind = done("f").in_lane("l", 11);
    assert_eq!(commit_one(&store, &behind).await, Outcome::Behind);
}

/// A message that is parked because it waits must not be told to wait.
pub async fn parking_behind_is_not_tested(store: Arc<dyn Admin>) {
    apply(&store, &park("first", 5).in_lane("l", 10)).await;
    apply(&store, &park("second", 5).in_lane("l", 11).behind()).await;
    apply(&store, &park("third", 5).in_lane("l", 12).behind()).await;
    assert_eq!(store.parked(&plugin()).await.unwrap().0, 3);
}

/// However long its time has come.
pub async fn a_row_behind_is_not_due(store: Arc<dyn Admin>) {
    apply(&store, &park("first", 500).in_lane("l", 10)).await;
    apply(&store, &park("second", 0).in_lane("l", 11).behind()).await;
    assert_eq!(due(&store, 499).await, [""; 0]);
    assert_eq!(due(&store, 500).await, ["first"]);
    assert_eq!(store.parked(&plugin()).await.unwrap(), (2, Some(500)));
}

/// When the first is settled, whichever way.
pub async fn the_next_in_lane_becomes_due(store: Arc<dyn Admin>) {
    let batch = [
        park("1", 500).in_lane("l", 10),
        park("2", 0).in_lane("l", 11).behind(),
        park("3", 0).in_lane("l", 12).behind(),
    ];
    for run in &batch {
        apply(&store, run).await;
    }
    apply(&store, &done("1").in_lane("l", 10)).await;
    assert_eq!(due(&store, 9).await, ["2"]);
    apply(&store, &dead("2", Cause::Rejected).in_lane("l", 11)).await;
    assert_eq!(due(&store, 9).await, ["3"]);
    assert_eq!(store.parked(&plugin()).await.unwrap(), (1, Some(0)));
    apply(&store, &done("3").in_lane("l", 12)).await;
    assert_eq!(due(&store, u64::MAX).await, [""; 0]);
}

/// A row that is parked late but stands earlier in the lane is first.
pub async fn an_earlier_row_takes_the_lead(store: Arc<dyn Admin>) {
    apply(&store, &park("2", 100).in_lane("l", 11)).await;
    assert_eq!(due(&store, 100).await, ["2"]);
    apply(&store, &park("3", 50).in_lane("l", 256).behind()).await;
    assert_eq!(due(&store, 100).await, ["2"]);
    apply(&store, &park("0", 300).in_lane("l", 9)).await;
    assert_eq!(due(&store, 100).await, [""; 0]);
    assert_eq!(due(&store, 300).await, ["0"]);
    apply(&store, &done("0").in_lane("l", 9)).await;
    assert_eq!(due(&store, 100).await, ["2"]);
}

/// Those of a source that counts from the time of day.
pub async fn large_offsets_are_told_apart(store: Arc<dyn Admin>) {
    const NOW: u64 = 1_790_000_000_000 << 20;
    apply(&store, &park("2", 100).in_lane("l", NOW + 2)).await;
    let later = done("3").in_lane("l", NOW + 3);
    assert!(check_run(&store, &later).await.behind);
    assert_eq!(commit_one(&store, &later).await, Outcome::Behind);
    let earlier = done("1").in_lane("l", NOW + 1);
    assert!(!check_run(&store, &earlier).await.behind);
    apply(&store, &earlier).await;
    apply(&store, &park("3", 50).in_lane("l", NOW + 3).behind()).await;
    assert_eq!(due(&store, 100).await, ["2"]);
    apply(&store, &park("0", 300).in_lane("l", NOW)).await;
    assert_eq!(due(&store, 100).await, [""; 0]);
    assert_eq!(due(&store, 300).await, ["0"]);
}

/// Rule 10: a lane's later runs of the batch are not applied.
pub async fn a_parked_run_holds_its_lane_in_the_batch(store: Arc<dyn Admin>) {
    let batch = [
        done("1").in_lane("l", 1),
        park("2", 5).in_lane("l", 2),
        done("3").in_lane("l", 3).adding("n", 1),
        done("4").in_lane("m", 4),
        done("5").adding("n", 10),
    ];
    let outcomes = commit(&store, &batch).await;
    assert!(applied(&outcomes[0]) && applied(&outcomes[1]));
    assert_eq!(outcomes[2], Outcome::Conflict);
    assert!(applied(&outcomes[3]) && applied(&outcomes[4]));
    assert_eq!(text(&store, "n").await.as_deref(), Some("10"));
}

/// Whoever waits may be parked behind what is parked, but not before what is recorded nowhere:
/// another host could take it up first.
pub async fn waiting_never_overtakes_in_the_batch(store: Arc<dyn Admin>) {
    let batch = [
        park("1", 5).in_lane("l", 1),
        park("2", 5).in_lane("l", 2).behind(),
        park("3", 5).in_lane("l", 3).behind(),
        done("4").in_lane("l", 4),
        park("5", 5).in_lane("l", 5).behind(),
    ];
    let outcomes = commit(&store, &batch).await;
    assert!(outcomes[..3].iter().all(applied), "{outcomes:?}");
    assert_eq!(outcomes[3..], [Outcome::Conflict, Outcome::Conflict]);
    assert_eq!(store.parked(&plugin()).await.unwrap().0, 3);
}

/// So do runs after a conflict, a mismatch, a message that waits and a bad sum.
pub async fn a_refused_run_holds_its_lane_in_the_batch(store: Arc<dyn Admin>) {
    apply(&store, &done("x").putting("text", "abc")).await;
    apply(&store, &park("p", 5).in_lane("behind", 1)).await;
    let refused = [
        (
            done("1").reading("text", 0, &[]),
            "conflict",
            Outcome::Conflict,
        ),
        (done("x").with_body(b"other"), "mismatch", Outcome::Mismatch),
        (done("2"), "behind", Outcome::Behind),
        (
            done("3").adding("text", 1),
            "sum",
            Outcome::NotACounter(state("text")),
        ),
        (park("p", 9), "parked", Outcome::AlreadyParked),
    ];
    for (run, lane, expected) in refused {
        let batch = [
            run.in_lane(lane, 2),
            done(format!("after {lane}")).in_lane(lane, 3),
            done(format!("beside {lane}")).in_lane("free", 3),
        ];
        let outcomes = commit(&store, &batch).await;
        assert_eq!(outcomes[0], expected);
        assert_eq!(outcomes[1], Outcome::Conflict, "after {lane}");
        assert!(applied(&outcomes[2]), "beside {lane}");
    }
}

/// What is settled lets the next one go on.
pub async fn duplicates_and_dead_letters_let_the_lane_go_on(store: Arc<dyn Admin>) {
    apply(&store, &done("1").in_lane("l", 1)).await;
    let batch = [
        done("1").in_lane("l", 2),
        dead("2", Cause::Rejected).in_lane("l", 3),
        done("3").in_lane("l", 4),
    ];
    let outcomes = commit(&store, &batch).await;
    assert_eq!(outcomes[0], Outcome::Duplicate);
    assert!(applied(&outcomes[1]) && applied(&outcomes[2]));
}

/// Also one that was parked before.
pub async fn a_dead_letter_frees_its_lane(store: Arc<dyn Admin>) {
    let version = apply(&store, &park("1", 5).in_lane("l", 1)).await;
    let batch = [
        dead("1", Cause::Exhausted).in_lane("l", 1).found(version),
        done("2").in_lane("l", 2),
    ];
    let outcomes = commit(&store, &batch).await;
    assert!(
        applied(&outcomes[0]) && applied(&outcomes[1]),
        "{outcomes:?}"
    );
}

/// Being done comes before being held.
pub async fn a_held_lane_still_tells_duplicates(store: Arc<dyn Admin>) {
    apply(&store, &done("old").in_lane("l", 1)).await;
    let batch = [
        park("1", 5).in_lane("l", 2),
        done("old").in_lane("l", 3),
        done("old").with_body(b"other").in_lane("l", 4),
    ];
    let outcomes = commit(&store, &batch).await;
    assert!(applied(&outcomes[0]));
    assert_eq!(outcomes[1..], [Outcome::Duplicate, Outcome::Mismatch]);
}
