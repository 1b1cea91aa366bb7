//! Durable stores for Semel, behind [`semel_core::Store`] and [`semel_core::Admin`].
//!
//! | store | where | durable when a commit returns |
//! |---|---|---|
//! | [`RedbStore`] | a file of this machine | yes: synced to disk |
//! | [`RedisStore`] | a Redis server | as `appendonly` and `appendfsync` there say |
//! | [`SqlStore`] | a MySQL, MariaDB or PostgreSQL database | yes, as those are set up by default |
//!
//! [`open`] takes a URL, and so does [`examine`], which looks at a store without changing it.
//! The conformance suite in `tests/` is the definition of right.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod codec;
mod examine;
mod redb;
mod redis;
mod sql;
mod url;

pub use self::redb::RedbStore;
pub use self::redis::RedisStore;
pub use self::sql::SqlStore;

pub use self::examine::{examine, examine_grants};
pub use self::url::{OpenError, is_database, migrate, open};
