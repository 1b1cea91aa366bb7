use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rocketmq_client_rust::{ClientConfig, ClientRuntime, ClientRuntimeConfig};
use rocketmq_observability::TelemetryHandle;
use rocketmq_runtime::{RuntimeConfig, RuntimeOwner, ShutdownDeadline};

/// How long shutting down may take, with brokers that don't answer.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// How often routes are asked for and brokers hear of the consumers: what it takes to go on
/// after an outage. The client takes no less.
const REFRESH: Duration = Duration::from_secs(10);

/// The threads, connections and budgets that all sources and sinks of a host share.
///
/// It runs its own Tokio runtime; what it returns can be awaited from any other. Close the
/// sources and sinks first, then call [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct RocketMqClient {
    inner: Arc<dyn Owned>,
}

/// Hides the client's types. The compiler would follow them in every crate that holds one
/// across an `await`, deeper than it goes by default.
#[async_trait]
trait Owned: Send + Sync {
    fn runtime(&self) -> Arc<ClientRuntime>;
    fn instance(&self) -> &str;
    async fn shutdown(&self);
}

struct Inner {
    runtime: Arc<ClientRuntime>,
    owner: Mutex<Option<RuntimeOwner>>,
    /// What tells this host's clients from those of other hosts.
    instance: String,
}

impl RocketMqClient {
    /// Starts the client's runtime. Nothing is connected yet.
    pub fn start() -> Result<Self, RocketMqStartError> {
        let config = RuntimeConfig {
            thread_name: "semel-rocketmq".to_owned(),
            ..RuntimeConfig::default()
        };
        let owner = RuntimeOwner::plan(config)
            .map_err(RocketMqStartError::new)?
            .build()
            .map_err(RocketMqStartError::new)?;
        let runtime = ClientRuntime::try_new(
            owner.root_context().component("semel"),
            ClientRuntimeConfig::default(),
            TelemetryHandle::noop(),
        )
        .map_err(RocketMqStartError::new)?;
        let instance = RandomState::new().hash_one(std::process::id());
        Ok(Self {
            inner: Arc::new(Inner {
                runtime,
                owner: Mutex::new(Some(owner)),
                instance: format!("{}-{instance:016x}", std::process::id()),
            }),
        })
    }

    /// Stops all clients and threads, within ten seconds. Sources and sinks are of no use
    /// after.
    pub async fn shutdown(&self) {
        self.inner.shutdown().await;
    }

    pub(crate) fn runtime(&self) -> Arc<ClientRuntime> {
        self.inner.runtime()
    }

    /// How to reach a cluster. Those of one host that have the same `role` share connections.
    pub(crate) fn config_for(&self, name_server: &str, role: &str) -> ClientConfig {
        let cluster = blake3::hash(name_server.as_bytes()).to_hex();
        let instance = format!("{}-{}{role}", self.inner.instance(), &cluster[..8]);
        let mut config = ClientConfig::default();
        config.set_instance_name(instance.into());
        config.set_namesrv_addr(name_server.into());
        config.set_poll_name_server_interval(REFRESH.as_millis() as u32);
        config.set_heartbeat_broker_interval(REFRESH.as_millis() as u32);
        config
    }
}

#[async_trait]
impl Owned for Inner {
    fn runtime(&self) -> Arc<ClientRuntime> {
        Arc::clone(&self.runtime)
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    async fn shutdown(&self) {
        let owner = self
            .owner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(owner) = owner {
            let deadline = ShutdownDeadline::after(SHUTDOWN);
            self.runtime.shutdown_until(deadline).await;
            owner.shutdown_tasks_until(deadline).await;
            owner.shutdown_background();
        }
    }
}

impl fmt::Debug for RocketMqClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocketMqClient")
            .field("instance", &self.inner.instance())
            .finish_non_exhaustive()
    }
}

/// The client's runtime can't be started: the machine has no threads or memory left.
#[derive(Debug, thiserror::Error)]
#[error("can't start the RocketMQ client: {0}")]
pub struct RocketMqStartError(String);

impl RocketMqStartError {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}
