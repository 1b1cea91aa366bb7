//! MySQL and MariaDB.

mod values;

use std::str::FromStr;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlSslMode};
use sqlx::{ConnectOptions, MySql};

use super::address::{Address, Tls};
use super::client::Client;
use super::server::statements::refusal_of_client;
use super::server::{Connection, Connector, Meaning, Purpose, Refusal};
use super::text::Words;

pub(super) static WORDS: Words = Words {
    server: "MySQL",
    bytes: "x'",
    now_ms: "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
    begin: "START TRANSACTION",
    begin_run: "SAVEPOINT semel_run",
    end_run: "RELEASE SAVEPOINT semel_run",
    on_conflict: false,
    steps: &[&[
        "CREATE TABLE IF NOT EXISTS {p}_schema (version BIGINT NOT NULL) ENGINE = InnoDB",
        "CREATE TABLE IF NOT EXISTS {p}_sequence (id SMALLINT NOT NULL PRIMARY KEY, \
         version BIGINT NOT NULL, bucket BIGINT NOT NULL) ENGINE = InnoDB",
        "INSERT INTO {p}_sequence (id, version, bucket) \
         VALUES (1, 0, CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)) \
         ON DUPLICATE KEY UPDATE id = id",
        "CREATE TABLE IF NOT EXISTS {p}_horizon (plugin VARBINARY(255) NOT NULL PRIMARY KEY, \
         bucket BIGINT NOT NULL) ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
        "CREATE TABLE IF NOT EXISTS {p}_record (id VARBINARY(1300) NOT NULL PRIMARY KEY, \
         plugin VARBINARY(255) NOT NULL, kind SMALLINT NOT NULL, run VARBINARY(16) NOT NULL, \
         fingerprint VARBINARY(16) NOT NULL, version BIGINT NOT NULL, bucket BIGINT, \
         parked BIGINT, reply LONGBLOB, KEY expiry (plugin, bucket)) \
         ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
        "CREATE TABLE IF NOT EXISTS {p}_parked (id VARBINARY(1300) NOT NULL PRIMARY KEY, \
         plugin VARBINARY(255) NOT NULL, version BIGINT NOT NULL, lane VARBINARY(16), \
         pos BIGINT NOT NULL, due BIGINT NOT NULL, content LONGBLOB NOT NULL, \
         KEY lanes (lane, pos), KEY dues (plugin, due)) \
         ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
        "CREATE TABLE IF NOT EXISTS {p}_state (id VARBINARY(1300) NOT NULL PRIMARY KEY, \
         version BIGINT NOT NULL, value LONGBLOB NOT NULL) ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
        "CREATE TABLE IF NOT EXISTS {p}_outbox (version BIGINT NOT NULL, \
         ordinal BIGINT NOT NULL, lane VARBINARY(16), content LONGBLOB NOT NULL, \
         PRIMARY KEY (version, ordinal), KEY lanes (lane, version, ordinal)) \
         ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
        "CREATE TABLE IF NOT EXISTS {p}_dead (id VARBINARY(64) NOT NULL PRIMARY KEY, \
         plugin VARBINARY(255) NOT NULL, letter LONGBLOB NOT NULL, KEY plugins (plugin, id)) \
         ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
        "CREATE TABLE IF NOT EXISTS {p}_fence (id VARBINARY(300) NOT NULL PRIMARY KEY, \
         plugin VARBINARY(255) NOT NULL, bucket BIGINT NOT NULL, \
         KEY expiry (plugin, bucket)) ENGINE = InnoDB ROW_FORMAT = DYNAMIC",
    ]],
    target: |schema, table| {
        let schema = schema.unwrap_or("DATABASE()");
        // FederatedX and the like roll back, but commit on their own: that is what XA is for.
        format!(
            "SELECT CASE WHEN e.transactions = 'YES' AND e.xa = 'YES' AND e.savepoints = 'YES' \
             THEN '' WHEN t.engine IS NOT NULL THEN CONCAT('its engine is ', t.engine) \
             ELSE 'it is a view, or damaged' END \
             FROM information_schema.tables t \
             LEFT JOIN information_schema.engines e ON e.engine = t.engine \
             WHERE t.table_schema = {schema} AND t.table_name = {table}"
        )
    },
    target_advice: "it takes a table with the engine InnoDB",
    delete_some: |table, condition, limit| {
        format!("DELETE FROM {table} WHERE {condition} LIMIT {limit}")
    },
};

/// What every session is told. A host that stands still with the lock loses its connection
/// after a while; strict mode makes an error of what else would be cut off.
const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
    SET SESSION autocommit = 1, innodb_lock_wait_timeout = 5, wait_timeout = 30, \
    sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'";

/// Bounds that only one of the two knows, and no detour for long lists of keys.
const MARIADB_SESSION: &str = "SET SESSION max_statement_time = 8, idle_transaction_timeout = 10, \
    in_predicate_conversion_threshold = 0";
const MYSQL_SESSION: &str = "SET SESSION max_execution_time = 8000";

/// What a session is told that only answers queries of plugins.
const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY";

/// Makes connections.
pub(super) struct Mysql {
    options: MySqlConnectOptions,
    purpose: Purpose,
}

impl Mysql {
    pub(super) fn new(address: &Address, purpose: Purpose) -> Result<Self, sqlx::Error> {
        let options = MySqlConnectOptions::from_str(&address.server)?;
        let mut options = options
            .ssl_mode(match address.tls {
                Tls::Off => MySqlSslMode::Disabled,
                Tls::Prefer => MySqlSslMode::Preferred,
                Tls::Require => MySqlSslMode::Required,
                Tls::Verify => MySqlSslMode::VerifyIdentity,
            })
            .disable_statement_logging();
        if let Some(ca) = &address.ca {
            options = options.ssl_ca(ca);
        }
        Ok(Self { options, purpose })
    }
}

#[async_trait]
impl Connector for Mysql {
    async fn connect(&self) -> Result<Box<dyn Connection>, sqlx::Error> {
        let mut client = Client::<MySql>(self.options.connect().await?);
        let version = client.run(format!("{SESSION}; SELECT VERSION()")).await?;
        let version = version.last().and_then(|set| set.rows.first().cloned());
        let version = version.map(|mut row| row.text().unwrap_or_default());
        let bounds = match version.unwrap_or_default().contains("MariaDB") {
            true => MARIADB_SESSION,
            false => MYSQL_SESSION,
        };
        client.run(bounds.to_owned()).await?;
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
        let error = database.try_downcast_ref::<MySqlDatabaseError>();
        meaning_of(error.map_or(0, MySqlDatabaseError::number))
    }

    fn refusal(&self, error: &sqlx::Error) -> Option<Refusal> {
        let sqlx::Error::Database(database) = error else {
            return refusal_of_client(error);
        };
        let number = database.try_downcast_ref::<MySqlDatabaseError>()?.number();
        refusal_of(number, database.message())
    }
}

fn meaning_of(number: u16) -> Meaning {
    let help = |text: &str| Meaning::Help(text.to_owned());
    match number {
        // Lock wait timeout, deadlock, key is there after all, changed since the snapshot; a savepoint
        // is gone, as where `innodb_rollback_on_timeout` took the whole transaction back.
        1205 | 1213 | 1062 | 1020 | 1305 => Meaning::RolledBack,
        // The server shuts down, the connection was killed or timed out, the network.
        1053 | 1152 | 1158..=1161 | 1184 | 1927 | 4031 => Meaning::Lost,
        // Interrupted, too slow, too many connections, read-only, not part of its cluster.
        1317 | 1969 | 3024 | 1040 | 1203 | 1226 | 1290 | 1836 | 1047 => Meaning::OutOfService,
        1021 | 1114 => help("its disk is full: see to that disk"),
        1118 => help(
            "the value is too large for its log: raise `innodb_log_file_size` \
             (`innodb_redo_log_capacity`) to ten times the largest message or value",
        ),
        1153 => help(
            "raise `max_allowed_packet` to more than twice the size of the largest message or \
             value",
        ),
        1406 => help("a key or name is longer than the tables take"),
        1146 => help(
            "the store's tables are gone: restore them from a backup, or create them with \
             `semel store migrate`",
        ),
        1049 => help("create the database first, with `CREATE DATABASE`"),
        1044 | 1045 | 1142 | 1227 => help(
            "give user and password, as in `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, of a user \
             that may SELECT, INSERT, UPDATE and DELETE there (and CREATE, unless `migrate=never`)",
        ),
        _ => help(""),
    }
}

fn refusal_of(number: u16, message: &str) -> Option<Refusal> {
    match number {
        // A key is there, a column must not be empty, a foreign key, a check.
        1062 | 1048 | 1169 | 1216 | 1217 | 1364 | 1451 | 1452 | 1557 | 1586 | 1761 | 1762
        | 3819 | 4025 => Some(Refusal::Constraint(message.to_owned())),
        // A row is locked for too long, the statement takes too long, a function is not there.
        1205 | 1969 | 3024 | 1305 => Some(Refusal::Statement(message.to_owned())),
        _ => match meaning_of(number) {
            Meaning::RolledBack | Meaning::Lost | Meaning::OutOfService => None,
            Meaning::Help(_) if matches!(number, 1021 | 1114 | 1153) => None,
            Meaning::Help(_) => Some(Refusal::Statement(message.to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_they_mean() {
        assert_eq!(meaning_of(1213), Meaning::RolledBack);
        assert_eq!(meaning_of(1053), Meaning::Lost);
        assert_eq!(meaning_of(1040), Meaning::OutOfService);
        assert!(matches!(meaning_of(1045), Meaning::Help(help) if help.contains("password")));
    }

    #[test]
    fn what_is_wrong_with_a_statement_is_told_from_what_is_wrong_with_the_server() {
        let refusal = |number| refusal_of(number, "so");
        assert_eq!(refusal(1062), Some(Refusal::Constraint("so".to_owned())));
        assert_eq!(refusal(1205), Some(Refusal::Statement("so".to_owned())));
        assert_eq!(refusal(1064), Some(Refusal::Statement("so".to_owned())));
        assert_eq!(refusal(1213), None);
        assert_eq!(refusal(1053), None);
        assert_eq!(refusal(1021), None);
    }

    #[test]
    fn text_holds_nothing_that_could_end_a_literal() {
        let text = WORDS.id_in([&b"p'"[..], &b"\\'\0\xff"[..]]);
        assert_eq!(text, "id IN (x'5c2700ff',x'7027')");
        assert_eq!(WORDS.id_in([&[]; 0]), "1 = 0");
    }
}
