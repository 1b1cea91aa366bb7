//! The idempotent consumption protocol of Semel.
//!
//! A message is received, its business key is taken, a [`Store`] is asked whether the key
//! was handled, a [`Runner`] runs the handler, and its effects are committed together with
//! the record that says "this key is done", before the message is acknowledged. The
//! [`Engine`] is that sentence in code; everything it talks to stands behind a trait, so the
//! crate does no I/O of its own and can be simulated.
//!
//! | concept | items |
//! |---|---|
//! | what comes in | [`Source`], [`Delivery`], [`Message`], [`Position`] |
//! | what makes two messages the same | [`KeyExpression`], [`BusinessKey`], [`Fingerprint`] |
//! | which message is newer | [`Versioning`], [`Gap`] |
//! | what a handler sees and asks for | [`RunContext`], [`Effects`], [`Failure`], [`Runner`] |
//! | what is durable | [`Store`], [`Run`], [`Outcome`], [`RecordState`] |
//! | what goes out | [`Relay`], [`Sink`], [`OutboxRow`] |
//! | what is found where someone looks | [`Finding`] |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod admin;
mod clock;
mod context;
pub mod crash;
mod dead;
pub mod decide;
mod effects;
mod engine;
mod finding;
mod identity;
mod key;
mod manifest;
pub mod memory;
mod message;
mod record;
mod relay;
mod run;
mod runner;
mod settlement;
mod sink;
mod source;
mod sql;
mod store;
mod throttle;
mod transactions;
mod versioning;

pub use admin::{Admin, StateEntry, StoreStats};
pub use clock::{Clock, SystemClock};
pub use context::{Aborted, EffectError, Grants, Limits, RunContext};
pub use dead::{Cause, DeadLetter, DeadLetterId};
pub use effects::{Effects, NotACounter, Outgoing, StateOp, Write};
pub use engine::{
    Counter, Engine, EngineConfig, EngineError, EngineParts, FlowLimits, Latency, RetryPolicy,
    Stats, StatsSnapshot,
};
pub use finding::{Finding, Level};
pub use identity::{
    BusinessKey, Fingerprint, Lane, MAX_KEY_BYTES, MessageId, PluginName, RecordId, RunId,
    StateKey, Version,
};
pub use key::{KeyError, KeyExpression, KeySyntaxError};
pub use manifest::{Manifest, ManifestError, parse_duration};
pub use message::{Delivery, Header, Message, Partition, Payload, Position};
pub use record::{CheckQuery, Checked, LanePosition, ParkedRow, RecordState, Versioned};
pub use relay::{Relay, RelayConfig, RelayHandle};
pub use run::{Expected, Outcome, Park, Read, Run, Verdict};
pub use runner::{Failure, Finished, Runner, Seen, Snapshot};
pub use settlement::{Disposition, Settlement};
pub use sink::{OutboxLane, OutboxRow, RowId, Sink, SinkError};
pub use source::{Received, Source, SourceError};
pub use sql::{
    AfterMiss, Miss, OnMiss, QueryError, QueryLimits, SqlAccess, SqlError, SqlGrants, SqlRows,
    SqlValue, Statement,
};
pub use store::{OutboxScan, Store, StoreError};
pub use transactions::{Prepared, Transactions};
pub use versioning::{Gap, VersionError, Versioning};
