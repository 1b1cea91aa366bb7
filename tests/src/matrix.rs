//! The matrix: the promise on every source with every store, with hosts that die at random
//! moments, and with several hosts that are restarted one after the other under load.

mod cell;
mod feed;
mod group;
mod kinds;
mod report;
mod servers;

pub use cell::{CellConfig, Outcome};
pub use group::GroupOutcome;
pub use kinds::{Cell, SourceKind};
pub use report::Report;
pub use servers::Servers;
