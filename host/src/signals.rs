//! How an operator stops the host.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `shutdown` at the first SIGINT or SIGTERM, and ends the process at the second.
pub fn listen(shutdown: CancellationToken) -> Result<()> {
    let mut interrupt = install(SignalKind::interrupt())?;
    let mut terminate = install(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("finishing what is in flight; a second signal ends the process at once");
        shutdown.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("ended at once; what was not recorded is delivered again");
        #[allow(
            clippy::disallowed_methods,
            reason = "whoever asks twice wants no destructors"
        )]
        std::process::exit(1);
    });
    Ok(())
}

fn install(kind: SignalKind) -> Result<Signal> {
    signal(kind).context("can't listen for signals")
}
