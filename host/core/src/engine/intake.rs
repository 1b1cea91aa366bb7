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
use crate::{
    BusinessKey, Cause, DeadLetter, DeadLetterId, Delivery, Expected, Fingerprint, KeyError, Lane,
    Message, Payload, Position, Received, RecordId, Source, SourceError,
};

/// What intake hands on, in the order of receipt.
#[derive(Debug)]
pub(super) enum Arrivals {
    /// Messages that passed the check, and positions whose record is durable already.
    Batch {
        positions: Vec<Position>,
        recorded: Vec<Position>,
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
    pub(super) arrivals: mpsc::Sender<Arrivals>,
}

impl Intake {
    /// Receives until the source ends or the engine no longer listens.
    pub(super) async fn run(self) -> Result<(), EngineError> {
        loop {
            let room = self.budget.room().await.min(self.config.flow.batch);
            let arrivals = match self.receive(room).await? {
                Received::Batch(deliveries) => self.admit(deliveries).await?,
                Received::End => Arrivals::End,
            };
            let ended = matches!(arrivals, Arrivals::End);
            if self.arrivals.send(arrivals).await.is_err() || ended {
                return Ok(());
            }
        }
    }

    async fn receive(&self, limit: usize) -> Result<Received, EngineError> {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.source.receive(limit).await {
                Ok(received) => return Ok(received),
                Err(SourceError::Unavailable(reason)) => {
                    tracing::warn!(%reason, retry_in = ?pause, "the source is unavailable");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn admit(&self, deliveries: Vec<Delivery>) -> Result<Arrivals, EngineError> {
        let received = Instant::now();
        self.checker.stats.received.add(deliveries.len() as u64);
        let mut positions = Vec::with_capacity(deliveries.len());
        let mut recorded = Vec::new();
        let mut jobs = Vec::with_capacity(deliveries.len());
        let mut letters = Vec::new();
        for delivery in deliveries {
            positions.push(delivery.position.clone());
            match self.job(delivery, received) {
                Ok(job) => jobs.push(job),
                Err(letter) => {
                    recorded.push(letter.position.clone());
                    letters.push(*letter);
                }
            }
        }
        self.checker.bury(letters).await?;
        let mut runnable = Vec::with_capacity(jobs.len());
        for finding in self.checker.check(jobs).await? {
            match finding {
                Finding::Run(job) => runnable.push(job),
                Finding::Recorded(job) => recorded.push(job.position),
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
    fn job(&self, delivery: Delivery, received: Instant) -> Result<Job, Box<DeadLetter>> {
        let Delivery { position, payload } = delivery;
        let message = match payload {
            Payload::Message(message) => message,
            Payload::Malformed { reason, raw } => {
                let message = Arc::new(raw_message(raw));
                return Err(self.letter(Cause::Malformed, reason, message, position));
            }
        };
        match self.keys(&message) {
            Ok((key, lane)) => Ok(Job {
                record: RecordId {
                    plugin: self.config.plugin.clone(),
                    key,
                },
                fingerprint: Fingerprint::of(&message.body),
                message,
                position,
                lane,
                attempt: 0,
                origin: Origin::Source,
                expected: Expected::Absent,
                bucket: 0,
                fate: Fate::Run,
                sent: None,
                received,
            }),
            Err(error) => Err(self.letter(Cause::NoKey, error.to_string(), message, position)),
        }
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
        tracing::warn!(plugin = %self.config.plugin, %position, %reason, "dead letter: {cause}");
        Box::new(DeadLetter {
            id: DeadLetterId::of_position(&self.config.plugin, &position),
            plugin: self.config.plugin.clone(),
            record: None,
            cause,
            reason,
            detail: None,
            message: Arc::unwrap_or_clone(message),
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
