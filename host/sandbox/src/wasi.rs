//! Stand-ins for the parts of WASI 0.2 that languages' runtimes import. They touch nothing
//! outside: the clock shows the message's time, random bytes depend on plugin and business
//! key, stdout and stderr become log lines, files and sockets are not permitted. So a run
//! stays a function of its message and of what it reads.
//!
//! They are linked at the newest version whose functions they have; wasmtime matches any
//! 0.2 that a plugin was built with.

mod cli;
pub(crate) mod clocks;
mod inert;
mod io;
mod random;

use wasmtime::Result;
use wasmtime::component::{Component, Linker};

use crate::guest::Guest;

/// Adds the stand-ins that are the same for every plugin.
pub(crate) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    io::link(linker)?;
    cli::link(linker)?;
    clocks::link(linker)?;
    random::link(linker)
}

/// Adds refusing stand-ins for the files and sockets that this component imports.
pub(crate) fn link_inert(linker: &mut Linker<Guest>, component: &Component) -> Result<()> {
    inert::link(linker, component)
}
