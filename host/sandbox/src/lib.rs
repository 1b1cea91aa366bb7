//! Loads WebAssembly plugins and runs them, each message in a fresh instance.
//!
//! [`Sandbox::load_dir`] turns the files of a directory into [`LoadedPlugin`]s, whose
//! [`Plugin`] is a [`Runner`](semel_core::Runner). A plugin sees the contract in `wit/` and
//! stand-ins for WASI, and can touch nothing else; its limits are [`RunLimits`].
//!
//! A run, from the outside in: `run` (one message, one instance, one call), `guest` (what
//! the host keeps for it), `contract` and `wasi` (what it can call), `limits` and `log`.
//! Loading, in order: `module` (what a file says of itself), `imports` (whether that is
//! allowed), `manifest`, `encode` (core module to component), `cache`, `load`.
#![deny(missing_docs)]
// Allowed again in one place: see `cache/deserialize.rs`.
#![deny(unsafe_code)]

mod cache;
mod config;
mod contract;
mod encode;
mod engine;
mod error;
mod guest;
mod imports;
mod limits;
mod load;
mod log;
mod manifest;
mod module;
mod run;
mod sandbox;
mod wasi;
mod workers;

pub use config::{Allocation, Overrides, PluginOverride, RunLimits, SandboxConfig};
pub use error::{LoadError, Refusal, SandboxError};
pub use load::{Inspected, LoadedPlugin, inspect};
pub use module::FileKind;
pub use run::Plugin;
pub use sandbox::Sandbox;
pub use workers::Workers;
