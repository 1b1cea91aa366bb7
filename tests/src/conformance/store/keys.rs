//! Keys that stores get wrong.

use std::sync::Arc;

use semel_core::{Admin, BusinessKey, MAX_KEY_BYTES, Outcome, RecordState};

use super::build::*;

const ODD: &[&[u8]] = &[
    b"A",
    b"a",
    b"a ",
    b" a",
    b"a\0",
    b"\0a",
    b"\0",
    b"\0\0",
    b"",
    b"\xff",
    b"\xff\xff",
    b"\xfe",
    b"a:b",
    b"a:b:c",
    b"a}b",
    b"{a}",
    b"{semel}",
    b"a*",
    b"a?",
    b"%s",
    b"a\r\n",
    b"a\n",
    b"'",
    b"\"",
    b"\\",
    b"a\x80",
    "ä".as_bytes(),
    "a\u{308}".as_bytes(),
    "ß".as_bytes(),
    b"ss",
    b"1",
    b"01",
    b"1.0",
    b"1e0",
    b"nil",
    b"\x01",
    b"\x7f",
];

/// Equal byte for byte or not at all.
pub async fn odd_keys_stay_apart(store: Arc<dyn Admin>) {
    for key in ODD {
        let state = check(&store, &record(key)).await.state;
        assert_eq!(state, RecordState::Absent, "{key:?}");
        apply(&store, &done(key)).await;
    }
    for key in ODD {
        assert_eq!(
            commit_one(&store, &done(key)).await,
            Outcome::Duplicate,
            "{key:?}"
        );
    }
    let stats = store.stats(&plugin()).await.unwrap();
    assert_eq!(stats.done, ODD.len() as u64);
    for key in ODD {
        let key = [b"p", *key].concat();
        apply(&store, &park(&key, 5).in_lane("l", 1)).await;
    }
    assert_eq!(store.due(&plugin(), 5, 99).await.unwrap().len(), ODD.len());
    for key in ODD {
        let key = [b"p", *key].concat();
        apply(&store, &done(&key)).await;
    }
    assert_eq!(store.parked(&plugin()).await.unwrap(), (0, None));
}

/// Plugin and key, namespace and name, lane and partition: another split is another thing.
pub async fn parts_of_keys_do_not_run_together(store: Arc<dyn Admin>) {
    let splits = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("ab", "c"),
        ("a", "bc"),
        ("a:", "b:c"),
        ("a", ":b:c"),
    ];
    for (i, (plugin, key)) in splits.into_iter().enumerate() {
        let run = done(key).of_plugin(plugin);
        assert_eq!(check(&store, &run.record).await.state, RecordState::Absent);
        apply(&store, &run).await;
        apply(&store, &park(format!("p{key}"), 1).of_plugin(plugin)).await;
        let publishing = done(format!("x{i}")).in_lane(key, 1).publishing("m", None);
        apply(&store, &publishing.of_plugin(plugin)).await;
    }
    for (i, (namespace, name)) in splits.into_iter().enumerate() {
        let mut run = done(format!("s{i}")).adding(name, 1);
        if let semel_core::Verdict::Done(effects) = &mut run.verdict {
            effects.writes[0].key.namespace = namespace.into();
        }
        apply(&store, &run).await;
        let entries = store.list_state(namespace, name, None, 9).await.unwrap();
        assert_eq!(entries.len(), 1, "{namespace} {name}");
        assert_eq!(entries[0].value, "1");
    }
}

/// As long as they may be, and alike up to the last byte.
pub async fn long_keys(store: Arc<dyn Admin>) {
    let mut key = vec![b'k'; MAX_KEY_BYTES];
    apply(&store, &done(&key)).await;
    assert_eq!(commit_one(&store, &done(&key)).await, Outcome::Duplicate);
    *key.last_mut().expect("it is not empty") = b'l';
    let lane = "l".repeat(MAX_KEY_BYTES);
    apply(&store, &park(&key, 5).in_lane(&lane, 1)).await;
    let later = done(&key[1..]).in_lane(&lane, 2);
    assert_eq!(commit_one(&store, &later).await, Outcome::Behind);
    apply(&store, &done(&key).in_lane(&lane, 1).publishing("m", None)).await;
    apply(&store, &later).await;
    assert_eq!(record(&key).key, BusinessKey::new(key));
}

/// State names are text, but any text.
pub async fn odd_state_names_stay_apart(store: Arc<dyn Admin>) {
    let names: Vec<_> = ODD
        .iter()
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect();
    for (i, name) in names.iter().enumerate() {
        apply(&store, &done(format!("k{i}")).putting(name, name)).await;
    }
    for name in &names {
        assert_eq!(text(&store, name).await.as_deref(), Some(*name));
    }
    let listed = store.list_state("points", "", None, 999).await.unwrap();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let listed: Vec<_> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(listed, sorted);
    let mut long = "n".repeat(1_024);
    apply(&store, &done("long").putting(&long, "1")).await;
    long.pop();
    assert_eq!(text(&store, &long).await, None);
}
