//! Sources and sinks: the conformance suites on each implementation, and what is each one's
//! own.

mod file;
mod http;
mod kafka;
mod memory;
mod rabbitmq;
mod rocketmq;
mod shared;
mod tls;
