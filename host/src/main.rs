//! `semel`: runs WebAssembly message handlers so that each message's effects happen exactly
//! once.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    semel_host::main()
}
