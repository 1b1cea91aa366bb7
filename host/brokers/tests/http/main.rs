//! HTTP over real sockets: the source under a real engine, the sink against a real server.
#![cfg(feature = "http")]

mod limits;
mod sink;
mod source;
mod tokens;
mod world;
