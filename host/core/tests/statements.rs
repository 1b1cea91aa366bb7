//! Statements on the user's own tables: what the engine makes of those that miss, and what the
//! messages of a lane see of those before them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod world;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use semel_core::memory::{Answer, MemorySource, MemoryStore, NativeRunner};
use semel_core::{
    Admin, AfterMiss, Cause, Failure, Miss, OnMiss, QueryError, QueryLimits, RunContext, SqlAccess,
    SqlError, SqlRows, SqlValue, Statement,
};
use world::{Order, World, message, order};

/// A table with one number, which statements count up.
#[derive(Debug, Default)]
struct Number(AtomicI64);

#[async_trait]
impl SqlAccess for Number {
    fn statement(
        &self,
        text: &str,
        parameters: Vec<SqlValue>,
        rows: Option<u64>,
        on_miss: OnMiss,
    ) -> Result<Statement, SqlError> {
        Ok(Statement {
            table: "numbers".into(),
            text: text.into(),
            parameters,
            rows,
            on_miss,
        })
    }

    async fn query(
        &self,
        _: &str,
        _: Vec<SqlValue>,
        _: QueryLimits,
    ) -> Result<SqlRows, QueryError> {
        let number = SqlValue::Integer(self.0.load(SeqCst));
        Ok(SqlRows {
            columns: vec!["n".to_owned()],
            rows: vec![vec![number]],
        })
    }
}

/// A world beside that table. The first `misses` statements miss in this way.
fn world(misses: usize, then: AfterMiss) -> (World, Arc<Number>) {
    let (mut world, number) = (World::new(), Arc::<Number>::default());
    world.sql = Some(Arc::clone(&number) as _);
    world.runner = Arc::new(NativeRunner::new(|context| Box::pin(count_up(context))));
    let (table, left) = (Arc::clone(&number), AtomicUsize::new(misses));
    world.store.keep_tables(move |statements| {
        if left
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            let reason = "someone came first".to_owned();
            return Some(Miss { reason, then });
        }
        table.0.fetch_add(statements.len() as i64, SeqCst);
        None
    });
    (world, number)
}

/// Counts the number up, and keeps under its key what it was.
async fn count_up(context: &mut RunContext) -> Answer {
    let rows = context.query("SELECT n", Vec::new()).await;
    let rows = rows.map_err(|_| Failure::Aborted)?.unwrap();
    let SqlValue::Integer(before) = rows.rows[0][0] else {
        panic!("{rows:?}");
    };
    let key = context.record().key.to_string();
    context.put(&key, before.to_string().into()).unwrap();
    let staged = context.execute("UPDATE", Vec::new(), Some(1), OnMiss::RunAgain);
    staged.unwrap();
    Ok(None)
}

fn source(orders: &[Order]) -> Arc<MemorySource> {
    let source = Arc::new(MemorySource::new());
    orders
        .iter()
        .for_each(|order| drop(source.push("p", message(order))));
    source
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_misses_runs_the_handler_again() {
    let (world, number) = world(5, AfterMiss::RunAgain);
    world.finish(&source(&[order("1")])).await;
    let stats = world.stats.snapshot();
    assert_eq!((stats.runs, stats.applied, stats.parkings), (6, 1, 0));
    assert_eq!(number.0.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_always_misses_counts_as_a_failure() {
    let (world, number) = world(usize::MAX, AfterMiss::RunAgain);
    world.finish(&source(&[order("1")])).await;
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    assert_eq!(dead[0].cause, Cause::Exhausted);
    assert_eq!(dead[0].reason, "someone came first");
    assert_eq!(number.0.load(SeqCst), 0);
    let stats = world.stats.snapshot();
    // Three attempts of eight runs each.
    assert_eq!((stats.runs, stats.applied, stats.dead), (24, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_can_t_be_is_retried_with_delays() {
    let (world, number) = world(2, AfterMiss::Retry);
    world.finish(&source(&[order("1")])).await;
    let stats = world.stats.snapshot();
    assert_eq!((stats.runs, stats.applied, stats.parkings), (3, 1, 2));
    assert_eq!(number.0.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_must_not_miss_ends_its_message() {
    let (world, number) = world(1, AfterMiss::Reject);
    world.finish(&source(&[order("1"), order("2")])).await;
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].cause), (1, Cause::Rejected));
    assert_eq!(world.stats.snapshot().applied, 1);
    assert_eq!(number.0.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_sees_the_statements_of_those_before_it_in_its_lane() {
    for misses in [0, 3] {
        let (mut world, _) = world(misses, AfterMiss::RunAgain);
        world.order_by = true;
        let orders: Vec<_> = (0..20).map(|n| order(&n.to_string())).collect();
        world.finish(&source(&orders)).await;
        for n in 0..20 {
            let seen = world.state(&n.to_string()).await.unwrap();
            assert_eq!(seen, n.to_string());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_without_tables_fails_the_run() {
    let (mut world, _) = world(0, AfterMiss::Retry);
    world.store = MemoryStore::with_clock(world.clock.clone());
    world.finish(&source(&[order("1")])).await;
    let dead = world.store.list_dead(None, None, 10).await.unwrap();
    assert!(
        dead[0].reason.contains("keeps no tables"),
        "{}",
        dead[0].reason
    );
}

/// All of them read one row and must find it as they read it: of a commit, one does.
#[tokio::test(start_paused = true)]
async fn messages_that_are_in_each_others_way_go_one_by_one() {
    for lanes in [false, true] {
        let (mut world, number) = world(0, AfterMiss::RunAgain);
        world.order_by = lanes;
        world.runner = Arc::new(NativeRunner::new(|context| Box::pin(set_version(context))));
        let table = Arc::clone(&number);
        world.store.keep_tables(move |statements| {
            let expected = &statements[0].parameters[0];
            if *expected != SqlValue::Integer(table.0.load(SeqCst)) {
                let (reason, then) = ("another version".to_owned(), AfterMiss::RunAgain);
                return Some(Miss { reason, then });
            }
            table.0.fetch_add(1, SeqCst);
            None
        });
        let orders: Vec<_> = (0..100)
            .map(|n| Order {
                lane: (n % 30).to_string(),
                ..order(&n.to_string())
            })
            .collect();
        world.finish(&source(&orders)).await;
        let stats = world.stats.snapshot();
        assert_eq!((stats.applied, stats.parkings, stats.dead), (100, 0, 0));
        assert_eq!(number.0.load(SeqCst), 100);
    }
}

/// Counts the number up, if it is still what it was.
async fn set_version(context: &mut RunContext) -> Answer {
    let rows = context.query("SELECT n", Vec::new()).await;
    let mut rows = rows.map_err(|_| Failure::Aborted)?.unwrap();
    let version = rows.rows.remove(0);
    let staged = context.execute("UPDATE", version, Some(1), OnMiss::RunAgain);
    staged.unwrap();
    Ok(None)
}

/// Nothing is granted unless the operator says so.
#[tokio::test(start_paused = true)]
async fn without_a_grant_every_statement_is_denied() {
    let (mut world, number) = world(0, AfterMiss::Retry);
    world.sql = None;
    let denials = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&denials);
    world.runner = Arc::new(NativeRunner::new(move |context| {
        let heard = Arc::clone(&heard);
        Box::pin(async move {
            let staged = context.execute("DELETE", Vec::new(), None, OnMiss::Reject);
            let asked = context.query("SELECT", Vec::new()).await.unwrap();
            let denied = [staged.unwrap_err(), asked.unwrap_err()];
            heard
                .lock()
                .unwrap()
                .extend(denied.map(|error| error.to_string()));
            Ok(None)
        })
    }));
    world.finish(&source(&[order("1")])).await;
    let denials = denials.lock().unwrap();
    assert_eq!(denials.len(), 2);
    assert!(
        denials
            .iter()
            .all(|text| text.contains("[plugins.ledger.sql]")),
        "{denials:?}"
    );
    assert_eq!(number.0.load(SeqCst), 0);
}
