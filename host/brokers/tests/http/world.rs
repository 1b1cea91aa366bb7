//! A host in small: engine and store in memory behind a real HTTP server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use semel_brokers::{HttpServer, HttpSourceConfig, HttpSubscription};
use semel_core::memory::{Answer, MemoryStore, NativeRunner};
use semel_core::{
    Engine, EngineConfig, EngineParts, Failure, FlowLimits, Grants, Outgoing, PluginName, Relay,
    RelayConfig, RelayHandle, RetryPolicy, RunContext, Sink, Source, StateKey, Stats, Store,
    SystemClock,
};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The plugin of all hosts here.
pub const PLUGIN: &str = "orders";

static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// What outlives a host.
#[derive(Clone)]
pub struct World {
    pub store: MemoryStore,
    pub config: HttpSourceConfig,
    pub key: &'static str,
    /// Lets handlers go on that were told to wait.
    pub gate: Arc<Semaphore>,
    /// Handlers that were told to wait, so far.
    pub waiting: Arc<AtomicU64>,
}

/// A host that serves.
pub struct Host {
    pub address: SocketAddr,
    client: Client,
    shutdown: CancellationToken,
    engine: JoinHandle<()>,
    relay: Option<JoinHandle<()>>,
}

impl World {
    pub fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            config: HttpSourceConfig::new("http://127.0.0.1:0"),
            key: "id",
            gate: Arc::new(Semaphore::new(0)),
            waiting: Arc::default(),
        }
    }

    pub fn with_key(mut self, key: &'static str) -> Self {
        self.key = key;
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut HttpSourceConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub fn subscription(&self) -> HttpSubscription {
        HttpSubscription {
            plugin: PLUGIN.into(),
            topics: vec!["orders".into(), "more/orders".into()],
            key: self.key.parse().unwrap(),
            others: vec![],
        }
    }

    /// A server alone: nobody handles what it takes.
    pub async fn serve(&self) -> HttpServer {
        let server = HttpServer::bind(&self.config, &[self.subscription()]).await;
        server.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn start(&self) -> Host {
        self.start_with(None).await
    }

    /// A host, and what it publishes goes to the sink.
    pub async fn start_with(&self, sink: Option<Arc<dyn Sink>>) -> Host {
        let server = self.serve().await;
        let address = server.address();
        let source = server.into_sources().remove(0);
        let stats = Arc::new(Stats::default());
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        let shutdown = CancellationToken::new();
        let (relay, handle) = match sink {
            None => (None, RelayHandle::default()),
            Some(sink) => {
                let config = RelayConfig {
                    retry_pause: Duration::from_millis(10),
                    ..RelayConfig::default()
                };
                let (relay, handle) = Relay::new(
                    config,
                    Arc::clone(&store),
                    sink,
                    Arc::new(SystemClock),
                    Arc::clone(&stats),
                );
                let relay = relay.run(shutdown.clone(), shutdown.clone());
                (Some(tokio::spawn(async { relay.await.unwrap() })), handle)
            }
        };
        let config = EngineConfig {
            plugin: PluginName::new(PLUGIN),
            key: self.key.parse().unwrap(),
            order_by: None,
            versioning: None,
            grants: Arc::new(Grants {
                namespace: PLUGIN.into(),
                ..Grants::default()
            }),
            retention: Duration::from_secs(86_400),
            retry: RetryPolicy {
                max_attempts: 3,
                first_delay: Duration::from_millis(100),
                max_delay: Duration::from_millis(200),
            },
            flow: FlowLimits::default(),
            wait_for_parked: false,
            instance: INSTANCES.fetch_add(1, Relaxed),
        };
        let world = self.clone();
        let runner =
            NativeRunner::new(move |context| Box::pin(handle_order(world.clone(), context)));
        let parts = EngineParts {
            source: Arc::new(source) as Arc<dyn Source>,
            store,
            runner: Arc::new(runner),
            clock: Arc::new(SystemClock),
            relay: handle,
            transactions: None,
            workers: Handle::current(),
            stats,
        };
        let engine = Engine::new(config, parts).run(shutdown.clone());
        Host {
            address,
            client: client(),
            shutdown,
            engine: tokio::spawn(async { engine.await.unwrap() }),
            relay,
        }
    }

    /// How many messages took effect.
    pub async fn count(&self) -> u64 {
        let key = StateKey {
            namespace: PLUGIN.into(),
            name: "count".into(),
        };
        let value = self.store.read(&[key]).await.unwrap().remove(0).value;
        let text = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
        text.map_or(0, |text| text.parse().unwrap())
    }

    /// Waits until a handler waits at the gate.
    pub async fn until_waiting(&self, handlers: u64) {
        until("a handler waits", || self.waiting.load(Relaxed) >= handlers).await;
    }
}

/// Does what the body says: `VERB` or `VERB ARGUMENT`, perhaps in a JSON object under `do`.
async fn handle_order(world: World, context: &mut RunContext) -> Answer {
    let body = String::from_utf8(context.message().body.to_vec()).unwrap();
    let order = match serde_json::from_str::<Value>(&body) {
        Ok(Value::Object(order)) => order["do"].as_str().unwrap().to_owned(),
        _ => body,
    };
    let (verb, argument) = order.split_once(' ').unwrap_or((&order, ""));
    match verb {
        "reply" => {}
        "reject" => {
            return Err(Failure::Reject {
                reason: argument.into(),
            });
        }
        "fail" if context.attempt() < argument.parse().unwrap() => {
            return Err(Failure::Retry {
                reason: "not yet".into(),
                after_ms: None,
            });
        }
        "wait" => {
            world.waiting.fetch_add(1, Relaxed);
            world.gate.acquire().await.unwrap().forget();
        }
        "publish" => {
            let outgoing = Outgoing {
                destination: "out".into(),
                key: None,
                headers: vec![],
                body: argument.to_owned().into(),
                delay_ms: None,
            };
            context.publish(outgoing).unwrap();
        }
        _ => {}
    }
    context.add("count", 1).unwrap();
    let headers = &context.message().headers;
    let said = match argument {
        "headers" => headers
            .iter()
            .map(|h| format!("{}={}\n", h.name, h.value))
            .collect(),
        argument => argument.to_owned(),
    };
    Ok((verb != "none").then(|| said.into()))
}

/// A client that goes nowhere but where it is sent.
pub fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

pub async fn get(url: impl reqwest::IntoUrl) -> reqwest::Result<Response> {
    client().get(url).send().await
}

impl Host {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn post(&self, path: &str, body: &str) -> RequestBuilder {
        self.client.post(self.url(path)).body(body.to_owned())
    }

    /// Posts an order under a key.
    pub async fn order(&self, key: &str, body: &str) -> Response {
        let request = self.post("/topics/orders", body);
        request.header("idempotency-key", key).send().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.engine.await.unwrap();
        if let Some(relay) = self.relay {
            relay.await.unwrap();
        }
    }
}

/// The text of a response that has this status.
pub async fn text(response: Response, status: u16) -> String {
    let found = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    text
}

/// A problem of this status and kind, and its detail.
pub async fn problem(response: Response, status: u16, kind: &str) -> String {
    let media_type = response.headers()["content-type"].clone();
    let path = response.url().path().to_owned();
    let text = text(response, status).await;
    assert_eq!(media_type, "application/problem+json", "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["type"], format!("urn:semel:problem:{kind}"));
    assert_eq!(problem["status"], status);
    assert_eq!(problem["instance"], path);
    assert!(problem["title"].is_string());
    problem["detail"].as_str().unwrap().to_owned()
}

/// Waits until a condition holds, for a while.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to this: {what}");
}
