//! Values towards MySQL and back.

use bytes::Bytes;
use semel_core::SqlValue;
use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlQueryResult, MySqlValueRef};
use sqlx::types::chrono::{NaiveDate, NaiveDateTime};
use sqlx::{Decode, MySql, Type, TypeInfo, ValueRef};

use super::super::answer::Cell;
use super::super::client::Dialect;

impl Dialect for MySql {
    const NULL: Self::Null = None;

    type Null = Option<i64>;

    fn typed(text: &str, _: &[SqlValue]) -> String {
        text.to_owned()
    }

    fn changed(done: &MySqlQueryResult) -> u64 {
        done.rows_affected()
    }

    fn cell(value: MySqlValueRef<'_>) -> Result<Cell, BoxDynError> {
        let is_number = value.type_info().name().contains("INT");
        Ok(if value.is_null() {
            Cell::Null
        } else if is_number {
            Cell::Number(get(value)?)
        } else {
            Cell::Bytes(Bytes::from(get::<Vec<u8>>(value)?))
        })
    }

    fn value(value: MySqlValueRef<'_>) -> Result<SqlValue, BoxDynError> {
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
}

fn get<'r, T: Decode<'r, MySql>>(value: MySqlValueRef<'r>) -> Result<T, BoxDynError> {
    T::decode(value)
}
