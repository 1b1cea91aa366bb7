//! `wasi:clocks`: time that passes only where a plugin looks at it or waits for it.

use wasmtime::Result;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource};

use super::io::Pollable;
use crate::guest::{Caller, Guest, enter};

/// Go's runtime takes a monotonic clock at zero for a broken one.
const START_NS: u64 = 1_000_000_000;

/// What one look at the monotonic clock adds, so that a loop which waits by looking ends.
const LOOK_NS: u64 = 1_000;

const RESOLUTION_NS: u64 = 1_000;

/// The clock of one run. It starts at the message's time and takes no real time to wait on.
#[derive(Debug)]
pub(crate) struct VirtualClock {
    message_ms: u64,
    monotonic_ns: u64,
    slept_ns: u64,
    deadlines: Vec<u64>,
}

/// A moment that a plugin waits for, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(u32);

impl Deadline {
    /// A moment that is over already.
    pub(crate) const PASSED: Self = Self(0);

    pub(crate) fn of(pollable: &Resource<Pollable>) -> Self {
        Self(pollable.rep())
    }

    pub(crate) fn pollable(self) -> Resource<Pollable> {
        Resource::new_own(self.0)
    }
}

impl VirtualClock {
    pub(crate) fn starting_at(message_ms: u64) -> Self {
        Self {
            message_ms,
            monotonic_ns: START_NS,
            slept_ns: 0,
            deadlines: Vec::new(),
        }
    }

    pub(crate) fn has_passed(&self, deadline: Deadline) -> bool {
        self.at(deadline) <= self.monotonic_ns
    }

    /// When a deadline is. Deadlines that no plugin set are over.
    pub(crate) fn at(&self, deadline: Deadline) -> u64 {
        let index = deadline.0.checked_sub(1);
        index
            .and_then(|index| self.deadlines.get(index as usize))
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn sleep_until(&mut self, deadline: Deadline) {
        let wait = self.at(deadline).saturating_sub(self.monotonic_ns);
        self.monotonic_ns += wait;
        self.slept_ns = self.slept_ns.saturating_add(wait);
    }

    fn look(&mut self) -> u64 {
        self.monotonic_ns = self.monotonic_ns.saturating_add(LOOK_NS);
        self.monotonic_ns
    }

    /// The limit on host calls bounds how many there can be.
    fn subscribe(&mut self, at: u64) -> Deadline {
        self.deadlines.push(at);
        Deadline(u32::try_from(self.deadlines.len()).unwrap_or(0))
    }

    fn now(&self) -> Datetime {
        let slept_s = self.slept_ns / 1_000_000_000;
        let nanoseconds = self.message_ms % 1_000 * 1_000_000 + self.slept_ns % 1_000_000_000;
        Datetime {
            seconds: self.message_ms / 1_000 + slept_s + nanoseconds / 1_000_000_000,
            nanoseconds: (nanoseconds % 1_000_000_000) as u32,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    let mut wall = linker.instance("wasi:clocks/wall-clock@0.2.12")?;
    wall.func_wrap("now", |mut caller: Caller<'_>, ()| {
        Ok((enter(&mut caller)?.clock.now(),))
    })?;
    wall.func_wrap("resolution", |mut caller: Caller<'_>, ()| {
        enter(&mut caller)?;
        let resolution = Datetime {
            seconds: 0,
            nanoseconds: 1_000_000,
        };
        Ok((resolution,))
    })?;

    let mut monotonic = linker.instance("wasi:clocks/monotonic-clock@0.2.12")?;
    monotonic.func_wrap("now", |mut caller: Caller<'_>, ()| {
        Ok((enter(&mut caller)?.clock.look(),))
    })?;
    monotonic.func_wrap("resolution", |mut caller: Caller<'_>, ()| {
        enter(&mut caller)?;
        Ok((RESOLUTION_NS,))
    })?;
    monotonic.func_wrap(
        "subscribe-instant",
        |mut caller: Caller<'_>, (at,): (u64,)| {
            Ok((enter(&mut caller)?.clock.subscribe(at).pollable(),))
        },
    )?;
    monotonic.func_wrap(
        "subscribe-duration",
        |mut caller: Caller<'_>, (wait,): (u64,)| {
            let clock = &mut enter(&mut caller)?.clock;
            let at = clock.monotonic_ns.saturating_add(wait);
            Ok((clock.subscribe(at).pollable(),))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_moves_both_clocks_and_looking_only_one() {
        let mut clock = VirtualClock::starting_at(1_999);
        let (first, second) = (clock.look(), clock.look());
        assert!(second > first);
        let start = Datetime {
            seconds: 1,
            nanoseconds: 999_000_000,
        };
        assert_eq!(clock.now(), start);
        let deadline = clock.subscribe(second + 2_001_000_000);
        assert!(!clock.has_passed(deadline) && clock.has_passed(Deadline::PASSED));
        clock.sleep_until(deadline);
        assert!(clock.has_passed(deadline));
        let later = Datetime {
            seconds: 4,
            nanoseconds: 0,
        };
        assert_eq!(clock.now(), later);
    }

    #[test]
    fn the_end_of_time_is_no_trap() {
        let mut clock = VirtualClock::starting_at(u64::MAX);
        let deadline = clock.subscribe(u64::MAX);
        clock.sleep_until(deadline);
        clock.look();
        clock.now();
        assert!(clock.has_passed(deadline));
    }
}
