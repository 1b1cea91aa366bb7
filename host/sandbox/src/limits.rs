//! The limits of one run, and how a breach reads.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::RunLimits;

/// Why the host stopped a run. Raised inside the guest's call, it unwinds all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("used more than {0} bytes of memory")]
    Memory(usize),
    #[error("used more than {0} table elements")]
    Tables(usize),
    #[error("called the host more than {0} times")]
    HostCalls(u64),
    #[error("took longer than {0:?}")]
    WallClock(Duration),
    #[error("asked for {0} random bytes at once, {1} are allowed")]
    Random(u64, u64),
    #[error("left with exit status {0}")]
    Exit(u32),
    #[error("returned {0} bytes, which with its effects is more than it may")]
    Reply(usize),
    #[error("the host can't answer")]
    Aborted,
}

/// Counts what a run uses.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: RunLimits,
    memory_bytes: usize,
    table_elements: usize,
    host_calls_left: u64,
}

impl Meter {
    pub(crate) fn new(limits: RunLimits) -> Self {
        Self {
            limits,
            memory_bytes: 0,
            table_elements: 0,
            host_calls_left: limits.host_calls,
        }
    }

    pub(crate) fn count_host_call(&mut self) -> Result<(), Stop> {
        match self.host_calls_left.checked_sub(1) {
            Some(left) => self.host_calls_left = left,
            None => return Err(Stop::HostCalls(self.limits.host_calls)),
        }
        Ok(())
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.memory_bytes = self
            .memory_bytes
            .saturating_add(desired.saturating_sub(current));
        if self.memory_bytes > self.limits.memory_bytes {
            return Err(Stop::Memory(self.limits.memory_bytes).into());
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.table_elements = self
            .table_elements
            .saturating_add(desired.saturating_sub(current));
        if self.table_elements > self.limits.table_elements {
            return Err(Stop::Tables(self.limits.table_elements).into());
        }
        Ok(true)
    }

    // What one of them may grow to, `memory_bytes` and `table_elements` bound already. These
    // count what a component is made of, which is checked when it is loaded.
    fn instances(&self) -> usize {
        usize::MAX
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}
