//! Everything behind the engine's seams, in memory: for tests and simulations.

mod runner;
mod sink;
mod source;
mod store;

pub use runner::{Answer, NativeRunner};
pub use sink::{Fate, MemorySink};
pub use source::MemorySource;
pub use store::{MemoryStore, StoreCall, StoreFault};
