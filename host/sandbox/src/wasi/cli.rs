//! `wasi:cli`: an empty environment, an exit that ends the run, and no terminal.

use wasmtime::Result;
use wasmtime::component::{Linker, Resource, ResourceType};

use super::io::{output, stdin};
use crate::guest::{Caller, Guest, enter};
use crate::limits::Stop;
use crate::log::Stream;

/// The version of [`wasi`](super) that these are linked at.
const VERSION: &str = "0.2.12";

/// A resource `terminal-input` or `terminal-output`. No stand-in makes one.
struct Terminal;

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    environment(linker)?;
    exit(linker)?;
    standard_streams(linker)?;
    terminals(linker)
}

fn environment(linker: &mut Linker<Guest>) -> Result<()> {
    let mut environment = linker.instance(&format!("wasi:cli/environment@{VERSION}"))?;
    environment.func_wrap("get-environment", |mut caller: Caller<'_>, ()| {
        enter(&mut caller)?;
        Ok((Vec::<(String, String)>::new(),))
    })?;
    environment.func_wrap("get-arguments", |mut caller: Caller<'_>, ()| {
        enter(&mut caller)?;
        Ok((Vec::<String>::new(),))
    })?;
    environment.func_wrap("initial-cwd", |mut caller: Caller<'_>, ()| {
        enter(&mut caller)?;
        Ok((None::<String>,))
    })
}

fn exit(linker: &mut Linker<Guest>) -> Result<()> {
    let mut exit = linker.instance(&format!("wasi:cli/exit@{VERSION}"))?;
    exit.func_wrap(
        "exit",
        |_: Caller<'_>, (status,): (Result<(), ()>,)| -> Result<()> {
            Err(Stop::Exit(status.is_err().into()).into())
        },
    )?;
    exit.func_wrap(
        "exit-with-code",
        |_: Caller<'_>, (code,): (u8,)| -> Result<()> { Err(Stop::Exit(code.into()).into()) },
    )
}

fn standard_streams(linker: &mut Linker<Guest>) -> Result<()> {
    let mut instance = linker.instance(&format!("wasi:cli/stdin@{VERSION}"))?;
    instance.func_wrap("get-stdin", |mut caller: Caller<'_>, ()| {
        enter(&mut caller)?;
        Ok((stdin(),))
    })?;
    for (name, stream) in [("stdout", Stream::Stdout), ("stderr", Stream::Stderr)] {
        let mut instance = linker.instance(&format!("wasi:cli/{name}@{VERSION}"))?;
        instance.func_wrap(&format!("get-{name}"), move |mut caller: Caller<'_>, ()| {
            enter(&mut caller)?;
            Ok((output(stream),))
        })?;
    }
    Ok(())
}

fn terminals(linker: &mut Linker<Guest>) -> Result<()> {
    for name in ["terminal-input", "terminal-output"] {
        linker
            .instance(&format!("wasi:cli/{name}@{VERSION}"))?
            .resource(name, ResourceType::host::<Terminal>(), |_, _| Ok(()))?;
    }
    for name in ["stdin", "stdout", "stderr"] {
        linker
            .instance(&format!("wasi:cli/terminal-{name}@{VERSION}"))?
            .func_wrap(
                &format!("get-terminal-{name}"),
                |mut caller: Caller<'_>, ()| {
                    enter(&mut caller)?;
                    Ok((None::<Resource<Terminal>>,))
                },
            )?;
    }
    Ok(())
}
