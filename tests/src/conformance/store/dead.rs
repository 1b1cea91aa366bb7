//! Dead letters.

use std::sync::Arc;

use semel_core::{
    Admin, Cause, DeadLetterId, Outcome, PluginName, RecordState, StoreStats, Verdict,
};

use super::build::*;

/// A letter without a record is kept once.
pub async fn burying_twice_changes_nothing(store: Arc<dyn Admin>) {
    let first = stray(1);
    store.bury(&[first.clone(), stray(2)]).await.unwrap();
    let mut again = first.clone();
    again.reason = "another reason".to_owned();
    again.dead_ms += 1;
    store.bury(&[again]).await.unwrap();
    assert_eq!(store.dead(&first.id).await.unwrap(), Some(first));
    assert_eq!(store.list_dead(None, None, 9).await.unwrap().len(), 2);
}

/// Whatever it carries.
pub async fn a_letter_is_read_as_written(store: Arc<dyn Admin>) {
    let mut bare = stray(1);
    bare.detail = None;
    bare.message.body = vec![0, 255, 10].into();
    store.bury(&[bare.clone()]).await.unwrap();
    assert_eq!(store.dead(&bare.id).await.unwrap(), Some(bare));
    let run = dead("k\0", Cause::Exhausted);
    apply(&store, &run).await;
    let Verdict::Dead(letter) = run.verdict else {
        unreachable!()
    };
    assert_eq!(store.dead(&letter.id).await.unwrap(), Some(*letter));
    assert_eq!(
        store.dead(&DeadLetterId::from_text("none")).await.unwrap(),
        None
    );
}

/// By id, of one plugin or all, page by page.
pub async fn letters_are_listed(store: Arc<dyn Admin>) {
    let mut letters: Vec<_> = (0..20).map(stray).collect();
    for letter in &mut letters[..5] {
        letter.plugin = PluginName::new("audit");
    }
    store.bury(&letters).await.unwrap();
    letters.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(store.list_dead(None, None, 99).await.unwrap(), letters);
    let page = store
        .list_dead(None, Some(&letters[3].id), 4)
        .await
        .unwrap();
    assert_eq!(page, letters[4..8]);
    let ours: Vec<_> = letters
        .iter()
        .filter(|l| l.plugin == plugin())
        .cloned()
        .collect();
    assert_eq!(
        store.list_dead(Some(&plugin()), None, 99).await.unwrap(),
        ours
    );
    let page = store
        .list_dead(Some(&plugin()), Some(&ours[2].id), 4)
        .await
        .unwrap();
    assert_eq!(page, ours[3..7]);
    let last = &letters[19].id;
    assert_eq!(store.list_dead(None, Some(last), 4).await.unwrap(), []);
}

/// Rule 16: due at once, no attempts counted, a new version.
pub async fn replay_parks_again(store: Arc<dyn Admin>) {
    let parked = apply(&store, &park("k", 5)).await;
    let run = dead("k", Cause::Exhausted).found(parked);
    let died = apply(&store, &run).await;
    let id = DeadLetterId::of_record(&run.record);
    assert!(store.replay(&id, 777).await.unwrap());
    assert_eq!(store.dead(&id).await.unwrap(), None);
    let (state, row) = store.record(&run.record).await.unwrap();
    let row = row.expect("it is parked");
    assert_eq!((row.attempt, row.due_ms, row.lane), (0, 777, None));
    assert_eq!(row.message, message(b"body"));
    assert_eq!(row.record, run.record);
    assert!(row.version > died);
    let expected = RecordState::Parked {
        fingerprint: run.fingerprint,
        version: row.version,
    };
    assert_eq!(state, expected);
    assert_eq!(due(&store, 777).await, ["k"]);
    assert!(
        !store.replay(&id, 778).await.unwrap(),
        "it is no letter any more"
    );
}

/// A letter that ends no record has nothing to take up.
pub async fn replay_needs_a_record(store: Arc<dyn Admin>) {
    let letter = stray(1);
    store.bury(std::slice::from_ref(&letter)).await.unwrap();
    assert!(!store.replay(&letter.id, 1).await.unwrap());
    assert_eq!(store.dead(&letter.id).await.unwrap(), Some(letter));
    assert!(
        !store
            .replay(&DeadLetterId::from_text("none"), 1)
            .await
            .unwrap()
    );
}

/// A replayed message can be done, parked and die again.
pub async fn a_replayed_message_can_be_handled(store: Arc<dyn Admin>) {
    let run = dead("k", Cause::Rejected);
    apply(&store, &run).await;
    let id = DeadLetterId::of_record(&run.record);
    assert!(store.replay(&id, 1).await.unwrap());
    let version = parked_version(&store, &run.record).await;
    let version = apply(&store, &park("k", 9).found(version)).await;
    apply(&store, &dead("k", Cause::Exhausted).found(version)).await;
    assert!(store.replay(&id, 1).await.unwrap());
    apply(&store, &done("k").adding("n", 1)).await;
    assert_eq!(due(&store, u64::MAX).await, [""; 0]);
    assert!(!store.replay(&id, 1).await.unwrap());
}

/// The commit that buried is sent again after the operator's replay: nothing is undone.
pub async fn a_replay_survives_the_commit_that_buried(store: Arc<dyn Admin>) {
    let run = dead("k", Cause::Rejected);
    let first = commit_one(&store, &run).await;
    let id = DeadLetterId::of_record(&run.record);
    assert!(store.replay(&id, 1).await.unwrap());
    assert_eq!(commit_one(&store, &run).await, first);
    assert_eq!(due(&store, 1).await, ["k"]);
}

/// A tombstone: redeliveries are still dropped.
pub async fn a_dropped_letter_leaves_its_record(store: Arc<dyn Admin>) {
    let run = dead("k", Cause::Rejected);
    apply(&store, &run).await;
    let id = DeadLetterId::of_record(&run.record);
    assert!(store.drop_dead(&id).await.unwrap());
    assert!(!store.drop_dead(&id).await.unwrap());
    assert!(!store.replay(&id, 1).await.unwrap());
    assert_eq!(commit_one(&store, &done("k")).await, Outcome::Duplicate);
    let other = done("k").with_body(b"other");
    assert_eq!(commit_one(&store, &other).await, Outcome::Mismatch);
    store.bury(&[stray(4)]).await.unwrap();
    assert!(store.drop_dead(&stray(4).id).await.unwrap());
    assert_eq!(store.list_dead(None, None, 9).await.unwrap(), []);
}

/// How much there is.
pub async fn stats_count(store: Arc<dyn Admin>) {
    assert_eq!(store.stats(&plugin()).await.unwrap(), StoreStats::default());
    let batch = [
        done("1").publishing("a", None).publishing("b", Some(1)),
        done("2"),
        done("3"),
        park("4", 5),
        park("5", 5).in_lane("l", 1),
        dead("6", Cause::Rejected),
        done("7").of_plugin("audit").publishing("c", None),
        dead("8", Cause::Rejected).of_plugin("audit"),
    ];
    commit(&store, &batch).await;
    store.bury(&[stray(1)]).await.unwrap();
    let expected = StoreStats {
        done: 3,
        parked: 2,
        dead: 2,
        outbox: 3,
    };
    assert_eq!(store.stats(&plugin()).await.unwrap(), expected);
    apply(&store, &done("4")).await;
    store.drop_dead(&stray(1).id).await.unwrap();
    let expected = StoreStats {
        done: 4,
        parked: 1,
        dead: 1,
        outbox: 3,
    };
    assert_eq!(store.stats(&plugin()).await.unwrap(), expected);
}
