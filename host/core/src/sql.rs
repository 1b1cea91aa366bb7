//! The user's own tables: what a handler may ask of them, and what it gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::StoreError;

/// A parameter of a statement, or a column of a row.
#[derive(Clone, Debug)]
pub enum SqlValue {
    /// `NULL`.
    Null,
    /// A truth value.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// Text, and everything else that has a text form: decimals, dates, times, UUIDs, JSON.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl SqlValue {
    /// How much it counts against limits, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Null | Self::Boolean(_) => 1,
            Self::Integer(_) | Self::Float(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl PartialEq for SqlValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Boolean(a), Self::Boolean(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            // The same value, also where it is no number.
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for SqlValue {}

/// A statement that a run staged: an `INSERT`, `UPDATE` or `DELETE` that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The table that it changes, as grants name it.
    pub table: Arc<str>,
    /// The text as the database is given it, in the database's own form.
    pub text: Arc<str>,
    /// The parameters, in the order in which that text asks for them.
    pub parameters: Vec<SqlValue>,
    /// How many rows it must insert, match or delete, if that matters.
    pub rows: Option<u64>,
    /// What a miss means.
    pub on_miss: OnMiss,
}

/// What becomes of a message where a statement does not do what it was to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMiss {
    /// The handler is run again.
    #[default]
    RunAgain,
    /// The message becomes a dead letter.
    Reject,
}

/// A statement that was not carried through, and with it none of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// What happened.
    pub reason: String,
    /// What becomes of the message.
    pub then: AfterMiss,
}

/// What becomes of a message whose statement missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterMiss {
    /// The handler is run again at once.
    RunAgain,
    /// It counts as a failure of the handler that may pass.
    Retry,
    /// The message becomes a dead letter.
    Reject,
}

impl From<OnMiss> for AfterMiss {
    fn from(on_miss: OnMiss) -> Self {
        match on_miss {
            OnMiss::RunAgain => Self::RunAgain,
            OnMiss::Reject => Self::Reject,
        }
    }
}

/// The rows of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlRows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<SqlValue>>,
}

/// How large the answer to a query may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Rows.
    pub rows: usize,
    /// Bytes of all values together.
    pub bytes: usize,
}

/// Why a statement was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The operator has not granted it, or it is of a form that can't be granted.
    #[error("{0}")]
    Denied(String),
    /// The run has used up its limit.
    #[error("limit exceeded")]
    LimitExceeded,
    /// The database could not answer the query.
    #[error("{0}")]
    Failed(String),
}

/// Why a query has no rows to show.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The handler is told.
    #[error(transparent)]
    Refused(#[from] SqlError),
    /// The database is out of service, which no handler is told: its run is dropped.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a plugin may do with the user's tables. Tables are named as statements name them, with
/// or without a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlGrants {
    /// Tables that it may query.
    pub select: Vec<String>,
    /// Tables that it may insert into.
    pub insert: Vec<String>,
    /// Tables that it may update.
    pub update: Vec<String>,
    /// Tables that it may delete from.
    pub delete: Vec<String>,
    /// Functions that it may call beside the usual ones. They must change nothing.
    pub functions: Vec<String>,
}

impl SqlGrants {
    /// The tables, each with whether it may be changed.
    pub fn tables(&self) -> BTreeMap<&str, bool> {
        let queried = self.select.iter().map(|table| (table, false));
        let changed = [&self.insert, &self.update, &self.delete];
        let changed = changed.into_iter().flatten().map(|table| (table, true));
        let all = queried.chain(changed);
        all.map(|(table, changes)| (table.as_str(), changes))
            .collect()
    }
}

/// The user's tables, as one plugin may use them.
#[async_trait]
pub trait SqlAccess: Send + Sync + std::fmt::Debug {
    /// Checks a statement that is to be staged.
    fn statement(
        &self,
        text: &str,
        parameters: Vec<SqlValue>,
        rows: Option<u64>,
        on_miss: OnMiss,
    ) -> Result<Statement, SqlError>;

    /// Checks a query and asks it.
    async fn query(
        &self,
        text: &str,
        parameters: Vec<SqlValue>,
        limits: QueryLimits,
    ) -> Result<SqlRows, QueryError>;
}
