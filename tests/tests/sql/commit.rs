//! Statements in a store's commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use semel_core::{
    Admin, AfterMiss, Miss, OnMiss, Outcome, RecordState, Run, SqlAccess, SqlGrants, SqlValue,
    Verdict,
};
use semel_stores::SqlStore;
use semel_tests::conformance::store::build::*;

use crate::{Database, Server};

super::on_each_database!(
    they_are_carried_out_with_the_record,
    a_miss_takes_back_its_run_and_no_other,
    a_constraint_is_a_miss,
    a_constraint_that_is_checked_last_is_a_miss_of_its_run,
    a_statement_that_can_t_be_is_a_failure_of_its_run,
    a_row_that_someone_keeps_locked_holds_up_its_run_only,
    two_stores_count_every_row_once,
    the_store_s_own_tables_can_t_be_granted,
);

/// A store beside a table `t` of numbers by key, and what a plugin may do there.
pub(super) struct Beside {
    pub(super) store: Arc<dyn Admin>,
    pub(super) access: Arc<dyn SqlAccess>,
}

impl Beside {
    pub(super) async fn open(database: &Database) -> Self {
        let all = || vec!["t".to_owned()];
        let store: Arc<dyn Admin> = Arc::new(SqlStore::open(&database.url).await.unwrap());
        let grants = SqlGrants {
            select: all(),
            insert: all(),
            update: all(),
            delete: all(),
            functions: Vec::new(),
        };
        Self {
            access: store.sql(&grants).await.unwrap(),
            store,
        }
    }

    async fn new(database: &Database) -> Self {
        database.sql("CREATE TABLE t (k VARCHAR(20) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)");
        database.sql("INSERT INTO t (k, n) VALUES ('a', 1), ('b', 2)");
        Self::open(database).await
    }

    /// Adds a statement to a run, which must find as many rows.
    pub(super) fn stage(&self, mut run: Run, text: &str, values: &[i64], rows: Option<u64>) -> Run {
        let values = values.iter().map(|value| SqlValue::Integer(*value));
        let statement = self
            .access
            .statement(text, values.collect(), rows, OnMiss::RunAgain);
        let Verdict::Done(effects) = &mut run.verdict else {
            panic!("it is not done");
        };
        effects.statements.push(statement.unwrap());
        run
    }

    /// A run that sets `a`, and must find it as it was.
    fn set(&self, key: &str, from: i64, to: i64) -> Run {
        let text = "UPDATE t SET n = ? WHERE k = 'a' AND n = ?";
        self.stage(done(key).adding("runs", 1), text, &[to, from], Some(1))
    }
}

pub(super) fn missed(outcome: &Outcome) -> &Miss {
    match outcome {
        Outcome::Missed(miss) => miss,
        other => panic!("{other:?}"),
    }
}

async fn they_are_carried_out_with_the_record(database: Database) {
    let it = Beside::new(&database).await;
    let run = it.set("k", 1, 10).publishing("m", None);
    let run = it.stage(run, "INSERT INTO t (k, n) VALUES ('c', ?)", &[3], Some(1));
    let run = it.stage(run, "DELETE FROM t WHERE k = 'b' AND n > $1", &[0], None);
    let first = commit_one(&it.store, &run).await;
    assert!(applied(&first), "{first:?}");
    let rows = "SELECT k, n FROM t ORDER BY k";
    assert_eq!(database.sql(rows), "a|10\nc|3");
    // Sent again, because the reply was lost, it is the same commit.
    assert_eq!(commit_one(&it.store, &run).await, first);
    assert_eq!(
        commit_one(&it.store, &it.set("k", 10, 20)).await,
        Outcome::Duplicate
    );
    assert_eq!(database.sql(rows), "a|10\nc|3");
    assert_eq!(text(&it.store, "runs").await.as_deref(), Some("1"));
}

async fn a_miss_takes_back_its_run_and_no_other(database: Database) {
    let it = Beside::new(&database).await;
    // It inserts first, and then finds another number than it expects.
    let half = it.stage(
        done("half"),
        "INSERT INTO t (k, n) VALUES ('h', ?)",
        &[0],
        None,
    );
    let half = it.stage(
        half.adding("runs", 1).publishing("m", None),
        "UPDATE t SET n = n + 1 WHERE k = 'a' AND n = ?",
        &[7],
        Some(1),
    );
    let batch = [it.set("one", 1, 5), half, it.set("two", 5, 6)];
    let outcomes = commit(&it.store, &batch).await;
    assert!(
        applied(&outcomes[0]) && applied(&outcomes[2]),
        "{outcomes:?}"
    );
    let miss = missed(&outcomes[1]);
    assert_eq!(miss.then, AfterMiss::RunAgain);
    assert!(
        miss.reason.contains("found 0 rows in place of 1"),
        "{miss:?}"
    );
    assert_eq!(database.sql("SELECT k, n FROM t ORDER BY k"), "a|6\nb|2");
    assert_eq!(text(&it.store, "runs").await.as_deref(), Some("2"));
    assert_eq!(it.store.outbox_len().await.unwrap(), 0);
    assert_eq!(
        check(&it.store, &record("half")).await.state,
        RecordState::Absent
    );
    // A batch of nothing but misses leaves nothing either.
    let outcomes = commit(&it.store, &[it.set("three", 1, 5)]).await;
    missed(&outcomes[0]);
    assert_eq!(
        check(&it.store, &record("three")).await.state,
        RecordState::Absent
    );
}

async fn a_constraint_is_a_miss(database: Database) {
    let it = Beside::new(&database).await;
    let insert = "INSERT INTO t (k, n) VALUES ('a', ?)";
    let twice = it.stage(done("twice"), insert, &[9], None);
    let null = "INSERT INTO t (k, n) VALUES (NULL, ?)";
    let null = it.stage(done("null"), null, &[9], None);
    let outcomes = commit(&it.store, &[twice, null, it.set("k", 1, 2)]).await;
    assert_eq!(missed(&outcomes[0]).then, AfterMiss::RunAgain);
    assert!(
        missed(&outcomes[0])
            .reason
            .to_lowercase()
            .contains("duplicate")
    );
    assert_eq!(missed(&outcomes[1]).then, AfterMiss::RunAgain);
    assert!(applied(&outcomes[2]), "{outcomes:?}");
}

async fn a_constraint_that_is_checked_last_is_a_miss_of_its_run(database: Database) {
    // MariaDB checks at once, so that there is nothing to hold back.
    if matches!(database.server, Server::Mariadb(_)) {
        return;
    }
    let it = Beside::new(&database).await;
    database.sql("ALTER TABLE t ADD CONSTRAINT n_is_once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED");
    let same = it.stage(done("same"), "UPDATE t SET n = ?", &[7], Some(2));
    // In between there are two of one number, at the end there are not.
    let swap = it.stage(
        done("swap"),
        "UPDATE t SET n = n + ? WHERE k = 'a'",
        &[1],
        Some(1),
    );
    let swap = it.stage(swap, "UPDATE t SET n = n - ? WHERE k = 'b'", &[1], Some(1));
    let outcomes = commit(&it.store, &[same, swap]).await;
    assert!(
        missed(&outcomes[0]).reason.contains("n_is_once"),
        "{outcomes:?}"
    );
    assert!(applied(&outcomes[1]), "{outcomes:?}");
    assert_eq!(database.sql("SELECT k, n FROM t ORDER BY k"), "a|2\nb|1");
}

async fn a_statement_that_can_t_be_is_a_failure_of_its_run(database: Database) {
    let it = Beside::new(&database).await;
    let unknown = it.stage(done("unknown"), "UPDATE t SET x = ?", &[1], None);
    let outcomes = commit(&it.store, &[unknown, it.set("k", 1, 2)]).await;
    assert_eq!(missed(&outcomes[0]).then, AfterMiss::Retry);
    assert!(missed(&outcomes[0]).reason.contains("`UPDATE t SET x"));
    assert!(applied(&outcomes[1]), "{outcomes:?}");
}

async fn a_row_that_someone_keeps_locked_holds_up_its_run_only(database: Database) {
    let it = Beside::new(&database).await;
    let sleep = match database.server {
        Server::Mariadb(_) => "SELECT SLEEP(8)",
        Server::Postgres(_) => "SELECT pg_sleep(8)",
    };
    let keep = format!("BEGIN; UPDATE t SET n = n WHERE k = 'a'; {sleep}; COMMIT");
    let mut keeper = database.client(&keep).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = Instant::now();
    let outcomes = commit(&it.store, &[it.set("k", 1, 2), done("other")]).await;
    assert!(started.elapsed() < Duration::from_secs(7));
    assert_eq!(missed(&outcomes[0]).then, AfterMiss::Retry);
    assert!(applied(&outcomes[1]), "{outcomes:?}");
    keeper.wait().unwrap();
}

async fn two_stores_count_every_row_once(database: Database) {
    let hosts = [Beside::new(&database).await, Beside::open(&database).await];
    let mut tasks = tokio::task::JoinSet::new();
    for it in hosts {
        tasks.spawn(async move {
            for batch in 0..20 {
                let run = |i| {
                    let key = format!("{batch}-{i}");
                    it.stage(
                        done(key),
                        "UPDATE t SET n = n + ? WHERE k = 'a'",
                        &[1],
                        Some(1),
                    )
                };
                let runs: Vec<_> = (0..8).map(run).collect();
                let outcomes = commit(&it.store, &runs).await;
                let once = |it: &Outcome| applied(it) || *it == Outcome::Duplicate;
                assert!(outcomes.iter().all(once), "{outcomes:?}");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(database.sql("SELECT n FROM t WHERE k = 'a'"), "161");
}

async fn the_store_s_own_tables_can_t_be_granted(database: Database) {
    let store = SqlStore::open(&database.url).await.unwrap();
    for (table, says) in [
        ("semel_record", "is the store's own"),
        ("other.SEMEL_STATE", "is the store's own"),
        ("pg_catalog.pg_authid", "is the server's own"),
        ("mysql.user", "is the server's own"),
        ("a.b.c", "is no name of a table"),
    ] {
        let grants = SqlGrants {
            update: vec![table.to_owned()],
            ..SqlGrants::default()
        };
        let refused = semel_core::Store::sql(&store, &grants).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
