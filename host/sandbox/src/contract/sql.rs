//! The interface `sql`.

use semel_core::{OnMiss, SqlError, SqlRows, SqlValue};
use wasmtime::Result;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::guest::{Caller, Guest, enter};
use crate::limits::Stop;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum Value {
    #[component(name = "null")]
    Null,
    #[component(name = "boolean")]
    Boolean(bool),
    #[component(name = "integer")]
    Integer(i64),
    #[component(name = "float")]
    Float(f64),
    #[component(name = "text")]
    Text(String),
    #[component(name = "bytes")]
    Bytes(Vec<u8>),
}

// Lifting makes its values, which the compiler does not see.
#[allow(dead_code)]
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
enum Miss {
    #[component(name = "run-again")]
    RunAgain,
    #[component(name = "reject")]
    Reject,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Statement {
    text: String,
    parameters: Vec<Value>,
    rows: Option<u64>,
    #[component(name = "on-miss")]
    on_miss: Miss,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum Refusal {
    #[component(name = "denied")]
    Denied(String),
    #[component(name = "limit-exceeded")]
    LimitExceeded,
    #[component(name = "failed")]
    Failed(String),
}

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    let mut sql = linker.instance("semel:plugin/sql@0.1.0")?;
    sql.func_wrap(
        "execute",
        |mut caller: Caller<'_>, (statement,): (Statement,)| {
            let on_miss = match statement.on_miss {
                Miss::RunAgain => OnMiss::RunAgain,
                Miss::Reject => OnMiss::Reject,
            };
            let parameters = values(statement.parameters);
            let context = &mut enter(&mut caller)?.context;
            let staged = context.execute(&statement.text, parameters, statement.rows, on_miss);
            Ok((staged.map_err(Refusal::from),))
        },
    )?;
    sql.func_wrap_async(
        "query",
        |mut caller: Caller<'_>, (text, parameters): (String, Vec<Value>)| {
            Box::new(async move {
                let context = &mut enter(&mut caller)?.context;
                let answer = context.query(&text, values(parameters)).await;
                let rows = answer.map_err(|_| Stop::Aborted)?;
                Ok((rows.map(Rows::from).map_err(Refusal::from),))
            })
        },
    )
}

fn values(values: Vec<Value>) -> Vec<SqlValue> {
    values.into_iter().map(SqlValue::from).collect()
}

impl From<Value> for SqlValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => Self::Boolean(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Float(value) => Self::Float(value),
            Value::Text(value) => Self::Text(value),
            Value::Bytes(value) => Self::Bytes(value),
        }
    }
}

impl From<SqlValue> for Value {
    fn from(value: SqlValue) -> Self {
        match value {
            SqlValue::Null => Self::Null,
            SqlValue::Boolean(value) => Self::Boolean(value),
            SqlValue::Integer(value) => Self::Integer(value),
            SqlValue::Float(value) => Self::Float(value),
            SqlValue::Text(value) => Self::Text(value),
            SqlValue::Bytes(value) => Self::Bytes(value),
        }
    }
}

impl From<SqlRows> for Rows {
    fn from(rows: SqlRows) -> Self {
        let row = |row: Vec<SqlValue>| row.into_iter().map(Value::from).collect();
        Self {
            columns: rows.columns,
            rows: rows.rows.into_iter().map(row).collect(),
        }
    }
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Denied(reason) => Self::Denied(reason),
            SqlError::LimitExceeded => Self::LimitExceeded,
            SqlError::Failed(reason) => Self::Failed(reason),
        }
    }
}
