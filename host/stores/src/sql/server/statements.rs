//! Statements and queries of plugins.

use semel_core::crash::{CrashPoint, crash_point};
use semel_core::{AfterMiss, Miss, QueryLimits, SqlRows, SqlValue, Statement};

use super::{Conversation, Failure, Server, in_time};

/// What a server said of a statement that it refused, where the transaction can go on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Refusal {
    /// A constraint of the user's table would be violated.
    Constraint(String),
    /// Anything else about the statement: what it names is not there, or it takes too long.
    Statement(String),
}

/// Why a query has no rows to show.
#[derive(Debug)]
pub(in super::super) enum QueryFailure {
    /// The query is at fault.
    Refused(String),
    /// The server is.
    Server(Failure),
}

impl Conversation<'_> {
    /// Carries out the statements of a run, all of them or none. If one misses, the transaction
    /// is as it was.
    pub(in super::super) async fn carry_out(
        &mut self,
        statements: &[Statement],
    ) -> Result<Option<Miss>, Failure> {
        let words = self.server.words;
        crash_point(CrashPoint::StatementsBefore);
        self.run(words.begin_run.to_owned()).await?;
        let mut missed = None;
        for statement in statements {
            missed = self.execute(statement).await?;
            if missed.is_some() {
                break;
            }
        }
        if missed.is_none() {
            // What a constraint holds back to the end of the transaction is found here, while
            // it is still known whose it is.
            missed = match self.send(words.end_run.to_owned()).await {
                Ok(_) => None,
                Err(error) => Some(self.miss(error, AfterMiss::Retry)?),
            };
        }
        if missed.is_some() {
            self.run("ROLLBACK TO SAVEPOINT semel_run".to_owned())
                .await?;
        }
        crash_point(CrashPoint::StatementsAfter);
        Ok(missed)
    }

    async fn execute(&mut self, statement: &Statement) -> Result<Option<Miss>, Failure> {
        if let Some(objection) = self.objection(&statement.table).await? {
            return Ok(Some(objection));
        }
        let text = &*statement.text;
        let size = statement
            .parameters
            .iter()
            .map(SqlValue::size)
            .sum::<usize>();
        if text.len() + 2 * size > self.server.longest {
            return Ok(Some(Miss {
                reason: format!(
                    "the parameters of `{}` have {size} bytes, which is more than the server takes: \
                     raise `max_allowed_packet`",
                    shown(text)
                ),
                then: AfterMiss::Retry,
            }));
        }
        let rows = match self.change(text, &statement.parameters).await {
            Ok(rows) => rows,
            Err(error) => {
                let mut miss = self.miss(error, statement.on_miss.into())?;
                miss.reason = format!("`{}`: {}", shown(text), miss.reason);
                return Ok(Some(miss));
            }
        };
        Ok(match statement.rows {
            Some(expected) if expected != rows => Some(Miss {
                reason: format!("`{}` found {rows} rows in place of {expected}", shown(text)),
                then: statement.on_miss.into(),
            }),
            _ => None,
        })
    }

    async fn change(&mut self, text: &str, parameters: &[SqlValue]) -> sqlx::Result<u64> {
        in_time(self.connection()?.execute(text, parameters)).await
    }

    async fn query(
        &mut self,
        text: &str,
        parameters: &[SqlValue],
        limits: QueryLimits,
    ) -> sqlx::Result<SqlRows> {
        in_time(self.connection()?.query(text, parameters, limits)).await
    }

    /// What an error means for the run, if it is only about that.
    pub(super) fn miss(&mut self, error: sqlx::Error, on_miss: AfterMiss) -> Result<Miss, Failure> {
        match self.server.connector.refusal(&error) {
            Some(Refusal::Constraint(reason)) => Ok(Miss {
                reason,
                then: on_miss,
            }),
            Some(Refusal::Statement(reason)) => Ok(Miss {
                reason,
                then: AfterMiss::Retry,
            }),
            None => Err(self.failure(error)),
        }
    }
}

impl Server {
    /// Asks a plugin's query.
    pub(in super::super) async fn query(
        &self,
        text: &str,
        parameters: &[SqlValue],
        limits: QueryLimits,
    ) -> Result<SqlRows, QueryFailure> {
        let mut conversation = self.converse().await.map_err(QueryFailure::Server)?;
        let error = match conversation.query(text, parameters, limits).await {
            Ok(rows) => {
                conversation.end();
                return Ok(rows);
            }
            Err(error) => error,
        };
        Err(match self.connector.refusal(&error) {
            Some(Refusal::Constraint(reason) | Refusal::Statement(reason)) => {
                QueryFailure::Refused(format!("`{}`: {reason}", shown(text)))
            }
            None => QueryFailure::Server(conversation.failure(error)),
        })
    }
}

/// The beginning of a statement.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}

/// What an error of the client itself says of a statement.
pub(in super::super) fn refusal_of_client(error: &sqlx::Error) -> Option<Refusal> {
    match error {
        sqlx::Error::InvalidArgument(reason) => Some(Refusal::Statement(reason.clone())),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => {
            Some(Refusal::Statement(error.to_string()))
        }
        _ => None,
    }
}

/// Collects rows within limits.
pub(in super::super) struct Collector {
    limits: QueryLimits,
    bytes: usize,
    rows: Vec<Vec<SqlValue>>,
}

impl Collector {
    pub(in super::super) fn new(limits: QueryLimits) -> Self {
        Self {
            limits,
            bytes: 0,
            rows: Vec::new(),
        }
    }

    pub(in super::super) fn push(&mut self, row: Vec<SqlValue>) -> Result<(), sqlx::Error> {
        let QueryLimits { rows, bytes } = self.limits;
        self.bytes += row.iter().map(SqlValue::size).sum::<usize>();
        if self.rows.len() >= rows || self.bytes > bytes {
            return Err(sqlx::Error::InvalidArgument(format!(
                "it gives more than {rows} rows or {bytes} bytes: ask for less, with LIMIT, or \
                 raise `query-rows` and `query-bytes` under the plugin's `limits`"
            )));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(in super::super) fn finish(self, columns: Vec<String>) -> SqlRows {
        SqlRows {
            columns,
            rows: self.rows,
        }
    }
}
