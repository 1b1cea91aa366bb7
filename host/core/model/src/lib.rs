//! The protocol of Semel as a specification that a model checker explores.
//!
//! [`Protocol`] is one state machine: a topic, hosts that consume it, the [`Store`] with its one
//! transaction, and relays that publish the outbox. Its steps may interleave in every way;
//! hosts crash, stand still and come back as zombies, replies are lost, requests land late and
//! twice, the source delivers again, the operator replays and drops. [`invariants`] says what
//! must hold in each state that can be reached.
//!
//! Each [`Rule`] of the protocol can be taken out. [`scenarios`] has the small worlds in which
//! all rules together hold, [`refutations`] for each rule one in which the protocol without it
//! fails: so none is there in vain, and the invariants can fail. [`retention`] is a model of its own,
//! since time plays no part elsewhere, and so is [`transactional`] delivery, which is opt-in.
//!
//! | in `semel-core` | here |
//! |---|---|
//! | `Store::check`, `commit`, `bury`, `due` | [`Store`], test by test |
//! | `Engine` | [`Host`], and [`Action`] for its steps |
//! | `Relay`, `Sink` | [`Relay`], [`Published`] |
//! | `Run`, `Verdict`, `Outcome`, `Read`, `RecordState` | the same names |
//!
//! Not modelled: keys that can't be taken, an operator's export, delays and due times (any
//! parked row is due), the host's cache of values (it can only cause conflicts), and more than
//! one outgoing message per run. Stores are assumed to be linearizable.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod explore;
mod host;
pub mod invariants;
mod message;
mod protocol;
pub mod refutations;
mod relay;
pub mod retention;
mod rules;
mod run;
pub mod scenarios;
mod store;
pub mod trace;
pub mod transactional;

pub use explore::{Explorable, Explored, Refutation, always_ends, explore, refute};
pub use host::{Host, Job, Seen, Step};
pub use message::{
    Ending, Fingerprint, Handler, Key, Message, Place, RunId, StateKey, StateOp, Value, Version,
    Write,
};
pub use protocol::{Action, Faults, Protocol, State};
pub use relay::{Publication, Publish, Published, Relay, RelayStep};
pub use rules::{Rule, Rules};
pub use run::{Cause, Expected, Outcome, Park, Read, Run, Verdict};
pub use store::{Checked, Event, OutboxRow, ParkedRow, Record, RecordState, Store};
