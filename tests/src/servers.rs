//! Real servers, each on loopback with its own ports and directory.

pub mod certificates;
pub mod kafka;
pub mod mariadb;
pub mod postgres;
mod program;
pub mod rabbitmq;
pub mod redis;
pub mod rocketmq;
pub mod store;

pub use program::free_ports;
