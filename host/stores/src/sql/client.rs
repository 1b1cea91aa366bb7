//! A connection of either kind of database.

use std::mem;

use async_trait::async_trait;
use futures::TryStreamExt;
use semel_core::{QueryLimits, SqlRows, SqlValue};
use sqlx::error::BoxDynError;
use sqlx::query::Query;
use sqlx::{
    AssertSqlSafe, Column, ColumnIndex, Database, Either, Encode, Executor, IntoArguments, Row,
    SqlSafeStr, Statement, Type, raw_sql,
};

use super::answer::{Cell, Cells, Set};
use super::server::Connection;
use super::server::statements::Collector;

/// What differs between databases in what is sent and what comes back.
pub(super) trait Dialect: Database {
    /// A `NULL` of whichever type a statement asks for.
    const NULL: Self::Null;

    /// Its type.
    type Null: for<'q> Encode<'q, Self> + Type<Self> + Send + 'static;

    /// A plugin's statement as it is sent with these parameters.
    fn typed(text: &str, parameters: &[SqlValue]) -> String;

    /// How many rows a statement changed.
    fn changed(done: &Self::QueryResult) -> u64;

    /// A value of the store's own tables.
    fn cell(value: Self::ValueRef<'_>) -> Result<Cell, BoxDynError>;

    /// A value of the user's tables.
    fn value(value: Self::ValueRef<'_>) -> Result<SqlValue, BoxDynError>;
}

/// A connection to a database of this kind.
pub(super) struct Client<D: Database>(pub(super) D::Connection);

#[async_trait]
impl<D> Connection for Client<D>
where
    D: Dialect,
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
    D::Arguments: IntoArguments<D>,
    usize: ColumnIndex<D::Row>,
    bool: for<'q> Encode<'q, D> + Type<D>,
    i64: for<'q> Encode<'q, D> + Type<D>,
    f64: for<'q> Encode<'q, D> + Type<D>,
    String: for<'q> Encode<'q, D> + Type<D>,
    Vec<u8>: for<'q> Encode<'q, D> + Type<D>,
{
    async fn run(&mut self, text: String) -> Result<Vec<Set>, sqlx::Error> {
        let mut sets = Vec::new();
        let mut rows = Vec::new();
        let mut answers = raw_sql(AssertSqlSafe(text)).fetch_many(&mut self.0);
        while let Some(answer) = answers.try_next().await? {
            match answer {
                Either::Right(row) => rows.push(Cells::new(each::<D, _>(&row, D::cell)?)),
                Either::Left(done) => sets.push(Set {
                    rows: mem::take(&mut rows),
                    changed: D::changed(&done),
                }),
            }
        }
        Ok(sets)
    }

    async fn execute(&mut self, text: &str, parameters: &[SqlValue]) -> Result<u64, sqlx::Error> {
        let done = bind::<D>(text, parameters).execute(&mut self.0).await?;
        Ok(D::changed(&done))
    }

    async fn query(
        &mut self,
        text: &str,
        parameters: &[SqlValue],
        limits: QueryLimits,
    ) -> Result<SqlRows, sqlx::Error> {
        let mut collector = Collector::new(limits);
        let mut columns = None;
        {
            let mut rows = bind::<D>(text, parameters).fetch(&mut self.0);
            while let Some(row) = rows.try_next().await? {
                columns.get_or_insert_with(|| names(row.columns()));
                collector.push(each::<D, _>(&row, D::value)?)?;
            }
        }
        let columns = match columns {
            Some(columns) => columns,
            // Only the statement itself can tell where there is no row.
            None => {
                let text = AssertSqlSafe(D::typed(text, parameters)).into_sql_str();
                names(self.0.prepare(text).await?.columns())
            }
        };
        Ok(collector.finish(columns))
    }
}

fn names<C: Column>(columns: &[C]) -> Vec<String> {
    columns.iter().map(|it| it.name().to_owned()).collect()
}

/// Each value of a row.
fn each<D, T>(
    row: &D::Row,
    read: fn(D::ValueRef<'_>) -> Result<T, BoxDynError>,
) -> Result<Vec<T>, sqlx::Error>
where
    D: Database,
    usize: ColumnIndex<D::Row>,
{
    let columns = row.columns().iter();
    let values = columns.map(|column| {
        let value = row.try_get_raw(column.ordinal())?;
        read(value).map_err(|source| sqlx::Error::ColumnDecode {
            index: column.name().to_owned(),
            source,
        })
    });
    values.collect()
}

fn bind<D>(text: &str, parameters: &[SqlValue]) -> Query<'static, D, D::Arguments>
where
    D: Dialect,
    bool: for<'q> Encode<'q, D> + Type<D>,
    i64: for<'q> Encode<'q, D> + Type<D>,
    f64: for<'q> Encode<'q, D> + Type<D>,
    String: for<'q> Encode<'q, D> + Type<D>,
    Vec<u8>: for<'q> Encode<'q, D> + Type<D>,
{
    let query = sqlx::query(AssertSqlSafe(D::typed(text, parameters)));
    parameters.iter().fold(query, |query, value| match value {
        SqlValue::Null => query.bind(D::NULL),
        SqlValue::Boolean(value) => query.bind(*value),
        SqlValue::Integer(value) => query.bind(*value),
        SqlValue::Float(value) => query.bind(*value),
        SqlValue::Text(value) => query.bind(value.clone()),
        SqlValue::Bytes(value) => query.bind(value.clone()),
    })
}
