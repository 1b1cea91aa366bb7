//! What is asked of a server before it is trusted.

use std::sync::Arc;

use semel_core::{Finding, PluginName, SqlGrants, StoreError};

use super::SqlStore;
use super::access::Access;
use super::address::{Address, Kind};
use super::mysql::Mysql;
use super::postgres::Postgres;
use super::schema::{Tables, migrate as migrate_tables, progress};
use super::server::{Connector, Failure, Purpose, Server, Target};
use super::survey::{self, Settings};
use crate::OpenError;
use crate::examine::{contents, judge, unanswered};
use crate::url::without_password;

/// The longest statement for PostgreSQL, which takes 1 GB of text.
const LONGEST: usize = 900 << 20;

pub(super) async fn open(url: &str) -> Result<SqlStore, OpenError> {
    let address = parse(url)?;
    let refused = |reason: String| refused(url, &address, reason);
    let store = connect(url, &address).await?;
    let progress = progress(&store.server, &store.tables).await;
    let progress = progress.map_err(|error| refused(error.to_string()))?;
    let name = address.kind.name();
    judge(name, &[survey::schema(progress, address.migrates)]).map_err(refused)?;
    if progress.done < progress.known {
        let steps = migrate_tables(&store.server, &store.tables).await;
        steps.map_err(|error| refused(cannot_migrate(&error)))?;
    }
    let tables = survey::tables(&store.server, address.kind, &store.tables).await;
    let tables = tables.map_err(|error| refused(error.to_string()))?;
    judge(name, &[tables]).map_err(refused)?;
    Ok(store)
}

/// Creates the tables, or brings them up to date, also where the URL says `migrate=never`.
pub(super) async fn migrate(url: &str) -> Result<usize, OpenError> {
    let address = parse(url)?;
    let store = connect(url, &address).await?;
    let steps = migrate_tables(&store.server, &store.tables).await;
    steps.map_err(|error| refused(url, &address, cannot_migrate(&error)))
}

/// What was found at an address, good or bad. Nothing is changed.
pub(super) async fn examine(url: &str, plugins: &[PluginName]) -> Vec<Finding> {
    let reached = match parse(url) {
        Ok(address) => reach(url, &address).await.map(|found| (address, found)),
        Err(error) => Err(error),
    };
    let (address, (server, settings)) = match reached {
        Ok(reached) => reached,
        Err(error) => return vec![Finding::failure("server", error.to_string())],
    };
    let mut findings = survey::settings(address.kind, &settings);
    findings.push(match survey::clock(&server).await {
        Ok(finding) => finding,
        Err(error) => Finding::unchecked("clock", error),
    });
    match store(url, &address, &settings) {
        Ok(store) => {
            let tables = examine_tables(&store, &address, plugins).await;
            findings.extend(tables.unwrap_or_else(|error| vec![unanswered("tables", &error)]));
        }
        Err(error) => findings.push(Finding::failure("server", error.to_string())),
    }
    findings
}

/// What was found of granted tables, good or bad.
pub(super) async fn examine_grants(url: &str, grants: &SqlGrants) -> Vec<Finding> {
    let findings = survey_grants(url, grants).await;
    findings.unwrap_or_else(|error| vec![Finding::failure("grants", error.to_string())])
}

async fn survey_grants(url: &str, grants: &SqlGrants) -> Result<Vec<Finding>, OpenError> {
    let address = parse(url)?;
    let refused = |error: StoreError| refused(url, &address, error.to_string());
    let store = connect(url, &address).await?;
    let reader = Arc::clone(&store.reader);
    let access = Access::new(grants.clone(), address.kind, &store.tables, reader);
    let access = access.map_err(refused)?;
    let found = access.survey().await.map_err(refused)?.into_iter();
    Ok(found
        .map(|(table, changes, target)| finding(table, changes, target))
        .collect())
}

/// What a granted table is good for.
fn finding(table: &str, changes: bool, target: Target) -> Finding {
    let subject = format!("table {table}");
    match target {
        Target::Unfit(reason) if changes => Finding::failure(subject, reason),
        Target::Absent(reason) => {
            Finding::warning(subject, reason).advise("create it, or take it out of the grants")
        }
        Target::Fit if changes => Finding::good(
            subject,
            "it is there, and its changes are kept and taken back with the store's",
        ),
        Target::Fit | Target::Unfit(_) => Finding::good(subject, "it is there, to be queried"),
    }
}

async fn examine_tables(
    store: &SqlStore,
    address: &Address,
    plugins: &[PluginName],
) -> Result<Vec<Finding>, StoreError> {
    let progress = progress(&store.server, &store.tables).await?;
    let mut findings = vec![survey::schema(progress, address.migrates)];
    if progress.done > 0 {
        findings.push(survey::tables(&store.server, address.kind, &store.tables).await?);
    }
    if progress.done == progress.known {
        findings.extend(contents(store, plugins).await?);
    }
    Ok(findings)
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
    OpenError::Refused {
        store: format!(
            "the {} store {}",
            address.kind.name(),
            without_password(url)
        ),
        reason,
    }
}

/// A store whose server can be trusted, but whose tables are not looked at yet.
async fn connect(url: &str, address: &Address) -> Result<SqlStore, OpenError> {
    let (_, settings) = reach(url, address).await?;
    let findings = survey::settings(address.kind, &settings);
    judge(address.kind.name(), &findings).map_err(|reason| refused(url, address, reason))?;
    store(url, address, &settings)
}

/// The store on a server with these settings.
fn store(url: &str, address: &Address, settings: &Settings) -> Result<SqlStore, OpenError> {
    let longest = match address.kind {
        Kind::Mysql => survey::longest_statement(settings),
        Kind::Postgres => LONGEST,
    };
    let server = |purpose| {
        let connector = connector(url, address, purpose)?;
        Ok(Server::new(connector, address.connections, longest))
    };
    Ok(SqlStore {
        kind: address.kind,
        server: server(Purpose::Store)?,
        reader: Arc::new(server(Purpose::Queries)?),
        tables: Tables::new(&address.prefix),
    })
}

/// A server that is not trusted yet, and its settings.
async fn reach(url: &str, address: &Address) -> Result<(Server, Settings), OpenError> {
    let refused = |reason: String| refused(url, address, reason);
    let connector = connector(url, address, Purpose::Store)?;
    let server = Server::new(connector, address.connections, LONGEST);
    match server.converse().await {
        Ok(conversation) => conversation.end(),
        Err(failure) => {
            let error = Failure::into_error(failure);
            return Err(refused(format!(
                "it can't be reached ({error}): check that a server listens there and lets this \
                 user in"
            )));
        }
    }
    let settings = survey::ask_settings(&server, address.kind).await;
    let settings = settings.map_err(|error| refused(error.to_string()))?;
    Ok((server, settings))
}

fn connector(
    url: &str,
    address: &Address,
    purpose: Purpose,
) -> Result<Box<dyn Connector>, OpenError> {
    let invalid = |error: sqlx::Error| OpenError::Url {
        url: without_password(url),
        reason: error.to_string(),
    };
    Ok(match address.kind {
        Kind::Mysql => Box::new(Mysql::new(address, purpose).map_err(invalid)?),
        Kind::Postgres => Box::new(Postgres::new(address, purpose).map_err(invalid)?),
    })
}
