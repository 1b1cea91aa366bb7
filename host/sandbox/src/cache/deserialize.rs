//! The crate's only unsafe code.
#![allow(unsafe_code)]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads compiled code that the caller has authenticated.
pub(super) fn component(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must come from `Component::serialize`. The caller, `Cache::get`, has
    // checked them against a hash keyed with a secret that only this host's user can read,
    // and `Cache::put` is the only place that makes such hashes, over what `serialize` gave.
    unsafe { Component::deserialize(engine, code) }
}
