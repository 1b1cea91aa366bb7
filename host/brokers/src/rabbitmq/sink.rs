use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Connection};
use semel_core::{Clock, OutboxRow, Sink, SinkError, SystemClock};
use tokio::sync::{Mutex, RwLock};
use tokio::time::timeout;

use super::errors::{is_missing, is_refusal};
use super::link::{EXCHANGE, channel, close, connect};
use super::message::to_properties;
use super::url::{RabbitMqDestination, RabbitMqUrl};
use crate::causes::describe;
use crate::strands::{Failure, publish_strands};

/// How long a message may wait for its confirmation.
const SEND: Duration = Duration::from_secs(10);

/// How many messages are under way at a time.
const IN_FLIGHT: usize = 512;

/// Where to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitMqSinkConfig {
    /// The broker.
    pub url: RabbitMqUrl,
    /// The exchange and routing key of each destination's name.
    pub destinations: BTreeMap<String, RabbitMqDestination>,
}

/// Publishes to RabbitMQ, persistently and with publisher confirms.
///
/// Rows of a lane go out one after the other, each when the one before is confirmed. A message
/// that no queue takes is returned by the broker and waits in the outbox, as does one for an
/// exchange that is missing or a queue that is full (`overflow` = `reject-publish`).
///
/// The message id is the property `message-id`, by which a consumer knows a message that was
/// published twice.
///
/// It connects with the first row, and again after an outage. Rows with a delay wait in the
/// store.
pub struct RabbitMqSink {
    config: RabbitMqSinkConfig,
    state: Mutex<State>,
    /// Held together by those who send, and alone by one who must be alone on its channel.
    channels: RwLock<()>,
}

enum State {
    Idle,
    Running(Box<Running>),
    Closed,
}

/// A connection with a channel for each destination, as the broker ends a channel for one
/// message that it does not like.
struct Running {
    connection: Connection,
    channels: HashMap<String, Channel>,
}

impl RabbitMqSink {
    /// A sink that connects when it is first given a row.
    pub fn new(config: RabbitMqSinkConfig) -> Self {
        Self {
            config,
            state: Mutex::new(State::Idle),
            channels: RwLock::default(),
        }
    }

    fn unavailable(&self, reason: &str) -> SinkError {
        let address = self.config.url.address();
        SinkError::Unavailable(format!("RabbitMQ at {address}: {reason}"))
    }

    /// The channel of a destination, and the largest frame that it may carry, in bytes.
    async fn channel(&self, destination: &str) -> Result<(Channel, u32), String> {
        let mut state = self.state.lock().await;
        if let State::Running(running) = &*state
            && !running.connection.status().connected()
        {
            *state = State::Idle;
        }
        if let State::Idle = *state {
            *state = State::Running(Box::new(Running {
                connection: connect(&self.config.url, "semel sink").await?,
                channels: HashMap::new(),
            }));
        }
        let State::Running(running) = &mut *state else {
            return Err("the sink is closed".to_owned());
        };
        let frame_max = running.connection.configuration().frame_max();
        if let Some(open) = running.channels.get(destination)
            && open.status().connected()
        {
            return Ok((open.clone(), frame_max));
        }
        let opened = channel(&running.connection).await?;
        match timeout(
            EXCHANGE,
            opened.confirm_select(ConfirmSelectOptions::default()),
        )
        .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(describe(&error)),
            Err(_) => return Err("no answer".to_owned()),
        }
        let kept = opened.clone();
        running.channels.insert(destination.to_owned(), kept);
        Ok((opened, frame_max))
    }

    async fn is_connected(&self) -> bool {
        match &*self.state.lock().await {
            State::Running(running) => running.connection.status().connected(),
            State::Idle | State::Closed => false,
        }
    }

    /// Lets go of a connection on which nobody answers.
    async fn reset(&self) {
        let mut state = self.state.lock().await;
        if let State::Running(_) = *state {
            *state = State::Idle;
        }
    }

    async fn publish_row(&self, row: &OutboxRow) -> Result<(), Failure> {
        let destination = &*row.outgoing.destination;
        let Some(target) = self.config.destinations.get(destination) else {
            let error = SinkError::Unmapped(destination.to_owned());
            return Err(Failure::single(error));
        };
        let sent = {
            let _together = self.channels.read().await;
            self.send(row, destination, target).await
        };
        let sent = match sent {
            // The broker ends a channel with all that is on its way there. Who is the reason
            // shows when each is alone.
            Err(Sent::Failed(error)) if is_refusal(&error) => {
                let _alone = self.channels.write().await;
                self.send(row, destination, target).await
            }
            sent => sent,
        };
        let single = |error| Err(Failure::single(error));
        match sent {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_))) => single(self.unavailable(&format!(
                "no queue takes what goes to {target}: bind one, or mend the destination's URL"
            ))),
            Ok(_) => single(self.unavailable(&format!(
                "what goes to {target} is not accepted: is a queue there full?"
            ))),
            Err(Sent::Refused(error)) => single(error),
            Err(Sent::Failed(error)) if is_refusal(&error) => {
                single(SinkError::Refused(describe(&error)))
            }
            Err(Sent::Failed(error)) if is_missing(&error) => {
                single(self.unavailable(&format!("{target}: {}", describe(&error))))
            }
            Err(Sent::Failed(error)) => Err(Failure {
                error: self.unavailable(&describe(&error)),
                outage: !self.is_connected().await,
            }),
            Err(Sent::Unavailable(reason)) => Err(Failure::outage(self.unavailable(&reason))),
        }
    }

    async fn send(
        &self,
        row: &OutboxRow,
        destination: &str,
        target: &RabbitMqDestination,
    ) -> Result<Confirmation, Sent> {
        let channel = self.channel(destination).await;
        let (channel, frame_max) = channel.map_err(Sent::Unavailable)?;
        let properties =
            to_properties(row, frame_max, SystemClock.now_ms()).map_err(Sent::Refused)?;
        let name = |name: &str| {
            ShortString::try_new(name)
                .map_err(|_| Sent::Unavailable(format!("`{name}` has more than 255 bytes")))
        };
        let (exchange, routing_key) = (name(&target.exchange)?, name(&target.routing_key)?);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let body = &row.outgoing.body;
        let confirmed = async {
            let sent = channel.basic_publish(exchange, routing_key, options, body, properties);
            sent.await?.await
        };
        match timeout(SEND, confirmed).await {
            Ok(Ok(confirmation)) => Ok(confirmation),
            Ok(Err(error)) => Err(Sent::Failed(error)),
            Err(_) => {
                // As while an alarm of the broker is on: it takes nothing.
                self.reset().await;
                Err(Sent::Unavailable("no confirmation".to_owned()))
            }
        }
    }
}

/// Why a message was not confirmed.
enum Sent {
    /// It can't be sent, by anyone.
    Refused(SinkError),
    Failed(lapin::Error),
    Unavailable(String),
}

impl fmt::Display for RabbitMqDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exchange.as_str() {
            "" => write!(f, "the queue `{}`", self.routing_key),
            exchange => write!(
                f,
                "the exchange `{exchange}` with the routing key `{}`",
                self.routing_key
            ),
        }
    }
}

#[async_trait]
impl Sink for RabbitMqSink {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        publish_strands(rows, IN_FLIGHT, |row| self.publish_row(row)).await
    }

    async fn close(&self) {
        let before = std::mem::replace(&mut *self.state.lock().await, State::Closed);
        if let State::Running(running) = before {
            close(&running.connection).await;
        }
    }
}

impl fmt::Debug for RabbitMqSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqSink")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
