//! The threads that plugins run on.

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of their own for plugins, so that one that computes can't starve the host's I/O.
/// Spawn the futures that call [`Runner::run`](semel_core::Runner::run) on
/// [`handle`](Self::handle). Dropping it leaves runs that are under way behind.
#[derive(Debug)]
pub struct Workers {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Workers {
    /// Starts `threads` threads (at least one).
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("semel-runner")
            .enable_time()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where to spawn runs.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Waiting is not allowed where an async task drops this.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
