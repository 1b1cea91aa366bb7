//! The sandbox: what all plugins of a process share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::cache::Cache;
use crate::error::{SandboxError, chain};
use crate::guest::Guest;
use crate::{SandboxConfig, contract, engine, wasi};

/// Compiles plugins and gives their runs memory.
pub struct Sandbox {
    pub(crate) config: SandboxConfig,
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Guest>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) cache: Option<Cache>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Sets up the engine and its ticker, and opens the cache.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let broken = |error: wasmtime::Error| SandboxError::Engine(chain(&error));
        let engine = engine::build(&config).map_err(broken)?;
        engine::start_ticker(&engine, config.tick).map_err(SandboxError::Thread)?;
        let mut linker = Linker::new(&engine);
        contract::link(&mut linker).map_err(broken)?;
        wasi::link(&mut linker).map_err(broken)?;
        let cache = config
            .cache_dir
            .as_deref()
            .map(|dir| Cache::open(dir, &engine));
        Ok(Self {
            cache: cache.transpose()?,
            slots: Arc::new(Semaphore::new(config.slots as usize)),
            engine,
            linker,
            config,
        })
    }

    /// Runs a future to its end on this thread, also where a runtime is in charge of it.
    pub(crate) fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .expect("a runtime without I/O needs nothing that can be missing")
                    .block_on(future)
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
