//! Values of plugins, towards PostgreSQL and back.

use futures::TryStreamExt;
use semel_core::{QueryLimits, SqlRows, SqlValue};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnection, PgRow, PgTypeInfo, PgTypeKind, PgValueRef,
};
use sqlx::query::Query;
use sqlx::types::chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use sqlx::types::{BigDecimal, Json, JsonRawValue, Uuid};
use sqlx::{
    AssertSqlSafe, Column, Decode, Encode, Executor, Postgres, Row, SqlSafeStr, Statement, Type,
    TypeInfo, ValueRef,
};

use super::super::server::statements::Collector;

pub(super) async fn execute(
    connection: &mut PgConnection,
    text: &str,
    parameters: &[SqlValue],
) -> Result<u64, sqlx::Error> {
    let done = bind(text, parameters).execute(connection).await?;
    Ok(done.rows_affected())
}

pub(super) async fn query(
    connection: &mut PgConnection,
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
            let text = AssertSqlSafe(typed(text, parameters));
            let statement = connection.prepare(text.into_sql_str());
            names(statement.await?.columns())
        }
    };
    Ok(collector.finish(columns))
}

fn names<C: Column>(columns: &[C]) -> Vec<String> {
    columns.iter().map(|it| it.name().to_owned()).collect()
}

/// A `NULL` of whichever type the statement asks for.
struct Null;

impl Type<Postgres> for Null {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Null {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

/// The text with the types of its parameters behind it. The client keeps prepared statements by
/// their text, and the server fixes a parameter's type when it prepares: a value must not meet
/// the statement that was prepared for a `NULL` or for a value of another type.
fn typed(text: &str, parameters: &[SqlValue]) -> String {
    let types = parameters.iter().map(|value| match value {
        SqlValue::Null => '0',
        SqlValue::Boolean(_) => 'b',
        SqlValue::Integer(_) => 'i',
        SqlValue::Float(_) => 'f',
        SqlValue::Text(_) => 't',
        SqlValue::Bytes(_) => 'y',
    });
    format!("{text} /* {} */", types.collect::<String>())
}

fn bind(text: &str, parameters: &[SqlValue]) -> Query<'static, Postgres, PgArguments> {
    let query = sqlx::query(AssertSqlSafe(typed(text, parameters)));
    parameters.iter().fold(query, |query, value| match value {
        SqlValue::Null => query.bind(Null),
        SqlValue::Boolean(value) => query.bind(*value),
        SqlValue::Integer(value) => query.bind(*value),
        SqlValue::Float(value) => query.bind(*value),
        SqlValue::Text(value) => query.bind(value.clone()),
        SqlValue::Bytes(value) => query.bind(value.clone()),
    })
}

fn values(row: &PgRow) -> Result<Vec<SqlValue>, sqlx::Error> {
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

fn decoded(value: PgValueRef<'_>) -> Result<SqlValue, BoxDynError> {
    fn get<'r, T: Decode<'r, Postgres>>(value: PgValueRef<'r>) -> Result<T, BoxDynError> {
        T::decode(value)
    }
    let kind = value.type_info().into_owned();
    Ok(match kind.name() {
        _ if value.is_null() => SqlValue::Null,
        "BOOL" => SqlValue::Boolean(get(value)?),
        "INT2" => SqlValue::Integer(get::<i16>(value)?.into()),
        "INT4" => SqlValue::Integer(get::<i32>(value)?.into()),
        "INT8" => SqlValue::Integer(get(value)?),
        "FLOAT4" => SqlValue::Float(get::<f32>(value)?.into()),
        "FLOAT8" => SqlValue::Float(get(value)?),
        "BYTEA" => SqlValue::Bytes(get(value)?),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" => SqlValue::Text(get(value)?),
        "NUMERIC" => SqlValue::Text(get::<BigDecimal>(value)?.to_plain_string()),
        "DATE" => SqlValue::Text(get::<NaiveDate>(value)?.to_string()),
        "TIME" => SqlValue::Text(get::<NaiveTime>(value)?.to_string()),
        "TIMESTAMP" => {
            let time: NaiveDateTime = get(value)?;
            SqlValue::Text(time.format("%Y-%m-%dT%H:%M:%S%.f").to_string())
        }
        "TIMESTAMPTZ" => {
            let time: DateTime<Utc> = get(value)?;
            SqlValue::Text(time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
        }
        "UUID" => SqlValue::Text(get::<Uuid>(value)?.to_string()),
        "JSON" | "JSONB" => {
            let Json(json): Json<&JsonRawValue> = get(value)?;
            SqlValue::Text(json.get().to_owned())
        }
        _ if matches!(kind.kind(), PgTypeKind::Enum(_)) => {
            SqlValue::Text(value.as_str()?.to_owned())
        }
        name => return Err(format!("a {name} has no form here: CAST it AS TEXT").into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_prepared_for_each_choice_of_types() {
        let values = [
            SqlValue::Null,
            SqlValue::Integer(1),
            SqlValue::Text("'".into()),
        ];
        assert_eq!(typed("SELECT $1", &values), "SELECT $1 /* 0it */");
    }
}
