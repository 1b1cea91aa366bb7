//! What a plugin may use, and how the engine is set up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use semel_core::Manifest;

/// Settings of a [`Sandbox`](crate::Sandbox).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Limits of the plugins that have none of their own.
    pub limits: RunLimits,
    /// Bytes of a plugin's call stack.
    pub stack_bytes: usize,
    /// Runs that may be under way at once, those waiting for the store included. Others wait.
    pub slots: u32,
    /// Bytes of a finished run's memory that stay in the process to be wiped and used again.
    pub keep_resident_bytes: usize,
    /// How often a run that computes makes room for others on its thread.
    pub tick: Duration,
    /// How memory is set aside for runs.
    pub allocation: Allocation,
    /// Where compiled plugins are kept; none compiles at every start.
    pub cache_dir: Option<PathBuf>,
}

/// What one run may use. Going past any of these ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Bytes of linear memory, all memories of the plugin together.
    pub memory_bytes: usize,
    /// Elements of all tables together; function pointers live there. A plugin can have no
    /// more than [`SandboxConfig::limits`] says.
    pub table_elements: usize,
    /// WebAssembly instructions, roughly: the deterministic budget. A run that uses it up
    /// does so again wherever and whenever it is repeated.
    pub fuel: u64,
    /// Time from start to end, reads from the store included. A backstop: it depends on the
    /// machine's load.
    pub wall_clock: Duration,
    /// Calls from the plugin to the host.
    pub host_calls: u64,
    /// Bytes that one call may hand to the host.
    pub call_bytes: usize,
    /// Bytes of log lines, stdout and stderr together. What goes beyond is cut, and the
    /// log says so.
    pub log_bytes: usize,
}

/// What the operator says of single plugins, by the name in their manifests.
pub type Overrides = HashMap<String, PluginOverride>;

/// What the operator says of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginOverride {
    /// Laid over the plugin's own manifest and its sidecar.
    pub manifest: Manifest,
    /// In place of [`SandboxConfig::limits`].
    pub limits: Option<RunLimits>,
}

/// How memory is set aside for runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// A pool, and the fastest way to wipe a slot that is safe on this machine. On demand
    /// where the address space for a pool can't be had.
    #[default]
    Auto,
    /// Memory is mapped for each run and unmapped after it.
    OnDemand,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            limits: RunLimits::default(),
            stack_bytes: 512 << 10,
            slots: 512,
            keep_resident_bytes: 1 << 20,
            tick: Duration::from_millis(5),
            allocation: Allocation::Auto,
            cache_dir: None,
        }
    }
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            table_elements: 100_000,
            fuel: 1_000_000_000,
            wall_clock: Duration::from_secs(5),
            host_calls: 100_000,
            call_bytes: 16 << 20,
            log_bytes: 64 << 10,
        }
    }
}
