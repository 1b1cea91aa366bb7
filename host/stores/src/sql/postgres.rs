//! PostgreSQL.

mod values;

use std::str::FromStr;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Postgres as Pg};

use super::address::{Address, Tls};
use super::client::Client;
use super::server::statements::refusal_of_client;
use super::server::{Connection, Connector, Meaning, Purpose, Refusal};
use super::text::Words;

pub(super) static WORDS: Words = Words {
    server: "PostgreSQL",
    bytes: "'\\x",
    now_ms: "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
    begin: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
    begin_run: "SAVEPOINT semel_run; SET CONSTRAINTS ALL DEFERRED",
    end_run: "SET CONSTRAINTS ALL IMMEDIATE; RELEASE SAVEPOINT semel_run",
    on_conflict: true,
    steps: &[&[
        "CREATE TABLE IF NOT EXISTS {p}_schema (version BIGINT NOT NULL)",
        // Updated by every commit, so that it needs room for its successor beside it.
        "CREATE TABLE IF NOT EXISTS {p}_sequence (id SMALLINT NOT NULL PRIMARY KEY, \
         version BIGINT NOT NULL, bucket BIGINT NOT NULL) WITH (fillfactor = 10)",
        "INSERT INTO {p}_sequence (id, version, bucket) \
         VALUES (1, 0, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)) \
         ON CONFLICT (id) DO NOTHING",
        "CREATE TABLE IF NOT EXISTS {p}_horizon (plugin BYTEA NOT NULL PRIMARY KEY, \
         bucket BIGINT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS {p}_record (id BYTEA NOT NULL PRIMARY KEY, \
         plugin BYTEA NOT NULL, kind SMALLINT NOT NULL, run BYTEA NOT NULL, fingerprint BYTEA NOT NULL, \
         version BIGINT NOT NULL, bucket BIGINT, parked BIGINT, reply BYTEA)",
        "CREATE INDEX IF NOT EXISTS {p}_record_expiry ON {p}_record (plugin, bucket) \
         WHERE bucket IS NOT NULL",
        "CREATE TABLE IF NOT EXISTS {p}_parked (id BYTEA NOT NULL PRIMARY KEY, \
         plugin BYTEA NOT NULL, version BIGINT NOT NULL, lane BYTEA, pos BIGINT NOT NULL, due BIGINT NOT NULL, \
         content BYTEA NOT NULL)",
        "CREATE INDEX IF NOT EXISTS {p}_parked_lanes ON {p}_parked (lane, pos)",
        "CREATE INDEX IF NOT EXISTS {p}_parked_dues ON {p}_parked (plugin, due)",
        "CREATE TABLE IF NOT EXISTS {p}_state (id BYTEA NOT NULL PRIMARY KEY, \
         version BIGINT NOT NULL, value BYTEA NOT NULL) WITH (fillfactor = 80)",
        "CREATE TABLE IF NOT EXISTS {p}_outbox (version BIGINT NOT NULL, \
         ordinal BIGINT NOT NULL, lane BYTEA, content BYTEA NOT NULL, \
         PRIMARY KEY (version, ordinal))",
        "CREATE INDEX IF NOT EXISTS {p}_outbox_lanes ON {p}_outbox (lane, version, ordinal) \
         WHERE lane IS NOT NULL",
        "CREATE TABLE IF NOT EXISTS {p}_dead (id BYTEA NOT NULL PRIMARY KEY, \
         plugin BYTEA NOT NULL, letter BYTEA NOT NULL)",
        "CREATE INDEX IF NOT EXISTS {p}_dead_plugins ON {p}_dead (plugin, id)",
        "CREATE TABLE IF NOT EXISTS {p}_fence (id BYTEA NOT NULL PRIMARY KEY, \
         plugin BYTEA NOT NULL, bucket BIGINT NOT NULL)",
        "CREATE INDEX IF NOT EXISTS {p}_fence_expiry ON {p}_fence (plugin, bucket)",
    ]],
    target: |schema, table| {
        let name = |literal: &str| format!("quote_ident(convert_from({literal}, 'UTF8'))");
        let schema = schema.map_or_else(String::new, |it| format!("{} || '.' || ", name(it)));
        let table = name(table);
        // Partitions and heirs are changed with their parent.
        format!(
            "WITH RECURSIVE part (id) AS (SELECT CAST(to_regclass({schema}{table}) AS oid) UNION \
             SELECT inhrelid FROM pg_inherits JOIN part ON inhparent = id) \
             SELECT CASE WHEN relkind = 'p' OR relkind = 'r' AND relpersistence = 'p' THEN '' \
             WHEN relkind = 'r' THEN relname::text || ' is UNLOGGED, and a crash empties it' \
             WHEN relkind = 'f' THEN relname::text || ' is a foreign table' \
             ELSE relname::text || ' is a view' END \
             FROM part JOIN pg_class ON pg_class.oid = id"
        )
    },
    target_advice: "it takes a table of this database that is logged",
    delete_some: |table, condition, limit| {
        format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} \
             WHERE {condition} LIMIT {limit} FOR UPDATE))"
        )
    },
};

/// What every session is told. A host that stands still with the lock loses its connection
/// after a while. Almost all statements look rows up by their keys, which the server must not
/// take for dearer than reading a table whole, however small it takes that to be.
const SESSION: &str = "SET statement_timeout = 8000; SET lock_timeout = 5000; \
    SET idle_in_transaction_session_timeout = 10000; SET client_min_messages = warning; \
    SET standard_conforming_strings = on; SET bytea_output = hex; \
    SET default_transaction_isolation = 'read committed'; SET enable_seqscan = off";

/// What a session is told that only answers queries of plugins. They know no keys of ours.
const READ_ONLY: &str = "SET default_transaction_read_only = on; SET enable_seqscan = on";

/// Makes connections.
pub(super) struct Postgres {
    options: PgConnectOptions,
    purpose: Purpose,
}

impl Postgres {
    pub(super) fn new(address: &Address, purpose: Purpose) -> Result<Self, sqlx::Error> {
        let options = PgConnectOptions::from_str(&address.server)?;
        let mut options = options
            .application_name("semel")
            .ssl_mode(match address.tls {
                Tls::Off => PgSslMode::Disable,
                Tls::Prefer => PgSslMode::Prefer,
                Tls::Require => PgSslMode::Require,
                Tls::Verify => PgSslMode::VerifyFull,
            })
            .disable_statement_logging();
        if let Some(ca) = &address.ca {
            options = options.ssl_root_cert(ca);
        }
        Ok(Self { options, purpose })
    }
}

#[async_trait]
impl Connector for Postgres {
    async fn connect(&self) -> Result<Box<dyn Connection>, sqlx::Error> {
        let mut client = Client::<Pg>(self.options.connect().await?);
        client.run(SESSION.to_owned()).await?;
        if self.purpose == Purpose::Queries {
            client.run(READ_ONLY.to_owned()).await?;
        }
        Ok(Box::new(client))
    }

    fn words(&self) -> &'static Words {
        &WORDS
    }

    fn meaning(&self, error: &sqlx::Error) -> Meaning {
        let sqlx::Error::Database(database) = error else {
            return super::server::meaning_of_client(error);
        };
        meaning_of(&database.code().unwrap_or_default())
    }

    fn refusal(&self, error: &sqlx::Error) -> Option<Refusal> {
        match error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                // The session is read-only, whatever the server is.
                if code == "25006" && self.purpose == Purpose::Queries {
                    return Some(Refusal::Statement(database.message().to_owned()));
                }
                refusal_of(&code, database.message())
            }
            _ => refusal_of_client(error),
        }
    }
}

fn meaning_of(code: &str) -> Meaning {
    let help = |text: &str| Meaning::Help(text.to_owned());
    match code {
        // Serialization failure, deadlock, key is there after all.
        "40001" | "40P01" | "23505" => Meaning::RolledBack,
        // A lock or a statement took too long; starting; out of memory or connections; a
        // standby, which is read-only.
        "55P03" | "57014" | "57P03" | "53200" | "53300" | "25006" => Meaning::OutOfService,
        // Shut down, crashed, idle for too long.
        "57P01" | "57P02" | "57P05" | "25P03" => Meaning::Lost,
        _ if code.starts_with("08") => Meaning::Lost,
        "53100" => help("its disk is full: see to that disk"),
        "42P01" => help(
            "the store's tables are gone: restore them from a backup, or create them with \
             `semel store migrate`",
        ),
        "3D000" => help("create the database first, with `CREATE DATABASE`"),
        "28000" | "28P01" | "42501" => help(
            "give user and password, as in `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, of a \
             user that may SELECT, INSERT, UPDATE and DELETE there (and CREATE, unless \
             `migrate=never`)",
        ),
        _ => help(""),
    }
}

fn refusal_of(code: &str, message: &str) -> Option<Refusal> {
    match code {
        _ if code.starts_with("23") => Some(Refusal::Constraint(message.to_owned())),
        // A row is locked for too long, or the statement takes too long.
        "55P03" | "57014" => Some(Refusal::Statement(message.to_owned())),
        "53100" => None,
        _ => match meaning_of(code) {
            Meaning::RolledBack | Meaning::Lost | Meaning::OutOfService => None,
            Meaning::Help(_) => Some(Refusal::Statement(message.to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_they_mean() {
        assert_eq!(meaning_of("40P01"), Meaning::RolledBack);
        assert_eq!(meaning_of("57P01"), Meaning::Lost);
        assert_eq!(meaning_of("08006"), Meaning::Lost);
        assert_eq!(meaning_of("25006"), Meaning::OutOfService);
        assert!(matches!(meaning_of("28P01"), Meaning::Help(help) if help.contains("password")));
    }

    #[test]
    fn what_is_wrong_with_a_statement_is_told_from_what_is_wrong_with_the_server() {
        let refusal = |code| refusal_of(code, "so");
        assert_eq!(refusal("23505"), Some(Refusal::Constraint("so".to_owned())));
        assert_eq!(refusal("57014"), Some(Refusal::Statement("so".to_owned())));
        assert_eq!(refusal("42P01"), Some(Refusal::Statement("so".to_owned())));
        assert_eq!(refusal("40P01"), None);
        assert_eq!(refusal("57P01"), None);
        assert_eq!(refusal("53100"), None);
    }

    #[test]
    fn text_holds_nothing_that_could_end_a_literal() {
        let text = WORDS.id_in([&b"p'"[..], &b"\\'\0\xff"[..]]);
        assert_eq!(text, "id IN ('\\x5c2700ff','\\x7027')");
    }
}
