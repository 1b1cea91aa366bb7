//! Versions in any order, on hosts that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use semel_core::memory::MemorySource;
use semel_core::{Admin, RecordState};

use crate::world::chaos::{Chaos, cases, chaos};
use crate::world::record;
use crate::{Update, applied, message, update, world};

/// Versions of a few items, in any order, on any partition, some of them several times.
#[derive(Clone, Debug)]
struct Script {
    sent: Vec<(u8, Update)>,
    /// Whether every version from the first to the last was sent, and early ones wait.
    complete: bool,
    wait: bool,
    lanes: bool,
    batch: usize,
    chaos: Chaos,
}

fn scripts() -> impl Strategy<Value = Script> {
    let sent = prop::collection::vec((0u8..2, 0usize..3, 1u64..9, 0u8..8), 1..40);
    (sent, 0u8..4, 1usize..12, chaos()).prop_map(|(mut sent, mode, batch, chaos)| {
        let complete = mode == 0;
        if complete {
            let mut last = [0; 3];
            for (_, item, version, _) in &mut sent {
                // What was random is a shuffle of what is sent anyhow.
                last[*item] = last[*item].max(*version);
            }
            for (item, last) in last.into_iter().enumerate() {
                sent.extend((1..=last).map(|version| (0, item, version, 7)));
            }
        }
        let update = |(partition, item, version, oddity): (u8, usize, u64, u8)| {
            let update = update(["a", "b", "c"][item], version);
            // A version that fails now and then is the same in every copy.
            let failures = u32::from((version + item as u64).is_multiple_of(5));
            let partition = if oddity == 0 {
                1 - partition
            } else {
                partition
            };
            (partition, Update { failures, ..update })
        };
        Script {
            sent: sent.into_iter().map(update).collect(),
            complete,
            wait: mode < 2,
            lanes: mode == 2,
            batch,
            chaos,
        }
    })
}

async fn play(script: &Script) {
    // Where nothing is missing, nothing may be given up.
    let bound = Duration::from_secs(if script.complete { 3_600 } else { 5 });
    let mut world = world(script.wait.then_some(bound));
    world.versioning.as_mut().unwrap().first = script.complete.then_some(1);
    world.order_by = script.lanes;
    world.flow.batch = script.batch;
    let feed = |_| {
        let source = Arc::new(MemorySource::new());
        for (partition, update) in &script.sent {
            source.push(&partition.to_string(), message(update));
        }
        source
    };
    let sources: Vec<_> = (0..script.chaos.hosts).map(feed).collect();
    let played = script.chaos.play(&world, &sources);
    let day = Duration::from_secs(86_400);
    tokio::time::timeout(day, played)
        .await
        .expect("it comes to an end");

    let mut sent: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (_, update) in &script.sent {
        let (state, _) = world.store.record(&record(&update.key)).await.unwrap();
        assert!(
            matches!(state, RecordState::Done { .. }),
            "{update:?}: {state:?}"
        );
        sent.entry(&update.item).or_default().insert(update.version);
    }
    for (item, versions) in sent {
        let applied = applied(&world, item).await;
        assert!(applied.is_sorted_by(|a, b| a < b), "{item}: {applied:?}");
        assert_eq!(applied.last(), versions.last(), "{item}: the newest stands");
        assert!(applied.iter().all(|version| versions.contains(version)));
        if script.complete {
            assert!(
                applied.iter().eq(&versions),
                "{item}: {applied:?} of {versions:?}"
            );
        }
    }
    assert!(sources.iter().all(|source| source.all_acknowledged()));
    assert_eq!(world.stats.dead.get(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, ..ProptestConfig::with_cases(cases(1_000)) })]

    #[test]
    fn versions_are_applied_in_order_whatever_happens(script in scripts()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(&script));
    }
}
