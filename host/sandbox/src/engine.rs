//! The wasmtime engine: one for all plugins of a process.

use std::fs;
use std::time::Duration;

use tracing::{info, warn};
use wasmtime::component::Component;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::{Allocation, SandboxConfig};

/// Core modules of one component. Python's tool chain links shared libraries.
const MODULES_PER_COMPONENT: u32 = 64;

/// What the pool has of each kind for one slot. A component of Rust's has one memory, two
/// tables and four core modules, its tool chain's shims included.
const SLOT_MEMORIES: u32 = 2;
const SLOT_TABLES: u32 = 4;
const SLOT_INSTANCES: u32 = 8;

/// The address space of a memory, which is what a 32-bit memory can address: then loads and
/// stores need no bounds checks. What a run may really use, its limits say.
const MEMORY_BYTES: usize = 4 << 30;

/// Builds the engine, with a pool where it can be had.
pub(crate) fn build(config: &SandboxConfig) -> wasmtime::Result<Engine> {
    if config.allocation == Allocation::Auto {
        let mut settings = base(config);
        let (pool, wiping) = pool(config);
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match Engine::new(&settings) {
            Ok(engine) => {
                info!(slots = config.slots, wiping, "memory for runs is pooled");
                return Ok(engine);
            }
            Err(reason) => warn!(
                %reason,
                "no pool of memory for runs (is the address space limited, as by `ulimit -v`?): \
                 runs map their memory one by one, which is slower"
            ),
        }
    }
    let mut settings = base(config);
    settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&settings)
}

fn base(config: &SandboxConfig) -> Config {
    let mut settings = Config::new();
    settings
        .cranelift_opt_level(OptLevel::Speed)
        // The limits: fuel is the budget that repeats exactly, epochs give way to other
        // runs and let the wall clock end what fuel does not.
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(config.stack_bytes)
        // The host's own part of a call runs on the same stack.
        .async_stack_size(config.stack_bytes + (512 << 10))
        // The contract is synchronous; without this, every store pays for task tables.
        .concurrency_support(false)
        // A run must be the same on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // What the contract does not need can't go wrong.
        .wasm_memory64(false)
        // For dead letters. Without addresses of source lines, which need debug information.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    settings
}

fn pool(config: &SandboxConfig) -> (PoolingAllocationConfig, &'static str) {
    let mut pool = PoolingAllocationConfig::new();
    let slots = config.slots;
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(SLOT_INSTANCES))
        .total_memories(slots.saturating_mul(SLOT_MEMORIES))
        .total_tables(slots.saturating_mul(SLOT_TABLES))
        .total_stacks(slots)
        .max_core_instances_per_component(MODULES_PER_COMPONENT)
        .max_memories_per_component(MODULES_PER_COMPONENT)
        .max_tables_per_component(MODULES_PER_COMPONENT)
        .max_tables_per_module(8)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(MEMORY_BYTES)
        .table_elements(config.limits.table_elements)
        .max_unused_warm_slots(slots)
        .table_keep_resident(64 << 10);
    let wiping = if !PoolingAllocationConfig::is_pagemap_scan_available() {
        "madvise: this kernel has no PAGEMAP_SCAN (Linux 6.7)"
    } else if may_be_swapped() {
        // wasmtime#14357: a dirty page that was swapped out is not found by the scan, so
        // the next run in the slot could read it.
        "madvise: this process may be swapped out, where PAGEMAP_SCAN is not safe"
    } else {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(config.keep_resident_bytes);
        "PAGEMAP_SCAN"
    };
    (pool, wiping)
}

/// How many slots a run of this component takes, so that the pool can't run out.
pub(crate) fn slots_per_run(component: &Component, core_instances: u32) -> u32 {
    let instances = core_instances.div_ceil(SLOT_INSTANCES);
    component.resources_required().map_or(instances, |needs| {
        let memories = needs.num_memories.div_ceil(SLOT_MEMORIES);
        instances
            .max(memories)
            .max(needs.num_tables.div_ceil(SLOT_TABLES))
    })
}

/// Whether this process's memory can end up on a swap device. True where it can't be told.
fn may_be_swapped() -> bool {
    // The first line is a heading.
    let no_device = fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() == 1);
    !(no_device || swap_is_forbidden().unwrap_or(false))
}

/// Whether the control group (version 2) of this process, or one above it, forbids swap.
fn swap_is_forbidden() -> Option<bool> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = std::path::Path::new("/sys/fs/cgroup");
    let forbidden = root
        .join(own)
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .any(|group| {
            fs::read_to_string(group.join("memory.swap.max")).is_ok_and(|max| max.trim() == "0")
        });
    Some(forbidden)
}

/// Moves the engine's epoch on until the engine is gone.
pub(crate) fn start_ticker(engine: &Engine, tick: Duration) -> std::io::Result<()> {
    #![expect(clippy::disallowed_methods, reason = "nothing waits for this thread")]
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("semel-epoch".into())
        .spawn(move || {
            loop {
                std::thread::sleep(tick);
                match engine.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        })
        .map(drop)
}
