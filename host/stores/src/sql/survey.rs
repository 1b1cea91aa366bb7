//! What a server says of itself, and what that means for a store.

use std::collections::HashMap;

use semel_core::{Clock, Finding, StoreError, SystemClock};

use super::address::Kind;
use super::answer::{Cells, take, unexpected};
use super::schema::{Progress, Tables};
use super::server::Server;

/// Messages that are larger than this are rare.
const ROOMY_PACKET: usize = 16 << 20;

/// Values by the names of settings.
pub(super) type Settings = HashMap<String, String>;

/// Asks for the settings that matter.
pub(super) async fn ask_settings(server: &Server, kind: Kind) -> Result<Settings, StoreError> {
    let ask = match kind {
        Kind::Mysql => {
            "SHOW VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit', \
             'sync_binlog', 'log_bin', 'binlog_format', 'max_allowed_packet', 'read_only', \
             'transaction_isolation', 'tx_isolation', 'wsrep_on', 'innodb_doublewrite')"
        }
        Kind::Postgres => {
            "SELECT name, setting FROM pg_settings WHERE name IN ('server_version', \
             'server_version_num', 'fsync', 'synchronous_commit', 'synchronous_standby_names', \
             'full_page_writes', 'transaction_isolation') UNION ALL \
             SELECT 'in_recovery', pg_is_in_recovery()::text"
        }
    };
    let mut sets = server.ask_text(ask.to_owned()).await?;
    let setting = |mut row: Cells| Ok((row.text()?, row.text()?));
    take(&mut sets, 0).into_iter().map(setting).collect()
}

/// What the settings mean for a store.
pub(super) fn settings(kind: Kind, settings: &Settings) -> Vec<Finding> {
    let value = |name| value(settings, name);
    match kind {
        Kind::Mysql => mysql(value),
        Kind::Postgres => postgres(value),
    }
}

/// The longest statement that a MySQL server takes, in bytes.
pub(super) fn longest_statement(settings: &Settings) -> usize {
    value(settings, "max_allowed_packet")
        .parse()
        .unwrap_or(1 << 20)
}

/// Compares the server's clock with this machine's.
pub(super) async fn clock(server: &Server) -> Result<Finding, StoreError> {
    let ask = format!("SELECT {}", server.words().now_ms);
    let before_ms = SystemClock.now_ms();
    let mut sets = server.ask_text(ask).await?;
    let after_ms = SystemClock.now_ms();
    let mut rows = take(&mut sets, 0);
    let theirs_ms = rows.first_mut().ok_or_else(unexpected)?.number()?;
    Ok(Finding::of_clock(theirs_ms, before_ms, after_ms))
}

/// What becomes of tables that are so far.
pub(super) fn schema(Progress { done, known }: Progress, migrates: bool) -> Finding {
    const SUBJECT: &str = "schema";
    let state = match done {
        0 => "it has no tables".to_owned(),
        done => format!("its tables are of version {done} of {known}"),
    };
    if done > known {
        return Finding::failure(
            SUBJECT,
            format!(
                "its tables are of version {done}, and this semel knows {known}: they were \
                 changed by a newer semel"
            ),
        )
        .advise("use that one");
    }
    if done == known {
        return Finding::good(SUBJECT, state);
    }
    if migrates {
        return Finding::note(SUBJECT, format!("{state}: the next host changes that"));
    }
    Finding::failure(
        SUBJECT,
        format!("{state}, and `migrate=never` forbids to change that"),
    )
    .advise("type `semel store migrate --store URL` with the URL of a user who may create tables")
}

/// Whether all tables are of a kind that keeps what it promises.
pub(super) async fn tables(
    server: &Server,
    kind: Kind,
    tables: &Tables,
) -> Result<Finding, StoreError> {
    const SUBJECT: &str = "tables";
    let names = names(tables);
    let ask = match kind {
        Kind::Mysql => format!(
            "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = \
             DATABASE() AND table_name IN {names} AND engine <> 'InnoDB'"
        ),
        Kind::Postgres => format!(
            "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relpersistence <> 'p' AND \
             relnamespace = current_schema()::regnamespace AND relname::text IN {names}"
        ),
    };
    let mut sets = server.ask_text(ask).await?;
    let mut rows = take(&mut sets, 0);
    let bad = rows.first_mut().map(Cells::text).transpose()?;
    Ok(match (kind, bad) {
        (Kind::Mysql, None) => Finding::good(SUBJECT, "all have the engine InnoDB"),
        (Kind::Postgres, None) => Finding::good(SUBJECT, "all are logged"),
        (Kind::Mysql, Some(table)) => Finding::failure(
            SUBJECT,
            format!(
                "its table `{table}` has an engine without transactions, so effects could be \
                 applied in part"
            ),
        )
        .advise(format!("type `ALTER TABLE {table} ENGINE = InnoDB`")),
        (Kind::Postgres, Some(table)) => Finding::failure(
            SUBJECT,
            format!(
                "its table `{table}` is UNLOGGED: a crash would empty it and messages would take \
                 effect twice"
            ),
        )
        .advise(format!("type `ALTER TABLE {table} SET LOGGED`")),
    })
}

fn names(tables: &Tables) -> String {
    let quoted = tables.all().map(|name| format!("'{name}'"));
    format!("({})", quoted.join(", "))
}

fn value<'a>(settings: &'a Settings, name: &str) -> &'a str {
    settings.get(name).map_or("", String::as_str)
}

fn mysql<'a>(value: impl Fn(&'static str) -> &'a str) -> Vec<Finding> {
    let is_on = |name| matches!(value(name), "ON" | "1");
    let version = value("version");
    let oldest = match version.contains("MariaDB") {
        true => (10, 11),
        false => (8, 0),
    };
    let mut numbers = version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let isolation = match value("transaction_isolation") {
        "" => value("tx_isolation"),
        isolation => isolation,
    };
    let logs = is_on("log_bin");
    let mut findings = vec![
        match found < oldest {
            false => Finding::good("server", version),
            true => Finding::warning(
                "server",
                format!(
                    "its version is {version}, and this store is made for MySQL 8.0 and MariaDB \
                     10.11"
                ),
            )
            .advise("take a newer one"),
        },
        match isolation {
            "READ-COMMITTED" => Finding::good("isolation", "READ COMMITTED, as was asked for"),
            _ => Finding::failure(
                "isolation",
                format!(
                    "its sessions stay at the isolation level `{isolation}` although READ \
                     COMMITTED was asked for"
                ),
            )
            .advise("connect to the server itself, not through a proxy that drops such settings"),
        },
        match value("read_only") {
            "OFF" | "0" => Finding::good("read_only", "it takes writes"),
            setting => Finding::failure(
                "read_only",
                format!("it is read-only (`read_only` is `{setting}`)"),
            )
            .advise("give the URL of the primary"),
        },
        match value("innodb_flush_log_at_trx_commit") {
            "1" => Finding::good(
                "innodb_flush_log_at_trx_commit",
                "1: a commit is on the disk when it returns",
            ),
            setting => Finding::warning(
                "innodb_flush_log_at_trx_commit",
                format!(
                    "its `innodb_flush_log_at_trx_commit` is {setting}, so that what it \
                     acknowledged last may be lost when it or its machine crashes"
                ),
            )
            .advise("`1` keeps all of it"),
        },
    ];
    if value("innodb_doublewrite") == "OFF" {
        findings.push(
            Finding::warning(
                "innodb_doublewrite",
                "its `innodb_doublewrite` is OFF: a crash of its machine may tear pages",
            )
            .advise("set it to ON, unless the file system writes pages whole"),
        );
    }
    findings.extend(mysql_binlog(logs, &value));
    if is_on("wsrep_on") {
        findings.push(
            Finding::warning(
                "Galera",
                "it is part of a Galera cluster, on which this store was not tried",
            )
            .advise("let all hosts use one and the same node"),
        );
    }
    findings.push(
        match value("max_allowed_packet").parse().unwrap_or(1 << 20) {
            longest if longest < ROOMY_PACKET => Finding::warning(
                "max_allowed_packet",
                format!(
                    "its `max_allowed_packet` is {longest}: a message or value of more than about \
                 half of that many bytes is an error"
                ),
            )
            .advise("64M is a good value"),
            longest => Finding::good(
                "max_allowed_packet",
                format!(
                    "{longest}: room for messages of about {} bytes",
                    longest / 2
                ),
            ),
        },
    );
    findings
}

/// What the log for replicas means.
fn mysql_binlog<'a>(logs: bool, value: &impl Fn(&'static str) -> &'a str) -> Vec<Finding> {
    if !logs {
        return vec![Finding::note(
            "log_bin",
            "there is no binary log, and no replica",
        )];
    }
    let format = match value("binlog_format") {
        "STATEMENT" => Finding::failure(
            "binlog_format",
            "its `binlog_format` is `STATEMENT`, with which it can't write under READ COMMITTED",
        )
        .advise("set `binlog_format` to `ROW` (or `MIXED`)"),
        format => Finding::good("binlog_format", format),
    };
    let sync = match value("sync_binlog") {
        "1" => Finding::good("sync_binlog", "1: replicas can lack nothing after a crash"),
        setting => Finding::warning(
            "sync_binlog",
            format!(
                "its `sync_binlog` is {setting}, so that a replica may lack what it acknowledged \
                 last before its machine crashed"
            ),
        )
        .advise("`1` keeps all of it"),
    };
    vec![format, sync]
}

fn postgres<'a>(value: impl Fn(&'static str) -> &'a str) -> Vec<Finding> {
    let number: u32 = value("server_version_num").parse().unwrap_or(0);
    let mut findings = vec![
        match number < 150_000 {
            false => Finding::good("server", format!("PostgreSQL {}", value("server_version"))),
            true => Finding::warning(
                "server",
                format!("its version is {number}, and this store is made for PostgreSQL 15"),
            )
            .advise("take a newer one"),
        },
        match value("in_recovery") {
            "true" => Finding::failure("role", "it is a standby and read-only")
                .advise("give the URL of the primary"),
            _ => Finding::good("role", "it takes writes"),
        },
        match value("transaction_isolation") {
            "read committed" => Finding::good("isolation", "READ COMMITTED, as was asked for"),
            isolation => Finding::failure(
                "isolation",
                format!(
                    "its sessions stay at the isolation level `{isolation}` although READ \
                     COMMITTED was asked for"
                ),
            )
            .advise("connect to the server itself, not through a pool that drops such settings"),
        },
    ];
    for name in ["fsync", "full_page_writes"] {
        findings.push(match value(name) {
            "on" => Finding::good(name, "on"),
            setting => Finding::warning(
                name,
                format!(
                    "its `{name}` is `{setting}`: a crash of its machine may destroy the whole \
                     database"
                ),
            )
            .advise("`on` keeps it"),
        });
    }
    let standbys = match value("synchronous_standby_names") {
        "" => "no standby confirms it".to_owned(),
        names => format!("confirmed by standbys: {names}"),
    };
    findings.push(match value("synchronous_commit") {
        "off" => Finding::warning(
            "synchronous_commit",
            "its `synchronous_commit` is `off`, so that what it acknowledged last may be lost \
             when it or its machine crashes",
        )
        .advise("`on` keeps all of it"),
        setting => Finding::good(
            "synchronous_commit",
            format!("{setting}: a commit is on the disk when it returns, and {standbys}"),
        ),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examine::judge;
    use semel_core::Level;

    fn of(kind: Kind, pairs: &[(&str, &str)]) -> Vec<Finding> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        settings(kind, &pairs.iter().map(pair).collect())
    }

    const MYSQL: [(&str, &str); 8] = [
        ("version", "8.0.36"),
        ("transaction_isolation", "READ-COMMITTED"),
        ("read_only", "OFF"),
        ("log_bin", "ON"),
        ("binlog_format", "ROW"),
        ("sync_binlog", "1"),
        ("innodb_flush_log_at_trx_commit", "1"),
        ("max_allowed_packet", "67108864"),
    ];

    const POSTGRES: [(&str, &str); 6] = [
        ("server_version_num", "150018"),
        ("in_recovery", "false"),
        ("transaction_isolation", "read committed"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
    ];

    /// What is found when one of the settings is another.
    fn with(kind: Kind, good: &[(&str, &str)], name: &str, value: &str) -> Vec<Finding> {
        let mut pairs = good.to_vec();
        pairs.retain(|(other, _)| *other != name);
        pairs.push((name, value));
        of(kind, &pairs)
    }

    #[test]
    fn good_servers_are_good() {
        for (kind, good) in [(Kind::Mysql, &MYSQL[..]), (Kind::Postgres, &POSTGRES[..])] {
            for finding in of(kind, good) {
                assert_eq!(finding.level, Level::Good, "{finding:?}");
            }
        }
    }

    #[test]
    fn a_server_that_breaks_the_promise_is_refused() {
        for (kind, name, setting, says) in [
            (
                Kind::Mysql,
                "binlog_format",
                "STATEMENT",
                "`binlog_format` to `ROW`",
            ),
            (Kind::Mysql, "read_only", "ON", "URL of the primary"),
            (
                Kind::Mysql,
                "transaction_isolation",
                "REPEATABLE-READ",
                "isolation level",
            ),
            (Kind::Postgres, "in_recovery", "true", "URL of the primary"),
            (
                Kind::Postgres,
                "transaction_isolation",
                "serializable",
                "isolation level",
            ),
        ] {
            let good = match kind {
                Kind::Mysql => &MYSQL[..],
                Kind::Postgres => &POSTGRES[..],
            };
            let refusal = judge("it", &with(kind, good, name, setting)).unwrap_err();
            assert!(refusal.contains(says), "{refusal}");
        }
    }

    #[test]
    fn a_server_that_may_lose_something_is_warned_of() {
        let warned = |findings: Vec<Finding>, name: &str| {
            assert_eq!(judge("it", &findings), Ok(()));
            let mut warnings = findings.iter().filter(|f| f.level == Level::Warning);
            let subjects: Vec<_> = warnings.by_ref().map(|f| f.subject.as_str()).collect();
            assert_eq!(subjects, [name]);
        };
        for (name, subject, setting) in [
            (
                "innodb_flush_log_at_trx_commit",
                "innodb_flush_log_at_trx_commit",
                "2",
            ),
            ("sync_binlog", "sync_binlog", "0"),
            ("innodb_doublewrite", "innodb_doublewrite", "OFF"),
            ("max_allowed_packet", "max_allowed_packet", "1048576"),
            ("version", "server", "10.6.12-MariaDB-log"),
            ("wsrep_on", "Galera", "ON"),
        ] {
            warned(with(Kind::Mysql, &MYSQL, name, setting), subject);
        }
        for (name, subject, setting) in [
            ("fsync", "fsync", "off"),
            ("full_page_writes", "full_page_writes", "off"),
            ("synchronous_commit", "synchronous_commit", "off"),
            ("server_version_num", "server", "140011"),
        ] {
            warned(with(Kind::Postgres, &POSTGRES, name, setting), subject);
        }
    }

    #[test]
    fn tables_are_as_far_as_they_must_be() {
        let level = |done, migrates| schema(Progress { done, known: 2 }, migrates).level;
        assert_eq!(level(2, false), Level::Good);
        assert_eq!(level(1, true), Level::Note);
        assert_eq!(level(0, true), Level::Note);
        assert_eq!(level(0, false), Level::Failure);
        assert_eq!(level(3, true), Level::Failure);
    }
}
