//! Real servers, each on loopback with its own ports and directory.

pub mod redis;
pub mod rocketmq;
