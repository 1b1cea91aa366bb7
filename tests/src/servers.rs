//! Real servers, each on loopback with its own ports and directory.

pub mod mariadb;
pub mod postgres;
pub mod program;
pub mod redis;
pub mod rocketmq;
