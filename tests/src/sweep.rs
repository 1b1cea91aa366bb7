//! The kill sweep: the real host dies at every place where it may die, is started again, and
//! what it did is compared with books that were kept outside of it.

mod audit;
mod books;
mod broker;
mod campaign;
mod cluster;
mod configuration;
mod fault;
mod found;
mod plan;
mod recording;
mod report;
mod stage;
mod surroundings;
mod trial;

pub use audit::{Flaw, Harm};
pub use books::{Books, Orders, OrdersConfig};
pub use campaign::Campaign;
pub use configuration::{Configuration, Route};
pub use fault::{Fault, Kind};
pub use recording::Recording;
pub use report::{Report, Row};
pub use surroundings::Surroundings;
pub use trial::{Trial, Verdict};
