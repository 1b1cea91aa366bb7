//! Clients that post messages to hosts that come and go.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use reqwest::StatusCode;
use tokio::task::JoinSet;

/// How many requests are under way at a time.
const CLIENTS: usize = 64;

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a client waits before it asks again.
const PAUSE: Duration = Duration::from_millis(20);

/// Bodies for a topic, of which each is posted when the one before is answered for good.
#[derive(Clone, Debug)]
pub struct Series {
    /// The topic.
    pub topic: String,
    /// What is posted to it, in order.
    pub bodies: Vec<String>,
}

/// Posts series at the same time, each body until it is answered for good.
#[derive(Debug)]
pub struct Poster {
    address: SocketAddr,
    unanswered: Arc<AtomicU64>,
    _clients: JoinSet<()>,
}

impl Poster {
    /// Starts to post to whoever listens at this port.
    pub fn start(port: u16, series: impl IntoIterator<Item = Series>) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let client = reqwest::Client::builder()
            .timeout(REQUEST)
            .no_proxy()
            .build()?;
        let series: VecDeque<Series> = series.into_iter().collect();
        let bodies: usize = series.iter().map(|series| series.bodies.len()).sum();
        let unanswered = Arc::new(AtomicU64::new(bodies as u64));
        let series = Arc::new(Mutex::new(series));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, series) = (client.clone(), Arc::clone(&series));
            let unanswered = Arc::clone(&unanswered);
            let next = move || {
                let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
                series.pop_front()
            };
            clients.spawn(async move {
                while let Some(Series { topic, bodies }) = next() {
                    let url = format!("http://{address}/topics/{topic}");
                    for body in bodies {
                        while !post(&client, &url, &body).await {
                            tokio::time::sleep(PAUSE).await;
                        }
                        unanswered.fetch_sub(1, Relaxed);
                    }
                }
            });
        }
        Ok(Self {
            address,
            unanswered,
            _clients: clients,
        })
    }

    /// The URL at which hosts have to listen.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many bodies are not answered for good yet.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Relaxed)
    }
}

/// Posts a body. The answer is whether its record is durable: a duplicate of one in flight is
/// told to come again.
async fn post(client: &reqwest::Client, url: &str, body: &str) -> bool {
    let request = client.post(url).body(body.to_owned());
    match request.send().await.map(|response| response.status()) {
        // It is done or parked, or a dead letter.
        Ok(status) => status.is_success() || is_letter(status),
        Err(_) => false,
    }
}

fn is_letter(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
    )
}
