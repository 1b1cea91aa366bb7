use std::collections::HashMap;
use std::io::ErrorKind;
use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use semel_core::{Finding, KeyExpression, Partition};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::bearer::Bearers;
use super::config::{HttpSourceConfig, HttpSourceError};
use super::desk::Desk;
use super::listener::{Listener, Service};
use super::problem::{Kind, Problem, RETRY};
use super::reception::{Reception, Topic, TopicName};
use super::request::IDEMPOTENCY_KEY;
use super::source::HttpSource;
use super::tls;
use super::token::Tokens;

/// An engine that has not asked for messages for so long is not consuming.
const POLLED_WITHIN: Duration = Duration::from_secs(5);

/// One server for all plugins of a host.
///
/// | request | reply |
/// |---|---|
/// | `POST /topics/TOPIC` | what became of the message, once that is durable |
/// | `POST /tokens/TOPIC` | a one-time token |
/// | `GET /healthz` | 200 while the process lives |
/// | `GET /readyz` | 200 while every plugin consumes |
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    sources: Vec<HttpSource>,
}

/// What a plugin is served with.
#[derive(Clone, Debug)]
pub struct HttpSubscription {
    /// The plugin's name.
    pub plugin: String,
    /// The topics that it handles.
    pub topics: Vec<String>,
    /// Where its business key stands.
    pub key: KeyExpression,
    /// What else it reads of messages, such as their lane.
    pub others: Vec<KeyExpression>,
}

impl HttpServer {
    /// Starts to listen, with a source for each of `subscriptions` in their order.
    pub async fn bind(
        config: &HttpSourceConfig,
        subscriptions: &[HttpSubscription],
    ) -> Result<Self, HttpSourceError> {
        let address = config.check()?;
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let desks: Vec<_> = subscriptions
            .iter()
            .map(|subscription| Arc::new(Desk::new(&subscription.plugin)))
            .collect();
        let bind = |source| HttpSourceError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        // No two starts have a position in common, since a position may name a dead letter.
        let start: u64 = rand::random();
        let topics = topics(address, start, subscriptions, &desks)?;
        let reception = Reception {
            topics,
            desks: desks.clone(),
            bearers: Bearers::new(&config.bearer_tokens),
            tokens: Tokens::new(config.token_secret.as_deref(), config.token_lifetime),
            room: Arc::new(Semaphore::new(config.waiting.get())),
            in_flight: config.in_flight,
            body_limit: config.body_limit,
            read_timeout: config.read_timeout,
            reply_timeout: config.reply_timeout,
        };
        let service = Service {
            router: router(Arc::new(reception)),
            tls,
            connections: config.connections.get(),
            read_timeout: config.read_timeout,
        };
        let listener = Arc::new(Listener::start(listener, service));
        let redelivery = config.redelivery.max(config.token_lifetime);
        let sources = desks
            .into_iter()
            .map(|desk| HttpSource::new(desk, Arc::clone(&listener), redelivery));
        Ok(Self {
            address,
            sources: sources.collect(),
        })
    }

    /// What there is to say of a configuration without serving anybody. The port is taken for a
    /// moment, to see whether it can be.
    pub async fn examine(
        config: &HttpSourceConfig,
        subscriptions: &[HttpSubscription],
    ) -> Vec<Finding> {
        let address = match usable(config, subscriptions) {
            Ok(address) => address,
            Err(error) => return vec![Finding::failure("settings", error.to_string())],
        };
        let protected = match address.ip().is_loopback() {
            true => "this machine alone can reach it",
            false => "other machines reach it by TLS, with a bearer token",
        };
        let port = match TcpListener::bind(address).await {
            Ok(_) => Finding::good("port", format!("{address} is free")),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Finding::warning(
                "port",
                format!("{address} is in use, as it is while a host runs: a second one would be refused"),
            )
            .advise("stop what listens there, or choose another port"),
            Err(error) => Finding::failure("port", format!("can't listen at {address}: {error}"))
                .advise("give an address of this machine, and a port from 1024 on unless the host may take a lower one"),
        };
        vec![Finding::good("settings", protected), port]
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sources. With the last of them it stops.
    pub fn into_sources(self) -> Vec<HttpSource> {
        self.sources
    }
}

/// Where to listen, if all of this can be used together.
fn usable(
    config: &HttpSourceConfig,
    subscriptions: &[HttpSubscription],
) -> Result<SocketAddr, HttpSourceError> {
    let address = config.check()?;
    config.tls.as_ref().map(tls::acceptor).transpose()?;
    let desks: Vec<_> = subscriptions
        .iter()
        .map(|subscription| Arc::new(Desk::new(&subscription.plugin)))
        .collect();
    topics(address, 0, subscriptions, &desks)?;
    Ok(address)
}

fn topics(
    address: SocketAddr,
    start: u64,
    subscriptions: &[HttpSubscription],
    desks: &[Arc<Desk>],
) -> Result<HashMap<String, Topic>, HttpSourceError> {
    let mut topics: HashMap<String, Topic> = HashMap::new();
    for (subscription, desk) in subscriptions.iter().zip(desks) {
        let key = &subscription.key;
        let expressions = iter::once(key).chain(&subscription.others);
        for header in expressions.flat_map(KeyExpression::headers) {
            if header.contains(|c: char| c.is_ascii_uppercase()) {
                return Err(HttpSourceError::HeaderCase {
                    plugin: subscription.plugin.clone(),
                    header: header.to_owned(),
                });
            }
        }
        for name in &subscription.topics {
            let topic = Topic {
                name: name.as_str().into(),
                partition: Partition::new(&format!("http:{address}/{name}/{start:016x}")),
                needs_key: key.reads_id_or_keys() || key.headers().any(|h| h == IDEMPOTENCY_KEY),
                desk: Arc::clone(desk),
            };
            if let Some(other) = topics.insert(name.clone(), topic)
                && other.desk.plugin() != subscription.plugin
            {
                return Err(HttpSourceError::SharedTopic {
                    topic: name.clone(),
                    first: other.desk.plugin().to_owned(),
                    second: subscription.plugin.clone(),
                });
            }
        }
    }
    Ok(topics)
}

fn router(reception: Arc<Reception>) -> Router {
    Router::new()
        .route("/topics/{topic}", post(take_message))
        .route("/tokens/{topic}", post(issue_token))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(reception)
}

async fn take_message(
    State(reception): State<Arc<Reception>>,
    topic: TopicName,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let answered = reception.take_message(topic, request).await;
    answered.unwrap_or_else(|problem| problem.answer(&path))
}

async fn issue_token(
    State(reception): State<Arc<Reception>>,
    topic: TopicName,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let answered = reception.issue_token(topic, &headers);
    answered.unwrap_or_else(|problem| problem.answer(uri.path()))
}

async fn alive() -> &'static str {
    "alive\n"
}

async fn ready(State(reception): State<Arc<Reception>>, uri: Uri) -> Response {
    let mut desks = reception.desks.iter();
    match desks.find(|desk| !desk.is_polled(POLLED_WITHIN)) {
        None => "ready\n".into_response(),
        Some(desk) => Problem::new(
            Kind::NotReady,
            format!(
                "the plugin `{}` takes no messages at the moment: its store may be unreachable, or it has as much as it can handle",
                desk.plugin()
            ),
        )
        .retry_after(RETRY)
        .answer(uri.path()),
    }
}

async fn method_not_allowed(uri: Uri) -> Response {
    let allowed = match uri.path() {
        "/healthz" | "/readyz" => "GET, HEAD",
        _ => "POST",
    };
    let detail = format!("use {allowed}");
    Problem::new(Kind::MethodNotAllowed, detail)
        .allow(allowed)
        .answer(uri.path())
}

async fn not_found(uri: Uri) -> Response {
    let detail = "there are POST /topics/TOPIC, POST /tokens/TOPIC, GET /healthz and GET /readyz";
    Problem::new(Kind::NotFound, detail).answer(uri.path())
}
