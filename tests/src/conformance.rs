//! One suite for each trait, run on every implementation of it.

pub mod broker;
pub mod store;
