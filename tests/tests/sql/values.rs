//! Queries: what comes back, and what they can't do.

use semel_core::{OnMiss, QueryError, QueryLimits, SqlError, SqlGrants, SqlRows, SqlValue};
use semel_stores::SqlStore;

use crate::{Database, Server};

super::on_each_database!(
    every_type_has_a_form,
    parameters_are_what_they_were,
    a_query_has_limits,
    a_query_changes_nothing,
    what_is_not_granted_is_denied,
);

const LIMITS: QueryLimits = QueryLimits {
    rows: 100,
    bytes: 10_000,
};

async fn access(
    database: &Database,
    functions: &[&str],
) -> std::sync::Arc<dyn semel_core::SqlAccess> {
    let store = SqlStore::open(&database.url).await.unwrap();
    let grants = SqlGrants {
        select: vec!["v".to_owned()],
        insert: vec!["v".to_owned()],
        functions: functions.iter().map(|name| (*name).to_owned()).collect(),
        ..SqlGrants::default()
    };
    semel_core::Store::sql(&store, &grants).await.unwrap()
}

fn texts(values: &[SqlValue]) -> Vec<&str> {
    let texts = values.iter().map(|value| match value {
        SqlValue::Text(text) => text.as_str(),
        other => panic!("{other:?}"),
    });
    texts.collect()
}

async fn every_type_has_a_form(database: Database) {
    let (table, row) = match database.server {
        Server::Mariadb(_) => (
            "d DECIMAL(20, 4), day DATE, at DATETIME(3), j JSON, u BIGINT UNSIGNED, f FLOAT, \
             b BOOLEAN, e ENUM('x', 'y')",
            "12.5, '2026-11-21', '2026-11-21 16:54:43.125', '{\"a\": 1}', 7, 1.5, TRUE, 'y'",
        ),
        Server::Postgres(_) => (
            "d NUMERIC(20, 4), day DATE, at TIMESTAMP, j JSONB, u INTEGER, f REAL, b BOOLEAN, \
             e TIMESTAMPTZ",
            "12.5, '2026-11-21', '2026-11-21 16:54:43.125', '{\"a\": 1}', 7, 1.5, TRUE, \
             '2026-11-21 16:54:43+02'",
        ),
    };
    database.sql(&format!("CREATE TABLE v ({table})"));
    database.sql(&format!("INSERT INTO v VALUES ({row})"));
    let access = access(&database, &[]).await;
    let rows = access.query(
        "SELECT d, day, at, j, e, u, f, b, NULL AS n FROM v",
        vec![],
        LIMITS,
    );
    let SqlRows { columns, rows } = rows.await.unwrap();
    assert_eq!(columns, ["d", "day", "at", "j", "e", "u", "f", "b", "n"]);
    let last = match database.server {
        Server::Mariadb(_) => "y",
        Server::Postgres(_) => "2026-11-21T14:54:43Z",
    };
    let expected = [
        "12.5000",
        "2026-11-21",
        "2026-11-21T16:54:43.125",
        "{\"a\": 1}",
        last,
    ];
    assert_eq!(texts(&rows[0][..5]), expected);
    assert_eq!(
        rows[0][5..],
        [
            SqlValue::Integer(7),
            SqlValue::Float(1.5),
            SqlValue::Boolean(true),
            SqlValue::Null,
        ]
    );
    let none = access.query(
        "SELECT d FROM v WHERE u = $1",
        vec![SqlValue::Integer(8)],
        LIMITS,
    );
    let none = none.await.unwrap();
    assert_eq!((none.columns.len(), none.rows.len()), (1, 0));
}

/// Also a `NULL` in the place of another value, in both orders.
async fn parameters_are_what_they_were(database: Database) {
    let bytes = match database.server {
        Server::Mariadb(_) => "VARBINARY(20)",
        Server::Postgres(_) => "BYTEA",
    };
    database.sql(&format!(
        "CREATE TABLE v (i INTEGER, f FLOAT, t VARCHAR(50), x {bytes}, day DATE)"
    ));
    let values = [
        SqlValue::Integer(-7),
        SqlValue::Float(0.25),
        SqlValue::Text("it's \\ \"'; DROP TABLE v; -- ü".to_owned()),
        SqlValue::Bytes(vec![0, 255, 39]),
        SqlValue::Text("2026-11-21".to_owned()),
    ];
    let nulls = vec![SqlValue::Null; 5];
    let access = access(&database, &[]).await;
    let store = SqlStore::open(&database.url).await.unwrap();
    let store: std::sync::Arc<dyn semel_core::Admin> = std::sync::Arc::new(store);
    let insert = "INSERT INTO v (i, f, t, x, day) VALUES (?, ?, ?, ?, CAST(? AS DATE))";
    for (key, values) in [("1", nulls.clone()), ("2", values.to_vec()), ("3", nulls)] {
        use semel_tests::conformance::store::build::*;
        let statement = access
            .statement(insert, values, Some(1), OnMiss::RunAgain)
            .unwrap();
        let mut run = done(key);
        let semel_core::Verdict::Done(effects) = &mut run.verdict else {
            panic!("it is done");
        };
        effects.statements.push(statement);
        let outcome = commit_one(&store, &run).await;
        assert!(applied(&outcome), "{outcome:?}");
    }
    let query = "SELECT i, f, t, x, day FROM v WHERE i = ? AND t = ?";
    let rows = access.query(query, vec![values[0].clone(), values[2].clone()], LIMITS);
    assert_eq!(rows.await.unwrap().rows, [values.to_vec()]);
    let rows = access.query("SELECT i FROM v WHERE i IS NULL", vec![], LIMITS);
    assert_eq!(rows.await.unwrap().rows.len(), 2);
}

fn refused(answer: Result<SqlRows, QueryError>) -> SqlError {
    match answer {
        Err(QueryError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

async fn a_query_has_limits(database: Database) {
    database.sql("CREATE TABLE v (i INTEGER)");
    database.sql("INSERT INTO v VALUES (1), (2), (3)");
    let access = access(&database, &[]).await;
    let limits = QueryLimits { rows: 2, ..LIMITS };
    let error = refused(access.query("SELECT i FROM v", vec![], limits).await);
    assert!(error.to_string().contains("more than 2 rows"), "{error}");
    let enough = access
        .query("SELECT i FROM v LIMIT 2", vec![], limits)
        .await;
    assert_eq!(enough.unwrap().rows.len(), 2);
    let error = refused(access.query("SELECT nothing FROM v", vec![], LIMITS).await);
    assert!(error.to_string().contains("nothing"), "{error}");
    let error = refused(
        access
            .query("SELECT i FROM v WHERE i = ?", vec![], LIMITS)
            .await,
    );
    assert!(error.to_string().contains("has 1 parameters"), "{error}");
}

/// Not even by a function that the operator took for harmless.
async fn a_query_changes_nothing(database: Database) {
    database.sql("CREATE TABLE v (i INTEGER)");
    match &database.server {
        Server::Mariadb(server) => {
            let create = format!(
                "USE {}// CREATE FUNCTION sly() RETURNS INTEGER MODIFIES SQL DATA \
                 BEGIN INSERT INTO v VALUES (1); RETURN 1; END//",
                database.name()
            );
            let mut client = server.client(&create).unwrap();
            let status = client.arg("--delimiter=//").status().unwrap();
            assert!(status.success());
        }
        Server::Postgres(_) => {
            database.sql(
                "CREATE FUNCTION sly() RETURNS INTEGER LANGUAGE sql \
                 AS 'INSERT INTO v VALUES (1) RETURNING 1'",
            );
        }
    }
    let access = access(&database, &["sly"]).await;
    let error = refused(access.query("SELECT sly()", vec![], LIMITS).await);
    let shown = error.to_string().to_lowercase().replace('-', " ");
    assert!(shown.contains("read only"), "{error}");
    assert_eq!(database.sql("SELECT COUNT(*) FROM v"), "0");
}

async fn what_is_not_granted_is_denied(database: Database) {
    let access = access(&database, &[]).await;
    for (text, says) in [
        ("SELECT id FROM semel_record", "to select `semel_record`"),
        ("SELECT i FROM w", "`select = [\"w\"]`"),
        ("INSERT INTO v VALUES (1)", "takes a SELECT only"),
    ] {
        let error = refused(access.query(text, vec![], LIMITS).await);
        assert!(error.to_string().contains(says), "{error}");
    }
    let update = access.statement("UPDATE v SET i = 1", vec![], None, OnMiss::RunAgain);
    assert!(update.unwrap_err().to_string().contains("to update `v`"));
}
