//! Values of plugins, towards MySQL and back.

use futures::TryStreamExt;
use semel_core::{QueryLimits, SqlRows, SqlValue};
use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow, MySqlValueRef};
use sqlx::query::Query;
use sqlx::types::chrono::{NaiveDate, NaiveDateTime};
use sqlx::{
    AssertSqlSafe, Column, Decode, Executor, MySql, Row, SqlSafeStr, Statement, Type, TypeInfo,
    ValueRef,
};

use super::super::server::statements::Collector;

pub(super) async fn execute(
    connection: &mut MySqlConnection,
    text: &str,
    parameters: &[SqlValue],
) -> Result<u64, sqlx::Error> {
    let done = bind(text, parameters).execute(connection).await?;
    Ok(done.rows_affected())
}

pub(super) async fn query(
    connection: &mut MySqlConnection,
    text: &str,
    parameters: &[SqlValue],
    limits: QueryLimits,
) -> Result<SqlRows, sqlx::Error> {
    let mut collector = Collector::new(limits);
    let mut columns = None;
    {
        let mut rows = bind(text, parameters).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            columns.get_or_insert_with(|| names(row.columns()));
            collector.push(values(&row)?)?;
        }
    }
    let columns = match columns {
        Some(columns) => columns,
        // Only the statement itself can tell where there is no row.
        None => {
            let statement = connection.prepare(AssertSqlSafe(text.to_owned()).into_sql_str());
            names(statement.await?.columns())
        }
    };
    Ok(collector.finish(columns))
}

fn names<C: Column>(columns: &[C]) -> Vec<String> {
    columns.iter().map(|it| it.name().to_owned()).collect()
}

fn bind(text: &str, parameters: &[SqlValue]) -> Query<'static, MySql, MySqlArguments> {
    let query = sqlx::query(AssertSqlSafe(text.to_owned()));
    parameters.iter().fold(query, |query, value| match value {
        SqlValue::Null => query.bind(None::<i64>),
        SqlValue::Boolean(value) => query.bind(*value),
        SqlValue::Integer(value) => query.bind(*value),
        SqlValue::Float(value) => query.bind(*value),
        SqlValue::Text(value) => query.bind(value.clone()),
        SqlValue::Bytes(value) => query.bind(value.clone()),
    })
}

fn values(row: &MySqlRow) -> Result<Vec<SqlValue>, sqlx::Error> {
    let columns = row.columns().iter();
    let values = columns.map(|column| {
        let value = row.try_get_raw(column.ordinal())?;
        decoded(value).map_err(|source| sqlx::Error::ColumnDecode {
            index: column.name().to_owned(),
            source,
        })
    });
    values.collect()
}

fn decoded(value: MySqlValueRef<'_>) -> Result<SqlValue, sqlx::error::BoxDynError> {
    fn get<'r, T: Decode<'r, MySql>>(
        value: MySqlValueRef<'r>,
    ) -> Result<T, sqlx::error::BoxDynError> {
        T::decode(value)
    }
    let kind = value.type_info().into_owned();
    Ok(match kind.name() {
        _ if value.is_null() => SqlValue::Null,
        "BOOLEAN" => SqlValue::Boolean(get(value)?),
        name if name.contains("UNSIGNED") || name == "YEAR" => {
            SqlValue::Integer(i64::try_from(get::<u64>(value)?)?)
        }
        name if name.contains("INT") => SqlValue::Integer(get(value)?),
        "FLOAT" => SqlValue::Float(get::<f32>(value)?.into()),
        "DOUBLE" => SqlValue::Float(get(value)?),
        "DATE" => SqlValue::Text(get::<NaiveDate>(value)?.to_string()),
        "DATETIME" | "TIMESTAMP" => {
            let time: NaiveDateTime = get(value)?;
            SqlValue::Text(time.format("%Y-%m-%dT%H:%M:%S%.f").to_string())
        }
        "TIME" => return Err("a TIME has no form here: CAST it AS CHAR".into()),
        // Also where a collation by bytes makes it look like bytes, as of MariaDB's JSON.
        _ if <str as Type<MySql>>::compatible(&kind) => SqlValue::Text(get(value)?),
        name if name.contains("BLOB") || name.contains("BINARY") || name == "BIT" => {
            SqlValue::Bytes(get(value)?)
        }
        // Characters, also of a DECIMAL, which the server sends as text.
        _ => SqlValue::Text(String::from_utf8(get(value)?)?),
    })
}
