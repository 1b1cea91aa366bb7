//! HTTP: a server whose requests are messages, and a client that posts outgoing messages.
//!
//! Both sides speak `Idempotency-Key` as draft-ietf-httpapi-idempotency-key-header has it, and
//! the server reports errors as `application/problem+json` (RFC 9457).

mod address;
mod bearer;
mod config;
mod desk;
mod destination;
mod field;
mod listener;
mod problem;
mod reception;
mod reply;
mod request;
mod resolver;
mod response;
mod server;
mod sink;
mod source;
mod tls;
mod token;

pub use config::{HttpSourceConfig, HttpSourceError, HttpTls, InFlight};
pub use destination::{HttpDestination, HttpDestinationError, HttpMethod};
pub use response::ResponseSink;
pub use server::{HttpServer, HttpSubscription};
pub use sink::HttpSink;
pub use source::HttpSource;
