//! Values towards PostgreSQL and back.

use bytes::Bytes;
use semel_core::SqlValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgQueryResult, PgTypeInfo, PgTypeKind, PgValueRef};
use sqlx::types::chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use sqlx::types::{BigDecimal, Json, JsonRawValue, Uuid};
use sqlx::{Decode, Encode, Postgres, Type, TypeInfo, ValueRef};

use super::super::answer::Cell;
use super::super::client::Dialect;

/// A `NULL` of whichever type the statement asks for.
pub(in super::super) struct Null;

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

impl Dialect for Postgres {
    const NULL: Null = Null;

    type Null = Null;

    /// The text with the types of its parameters behind it. The client keeps prepared statements
    /// by their text, and the server fixes a parameter's type when it prepares: a value must not
    /// meet the statement that was prepared for a `NULL` or for a value of another type.
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

    fn changed(done: &PgQueryResult) -> u64 {
        done.rows_affected()
    }

    fn cell(value: PgValueRef<'_>) -> Result<Cell, BoxDynError> {
        let kind = value.type_info().into_owned();
        Ok(match kind.name() {
            _ if value.is_null() => Cell::Null,
            "INT2" | "INT4" | "INT8" => Cell::Number(get(value)?),
            "BYTEA" => Cell::Bytes(Bytes::from(get::<Vec<u8>>(value)?)),
            _ => Cell::Bytes(Bytes::copy_from_slice(value.as_bytes()?)),
        })
    }

    fn value(value: PgValueRef<'_>) -> Result<SqlValue, BoxDynError> {
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
}

fn get<'r, T: Decode<'r, Postgres>>(value: PgValueRef<'r>) -> Result<T, BoxDynError> {
    T::decode(value)
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
        assert_eq!(Postgres::typed("SELECT $1", &values), "SELECT $1 /* 0it */");
    }
}
