use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use crate::workload::OrderMessage;

/// How many requests are under way at a time.
const CLIENTS: usize = 64;

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a client waits before it asks again.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients that post messages, each until it is answered for good.
#[derive(Debug)]
pub(super) struct Poster {
    _clients: JoinSet<()>,
}

impl Poster {
    /// Starts to post to whoever listens at this port.
    pub(super) fn start(port: u16, topic: &str, messages: &[OrderMessage]) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let url = format!("http://{address}/topics/{topic}");
        let client = reqwest::Client::builder()
            .timeout(REQUEST)
            .no_proxy()
            .build()?;
        let bodies: VecDeque<String> = messages.iter().map(|m| m.body.clone()).collect();
        let bodies = Arc::new(Mutex::new(bodies));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, url, bodies) = (client.clone(), url.clone(), Arc::clone(&bodies));
            let next = move || {
                let mut bodies = bodies.lock().unwrap_or_else(PoisonError::into_inner);
                bodies.pop_front()
            };
            clients.spawn(async move {
                while let Some(body) = next() {
                    while !post(&client, &url, &body).await {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        Ok(Self { _clients: clients })
    }
}

/// Whether the answer says that the message is handled. A duplicate of one in flight is told to
/// come again.
async fn post(client: &reqwest::Client, url: &str, body: &str) -> bool {
    let answer = client.post(url).body(body.to_owned()).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}
