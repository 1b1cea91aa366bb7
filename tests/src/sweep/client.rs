//! A client that posts orders to hosts that come and go.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use reqwest::StatusCode;
use tokio::task::JoinSet;

use super::books::OrderMessage;

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How long the client waits when nobody listens.
const PAUSE: Duration = Duration::from_millis(20);

/// Posts each order to a topic of each plugin until it is answered for good. Of a user, an
/// order is posted when the one before is answered.
#[derive(Debug)]
pub struct Client {
    /// Where hosts have to listen.
    pub address: SocketAddr,
    unanswered: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Client {
    /// Starts to post to whoever listens on this port.
    pub fn start(port: u16, plugins: &[&str], orders: &[OrderMessage]) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let client = reqwest::Client::builder()
            .timeout(REQUEST)
            .no_proxy()
            .build()?;
        let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for order in orders {
            let of_user = users.entry(&order.user).or_default();
            of_user.push(order.body.clone());
        }
        let unanswered = Arc::new(AtomicU64::new((plugins.len() * orders.len()) as u64));
        let mut tasks = JoinSet::new();
        for plugin in plugins {
            let url = format!("http://{address}/topics/{plugin}");
            for bodies in users.values() {
                let (client, url, bodies) = (client.clone(), url.clone(), bodies.clone());
                let unanswered = Arc::clone(&unanswered);
                tasks.spawn(async move {
                    for body in bodies {
                        while !post(&client, &url, &body).await {
                            tokio::time::sleep(PAUSE).await;
                        }
                        unanswered.fetch_sub(1, Relaxed);
                    }
                });
            }
        }
        Ok(Self {
            address,
            unanswered,
            _tasks: tasks,
        })
    }

    /// How many orders were not answered yet, counted for each plugin.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Relaxed)
    }
}

/// Posts an order. The answer is whether its record is durable.
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
