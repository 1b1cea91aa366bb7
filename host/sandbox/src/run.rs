//! One run: a fresh instance, one call, and what came of it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use semel_core::{Failure, Finished, RunContext, Runner};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::Level;
use wasmtime::component::{ComponentExportIndex, InstancePre};
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::RunLimits;
use crate::contract::{Answer, GuestFailure, HeaderRef, MessageRef, Parameters};
use crate::guest::Guest;
use crate::limits::Stop;
use crate::log;

/// A part of what wasmtime says where `Store::set_hostcall_fuel` ends a call. There is no type
/// to know it by; a test fails should the words change.
const COPIED_TOO_MUCH: &str = "fuel allocated for hostcalls";

/// The longest reason that a guest can give for a failure.
const REASON_BYTES: usize = 4 << 10;

/// A plugin, ready to run.
pub struct Plugin {
    pub(crate) name: Arc<str>,
    pub(crate) instance: InstancePre<Guest>,
    pub(crate) handle: ComponentExportIndex,
    pub(crate) limits: RunLimits,
    /// Shared by all plugins: what the pool has room for.
    pub(crate) slots: Arc<Semaphore>,
    /// How many of them one run takes.
    pub(crate) slots_per_run: u32,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Runner for Plugin {
    async fn run(&self, context: RunContext) -> Finished {
        let _slots = self
            .slots
            .acquire_many(self.slots_per_run)
            .await
            .expect("nobody closes the semaphore");
        let mut store = self.store(context);
        let message = Arc::clone(store.data().context.message());
        let called = timeout(self.limits.wall_clock, self.call(&mut store, &message)).await;
        let called = called.unwrap_or_else(|_| Err(self.too_long().into()));
        let mut guest = store.into_data();
        guest.log.finish();
        let answer = match called {
            Ok((answer,)) => self.answer(&guest, answer),
            Err(error) => Err(self.trap(&guest, &error)),
        };
        Finished {
            context: guest.context,
            answer,
        }
    }
}

impl Plugin {
    /// Makes an instance and drops it.
    pub(crate) async fn try_start(&self, context: RunContext) -> Result<(), String> {
        let mut store = self.store(context);
        let started = timeout(self.limits.wall_clock, async {
            let instance = self.instance.instantiate_async(&mut store).await?;
            instance.get_typed_func::<Parameters<'_>, Answer>(&mut store, &self.handle)?;
            wasmtime::Result::Ok(())
        });
        let started = started
            .await
            .unwrap_or_else(|_| Err(self.too_long().into()));
        let mut guest = store.into_data();
        guest.log.finish();
        match started {
            Ok(()) => Ok(()),
            Err(error) => match self.trap(&guest, &error) {
                Failure::Trap { reason, detail } => {
                    Err(detail.map_or(reason.clone(), |detail| format!("{reason}\n{detail}\n")))
                }
                other => Err(format!("{other:?}")),
            },
        }
    }

    fn store(&self, context: RunContext) -> Store<Guest> {
        let guest = Guest::new(Arc::clone(&self.name), context, self.limits);
        let mut store = Store::new(self.instance.engine(), guest);
        store.limiter(|guest| &mut guest.meter);
        store.set_hostcall_fuel(self.limits.call_bytes);
        store
            .set_fuel(self.limits.fuel)
            .expect("the engine counts fuel");
        store.set_epoch_deadline(1);
        let wall_clock = self.limits.wall_clock;
        store.epoch_deadline_callback(move |caller| {
            if caller.data().started.elapsed() > wall_clock {
                return Err(Stop::WallClock(wall_clock).into());
            }
            Ok(UpdateDeadline::Yield(1))
        });
        store
    }

    async fn call(
        &self,
        store: &mut Store<Guest>,
        message: &semel_core::Message,
    ) -> wasmtime::Result<Answer> {
        let instance = self.instance.instantiate_async(&mut *store).await?;
        let handle =
            instance.get_typed_func::<Parameters<'_>, Answer>(&mut *store, &self.handle)?;
        let headers: Vec<_> = message.headers.iter().map(HeaderRef::from).collect();
        let context = &store.data().context;
        let (key, attempt) = (context.record().key.to_bytes(), context.attempt());
        let message = MessageRef {
            id: &message.id,
            key: &key,
            topic: &message.topic,
            headers: &headers,
            body: &message.body,
            timestamp_ms: message.timestamp_ms,
            attempt,
        };
        handle.call_async(store, (message,)).await
    }

    fn answer(
        &self,
        guest: &Guest,
        answer: Result<Option<Vec<u8>>, GuestFailure>,
    ) -> Result<Option<Bytes>, Failure> {
        match answer {
            Ok(Some(reply)) if !guest.context.allows_reply(reply.len()) => {
                Err(self.trap(guest, &Stop::Reply(reply.len()).into()))
            }
            Ok(reply) => Ok(reply.map(Bytes::from)),
            Err(GuestFailure::Retry(hint)) => Err(Failure::Retry {
                reason: shortened(hint.reason),
                after_ms: hint.after_ms,
            }),
            Err(GuestFailure::Reject(reason)) => Err(Failure::Reject {
                reason: shortened(reason),
            }),
        }
    }

    fn trap(&self, guest: &Guest, error: &wasmtime::Error) -> Failure {
        if error.downcast_ref::<Stop>() == Some(&Stop::Aborted) {
            return Failure::Aborted;
        }
        let tail = guest.log.tail();
        let reason = self.reason(error, tail);
        // Not its `Debug` form, which may have a backtrace of the host's in it.
        let trace = error
            .chain()
            .map(|cause| format!("{cause}\n"))
            .collect::<String>();
        let detail = if tail.is_empty() {
            trace
        } else {
            format!("{tail}\n\n{trace}")
        };
        log::emit(&self.name, Level::ERROR, &format!("{reason}\n{detail}"));
        Failure::Trap {
            reason,
            detail: Some(detail),
        }
    }

    fn reason(&self, error: &wasmtime::Error, tail: &str) -> String {
        if let Some(stop) = error.downcast_ref::<Stop>() {
            return format!("the handler {stop}");
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => {
                format!("the handler used up its fuel of {}", self.limits.fuel)
            }
            Some(Trap::StackOverflow) => "the handler's calls went too deep".into(),
            Some(Trap::MemoryOutOfBounds) => {
                // Rust and C keep a stack of their own at the lower end of memory.
                "the handler left its memory, as it does where calls go too deep".into()
            }
            Some(Trap::UnreachableCodeReached) => match panic_text(tail) {
                Some(text) => format!("the handler panicked: {text}"),
                None => "the handler panicked".into(),
            },
            Some(trap) => format!("the handler trapped: {trap}"),
            None => {
                let cause = error.root_cause().to_string();
                if cause.contains(COPIED_TOO_MUCH) {
                    let limit = self.limits.call_bytes;
                    return format!("the handler handed the host more than {limit} bytes at once");
                }
                format!("the handler failed: {cause}")
            }
        }
    }

    fn too_long(&self) -> Stop {
        Stop::WallClock(self.limits.wall_clock)
    }
}

/// A guest's reason ends up in every list of failed messages.
fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        reason.push('…');
    }
    reason
}

/// What a Rust panic says, after the line that says where.
fn panic_text(tail: &str) -> Option<String> {
    let (_, panic) = tail.rsplit_once("panicked at ")?;
    let said = panic
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with("note: run with"));
    let said = said.map(str::trim).collect::<Vec<_>>().join(" ");
    (!said.is_empty()).then(|| shortened(said))
}

impl<'a> From<&'a semel_core::Header> for HeaderRef<'a> {
    fn from(header: &'a semel_core::Header) -> Self {
        Self {
            name: &header.name,
            value: &header.value,
        }
    }
}
