//! Outgoing messages.

use std::sync::Arc;

use semel_core::{
    Admin, Lane, MessageId, OutboxLane, OutboxRow, OutboxScan, Outcome, PluginName, RowId, Run,
};

use super::build::*;

async fn all(store: &Arc<dyn Admin>) -> Vec<OutboxRow> {
    let scan = OutboxScan {
        limit: 1_000,
        ..OutboxScan::default()
    };
    store.outbox(&scan).await.expect("the outbox is read")
}

async fn bodies(store: &Arc<dyn Admin>, scan: OutboxScan) -> Vec<String> {
    let rows = store.outbox(&scan).await.expect("the outbox is read");
    rows.iter()
        .map(|row| String::from_utf8(row.outgoing.body.to_vec()).expect("text"))
        .collect()
}

fn lane(name: &str) -> OutboxLane {
    OutboxLane {
        plugin: plugin(),
        lane: Lane::new(name.as_bytes().to_vec()),
    }
}

fn in_lane(name: &str) -> OutboxScan {
    OutboxScan {
        lane: Some(lane(name)),
        limit: 1_000,
        after: None,
    }
}

fn clear(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Applied { outbox_clear, .. } => *outbox_clear,
        other => panic!("not applied: {other:?}"),
    }
}

/// By commit, and within one by ordinal.
pub async fn rows_come_in_order(store: Arc<dyn Admin>) {
    let first = apply(
        &store,
        &done("1").publishing("a", None).publishing("b", Some(5)),
    )
    .await;
    let batch = [
        done("2").publishing("c", None),
        done("3"),
        done("4").publishing("d", None),
    ];
    let outcomes = commit(&store, &batch).await;
    let rows = all(&store).await;
    let ids: Vec<_> = rows
        .iter()
        .map(|row| (row.id.version, row.id.ordinal))
        .collect();
    let (third, fifth) = (version(&outcomes[0]), version(&outcomes[2]));
    assert_eq!(ids, [(first, 0), (first, 1), (third, 0), (fifth, 0)]);
    let after = OutboxScan {
        after: Some(rows[1].id),
        limit: 9,
        lane: None,
    };
    assert_eq!(bodies(&store, after).await, ["c", "d"]);
}

/// Of one lane only, of one plugin.
pub async fn rows_of_a_lane(store: Arc<dyn Admin>) {
    let publish = |key: &str, name: &str| done(key).publishing(key, None).in_lane(name, 1);
    for (key, name) in [("1", "l"), ("2", "m"), ("3", "l"), ("4", "l ")] {
        apply(&store, &publish(key, name)).await;
    }
    apply(&store, &publish("5", "l").of_plugin("audit")).await;
    apply(&store, &done("6").publishing("6", None)).await;
    assert_eq!(bodies(&store, in_lane("l")).await, ["1", "3"]);
    assert_eq!(bodies(&store, in_lane("m")).await, ["2"]);
    assert_eq!(bodies(&store, in_lane("")).await, [""; 0]);
    let audit = OutboxLane {
        plugin: PluginName::new("audit"),
        ..lane("l")
    };
    let scan = OutboxScan {
        lane: Some(audit),
        ..in_lane("l")
    };
    assert_eq!(bodies(&store, scan).await, ["5"]);
    let first = all(&store).await[0].id;
    let scan = OutboxScan {
        after: Some(first),
        ..in_lane("l")
    };
    assert_eq!(bodies(&store, scan).await, ["3"]);
    store.confirm(&[first]).await.unwrap();
    assert_eq!(bodies(&store, in_lane("l")).await, ["3"]);
}

/// It can't keep others waiting.
pub async fn a_delayed_message_has_no_lane(store: Arc<dyn Admin>) {
    let run = done("1")
        .in_lane("l", 1)
        .publishing("later", Some(60_000))
        .publishing("now", None);
    apply(&store, &run).await;
    let rows = all(&store).await;
    assert_eq!(rows[0].lane, None);
    assert_eq!(rows[0].due_ms, run.ended_ms + 60_000);
    assert_eq!(rows[1].lane, Some(lane("l")));
    assert_eq!(rows[1].due_ms, 0);
    assert_eq!(bodies(&store, in_lane("l")).await, ["now"]);
}

/// Confirmed rows are gone; others stay; what is not there can be confirmed.
pub async fn confirming_twice_changes_nothing(store: Arc<dyn Admin>) {
    let run = done("1")
        .publishing("a", None)
        .publishing("b", None)
        .publishing("c", Some(1));
    let version = apply(&store, &run.in_lane("l", 1)).await;
    let id = |ordinal| RowId { version, ordinal };
    for _ in 0..2 {
        store.confirm(&[id(0), id(2), id(9)]).await.unwrap();
        let ids: Vec<_> = all(&store).await.iter().map(|row| row.id).collect();
        assert_eq!(ids, [id(1)]);
        assert_eq!(bodies(&store, in_lane("l")).await, ["b"]);
    }
    store.confirm(&[id(1), id(1)]).await.unwrap();
    assert_eq!(all(&store).await, []);
}

/// Whether the committer may publish at once, without breaking its lane's order.
pub async fn clear_unless_an_older_row_waits(store: Arc<dyn Admin>) {
    let publish = |key: &str, name: &str| done(key).publishing(key, None).in_lane(name, 1);
    let batch: [Run; 6] = [
        publish("1", "l").publishing("1b", None),
        publish("2", "l"),
        publish("3", "m"),
        done("4").in_lane("l", 1),
        done("5").publishing("5", None),
        done("6").publishing("6", Some(1)).in_lane("l", 1),
    ];
    let outcomes = commit(&store, &batch).await;
    let clears: Vec<_> = outcomes.iter().map(clear).collect();
    assert_eq!(clears, [true, false, true, true, true, true]);
    assert!(!clear(&commit_one(&store, &publish("7", "l")).await));
    let audit = publish("8", "l").of_plugin("audit");
    assert!(clear(&commit_one(&store, &audit).await));
    let ids: Vec<_> = all(&store).await.iter().map(|row| row.id).collect();
    store.confirm(&ids).await.unwrap();
    assert!(clear(&commit_one(&store, &publish("9", "l")).await));
}

/// With the id that consumers deduplicate by.
pub async fn rows_are_read_as_written(store: Arc<dyn Admin>) {
    let run = done(b"k\0\xff")
        .publishing("a\0ü", None)
        .publishing("", None);
    let version = apply(&store, &run.clone().in_lane("l\0", 1)).await;
    let rows = all(&store).await;
    for (ordinal, body) in [(0, "a\0ü"), (1, "")] {
        let expected = OutboxRow {
            id: RowId { version, ordinal },
            plugin: plugin(),
            message_id: MessageId::derive(&run.record, ordinal),
            lane: Some(lane("l\0")),
            due_ms: 0,
            outgoing: outgoing(body, None),
        };
        assert_eq!(rows[ordinal as usize], expected);
    }
}

/// Also those that have no lane.
pub async fn rows_know_their_plugin(store: Arc<dyn Admin>) {
    let publish = |key: &str| done(key).publishing(key, None).publishing(key, Some(1));
    apply(&store, &publish("1")).await;
    apply(&store, &publish("2").of_plugin("audit")).await;
    apply(&store, &publish("3").in_lane("l", 1)).await;
    let rows = all(&store).await;
    let plugins: Vec<_> = rows.iter().map(|row| row.plugin.as_str()).collect();
    let expected = ["points", "points", "audit", "audit", "points", "points"];
    assert_eq!(plugins, expected);
}

/// Whatever comes and goes, and whenever it is due.
pub async fn the_length_is_exact(store: Arc<dyn Admin>) {
    let len = async || store.outbox_len().await.expect("it is counted");
    assert_eq!(len().await, 0);
    let run = done("1")
        .publishing("a", None)
        .publishing("b", Some(60_000));
    apply(&store, &run).await;
    assert_eq!(len().await, 2);
    commit(&store, &[run, done("1").publishing("c", None)]).await;
    assert_eq!(len().await, 2);
    apply(&store, &done("2").of_plugin("audit").publishing("d", None)).await;
    assert_eq!(len().await, 3);
    let rows = all(&store).await;
    store.confirm(&[rows[0].id, rows[0].id]).await.unwrap();
    assert_eq!(len().await, 2);
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    store.confirm(&ids).await.unwrap();
    assert_eq!(len().await, 0);
}

/// At most as many as asked for.
pub async fn scans_are_limited(store: Arc<dyn Admin>) {
    let batch: Vec<_> = (0..30)
        .map(|i| {
            done(i.to_string())
                .publishing(&i.to_string(), None)
                .in_lane("l", i)
        })
        .collect();
    commit(&store, &batch).await;
    let mut scan = OutboxScan {
        limit: 7,
        ..OutboxScan::default()
    };
    let mut seen = Vec::new();
    loop {
        let rows = store.outbox(&scan).await.unwrap();
        assert!(rows.len() <= 7);
        let Some(last) = rows.last() else { break };
        scan.after = Some(last.id);
        seen.extend(rows.iter().map(|row| row.outgoing.body.clone()));
    }
    let expected: Vec<_> = (0..30).map(|i| i.to_string()).collect();
    assert_eq!(seen, expected);
    assert_eq!(
        bodies(
            &store,
            OutboxScan {
                limit: 3,
                ..in_lane("l")
            }
        )
        .await,
        ["0", "1", "2"]
    );
}
