//! Transactional destinations on a real RocketMQ broker, which asks back for half messages that
//! are three seconds old, every two seconds.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod hosts;
mod producers;
