use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use async_trait::async_trait;
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
};
use reqwest::{Client, Method, redirect};
use semel_core::{OutboxRow, Outgoing, Sink, SinkError};

use super::destination::{
    HttpDestination, HttpDestinationError, HttpMethod, RESERVED, SEMEL_KEY, Target,
};
use super::field;
use super::request::IDEMPOTENCY_KEY;
use super::resolver::CheckedResolver;
use super::response::{Answer, ResponseSink, Verdict};
use crate::causes::describe;
use crate::lock::lock;
use crate::strands::{Failure, publish_strands};

/// Requests of one destination under way at a time.
const IN_FLIGHT: usize = 32;

/// What a plugin can't set: these are the operator's.
const WITHHELD: [HeaderName; 6] = [
    AUTHORIZATION,
    COOKIE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Posts the messages of one destination to its URL.
///
/// A message bears its id as `Idempotency-Key` and its record key as `Semel-Key`, both as
/// structured fields (RFC 9651). A server that honours the first takes it once, however often
/// it is posted.
///
/// | answer | what becomes of the message |
/// |---|---|
/// | 2xx | it is confirmed |
/// | none, 408, 409, 425, 429, 5xx | it is posted again later |
/// | 3xx and other 4xx | it is refused; redirects are not followed |
///
/// With a [`ResponseSink`], answers become messages too, and a 4xx is no refusal: whoever
/// handles the response decides.
///
/// Rows of a lane go out one after the other, others at the same time. Only addresses that the
/// destination may reach are connected to, whatever its name resolves to.
pub struct HttpSink {
    name: String,
    target: Target,
    method: Method,
    client: Client,
    responses: Option<ResponseSink>,
    /// When the server wants to be asked again.
    not_before: Mutex<Option<Instant>>,
}

impl HttpSink {
    /// A sink of a destination, and of the responses if they are to be messages.
    pub fn new(
        destination: &HttpDestination,
        responses: Option<ResponseSink>,
    ) -> Result<Self, HttpDestinationError> {
        let target = destination.check()?;
        let resolver = CheckedResolver::new(target.reach);
        Self::with_resolver(destination, target, resolver, responses)
    }

    pub(super) fn with_resolver(
        destination: &HttpDestination,
        target: Target,
        resolver: CheckedResolver,
        responses: Option<ResponseSink>,
    ) -> Result<Self, HttpDestinationError> {
        let client = Client::builder()
            .user_agent(concat!("semel/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .dns_resolver(resolver)
            .timeout(destination.timeout)
            .pool_max_idle_per_host(IN_FLIGHT)
            .build()
            .map_err(|error| HttpDestinationError::Client {
                name: destination.name.clone(),
                reason: describe(&error),
            })?;
        Ok(Self {
            name: destination.name.clone(),
            target,
            method: match destination.method {
                HttpMethod::Post => Method::POST,
                HttpMethod::Put => Method::PUT,
            },
            client,
            responses,
            not_before: Mutex::default(),
        })
    }

    async fn publish_row(&self, row: &OutboxRow) -> Result<(), Failure> {
        let request = self
            .client
            .request(self.method.clone(), self.target.url.clone())
            .headers(headers(row, &self.target.headers))
            .body(row.outgoing.body.clone());
        let answer = match request.send().await {
            Ok(response) => Answer::read(response).await,
            Err(error) => {
                let reason = describe(&error.without_url());
                return Err(Failure::outage(self.unavailable(&reason)));
            }
        };
        match (Verdict::of(answer.status), &self.responses) {
            (Verdict::Taken, None) => Ok(()),
            (Verdict::Taken | Verdict::Refused, Some(responses)) => {
                let published = responses.publish(&answer, row).await;
                published.map_err(Failure::single)
            }
            (Verdict::Refused, None) => Err(Failure::single(SinkError::Refused(answer.excerpt()))),
            (Verdict::Redirected, _) => Err(Failure::single(SinkError::Refused(format!(
                "{}; redirects are not followed: give [destinations.{}] the URL that it leads to",
                answer.excerpt(),
                self.name
            )))),
            (Verdict::Later { outage }, _) => {
                let mut reason = answer.excerpt();
                if let Some(time) = answer.retry_after() {
                    reason = format!("{reason} (Retry-After: {} s)", time.as_secs());
                    *self.not_before() = Some(Instant::now() + time);
                }
                let error = self.unavailable(&reason);
                Err(Failure { error, outage })
            }
        }
    }

    /// Why nothing is posted at the moment, if the server said so.
    fn waits(&self) -> Option<SinkError> {
        let left = (*self.not_before())?.checked_duration_since(Instant::now())?;
        let reason = format!("the server asks to wait {} s more", left.as_secs() + 1);
        Some(self.unavailable(&reason))
    }

    fn not_before(&self) -> MutexGuard<'_, Option<Instant>> {
        lock(&self.not_before)
    }

    fn unavailable(&self, reason: &str) -> SinkError {
        SinkError::Unavailable(format!("[destinations.{}]: {reason}", self.name))
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        if let Some(waits) = self.waits() {
            return vec![Err(waits); rows.len()];
        }
        publish_strands(rows, IN_FLIGHT, |row| self.publish_row(row)).await
    }
}

impl fmt::Debug for HttpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSink")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The headers of a row: the operator's, then the message's own as far as they can be sent.
fn headers(row: &OutboxRow, configured: &HeaderMap) -> HeaderMap {
    let Outgoing { headers, key, .. } = &row.outgoing;
    let mut sent = configured.clone();
    for header in headers {
        let Ok(name) = header.name.parse::<HeaderName>() else {
            continue;
        };
        let taken = RESERVED.contains(&name) || WITHHELD.contains(&name);
        if taken || configured.contains_key(&name) {
            continue;
        }
        if let Ok(value) = HeaderValue::from_str(&header.value) {
            sent.append(name, value);
        }
    }
    let bytes = HeaderValue::from_static("application/octet-stream");
    sent.entry(CONTENT_TYPE).or_insert(bytes);
    let mut set = |name, value: &[u8]| {
        let value = field::item(value);
        let value = HeaderValue::try_from(value).expect("a structured field is visible ASCII");
        sent.insert(name, value);
    };
    set(IDEMPOTENCY_KEY, row.message_id.as_str().as_bytes());
    if let Some(key) = key {
        set(SEMEL_KEY, key);
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use crate::sample::row;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that takes one request for each connection, and counts connections.
    async fn server() -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Relaxed);
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
        });
        (port, connections)
    }

    /// A name that led to a permitted address leads to the next of these each time.
    fn sink(port: u16, addresses: &'static [&'static str]) -> HttpSink {
        let mut destination =
            HttpDestination::new("out", format!("http://rebound.example:{port}/"));
        (destination.allow_plain, destination.allow_private) = (true, true);
        let turn = AtomicUsize::new(0);
        let lookup = move |_| -> futures::future::BoxFuture<'static, _> {
            let address: IpAddr = addresses[turn.fetch_add(1, Relaxed)].parse().unwrap();
            Box::pin(async move { Ok(vec![address]) })
        };
        let target = destination.check().unwrap();
        let resolver = CheckedResolver::with_lookup(target.reach, Arc::new(lookup));
        HttpSink::with_resolver(&destination, target, resolver, None).unwrap()
    }

    #[tokio::test]
    async fn a_name_that_is_bound_anew_is_checked_anew() {
        let (port, connections) = server().await;
        let sink = sink(
            port,
            &[
                "127.0.0.1",
                "0.0.0.0",
                "::ffff:169.254.169.254",
                "127.0.0.1",
            ],
        );
        let publish = async || sink.publish(&[row(None, &[], b"")]).await.remove(0);
        publish().await.unwrap();
        // Linux connects to this machine when it is asked for 0.0.0.0.
        for address in ["0.0.0.0", "169.254.169.254"] {
            let Err(SinkError::Unavailable(reason)) = publish().await else {
                panic!("{address} was connected to");
            };
            assert!(
                reason.contains("rebound.example") && reason.contains(address),
                "{reason}"
            );
        }
        publish().await.unwrap();
        assert_eq!(connections.load(Relaxed), 2);
    }
}
