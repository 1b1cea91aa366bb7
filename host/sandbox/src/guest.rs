//! What the host keeps while one run is under way: the data of its wasmtime store.

use std::sync::Arc;
use std::time::Instant;

use semel_core::RunContext;
use wasmtime::StoreContextMut;

use crate::RunLimits;
use crate::limits::{Meter, Stop};
use crate::log::GuestLog;
use crate::wasi::clocks::VirtualClock;

/// The state of one run.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) context: RunContext,
    pub(crate) meter: Meter,
    pub(crate) log: GuestLog,
    pub(crate) clock: VirtualClock,
    pub(crate) started: Instant,
}

/// A call from the guest, as host functions see it.
pub(crate) type Caller<'a> = StoreContextMut<'a, Guest>;

impl Guest {
    pub(crate) fn new(plugin: Arc<str>, context: RunContext, limits: RunLimits) -> Self {
        Self {
            clock: VirtualClock::starting_at(context.message().timestamp_ms),
            context,
            meter: Meter::new(limits),
            log: GuestLog::new(plugin, limits.log_bytes),
            started: Instant::now(),
        }
    }
}

/// The run's state, counting the call.
pub(crate) fn enter<'a>(caller: &'a mut Caller<'_>) -> Result<&'a mut Guest, Stop> {
    let guest = caller.data_mut();
    guest.meter.count_host_call()?;
    Ok(guest)
}
