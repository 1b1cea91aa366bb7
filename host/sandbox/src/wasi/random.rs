//! `wasi:random`: all three kinds are the run's own random bytes.

use wasmtime::Result;
use wasmtime::component::Linker;

use crate::contract::random_bytes;
use crate::guest::{Caller, Guest, enter};

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    for (interface, prefix) in [
        ("random", "get-random"),
        ("insecure", "get-insecure-random"),
    ] {
        let mut instance = linker.instance(&format!("wasi:random/{interface}@0.2.12"))?;
        instance.func_wrap(
            &format!("{prefix}-bytes"),
            |mut caller: Caller<'_>, (len,): (u64,)| Ok((random_bytes(enter(&mut caller)?, len)?,)),
        )?;
        instance.func_wrap(&format!("{prefix}-u64"), |mut caller: Caller<'_>, ()| {
            Ok((number(enter(&mut caller)?),))
        })?;
    }
    let mut seed = linker.instance("wasi:random/insecure-seed@0.2.12")?;
    seed.func_wrap("insecure-seed", |mut caller: Caller<'_>, ()| {
        let guest = enter(&mut caller)?;
        Ok(((number(guest), number(guest)),))
    })
}

fn number(guest: &mut Guest) -> u64 {
    let mut bytes = [0; 8];
    guest.context.random(&mut bytes);
    u64::from_le_bytes(bytes)
}
