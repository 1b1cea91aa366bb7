//! Many at once.

use std::sync::Arc;

use semel_core::{Admin, Outcome};
use tokio::task::JoinSet;

use super::build::*;

/// Blind additions never conflict and never get lost.
pub async fn adds_from_many_tasks_add_up(store: Arc<dyn Admin>) {
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for batch in 0..10 {
                let runs: Vec<_> = (0..8)
                    .map(|i| done(format!("{task}-{batch}-{i}")).adding(&format!("n{}", i % 3), 1))
                    .collect();
                let outcomes = commit(&store, &runs).await;
                assert!(outcomes.iter().all(applied), "{outcomes:?}");
            }
        });
    }
    tasks.join_all().await;
    let mut sum = 0;
    for name in ["n0", "n1", "n2"] {
        sum += text(&store, name)
            .await
            .expect("it is there")
            .parse::<u64>()
            .expect("a number");
    }
    assert_eq!(sum, 8 * 10 * 8);
}

/// Hosts that handle the same messages at the same time: each takes effect once.
pub async fn one_of_two_hosts_wins(store: Arc<dyn Admin>) {
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut won = 0;
            for key in 0..40 {
                match commit_one(&store, &done(key.to_string()).adding("n", 1)).await {
                    Outcome::Applied { .. } => won += 1,
                    Outcome::Duplicate => {}
                    other => panic!("{other:?}"),
                }
            }
            won
        });
    }
    let won: u64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(won, 40);
    assert_eq!(text(&store, "n").await.as_deref(), Some("40"));
}

/// Read, add one, put: whoever comes second runs again, and nothing is lost.
pub async fn counters_by_read_and_put_add_up(store: Arc<dyn Admin>) {
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for round in 0..10 {
                loop {
                    let name = if round % 2 == 0 { "even" } else { "odd" };
                    let seen = read(&store, name).await;
                    let before: u64 = match &seen.value {
                        Some(value) => std::str::from_utf8(value).unwrap().parse().unwrap(),
                        None => 0,
                    };
                    let run = done(format!("{task}-{round}"))
                        .reading(name, seen.version, &[])
                        .putting(name, &(before + 1).to_string());
                    match commit_one(&store, &run).await {
                        Outcome::Applied { .. } => break,
                        Outcome::Conflict => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(text(&store, "even").await.as_deref(), Some("40"));
    assert_eq!(text(&store, "odd").await.as_deref(), Some("40"));
}
