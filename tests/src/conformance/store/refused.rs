//! Outgoing messages that a broker will never take.

use std::sync::Arc;

use semel_core::{
    Admin, Cause, DeadLetter, Lane, OutboxLane, OutboxRow, OutboxScan, Outcome, StoreError,
};

use super::build::*;

const REASON: &str = "refused by the broker: too large";

async fn outbox(store: &Arc<dyn Admin>, lane: Option<&str>) -> Vec<OutboxRow> {
    let lane = lane.map(|name| OutboxLane {
        plugin: plugin(),
        lane: Lane::new(name.as_bytes().to_vec()),
    });
    let scan = OutboxScan {
        lane,
        limit: 100,
        after: None,
    };
    store.outbox(&scan).await.expect("the outbox is read")
}

/// Publishes these bodies in this order, each by a run of its own, in lane `l`.
async fn publish(store: &Arc<dyn Admin>, bodies: &[&str]) -> Vec<OutboxRow> {
    for body in bodies {
        apply(store, &done(body).publishing(body, None).in_lane("l", 1)).await;
    }
    outbox(store, None).await
}

fn letters(rows: &[OutboxRow]) -> Vec<DeadLetter> {
    let letter = |row| DeadLetter::undeliverable(row, REASON.to_owned(), 1_700_000_002_000);
    rows.iter().map(letter).collect()
}

async fn refuse(store: &Arc<dyn Admin>, letters: &[DeadLetter]) {
    let refused: Result<(), StoreError> = store.refuse(letters).await;
    refused.expect("the refusal is answered");
}

/// The row is gone, and the letter tells all of it.
pub async fn a_refused_row_becomes_a_letter(store: Arc<dyn Admin>) {
    let run = done(b"k\0\xff")
        .in_lane("l\0", 1)
        .publishing("now\0ü", None)
        .publishing("later", Some(60_000))
        .publishing("stays", None);
    apply(&store, &run).await;
    let rows = outbox(&store, None).await;
    let mut letters = letters(&rows[..2]);
    refuse(&store, &letters).await;
    assert_eq!(outbox(&store, None).await, rows[2..]);
    assert_eq!(outbox(&store, Some("l\0")).await, rows[2..]);
    assert_eq!(store.outbox_len().await.unwrap(), 1);
    for (letter, row) in letters.iter().zip(&rows) {
        let kept = store.dead(&letter.id).await.unwrap().expect("it is kept");
        assert_eq!(kept, *letter);
        assert_eq!(kept.cause, Cause::Undeliverable);
        assert_eq!(kept.outgoing.as_deref(), Some(row));
    }
    letters.sort_by(|a, b| a.id.cmp(&b.id));
    let listed = store.list_dead(Some(&plugin()), None, 9).await.unwrap();
    assert_eq!(listed, letters);
}

/// Another relay refuses the same row, or it was confirmed: nothing more happens.
pub async fn a_row_that_is_gone_makes_no_letter(store: Arc<dyn Admin>) {
    let rows = publish(&store, &["a", "b", "c"]).await;
    let [refused, confirmed, present] = &letters(&rows)[..] else {
        panic!("three rows: {rows:?}")
    };
    refuse(&store, std::slice::from_ref(refused)).await;
    store.confirm(&[rows[1].id]).await.unwrap();
    let mut again = refused.clone();
    again.reason = "another reason".to_owned();
    refuse(
        &store,
        &[again, confirmed.clone(), stray(1), present.clone()],
    )
    .await;
    refuse(&store, &[]).await;
    assert_eq!(store.outbox_len().await.unwrap(), 0);
    assert_eq!(
        store.dead(&refused.id).await.unwrap().as_ref(),
        Some(refused)
    );
    assert_eq!(store.dead(&confirmed.id).await.unwrap(), None);
    assert_eq!(store.list_dead(None, None, 9).await.unwrap().len(), 2);
    // A letter that was dropped does not come back either.
    assert!(store.drop_dead(&refused.id).await.unwrap());
    refuse(&store, std::slice::from_ref(refused)).await;
    assert_eq!(store.dead(&refused.id).await.unwrap(), None);
}

/// The next row is the lowest of the lane, and a later commit finds it clear.
pub async fn a_refused_row_frees_its_lane(store: Arc<dyn Admin>) {
    let rows = publish(&store, &["a", "b"]).await;
    refuse(&store, &letters(&rows[..1])).await;
    assert_eq!(outbox(&store, Some("l")).await, rows[1..]);
    refuse(&store, &letters(&rows[1..])).await;
    assert_eq!(outbox(&store, Some("l")).await, []);
    let next = done("c").publishing("c", None).in_lane("l", 1);
    let outcome = commit_one(&store, &next).await;
    assert!(
        matches!(
            outcome,
            Outcome::Applied {
                outbox_clear: true,
                ..
            }
        ),
        "{outcome:?}"
    );
}

/// A replayed row stands before those that were published after it, as it did.
pub async fn a_replayed_row_takes_its_old_place(store: Arc<dyn Admin>) {
    let rows = publish(&store, &["a", "b", "c"]).await;
    let letters = letters(&rows);
    refuse(&store, &letters[..2]).await;
    assert!(store.replay(&letters[1].id, 1).await.unwrap());
    assert_eq!(outbox(&store, Some("l")).await, rows[1..]);
    assert!(store.replay(&letters[0].id, 1).await.unwrap());
    assert!(!store.replay(&letters[0].id, 1).await.unwrap());
    assert_eq!(outbox(&store, Some("l")).await, rows);
    assert_eq!(outbox(&store, None).await, rows);
    assert_eq!(store.list_dead(None, None, 9).await.unwrap(), []);
    // It is a row like any other: refused once more, and confirmed.
    refuse(&store, &letters[..1]).await;
    assert_eq!(store.list_dead(None, None, 9).await.unwrap(), letters[..1]);
    assert!(store.replay(&letters[0].id, 1).await.unwrap());
    store.confirm(&[rows[0].id]).await.unwrap();
    assert_eq!(outbox(&store, Some("l")).await, rows[1..]);
    assert_eq!(store.outbox_len().await.unwrap(), 2);
}

/// Also of a message with a delay, which has no lane.
pub async fn a_replayed_row_is_as_it_was(store: Arc<dyn Admin>) {
    let run = done("k")
        .of_plugin("audit")
        .in_lane("l", 1)
        .publishing("later", Some(60_000));
    apply(&store, &run).await;
    let rows = outbox(&store, None).await;
    let letters = letters(&rows);
    refuse(&store, &letters).await;
    assert!(store.replay(&letters[0].id, 1).await.unwrap());
    assert_eq!(outbox(&store, None).await, rows);
    assert_eq!(outbox(&store, Some("l")).await, []);
}

/// What an operator forgets is not published.
pub async fn a_dropped_letter_stays_unpublished(store: Arc<dyn Admin>) {
    let rows = publish(&store, &["a"]).await;
    let letters = letters(&rows);
    refuse(&store, &letters).await;
    assert!(store.drop_dead(&letters[0].id).await.unwrap());
    assert!(!store.drop_dead(&letters[0].id).await.unwrap());
    assert!(!store.replay(&letters[0].id, 1).await.unwrap());
    assert_eq!(store.outbox_len().await.unwrap(), 0);
    assert_eq!(commit_one(&store, &done("a")).await, Outcome::Duplicate);
}

/// Row and letter change places at once: who finds one of them gone finds the other.
pub async fn row_and_letter_change_places_at_once(store: Arc<dyn Admin>) {
    let rows = publish(&store, &["a", "b"]).await;
    let letters = letters(&rows);
    let last = letters[1].id.clone();
    let has_row = async || outbox(&store, None).await.contains(&rows[1]);
    let has_letter = async || store.dead(&last).await.unwrap().is_some();
    for _ in 0..20 {
        let (handle, refused) = (Arc::clone(&store), letters.clone());
        let refusal = tokio::spawn(async move { refuse(&handle, &refused).await });
        while !refusal.is_finished() {
            assert!(has_row().await || has_letter().await);
        }
        refusal.await.expect("it does not panic");
        assert!(has_letter().await && !has_row().await);
        assert!(store.replay(&letters[0].id, 1).await.unwrap());
        let (handle, id) = (Arc::clone(&store), last.clone());
        let replay = tokio::spawn(async move { handle.replay(&id, 1).await });
        while !replay.is_finished() {
            assert!(has_letter().await || has_row().await);
        }
        assert!(replay.await.expect("it does not panic").unwrap());
        assert!(has_row().await && !has_letter().await);
    }
}
