//! The user's own tables.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::backend::Backend;
use crate::{OrFail, Result};

/// The user's own tables: see [`Context::sql`](crate::Context::sql).
///
/// A statement is staged, and carried out in the transaction that also keeps the record which
/// says "this key is done". Parameters stand in it as `$1`, `$2`, … or, in order, as `?`, on
/// MySQL and PostgreSQL alike.
#[derive(Clone, Copy)]
pub struct Sql<'c>(pub(crate) &'c dyn Backend);

impl<'c> Sql<'c> {
    /// An `INSERT`, `UPDATE` or `DELETE`, to be [staged](Statement::stage).
    pub fn statement(&self, text: impl Into<String>) -> Statement<'c> {
        Statement {
            backend: self.0,
            staged: Staged {
                text: text.into(),
                parameters: Vec::new(),
                rows: None,
                on_miss: OnMiss::RunAgain,
            },
        }
    }

    /// A `SELECT`, to be asked. It sees what is committed: not what this run staged, but all
    /// that earlier messages of its lane did. What it saw may change before this run is
    /// committed, so guard the statements that rest on it: see [`Statement::rows`].
    pub fn query(&self, text: impl Into<String>) -> Query<'c> {
        Query {
            backend: self.0,
            text: text.into(),
            parameters: Vec::new(),
        }
    }
}

impl fmt::Debug for Sql<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sql")
    }
}

/// A statement that is being put together.
///
/// ```
/// # use semel::{Context, Result};
/// # fn pay(ctx: &mut Context, account: i64, amount: i64, version: i64) -> Result {
/// ctx.sql()
///     .statement(
///         "UPDATE accounts SET balance = balance - ?, version = version + 1 \
///          WHERE id = ? AND version = ?",
///     )
///     .bind(amount)
///     .bind(account)
///     .bind(version)
///     .rows(1)
///     .stage()?;
/// # Ok(()) }
/// ```
#[must_use = "it does nothing until it is staged"]
pub struct Statement<'c> {
    backend: &'c dyn Backend,
    staged: Staged,
}

/// A statement that was staged.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    /// The text.
    pub text: String,
    /// The parameters, in order.
    pub parameters: Vec<SqlValue>,
    /// How many rows it must insert, match or delete, if that matters.
    pub rows: Option<u64>,
    /// What a miss means.
    pub on_miss: OnMiss,
}

/// What becomes of a message whose statement finds another number of rows than it must, or would
/// violate a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    /// The handler is run again, as another program most likely came first. After several times
    /// in vain it counts as a failure that may pass, like [`retry`](crate::retry).
    RunAgain,
    /// The message becomes a dead letter.
    Reject,
}

impl Statement<'_> {
    /// Gives the next parameter.
    pub fn bind(mut self, value: impl Into<SqlValue>) -> Self {
        self.staged.parameters.push(value.into());
        self
    }

    /// Says how many rows it must insert, match or delete: the guard of
    /// `UPDATE … WHERE id = ? AND version = ?`, which must match 1.
    pub fn rows(mut self, rows: u64) -> Self {
        self.staged.rows = Some(rows);
        self
    }

    /// Makes a miss the end of the message, in place of another run.
    pub fn or_reject(mut self) -> Self {
        self.staged.on_miss = OnMiss::Reject;
        self
    }

    /// Stages it. Statements are carried out in this order, after the handler returned.
    ///
    /// # Errors
    /// A retry if the operator has not granted it, for the reason that the host gives; a
    /// rejection if the run's limits are used up.
    pub fn stage(self) -> Result {
        let Self { backend, staged } = self;
        backend.execute(staged).map_err(SqlError::into_error)
    }
}

impl fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.staged.fmt(f)
    }
}

/// A query that is being put together.
///
/// ```
/// # use semel::{Context, Result};
/// # fn read(ctx: &mut Context, account: i64) -> Result {
/// #[derive(serde::Deserialize)]
/// struct Account {
///     balance: i64,
///     version: i64,
/// }
///
/// let account: Option<Account> = ctx
///     .sql()
///     .query("SELECT balance, version FROM accounts WHERE id = ?")
///     .bind(account)
///     .first()?;
/// # Ok(()) }
/// ```
#[must_use = "it does nothing until it is asked"]
pub struct Query<'c> {
    backend: &'c dyn Backend,
    text: String,
    parameters: Vec<SqlValue>,
}

impl Query<'_> {
    /// Gives the next parameter.
    pub fn bind(mut self, value: impl Into<SqlValue>) -> Self {
        self.parameters.push(value.into());
        self
    }

    /// Asks, and gives the rows as they are.
    ///
    /// # Errors
    /// A retry if the operator has not granted it or the database could not answer, for the
    /// reason that the host gives.
    pub fn rows(self) -> Result<SqlRows> {
        self.backend
            .query(&self.text, &self.parameters)
            .map_err(SqlError::into_error)
    }

    /// Asks, and gives each row as a `T`, whose fields are named like the columns.
    ///
    /// # Errors
    /// As [`rows`](Self::rows), and a rejection if a row is no `T`.
    pub fn all<T: DeserializeOwned>(self) -> Result<Vec<T>> {
        let SqlRows { columns, rows } = self.rows()?;
        let read = |row: Vec<SqlValue>| {
            let values = row.into_iter().map(serde_json::Value::from);
            let object = columns.iter().cloned().zip(values).collect();
            serde_json::from_value(serde_json::Value::Object(object))
                .or_reject("a row is not what the handler expects")
        };
        rows.into_iter().map(read).collect()
    }

    /// Asks, and gives the first row as a `T`, if there is one.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    pub fn first<T: DeserializeOwned>(self) -> Result<Option<T>> {
        Ok(self.all()?.into_iter().next())
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("text", &self.text)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

/// The rows of a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SqlRows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<SqlValue>>,
}

/// A parameter of a statement, or a column of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue {
    /// `NULL`.
    Null,
    /// A truth value.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// Text, and everything else that has a text form: decimals, dates, times, UUIDs, JSON. As a
    /// parameter such a value may need a `CAST($1 AS …)`.
    Text(String),
    /// Bytes. As JSON, that is in [`Query::all`], they are a list of numbers.
    Bytes(Vec<u8>),
}

macro_rules! from {
    ($($type:ty => $value:ident($into:expr),)*) => {
        $(impl From<$type> for SqlValue {
            fn from(value: $type) -> Self {
                Self::$value($into(value))
            }
        })*
    };
}

from! {
    bool => Boolean(bool::from),
    i64 => Integer(i64::from),
    i32 => Integer(i64::from),
    u32 => Integer(i64::from),
    u16 => Integer(i64::from),
    f64 => Float(f64::from),
    &str => Text(String::from),
    &String => Text(String::clone),
    String => Text(String::from),
    &[u8] => Bytes(Vec::from),
    Vec<u8> => Bytes(Vec::from),
}

impl<T: Into<SqlValue>> From<Option<T>> for SqlValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, T::into)
    }
}

impl From<SqlValue> for serde_json::Value {
    fn from(value: SqlValue) -> Self {
        match value {
            SqlValue::Null => Self::Null,
            SqlValue::Boolean(value) => value.into(),
            SqlValue::Integer(value) => value.into(),
            SqlValue::Float(value) => value.into(),
            SqlValue::Text(value) => value.into(),
            SqlValue::Bytes(value) => value.into(),
        }
    }
}

/// Why the host did not take a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SqlError {
    /// The operator has not granted it, or the database could not answer it.
    Refused(String),
    /// The run has used up its limit.
    LimitExceeded,
}

impl SqlError {
    /// What it means for the message. A grant can be given and a table mended while the message is
    /// parked.
    fn into_error(self) -> crate::Error {
        match self {
            Self::Refused(reason) => crate::retry(reason),
            Self::LimitExceeded => {
                crate::reject("the statements go beyond the run's limits on effects")
            }
        }
    }
}
