//! The contract's bindings, for WebAssembly.

/// What wit-bindgen makes of `wit/`.
#[allow(missing_docs, unsafe_code, clippy::all, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "handler",
        pub_export_macro: true,
        default_bindings_module: "::semel::guest::bindings",
    });
}

use std::panic;

use bindings::Guest;
use bindings::semel::plugin::types::{Failure, Message as WitMessage, RetryHint};
use bindings::semel::plugin::{context, log, outbox, sql, state, types};

use crate::backend::{Backend, EffectError};
use crate::sql::{SqlError, SqlRows, SqlValue, Staged};
use crate::{Context, Error, Handler, Level, Message, OnMiss, Outgoing};

impl<H: Handler> Guest for H {
    fn handle(message: WitMessage) -> Result<Option<Vec<u8>>, Failure> {
        // In place of the default hook, which writes to a standard error that not every
        // target has.
        panic::set_hook(Box::new(|panic| {
            log::write(log::Level::Error, &panic.to_string());
        }));
        let mut context = Context::new(message.into(), Box::new(Imports));
        H::handle(&mut context).map_err(Failure::from)
    }
}

/// The host's side of the contract.
struct Imports;

impl Backend for Imports {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        state::get(name)
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<(), EffectError> {
        Ok(state::put(name, value)?)
    }

    fn delete(&self, name: &str) -> Result<(), EffectError> {
        Ok(state::delete(name)?)
    }

    fn add(&self, name: &str, delta: i64) -> Result<(), EffectError> {
        Ok(state::add(name, delta)?)
    }

    fn publish(&self, outgoing: Outgoing) -> Result<String, EffectError> {
        let headers = outgoing.headers.into_iter();
        let message = outbox::Outgoing {
            key: outgoing.key,
            headers: headers
                .map(|(name, value)| types::Header { name, value })
                .collect(),
            body: outgoing.body,
            delay_ms: outgoing.delay.map(milliseconds),
        };
        Ok(outbox::publish(&outgoing.destination, &message)?)
    }

    fn execute(&self, statement: Staged) -> Result<(), SqlError> {
        let statement = sql::Statement {
            text: statement.text,
            parameters: statement
                .parameters
                .into_iter()
                .map(sql::Value::from)
                .collect(),
            rows: statement.rows,
            on_miss: match statement.on_miss {
                OnMiss::RunAgain => sql::OnMiss::RunAgain,
                OnMiss::Reject => sql::OnMiss::Reject,
            },
        };
        Ok(sql::execute(&statement)?)
    }

    fn query(&self, text: &str, parameters: &[SqlValue]) -> Result<SqlRows, SqlError> {
        let parameters: Vec<_> = parameters.iter().cloned().map(sql::Value::from).collect();
        let sql::Rows { columns, rows } = sql::query(text, &parameters)?;
        let row = |row: Vec<sql::Value>| row.into_iter().map(SqlValue::from).collect();
        Ok(SqlRows {
            columns,
            rows: rows.into_iter().map(row).collect(),
        })
    }

    fn config(&self, name: &str) -> Option<String> {
        context::config(name)
    }

    fn idempotency_key(&self, label: &str) -> String {
        context::idempotency_key(label)
    }

    fn random(&self, len: u32) -> Vec<u8> {
        context::random(len)
    }

    fn log(&self, level: Level, text: &str) {
        let level = match level {
            Level::Trace => log::Level::Trace,
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        log::write(level, text);
    }
}

impl From<WitMessage> for Message {
    fn from(message: WitMessage) -> Self {
        let headers = message.headers.into_iter();
        Self {
            id: message.id,
            key: message.key,
            topic: message.topic,
            headers: headers.map(|header| (header.name, header.value)).collect(),
            body: message.body,
            timestamp_ms: message.timestamp_ms,
            attempt: message.attempt,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = error.reason().to_owned();
        if error.is_retry() {
            let after_ms = error.delay().map(milliseconds);
            Failure::Retry(RetryHint { reason, after_ms })
        } else {
            Failure::Reject(reason)
        }
    }
}

impl From<types::EffectError> for EffectError {
    fn from(error: types::EffectError) -> Self {
        match error {
            types::EffectError::Denied => Self::Denied,
            types::EffectError::LimitExceeded => Self::LimitExceeded,
        }
    }
}

impl From<SqlValue> for sql::Value {
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

impl From<sql::Value> for SqlValue {
    fn from(value: sql::Value) -> Self {
        match value {
            sql::Value::Null => Self::Null,
            sql::Value::Boolean(value) => Self::Boolean(value),
            sql::Value::Integer(value) => Self::Integer(value),
            sql::Value::Float(value) => Self::Float(value),
            sql::Value::Text(value) => Self::Text(value),
            sql::Value::Bytes(value) => Self::Bytes(value),
        }
    }
}

impl From<sql::SqlError> for SqlError {
    fn from(error: sql::SqlError) -> Self {
        match error {
            sql::SqlError::Denied(reason) | sql::SqlError::Failed(reason) => Self::Refused(reason),
            sql::SqlError::LimitExceeded => Self::LimitExceeded,
        }
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
