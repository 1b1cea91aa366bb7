//! Tables whose changes the server does not keep, or not take back, with the store's.

use semel_core::{AfterMiss, SqlGrants, Store};
use semel_stores::SqlStore;
use semel_tests::conformance::store::build::*;

use crate::commit::{Beside, missed};
use crate::{Database, Server};

super::on_each_database!(
    what_is_not_taken_back_is_only_queried,
    what_comes_late_is_looked_at_before_it_is_changed,
);

/// Statements that make tables, each with its name and what is said of it.
fn unfit(server: &Server) -> &'static [(&'static str, &'static str, &'static str)] {
    match server {
        Server::Mariadb(_) => &[
            (
                "myisam",
                "CREATE TABLE myisam (n INTEGER) ENGINE = MyISAM",
                "its engine is MyISAM: it takes a table with the engine InnoDB",
            ),
            (
                "aria",
                "CREATE TABLE aria (n INTEGER) ENGINE = Aria TRANSACTIONAL = 1",
                "its engine is Aria",
            ),
            (
                "elsewhere.memory",
                "CREATE DATABASE IF NOT EXISTS elsewhere; \
                 CREATE OR REPLACE TABLE elsewhere.memory (n INTEGER) ENGINE = MEMORY",
                "its engine is MEMORY",
            ),
            ("v", "CREATE VIEW v AS SELECT * FROM myisam", "it is a view"),
        ],
        Server::Postgres(_) => &[
            (
                "unlogged",
                "CREATE UNLOGGED TABLE unlogged (n INTEGER)",
                "unlogged is UNLOGGED, and a crash empties it: it takes a table of this database \
                 that is logged",
            ),
            (
                "elsewhere.\"Parts\"",
                "CREATE SCHEMA elsewhere; \
                 CREATE TABLE elsewhere.\"Parts\" (n INTEGER) PARTITION BY RANGE (n); \
                 CREATE TABLE logged PARTITION OF elsewhere.\"Parts\" FOR VALUES FROM (0) TO (9); \
                 CREATE UNLOGGED TABLE part PARTITION OF elsewhere.\"Parts\" FOR VALUES FROM (9) TO (99)",
                "part is UNLOGGED",
            ),
            (
                "foreign_one",
                "CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none; \
                 CREATE FOREIGN TABLE foreign_one (n INTEGER) SERVER far",
                "foreign_one is a foreign table",
            ),
            (
                "v",
                "CREATE VIEW v AS SELECT * FROM unlogged",
                "v is a view",
            ),
        ],
    }
}

async fn what_is_not_taken_back_is_only_queried(database: Database) {
    let store = SqlStore::open(&database.url).await.unwrap();
    for (table, create, says) in unfit(&database.server) {
        database.sql(create);
        let tables = vec![table.replace('"', "")];
        let changed = SqlGrants {
            delete: tables.clone(),
            ..SqlGrants::default()
        };
        let error = store.sql(&changed).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        let queried = SqlGrants {
            select: tables,
            ..SqlGrants::default()
        };
        store.sql(&queried).await.unwrap();
    }
}

async fn what_comes_late_is_looked_at_before_it_is_changed(database: Database) {
    let it = Beside::open(&database).await;
    let run = || {
        let insert = "INSERT INTO t (k, n) VALUES ('a', ?)";
        it.stage(done("k"), insert, &[1], Some(1))
    };
    let (unfit, mended) = match database.server {
        Server::Mariadb(_) => (
            "CREATE TABLE t (k VARCHAR(20), n BIGINT) ENGINE = MyISAM",
            "ALTER TABLE t ENGINE = InnoDB",
        ),
        Server::Postgres(_) => (
            "CREATE UNLOGGED TABLE t (k VARCHAR(20), n BIGINT)",
            "ALTER TABLE t SET LOGGED",
        ),
    };
    for (change, says) in [
        ("SELECT 1", "there is no table `t`"),
        (unfit, "can't be changed"),
    ] {
        database.sql(change);
        let outcome = commit_one(&it.store, &run()).await;
        assert_eq!(missed(&outcome).then, AfterMiss::Retry);
        assert!(missed(&outcome).reason.contains(says), "{outcome:?}");
    }
    assert_eq!(database.sql("SELECT COUNT(*) FROM t"), "0");
    database.sql(mended);
    let outcome = commit_one(&it.store, &run()).await;
    assert!(applied(&outcome), "{outcome:?}");
    assert_eq!(database.sql("SELECT COUNT(*) FROM t"), "1");
}
