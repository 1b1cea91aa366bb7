//! What Semel's tests share: the suites that every implementation of a trait must pass, real
//! servers to run them on, and the real `semel` binary with orders for it.
#![forbid(unsafe_code)]

pub mod child;
pub mod conformance;
pub mod installation;
pub mod ledger;
pub mod lines;
pub mod matrix;
pub mod orders;
pub mod outgoing;
pub mod passage;
pub mod poster;
pub mod proxy;
pub mod servers;
pub mod site;
pub mod sweep;
pub mod trial;
pub mod workload;
