//! `wasi:io`: streams that end in the log, and waiting that takes no time.

use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};
use wasmtime::{Result, bail};

use super::clocks::Deadline;
use crate::guest::{Caller, Guest, enter};
use crate::log::Stream;

/// A resource `error`. No stand-in makes one.
pub(crate) struct IoError;
/// A resource `input-stream`. The only one is stdin, and it is at its end.
pub(crate) struct InputStream;
/// A resource `output-stream`, by its number.
pub(crate) struct OutputStream;
/// A resource `pollable`: the number of a deadline on the run's virtual clock.
pub(crate) struct Pollable;

/// What `check-write` permits at once.
const WRITE_BYTES: u64 = 64 << 10;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

type Output = Resource<OutputStream>;
type Input = Resource<InputStream>;
type Outcome<T> = Result<T, StreamError>;

pub(crate) fn stdin() -> Input {
    Resource::new_own(0)
}

pub(crate) fn output(stream: Stream) -> Output {
    Resource::new_own(stream as u32)
}

fn stream(output: &Output) -> Stream {
    if output.rep() == Stream::Stdout as u32 {
        Stream::Stdout
    } else {
        Stream::Stderr
    }
}

pub(super) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    error(linker)?;
    poll(linker)?;
    streams(linker)
}

fn error(linker: &mut Linker<Guest>) -> Result<()> {
    let mut error = linker.instance("wasi:io/error@0.2.12")?;
    error.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
    error.func_wrap(
        "[method]error.to-debug-string",
        |mut caller: Caller<'_>, _: (Resource<IoError>,)| {
            enter(&mut caller)?;
            Ok((String::new(),))
        },
    )
}

fn poll(linker: &mut Linker<Guest>) -> Result<()> {
    let mut poll = linker.instance("wasi:io/poll@0.2.12")?;
    poll.resource("pollable", ResourceType::host::<Pollable>(), |_, _| Ok(()))?;
    poll.func_wrap(
        "[method]pollable.ready",
        |mut caller: Caller<'_>, (pollable,): (Resource<Pollable>,)| {
            Ok((enter(&mut caller)?
                .clock
                .has_passed(Deadline::of(&pollable)),))
        },
    )?;
    poll.func_wrap(
        "[method]pollable.block",
        |mut caller: Caller<'_>, (pollable,): (Resource<Pollable>,)| {
            enter(&mut caller)?
                .clock
                .sleep_until(Deadline::of(&pollable));
            Ok(())
        },
    )?;
    poll.func_wrap(
        "poll",
        |mut caller: Caller<'_>, (list,): (Vec<Resource<Pollable>>,)| {
            let clock = &mut enter(&mut caller)?.clock;
            let deadlines: Vec<_> = list.iter().map(Deadline::of).collect();
            let Some(first) = deadlines.iter().copied().min_by_key(|d| clock.at(*d)) else {
                bail!("poll of an empty list would wait for ever");
            };
            clock.sleep_until(first);
            let ready = (0u32..)
                .zip(&deadlines)
                .filter(|(_, d)| clock.has_passed(**d));
            Ok((ready.map(|(index, _)| index).collect::<Vec<u32>>(),))
        },
    )
}

fn streams(linker: &mut Linker<Guest>) -> Result<()> {
    let mut streams = linker.instance("wasi:io/streams@0.2.12")?;
    streams.resource(
        "input-stream",
        ResourceType::host::<InputStream>(),
        |_, _| Ok(()),
    )?;
    streams.resource(
        "output-stream",
        ResourceType::host::<OutputStream>(),
        |_, _| Ok(()),
    )?;

    for name in ["read", "blocking-read"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut caller: Caller<'_>, _: (Input, u64)| {
                enter(&mut caller)?;
                Ok((Outcome::<Vec<u8>>::Err(StreamError::Closed),))
            },
        )?;
    }
    for name in ["skip", "blocking-skip"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut caller: Caller<'_>, _: (Input, u64)| {
                enter(&mut caller)?;
                Ok((Outcome::<u64>::Err(StreamError::Closed),))
            },
        )?;
    }
    streams.func_wrap(
        "[method]input-stream.subscribe",
        |mut caller: Caller<'_>, _: (Input,)| {
            enter(&mut caller)?;
            Ok((Deadline::PASSED.pollable(),))
        },
    )?;

    streams.func_wrap(
        "[method]output-stream.check-write",
        |mut caller: Caller<'_>, _: (Output,)| {
            enter(&mut caller)?;
            Ok((Outcome::Ok(WRITE_BYTES),))
        },
    )?;
    for name in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut caller: Caller<'_>, (output, bytes): (Output, Vec<u8>)| {
                enter(&mut caller)?.log.print(stream(&output), &bytes);
                Ok((Outcome::Ok(()),))
            },
        )?;
    }
    for name in ["flush", "blocking-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut caller: Caller<'_>, _: (Output,)| {
                enter(&mut caller)?;
                Ok((Outcome::Ok(()),))
            },
        )?;
    }
    for name in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut caller: Caller<'_>, _: (Output, u64)| {
                enter(&mut caller)?;
                Ok((Outcome::Ok(()),))
            },
        )?;
    }
    for name in ["splice", "blocking-splice"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut caller: Caller<'_>, _: (Output, Input, u64)| {
                enter(&mut caller)?;
                Ok((Outcome::<u64>::Err(StreamError::Closed),))
            },
        )?;
    }
    streams.func_wrap(
        "[method]output-stream.subscribe",
        |mut caller: Caller<'_>, _: (Output,)| {
            enter(&mut caller)?;
            Ok((Deadline::PASSED.pollable(),))
        },
    )
}
