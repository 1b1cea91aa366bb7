//! The HTTP sink, posting to the HTTP source.
//!
//! The source has no stream that could be read again, so the suite for sources is not for it;
//! nor is the duty to carry any content for the sink: HTTP has its own rules for headers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use semel_brokers::{HttpDestination, HttpServer, HttpSink, HttpSourceConfig, HttpSubscription};
use semel_core::{Disposition, Message, Payload, Received, Settlement, Sink, Source};
use semel_tests::conformance::broker::{DESTINATION, Published, SinkFixture};
use tokio::task::JoinSet;

struct HttpTopic {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Published>>>,
    _taker: JoinSet<Result<()>>,
}

impl HttpTopic {
    async fn start() -> Result<Self> {
        let subscription = HttpSubscription {
            plugin: "conformance".into(),
            topics: vec![DESTINATION.into()],
            key: "id".parse()?,
            others: vec![],
        };
        let config = HttpSourceConfig::new("http://127.0.0.1:0");
        let server = HttpServer::bind(&config, &[subscription]).await?;
        let address = server.address();
        let taken = Arc::default();
        let mut taker = JoinSet::new();
        for source in server.into_sources() {
            taker.spawn(take(source, Arc::clone(&taken)));
        }
        Ok(Self {
            address,
            taken,
            _taker: taker,
        })
    }
}

/// Takes every message as an engine does whose handler does nothing.
async fn take(source: impl Source, taken: Arc<Mutex<Vec<Published>>>) -> Result<()> {
    loop {
        let Received::Batch(batch) = source.receive(100).await? else {
            return Ok(());
        };
        let mut settlements = Vec::new();
        for delivery in batch {
            if let Payload::Message(message) = delivery.payload {
                taken.lock().unwrap().push(as_published(&message));
            }
            let disposition = Disposition::Done {
                reply: None,
                duplicate: false,
            };
            settlements.push(Settlement {
                position: delivery.position,
                disposition,
            });
        }
        source.settle(settlements).await;
    }
}

fn as_published(message: &Message) -> Published {
    let mut headers = message.headers.clone();
    let key = headers.iter().find(|header| header.name == "semel-key");
    let key = key.map(|key| Bytes::from(key.value.trim_matches('"').to_owned()));
    // What every request has.
    let usual = [
        "idempotency-key",
        "semel-key",
        "content-type",
        "accept",
        "user-agent",
    ];
    headers.retain(|header| !usual.contains(&header.name.as_str()));
    Published {
        id: message.id.clone(),
        key,
        headers,
        body: message.body.clone(),
    }
}

#[async_trait]
impl SinkFixture for HttpTopic {
    async fn open(&mut self) -> Result<Arc<dyn Sink>> {
        let url = format!("http://{}/topics/{DESTINATION}", self.address);
        let mut destination = HttpDestination::new(DESTINATION, url);
        destination.allow_private = true;
        Ok(Arc::new(HttpSink::new(&destination, None)?))
    }

    async fn published(&mut self, _count: usize) -> Result<Vec<Published>> {
        Ok(self.taken.lock().unwrap().clone())
    }

    fn broken_destination(&self) -> Option<&'static str> {
        None
    }
}

semel_tests::sink_conformance!(
    HttpTopic::start().await?,
    keeps_lanes_in_order,
    publishing_again_is_recognisable,
    takes_calls_side_by_side,
);
