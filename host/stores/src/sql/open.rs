//! What is asked of a server before it is trusted.

use std::collections::HashMap;
use std::sync::Arc;

use semel_core::StoreError;

use super::SqlStore;
use super::address::{Address, Kind};
use super::answer::{Cells, take};
use super::mysql::Mysql;
use super::postgres::Postgres;
use super::schema::{Tables, migrate as migrate_tables, progress};
use super::server::{Connector, Failure, Purpose, Server};
use crate::OpenError;
use crate::url::without_password;

/// The longest statement for PostgreSQL, which takes 1 GB of text.
const LONGEST: usize = 900 << 20;

/// Messages that are larger than this are rare.
const ROOMY_PACKET: usize = 16 << 20;

pub(super) async fn open(url: &str) -> Result<SqlStore, OpenError> {
    let address = parse(url)?;
    let refused = |reason: String| refused(url, &address, reason);
    let store = connect(url, &address).await?;
    let progress = progress(&store.server, &store.tables).await;
    let progress = progress.map_err(|error| refused(error.to_string()))?;
    if progress.done > progress.known {
        return Err(refused(format!(
            "its tables are of version {}, and this semel knows {}: they were changed by a newer \
             semel; use that one",
            progress.done, progress.known
        )));
    }
    if progress.done < progress.known && !address.migrates {
        let state = match progress.done {
            0 => "it has no tables".to_owned(),
            done => format!("its tables are of version {done} of {}", progress.known),
        };
        return Err(refused(format!(
            "{state}, and `migrate=never` forbids to change that. Type `semel store migrate \
             --store URL` with the URL of a user who may create tables"
        )));
    }
    if progress.done < progress.known {
        let steps = migrate_tables(&store.server, &store.tables).await;
        steps.map_err(|error| refused(cannot_migrate(&error)))?;
    }
    let check = match address.kind {
        Kind::Mysql => check_mysql_tables(&store).await,
        Kind::Postgres => check_postgres_tables(&store).await,
    };
    check.map_err(refused)?;
    Ok(store)
}

/// Creates the tables, or brings them up to date, also where the URL says `migrate=never`.
pub(super) async fn migrate(url: &str) -> Result<usize, OpenError> {
    let address = parse(url)?;
    let store = connect(url, &address).await?;
    let steps = migrate_tables(&store.server, &store.tables).await;
    steps.map_err(|error| refused(url, &address, cannot_migrate(&error)))
}

fn cannot_migrate(error: &StoreError) -> String {
    format!("its tables can't be created ({error})")
}

fn parse(url: &str) -> Result<Address, OpenError> {
    Address::parse(url).map_err(|reason| OpenError::Url {
        url: without_password(url),
        reason,
    })
}

fn refused(url: &str, address: &Address, reason: String) -> OpenError {
    let kind = match address.kind {
        Kind::Mysql => "MySQL",
        Kind::Postgres => "PostgreSQL",
    };
    OpenError::Refused {
        store: format!("the {kind} store {}", without_password(url)),
        reason,
    }
}

/// A store whose server can be trusted, but whose tables are not looked at yet.
async fn connect(url: &str, address: &Address) -> Result<SqlStore, OpenError> {
    let invalid = |error: sqlx::Error| OpenError::Url {
        url: without_password(url),
        reason: error.to_string(),
    };
    let refused = |reason: String| refused(url, address, reason);
    let connector = |purpose| -> Result<Box<dyn Connector>, OpenError> {
        Ok(match address.kind {
            Kind::Mysql => Box::new(Mysql::new(address, purpose).map_err(invalid)?),
            Kind::Postgres => Box::new(Postgres::new(address, purpose).map_err(invalid)?),
        })
    };
    let server = Server::new(connector(Purpose::Store)?, address.connections, LONGEST);
    let settings = match server.converse().await {
        Ok(conversation) => {
            conversation.end();
            settings(&server, address.kind).await
        }
        Err(failure) => {
            let error = Failure::into_error(failure);
            return Err(refused(format!(
                "it can't be reached ({error}): check that a server listens there and lets this \
                 user in"
            )));
        }
    };
    let settings = settings.map_err(|error| refused(error.to_string()))?;
    let longest = match address.kind {
        Kind::Mysql => check_mysql(&settings).map_err(refused)?,
        Kind::Postgres => {
            check_postgres(&settings).map_err(refused)?;
            LONGEST
        }
    };
    Ok(SqlStore {
        kind: address.kind,
        server: Server::new(connector(Purpose::Store)?, address.connections, longest),
        reader: Arc::new(Server::new(
            connector(Purpose::Queries)?,
            address.connections,
            longest,
        )),
        tables: Tables::new(&address.prefix),
    })
}

type Settings = HashMap<String, String>;

async fn settings(server: &Server, kind: Kind) -> Result<Settings, StoreError> {
    let ask = match kind {
        Kind::Mysql => {
            "SHOW VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit', \
             'sync_binlog', 'log_bin', 'binlog_format', 'max_allowed_packet', 'read_only', \
             'transaction_isolation', 'tx_isolation', 'wsrep_on', 'innodb_doublewrite')"
        }
        Kind::Postgres => {
            "SELECT name, setting FROM pg_settings WHERE name IN ('server_version_num', 'fsync', \
             'synchronous_commit', 'full_page_writes', 'transaction_isolation') UNION ALL \
             SELECT 'in_recovery', pg_is_in_recovery()::text"
        }
    };
    let mut sets = server.ask_text(ask.to_owned()).await?;
    let setting = |mut row: Cells| Ok((row.text()?, row.text()?));
    take(&mut sets, 0).into_iter().map(setting).collect()
}

fn value<'a>(settings: &'a Settings, name: &str) -> &'a str {
    settings.get(name).map_or("", String::as_str)
}

/// Refuses what would break the promise. Returns the longest statement.
fn check_mysql(settings: &Settings) -> Result<usize, String> {
    let value = |name| value(settings, name);
    let version = value("version");
    let oldest = match version.contains("MariaDB") {
        true => (10, 11),
        false => (8, 0),
    };
    let mut numbers = version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < oldest {
        tracing::warn!(
            version,
            "the server is older than MySQL 8.0 and MariaDB 10.11, which this store is made for"
        );
    }
    let isolation = match value("transaction_isolation") {
        "" => value("tx_isolation"),
        isolation => isolation,
    };
    if isolation != "READ-COMMITTED" {
        return Err(format!(
            "its sessions stay at the isolation level `{isolation}` although READ COMMITTED was \
             asked for: connect to the server itself, not through a proxy that drops such settings"
        ));
    }
    if value("read_only") != "OFF" && value("read_only") != "0" {
        return Err(format!(
            "it is read-only (`read_only` is `{}`): give the URL of the primary",
            value("read_only")
        ));
    }
    let logs = value("log_bin") == "ON" || value("log_bin") == "1";
    if logs && value("binlog_format") == "STATEMENT" {
        return Err(
            "its `binlog_format` is `STATEMENT`, with which it can't write under READ COMMITTED. \
             Set `binlog_format` to `ROW` (or `MIXED`)"
                .to_owned(),
        );
    }
    match value("innodb_flush_log_at_trx_commit") {
        "1" => {}
        setting => tracing::warn!(
            "the server has `innodb_flush_log_at_trx_commit = {setting}`: what it acknowledged \
             last may be lost when it or its machine crashes. `1` keeps all of it"
        ),
    }
    if logs && value("sync_binlog") != "1" {
        tracing::warn!(
            "the server has `sync_binlog = {}`: a replica may lack what the server acknowledged \
             last before its machine crashed. `1` keeps all of it",
            value("sync_binlog")
        );
    }
    if value("wsrep_on") == "ON" {
        tracing::warn!(
            "the server is part of a Galera cluster, on which this store was not tried: let all \
             hosts use one and the same node"
        );
    }
    let longest = value("max_allowed_packet").parse().unwrap_or(1 << 20);
    if longest < ROOMY_PACKET {
        tracing::warn!(
            "the server has `max_allowed_packet = {longest}`: a message or value of more than \
             about half of that many bytes is an error. 64M is a good value"
        );
    }
    Ok(longest)
}

fn check_postgres(settings: &Settings) -> Result<(), String> {
    let value = |name| value(settings, name);
    let version: u32 = value("server_version_num").parse().unwrap_or(0);
    if version < 150_000 {
        tracing::warn!(
            version,
            "the server is older than PostgreSQL 15, which this store is made for"
        );
    }
    if value("in_recovery") == "true" {
        return Err("it is a standby and read-only: give the URL of the primary".to_owned());
    }
    if value("transaction_isolation") != "read committed" {
        return Err(format!(
            "its sessions stay at the isolation level `{}` although READ COMMITTED was asked for: \
             connect to the server itself, not through a pool that drops such settings",
            value("transaction_isolation")
        ));
    }
    if value("fsync") != "on" || value("full_page_writes") != "on" {
        tracing::warn!(
            "the server has `fsync = {}` and `full_page_writes = {}`: a crash of its machine may \
             destroy the whole database. `on` keeps it",
            value("fsync"),
            value("full_page_writes")
        );
    }
    if value("synchronous_commit") == "off" {
        tracing::warn!(
            "the server has `synchronous_commit = off`: what it acknowledged last may be lost \
             when it or its machine crashes. `on` keeps all of it"
        );
    }
    Ok(())
}

/// A table of another engine has no transactions.
async fn check_mysql_tables(store: &SqlStore) -> Result<(), String> {
    let ask = format!(
        "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() \
         AND table_name IN {} AND engine <> 'InnoDB'",
        names(&store.tables)
    );
    match first_text(store, ask).await? {
        Some(table) => Err(format!(
            "its table `{table}` has an engine without transactions, so effects could be applied \
             in part. Type `ALTER TABLE {table} ENGINE = InnoDB`"
        )),
        None => Ok(()),
    }
}

/// A table without a log is emptied after a crash, and the others are not.
async fn check_postgres_tables(store: &SqlStore) -> Result<(), String> {
    let ask = format!(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relpersistence <> 'p' AND \
         relnamespace = current_schema()::regnamespace AND relname::text IN {}",
        names(&store.tables)
    );
    match first_text(store, ask).await? {
        Some(table) => Err(format!(
            "its table `{table}` is UNLOGGED: a crash would empty it and messages would take \
             effect twice. Type `ALTER TABLE {table} SET LOGGED`"
        )),
        None => Ok(()),
    }
}

fn names(tables: &Tables) -> String {
    let all = [
        &tables.schema,
        &tables.sequence,
        &tables.horizon,
        &tables.record,
        &tables.parked,
        &tables.state,
        &tables.outbox,
        &tables.dead,
        &tables.fence,
    ];
    let quoted: Vec<_> = all.iter().map(|name| format!("'{name}'")).collect();
    format!("({})", quoted.join(", "))
}

async fn first_text(store: &SqlStore, ask: String) -> Result<Option<String>, String> {
    let sets = store.server.ask_text(ask).await;
    let mut sets = sets.map_err(|error| error.to_string())?;
    let mut rows = take(&mut sets, 0);
    let text = rows.first_mut().map(Cells::text).transpose();
    text.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_mysql_server_that_breaks_the_promise_is_refused() {
        let good = [
            ("version", "8.0.36"),
            ("transaction_isolation", "READ-COMMITTED"),
            ("read_only", "OFF"),
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("max_allowed_packet", "67108864"),
        ];
        assert_eq!(check_mysql(&settings(&good)), Ok(64 << 20));
        for (name, setting, says) in [
            ("binlog_format", "STATEMENT", "`binlog_format` to `ROW`"),
            ("read_only", "ON", "URL of the primary"),
            (
                "transaction_isolation",
                "REPEATABLE-READ",
                "isolation level",
            ),
        ] {
            let mut bad = settings(&good);
            bad.insert(name.to_owned(), setting.to_owned());
            let error = check_mysql(&bad).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_postgres_server_that_breaks_the_promise_is_refused() {
        let mut good = settings(&[
            ("server_version_num", "150018"),
            ("in_recovery", "false"),
            ("transaction_isolation", "read committed"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
        ]);
        assert_eq!(check_postgres(&good), Ok(()));
        good.insert("in_recovery".to_owned(), "true".to_owned());
        assert!(check_postgres(&good).unwrap_err().contains("primary"));
    }
}
