//! Receive and key: from the source's deliveries to jobs that passed the check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::EngineError;
use super::budget::Budget;
use super::check::{Checker, Finding};
use super::config::EngineConfig;
use super::job::{Fate, Job, Origin};
use super::versioning::Revision;
use crate::crash::{CrashPoint, crash_point};
use crate::throttle::Throttle;
use crate::{
    BusinessKey, Cause, DeadLetter, DeadLetterId, Delivery, Disposition, Expected, Fingerprint,
    KeyError, Lane, Message, Payload, Position, Received, RecordId, RelayHandle, Settlement,
    Source, SourceError,
};

/// What intake hands on, in the order of receipt.
#[derive(Debug)]
pub(super) enum Arrivals {
    /// Messages that passed the check, and what became of those whose record is durable
    /// already.
    Batch {
        positions: Vec<Position>,
        recorded: Vec<Settlement>,
        jobs: Vec<Job>,
    },
    /// There will be no more.
    End,
}

pub(super) struct Intake {
    pub(super) config: Arc<EngineConfig>,
    pub(super) source: Arc<dyn Source>,
    pub(super) checker: Checker,
    pub(super) budget: Arc<Budget>,
    pub(super) relay: RelayHandle,
    /// Of lines about dead letters.
    pub(super) letters: Throttle,
    pub(super) arrivals: mpsc::Sender<Arrivals>,
}

impl Intake {
    /// Receives until the source ends or the engine no longer listens. While the outbox is
    /// full, nothing is received.
    pub(super) async fn run(self) -> Result<(), EngineError> {
        loop {
            let room = self.room().await.min(self.config.flow.batch);
            let since_ms = self.checker.clock.now_ms();
            let arrivals = match self.receive(room).await? {
                Received::Batch(deliveries) => self.admit(deliveries, since_ms).await?,
                Received::End => Arrivals::End,
            };
            let ended = matches!(arrivals, Arrivals::End);
            if self.arrivals.send(arrivals).await.is_err() || ended {
                return Ok(());
            }
        }
    }

    /// Waits until there is room in the outbox and for how many messages in flight.
    async fn room(&self) -> usize {
        loop {
            self.relay.room().await;
            let room = self.budget.room().await;
            if !self.relay.is_full() {
                return room;
            }
        }
    }

    async fn receive(&self, limit: usize) -> Result<Received, EngineError> {
        let mut pause = Duration::from_millis(100);
        loop {
            crash_point(CrashPoint::ReceiveBefore);
            match self.source.receive(limit).await {
                Ok(received) => {
                    crash_point(CrashPoint::ReceiveAfter);
                    return Ok(received);
                }
                Err(SourceError::Unavailable(reason)) => {
                    let plugin = &self.config.plugin;
                    tracing::warn!(%plugin, %reason, retry_in = ?pause, "the source is unavailable");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Checks messages that were handed over after `since_ms`.
    async fn admit(
        &self,
        deliveries: Vec<Delivery>,
        since_ms: u64,
    ) -> Result<Arrivals, EngineError> {
        let received = Instant::now();
        self.checker.stats.received.add(deliveries.len() as u64);
        let mut positions = Vec::with_capacity(deliveries.len());
        let mut recorded = Vec::new();
        let mut jobs = Vec::with_capacity(deliveries.len());
        let mut letters = Vec::new();
        for delivery in deliveries {
            positions.push(delivery.position.clone());
            match self.job(delivery, received, since_ms) {
                Ok(job) => jobs.push(job),
                Err(letter) => {
                    recorded.push(Settlement {
                        position: letter.position.clone(),
                        disposition: Disposition::Dead {
                            cause: Some(letter.cause),
                            reason: Some(letter.reason.clone()),
                        },
                    });
                    letters.push(*letter);
                }
            }
        }
        self.checker.bury(letters).await?;
        let mut runnable = Vec::with_capacity(jobs.len());
        for finding in self.checker.check(jobs).await? {
            match finding {
                Finding::Run(job) => runnable.push(job),
                Finding::Recorded(job, disposition) => recorded.push(Settlement {
                    position: job.position,
                    disposition,
                }),
            }
        }
        self.budget.reserve(
            runnable.len(),
            runnable.iter().map(|job| job.message.size()).sum(),
        );
        Ok(Arrivals::Batch {
            positions,
            recorded,
            jobs: runnable,
        })
    }

    /// Takes key and lane from a message, or says why it is dead.
    fn job(
        &self,
        delivery: Delivery,
        received: Instant,
        since_ms: u64,
    ) -> Result<Job, Box<DeadLetter>> {
        let Delivery { position, payload } = delivery;
        let message = match payload {
            Payload::Message(message) => message,
            Payload::Malformed { reason, raw } => {
                let message = Arc::new(raw_message(raw));
                return Err(self.letter(Cause::Malformed, reason, message, position));
            }
        };
        let letter =
            |cause, reason| self.letter(cause, reason, Arc::clone(&message), position.clone());
        let (key, lane) = self
            .keys(&message)
            .map_err(|error| letter(Cause::NoKey, error.to_string()))?;
        let revision = Revision::of(&self.config, &message)
            .map_err(|error| letter(Cause::NoVersion, error.to_string()))?;
        Ok(Job {
            record: RecordId {
                plugin: self.config.plugin.clone(),
                key,
            },
            fingerprint: Fingerprint::of(&message.body),
            message,
            position,
            lane,
            attempt: 0,
            misses: 0,
            leads: false,
            origin: Origin::Source,
            expected: Expected::Absent,
            bucket: 0,
            fate: Fate::Run,
            revision,
            waits_since_ms: None,
            sent: None,
            received,
            since_ms,
        })
    }

    fn keys(&self, message: &Message) -> Result<(BusinessKey, Option<Lane>), KeyError> {
        let key = BusinessKey::new(self.config.key.evaluate(message)?);
        let order_by = self.config.order_by.as_ref();
        let lane = order_by.map(|lane| lane.evaluate(message)).transpose()?;
        Ok((key, lane.map(Lane::new)))
    }

    fn letter(
        &self,
        cause: Cause,
        reason: String,
        message: Arc<Message>,
        position: Position,
    ) -> Box<DeadLetter> {
        if let Some(held_back) = self.letters.pass() {
            let plugin = &self.config.plugin;
            tracing::warn!(%plugin, %position, %reason, held_back, "dead letter: {cause}");
        }
        Box::new(DeadLetter {
            id: DeadLetterId::of_position(&self.config.plugin, &position),
            plugin: self.config.plugin.clone(),
            record: None,
            cause,
            reason,
            detail: None,
            message: Arc::unwrap_or_clone(message),
            outgoing: None,
            position,
            attempts: 0,
            dead_ms: self.checker.clock.now_ms(),
        })
    }
}

fn raw_message(raw: Bytes) -> Message {
    Message {
        id: String::new(),
        topic: "".into(),
        keys: Vec::new(),
        headers: Vec::new(),
        body: raw,
        timestamp_ms: 0,
    }
}
