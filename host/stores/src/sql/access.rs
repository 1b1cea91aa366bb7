//! The user's own tables, as one plugin may use them.
//!
//! A statement is parsed, and what is not plainly harmless is denied: one statement, of a kind
//! and on tables that were granted, of functions that are known to change nothing. What the
//! database is given is not the plugin's text but what was understood of it, written out anew,
//! so that nothing hides in what two parsers read differently. Values go beside it, as parameters.

mod check;
mod functions;
mod placeholders;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use semel_core::{
    OnMiss, QueryError, QueryLimits, SqlAccess, SqlError, SqlGrants, SqlRows, SqlValue, Statement,
    StoreError,
};

use self::check::{Checked, Kind};
use super::address;
use super::schema::Tables;
use super::server::{Patience, QueryFailure, Server, Target};

/// Texts that are remembered as checked. A plugin has few, and values are not part of them.
const REMEMBERED: usize = 256;

/// What one plugin may do with the tables beside the store's.
#[derive(Debug)]
pub(super) struct Access {
    grants: SqlGrants,
    server: address::Kind,
    /// For queries: its sessions are read-only.
    reader: Arc<Server>,
    checked: Mutex<HashMap<Box<str>, Arc<Checked>>>,
}

impl Access {
    /// Refuses grants on tables whose content is the store's or the server's own.
    pub(super) fn new(
        grants: SqlGrants,
        server: address::Kind,
        tables: &Tables,
        reader: Arc<Server>,
    ) -> Result<Self, StoreError> {
        for &table in grants.tables().keys() {
            let (schema, name) = table.rsplit_once('.').unwrap_or(("", table));
            let is_system = ["information_schema", "mysql", "performance_schema", "sys"]
                .iter()
                .any(|system| schema.eq_ignore_ascii_case(system));
            let is_catalog = [schema, name]
                .iter()
                .any(|part| part.to_ascii_lowercase().starts_with("pg_"));
            let reason = if tables.has(name) {
                "is the store's own"
            } else if is_system || is_catalog {
                "is the server's own"
            } else if name.is_empty() || table.matches('.').count() > 1 {
                "is no name of a table: write `TABLE` or `SCHEMA.TABLE`"
            } else {
                continue;
            };
            return Err(StoreError::failed(format!("`{table}` {reason}")));
        }
        Ok(Self {
            grants,
            server,
            reader,
            checked: Mutex::default(),
        })
    }

    /// The tables as they are now, each with whether it may be changed.
    pub(super) async fn survey(&self) -> Result<Vec<(&str, bool, Target)>, StoreError> {
        let mut found = Vec::new();
        for (table, changes) in self.grants.tables() {
            let target = self.reader.inside(self.reader.survey(table)).await?;
            found.push((table, changes, target));
        }
        Ok(found)
    }

    fn check(&self, kind: Kind, text: &str, parameters: usize) -> Result<Arc<Checked>, SqlError> {
        let checked = match self.remembered(text) {
            Some(checked) => checked,
            None => {
                let checked = check::check(self.server, &self.grants, text);
                let checked = Arc::new(checked.map_err(SqlError::Denied)?);
                self.remember(text, &checked);
                checked
            }
        };
        if checked.kind != kind {
            return Err(SqlError::Denied(match kind {
                Kind::Query => "`query` takes a SELECT only: `execute` the others".to_owned(),
                Kind::Change => {
                    "`execute` takes INSERT, UPDATE and DELETE only: `query` the others".to_owned()
                }
            }));
        }
        if checked.parameters != parameters {
            return Err(SqlError::Denied(format!(
                "the statement has {} parameters, and was given {parameters}",
                checked.parameters
            )));
        }
        Ok(checked)
    }

    fn remembered(&self, text: &str) -> Option<Arc<Checked>> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.get(text).cloned()
    }

    fn remember(&self, text: &str, what: &Arc<Checked>) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= REMEMBERED {
            checked.clear();
        }
        checked.insert(text.into(), Arc::clone(what));
    }

    async fn try_query(
        &self,
        query: &Checked,
        parameters: &[SqlValue],
        limits: QueryLimits,
    ) -> Result<SqlRows, QueryError> {
        let mut patience = Patience::default();
        loop {
            let failure = match self.reader.query(&query.text, parameters, limits).await {
                Ok(rows) => return Ok(rows),
                Err(QueryFailure::Refused(reason)) => return Err(SqlError::Failed(reason).into()),
                Err(QueryFailure::Server(failure)) => failure,
            };
            patience.after(failure).await?;
        }
    }
}

#[async_trait]
impl SqlAccess for Access {
    fn statement(
        &self,
        text: &str,
        parameters: Vec<SqlValue>,
        rows: Option<u64>,
        on_miss: OnMiss,
    ) -> Result<Statement, SqlError> {
        let checked = self.check(Kind::Change, text, parameters.len())?;
        Ok(Statement {
            table: Arc::clone(&checked.table),
            text: Arc::clone(&checked.text),
            parameters: checked.arrange(parameters),
            rows,
            on_miss,
        })
    }

    async fn query(
        &self,
        text: &str,
        parameters: Vec<SqlValue>,
        limits: QueryLimits,
    ) -> Result<SqlRows, QueryError> {
        let checked = self.check(Kind::Query, text, parameters.len())?;
        let parameters = checked.arrange(parameters);
        let asking = self.try_query(&checked, &parameters, limits);
        self.reader.inside(asking).await
    }
}
