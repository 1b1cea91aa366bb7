//! The contract `semel:plugin@0.1`: its shapes, and its imports mapped to a [`RunContext`].
//!
//! [`RunContext`]: semel_core::RunContext

mod sql;

use bytes::Bytes;
use semel_core::{EffectError, Outgoing};
use tracing::Level;
use wasmtime::Result;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::guest::{Caller, Guest, enter};
use crate::limits::Stop;

/// The most bytes that one `context.random` gives.
pub(crate) const RANDOM_BYTES: u64 = 64 << 10;

/// `types.header`, towards the guest.
#[derive(Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(crate) struct HeaderRef<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: &'a str,
}

/// `types.message`.
#[derive(Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(crate) struct MessageRef<'a> {
    pub(crate) id: &'a str,
    pub(crate) key: &'a [u8],
    pub(crate) topic: &'a str,
    pub(crate) headers: &'a [HeaderRef<'a>],
    pub(crate) body: &'a [u8],
    #[component(name = "timestamp-ms")]
    pub(crate) timestamp_ms: u64,
    pub(crate) attempt: u32,
}

/// `types.retry-hint`.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct RetryHint {
    pub(crate) reason: String,
    #[component(name = "after-ms")]
    pub(crate) after_ms: Option<u64>,
}

/// `types.failure`.
#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum GuestFailure {
    #[component(name = "retry")]
    Retry(RetryHint),
    #[component(name = "reject")]
    Reject(String),
}

/// What `handle` takes.
pub(crate) type Parameters<'a> = (MessageRef<'a>,);

/// What `handle` gives.
pub(crate) type Answer = (Result<Option<Vec<u8>>, GuestFailure>,);

#[derive(ComponentType, Lift)]
#[component(record)]
struct Header {
    name: String,
    value: String,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct OutgoingMessage {
    key: Option<Vec<u8>>,
    headers: Vec<Header>,
    body: Vec<u8>,
    #[component(name = "delay-ms")]
    delay_ms: Option<u64>,
}

#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
enum Denial {
    #[component(name = "denied")]
    Denied,
    #[component(name = "limit-exceeded")]
    LimitExceeded,
}

// Lifting makes its values, which the compiler does not see.
#[allow(dead_code)]
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
enum LogLevel {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<EffectError> for Denial {
    fn from(error: EffectError) -> Self {
        match error {
            EffectError::Denied => Self::Denied,
            EffectError::LimitExceeded => Self::LimitExceeded,
        }
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::TRACE,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Info => Self::INFO,
            LogLevel::Warn => Self::WARN,
            LogLevel::Error => Self::ERROR,
        }
    }
}

/// Adds everything that the contract lets a plugin import.
pub(crate) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    state(linker)?;
    outbox(linker)?;
    sql::link(linker)?;
    context(linker)?;
    log(linker)
}

fn state(linker: &mut Linker<Guest>) -> Result<()> {
    let mut state = linker.instance("semel:plugin/state@0.1.0")?;
    // This and `sql.query` may have to wait. Everything else returns at once.
    state.func_wrap_async("get", |mut caller: Caller<'_>, (key,): (String,)| {
        Box::new(async move {
            let context = &mut enter(&mut caller)?.context;
            let value = match context.try_get(&key) {
                Some(value) => value,
                None => context.get(&key).await,
            };
            let value = value.map_err(|_| Stop::Aborted)?;
            Ok((value.map(|value| value.to_vec()),))
        })
    })?;
    state.func_wrap(
        "put",
        |mut caller: Caller<'_>, (key, value): (String, Vec<u8>)| {
            let context = &mut enter(&mut caller)?.context;
            Ok((effect(context.put(&key, value.into())),))
        },
    )?;
    state.func_wrap("delete", |mut caller: Caller<'_>, (key,): (String,)| {
        Ok((effect(enter(&mut caller)?.context.delete(&key)),))
    })?;
    state.func_wrap(
        "add",
        |mut caller: Caller<'_>, (key, delta): (String, i64)| {
            Ok((effect(enter(&mut caller)?.context.add(&key, delta)),))
        },
    )
}

fn outbox(linker: &mut Linker<Guest>) -> Result<()> {
    linker.instance("semel:plugin/outbox@0.1.0")?.func_wrap(
        "publish",
        |mut caller: Caller<'_>, (destination, message): (String, OutgoingMessage)| {
            let header = |header: Header| semel_core::Header {
                name: header.name,
                value: header.value,
            };
            let id = enter(&mut caller)?.context.publish(Outgoing {
                destination: destination.into(),
                key: message.key.map(Bytes::from),
                headers: message.headers.into_iter().map(header).collect(),
                body: message.body.into(),
                delay_ms: message.delay_ms,
            });
            Ok((effect(id.map(|id| id.as_str().to_owned())),))
        },
    )
}

fn context(linker: &mut Linker<Guest>) -> Result<()> {
    let mut context = linker.instance("semel:plugin/context@0.1.0")?;
    context.func_wrap("config", |mut caller: Caller<'_>, (name,): (String,)| {
        Ok((enter(&mut caller)?.context.config(&name).map(str::to_owned),))
    })?;
    context.func_wrap(
        "idempotency-key",
        |mut caller: Caller<'_>, (label,): (String,)| {
            Ok((enter(&mut caller)?.context.idempotency_key(&label),))
        },
    )?;
    context.func_wrap("random", |mut caller: Caller<'_>, (len,): (u32,)| {
        Ok((random_bytes(enter(&mut caller)?, len.into())?,))
    })
}

fn log(linker: &mut Linker<Guest>) -> Result<()> {
    linker.instance("semel:plugin/log@0.1.0")?.func_wrap(
        "write",
        |mut caller: Caller<'_>, (level, text): (LogLevel, String)| {
            enter(&mut caller)?.log.write(level.into(), &text);
            Ok(())
        },
    )
}

/// Bytes that depend on the record and on how many were asked for before.
pub(crate) fn random_bytes(guest: &mut Guest, len: u64) -> Result<Vec<u8>, Stop> {
    if len > RANDOM_BYTES {
        return Err(Stop::Random(len, RANDOM_BYTES));
    }
    let mut bytes = vec![0; len as usize];
    guest.context.random(&mut bytes);
    Ok(bytes)
}

fn effect<T>(result: Result<T, EffectError>) -> Result<T, Denial> {
    result.map_err(Denial::from)
}
