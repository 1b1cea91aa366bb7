use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use semel_core::{Clock, OutboxLane, OutboxRow, Sink, SinkError, SystemClock};
use semel_rocketmq_client::{
    ClientError, Message, MessageQueue, Producer, ProducerSettings, RocketMqClient, SendStatus,
};
use tokio::sync::{RwLock, Semaphore};
use tokio::time::timeout;

use super::errors::{MESSAGE_ILLEGAL, describe};
use super::message::to_rocketmq;
use super::routes::{Routes, choose};

/// How long a send may take.
const SEND: Duration = Duration::from_secs(5);

/// How long starting or closing may take.
const EXCHANGE: Duration = Duration::from_secs(10);

/// How many messages, and bytes, one send carries at most.
const BATCH_MESSAGES: usize = 128;
const BATCH_BYTES: usize = 1024 * 1024;

/// How many sends are under way at a time.
const IN_FLIGHT: usize = 32;

/// The longest delay that is left to the broker, whose timer takes no more than three days
/// unless it is told otherwise (`timerMaxDelaySec`).
const MAX_DELAY: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Where to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocketMqSinkConfig {
    /// The name servers' addresses, separated by `;`.
    pub name_server: String,
    /// The producer group.
    pub producer_group: String,
    /// The topic of each destination's name.
    pub destinations: BTreeMap<String, String>,
}

/// Publishes to RocketMQ topics.
///
/// Rows of a lane go to one queue, chosen by a hash of the lane, in order; rows without a
/// lane go to any. Rows for one queue are sent together where they fit. A row is confirmed by
/// the broker's `SEND_OK` only. The order of a lane does not outlast a change of the topic's
/// number of queues.
///
/// The message id stands in `KEYS`, where an operator can look it up, and in the property
/// `SEMEL_ID`, by which a consumer knows a message that was published twice. A row that is due
/// within two days is left to the broker's timer, which takes no more than three by default.
///
/// It connects with the first row. The client stops trying for 30 seconds after a broker was
/// gone; rows fail at once until then.
pub struct RocketMqSink {
    publisher: Box<dyn Sink>,
}

struct Publisher {
    client: RocketMqClient,
    config: RocketMqSinkConfig,
    producer: RwLock<State>,
    routes: Routes,
    permits: Semaphore,
    turn: AtomicUsize,
}

enum State {
    Idle,
    Running(Arc<dyn Producer>),
    Closed,
}

/// A row with the topic that it goes to and its place in the call.
#[derive(Clone, Copy)]
struct Parcel<'a> {
    index: usize,
    row: &'a OutboxRow,
    topic: &'a str,
}

impl Parcel<'_> {
    /// About how many bytes it takes in a batch.
    fn size(&self) -> usize {
        let outgoing = &self.row.outgoing;
        let headers = outgoing
            .headers
            .iter()
            .map(|h| h.name.len() + h.value.len());
        let key = outgoing.key.as_ref().map_or(0, |key| 2 * key.len());
        outgoing.body.len() + 2 * headers.sum::<usize>() + key + 512
    }
}

type Results = Vec<(usize, Result<(), SinkError>)>;

impl RocketMqSink {
    /// A sink that connects when it is first given a row.
    pub fn new(client: &RocketMqClient, config: RocketMqSinkConfig) -> Self {
        let publisher = Publisher {
            client: client.clone(),
            config,
            producer: RwLock::new(State::Idle),
            routes: Routes::default(),
            permits: Semaphore::new(IN_FLIGHT),
            turn: AtomicUsize::new(0),
        };
        Self {
            publisher: Box::new(publisher),
        }
    }
}

impl fmt::Debug for RocketMqSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocketMqSink").finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for RocketMqSink {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        self.publisher.publish(rows).await
    }

    fn delays(&self, row: &OutboxRow) -> bool {
        self.publisher.delays(row)
    }

    async fn close(&self) {
        self.publisher.close().await;
    }
}

impl Publisher {
    async fn producer(&self) -> Result<Arc<dyn Producer>, SinkError> {
        if let State::Running(producer) = &*self.producer.read().await {
            return Ok(Arc::clone(producer));
        }
        let mut state = self.producer.write().await;
        match &*state {
            State::Running(producer) => return Ok(Arc::clone(producer)),
            State::Closed => return Err(SinkError::Unavailable("the sink is closed".to_owned())),
            State::Idle => {}
        }
        let settings = ProducerSettings {
            name_server: self.config.name_server.clone(),
            group: self.config.producer_group.clone(),
            send_timeout: SEND,
        };
        match timeout(EXCHANGE, self.client.producer(&settings)).await {
            Ok(Ok(producer)) => {
                *state = State::Running(Arc::clone(&producer));
                Ok(producer)
            }
            Ok(Err(error)) => Err(self.unavailable(&describe(&error))),
            Err(_) => Err(self.unavailable("no answer")),
        }
    }

    fn unavailable(&self, reason: &str) -> SinkError {
        let servers = &self.config.name_server;
        SinkError::Unavailable(format!("RocketMQ at {servers}: {reason}"))
    }

    /// Sends what goes to one queue, in order and in batches.
    async fn send_to_queue<'a>(
        &self,
        producer: &dyn Producer,
        queue: &MessageQueue,
        parcels: &[Parcel<'a>],
        now_ms: u64,
    ) -> Results {
        let mut sending = Sending::new(now_ms);
        let mut batch: Vec<(Parcel<'a>, Message)> = Vec::new();
        let mut bytes = 0;
        for &parcel in parcels {
            let size = parcel.size();
            if batch.len() == BATCH_MESSAGES || (!batch.is_empty() && bytes + size > BATCH_BYTES) {
                let full = std::mem::take(&mut batch);
                self.send_batch(producer, queue, full, &mut sending).await;
                bytes = 0;
            }
            if let Some(message) = sending.prepare(parcel) {
                bytes += size;
                batch.push((parcel, message));
            }
        }
        self.send_batch(producer, queue, batch, &mut sending).await;
        sending.results
    }

    async fn send_batch<'a>(
        &self,
        producer: &dyn Producer,
        queue: &MessageQueue,
        batch: Vec<(Parcel<'a>, Message)>,
        sending: &mut Sending<'a>,
    ) {
        let (parcels, messages): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        if parcels.is_empty() {
            return;
        }
        let result = self.send(producer, queue, messages).await;
        if parcels.len() > 1 && matches!(result, Err(SinkError::Refused(_))) {
            // One of them is the reason; the others are not to wait for it.
            for parcel in parcels {
                if let Some(message) = sending.prepare(parcel) {
                    let result = self.send(producer, queue, vec![message]).await;
                    sending.finish(parcel, result);
                }
            }
        } else {
            for parcel in parcels {
                sending.finish(parcel, result.clone());
            }
        }
    }

    /// Sends messages to a queue at once.
    async fn send(
        &self,
        producer: &dyn Producer,
        queue: &MessageQueue,
        messages: Vec<Message>,
    ) -> Result<(), SinkError> {
        let permit = self.permits.acquire().await;
        let sent = producer.send(queue.clone(), messages, SEND);
        let result = timeout(SEND + Duration::from_secs(1), sent).await;
        drop(permit);
        match result {
            Ok(Ok(SendStatus::SendOk)) => Ok(()),
            Ok(Ok(status)) => Err(self.unavailable(&format!("stored with {status:?}"))),
            Ok(Err(error)) => Err(self.classify(&error)),
            Err(_) => Err(self.unavailable("no answer")),
        }
    }

    /// Only a message that no broker would take is refused. What an operator can mend keeps it
    /// waiting.
    fn classify(&self, error: &ClientError) -> SinkError {
        let reason = describe(error);
        let illegal = error.broker_response_code() == Some(MESSAGE_ILLEGAL)
            || error.descriptor() == ClientError::illegal_argument("").descriptor();
        match illegal {
            true => SinkError::Refused(reason),
            false => self.unavailable(&reason),
        }
    }

    /// Publishes rows of which no lane goes to more than one topic.
    async fn publish_wave(&self, parcels: Vec<Parcel<'_>>) -> Results {
        let all_fail = |parcels: &[Parcel<'_>], error: SinkError| -> Results {
            let fail = |parcel: &Parcel<'_>| (parcel.index, Err(error.clone()));
            parcels.iter().map(fail).collect()
        };
        let producer = match self.producer().await {
            Ok(producer) => producer,
            Err(error) => return all_fail(&parcels, error),
        };
        let mut by_topic: BTreeMap<&str, Vec<Parcel<'_>>> = BTreeMap::new();
        for parcel in parcels {
            by_topic.entry(parcel.topic).or_default().push(parcel);
        }
        let now_ms = SystemClock.now_ms();
        let turn = self.turn.fetch_add(1, Relaxed);
        let mut results = Results::new();
        let mut by_queue: HashMap<MessageQueue, Vec<Parcel<'_>>> = HashMap::new();
        let mut delayed = Vec::new();
        for (topic, parcels) in by_topic {
            let queues = match self.routes.queues(&*producer, topic).await {
                Ok(queues) => queues,
                Err(reason) => {
                    results.extend(all_fail(&parcels, self.unavailable(&reason)));
                    continue;
                }
            };
            for parcel in parcels {
                let queue = choose(&queues, parcel.row, turn);
                if parcel.row.due_ms > now_ms {
                    delayed.push((queue.clone(), parcel));
                } else {
                    by_queue.entry(queue.clone()).or_default().push(parcel);
                }
            }
        }
        let mut in_order: FuturesUnordered<_> = by_queue
            .iter()
            .map(|(queue, parcels)| self.send_to_queue(&*producer, queue, parcels, now_ms))
            .collect();
        while let Some(sent) = in_order.next().await {
            results.extend(sent);
        }
        let mut any_order: FuturesUnordered<_> = delayed
            .iter()
            .map(|(queue, parcel)| self.send_delayed(&*producer, queue, *parcel, now_ms))
            .collect();
        while let Some(sent) = any_order.next().await {
            results.push(sent);
        }
        results
    }

    async fn send_delayed(
        &self,
        producer: &dyn Producer,
        queue: &MessageQueue,
        parcel: Parcel<'_>,
        now_ms: u64,
    ) -> (usize, Result<(), SinkError>) {
        let result = match to_rocketmq(parcel.row, parcel.topic, now_ms) {
            Ok(message) => self.send(producer, queue, vec![message]).await,
            Err(error) => Err(error),
        };
        (parcel.index, result)
    }
}

/// What became of the rows for one queue so far.
struct Sending<'a> {
    now_ms: u64,
    results: Results,
    failed: HashSet<&'a OutboxLane>,
    /// Once the broker is gone, what is left is not tried.
    outage: Option<SinkError>,
}

impl<'a> Sending<'a> {
    fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            results: Results::new(),
            failed: HashSet::new(),
            outage: None,
        }
    }

    /// The message to send for a row, unless the row has failed with that.
    fn prepare(&mut self, parcel: Parcel<'a>) -> Option<Message> {
        let lane = parcel.row.lane.as_ref();
        let message = if lane.is_some_and(|lane| self.failed.contains(lane)) {
            Err(SinkError::Held)
        } else if let Some(outage) = &self.outage {
            Err(outage.clone())
        } else {
            to_rocketmq(parcel.row, parcel.topic, self.now_ms)
        };
        message
            .map_err(|error| self.finish(parcel, Err(error)))
            .ok()
    }

    fn finish(&mut self, parcel: Parcel<'a>, result: Result<(), SinkError>) {
        if let Err(error) = &result {
            self.failed.extend(&parcel.row.lane);
            if let SinkError::Unavailable(_) = error {
                self.outage = Some(error.clone());
            }
        }
        self.results.push((parcel.index, result));
    }
}

#[async_trait]
impl Sink for Publisher {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        let mut results: Vec<Result<(), SinkError>> = vec![Ok(()); rows.len()];
        let mut failed: HashSet<&OutboxLane> = HashSet::new();
        // A lane that goes to several topics goes to one after the other.
        let mut start = 0;
        while start < rows.len() {
            let mut topics: HashMap<&OutboxLane, &str> = HashMap::new();
            let mut wave = Vec::new();
            let mut end = start;
            for (index, row) in rows.iter().enumerate().skip(start) {
                let destination = &row.outgoing.destination;
                let topic = self.config.destinations.get(&**destination);
                let lane = row.lane.as_ref();
                if lane.is_some_and(|lane| failed.contains(lane)) {
                    results[index] = Err(SinkError::Held);
                } else if let Some(topic) = topic {
                    if let Some(lane) = lane
                        && *topics.entry(lane).or_insert(topic) != topic
                    {
                        break;
                    }
                    wave.push(Parcel { index, row, topic });
                } else {
                    failed.extend(lane);
                    results[index] = Err(SinkError::Unmapped(destination.to_string()));
                }
                end = index + 1;
            }
            for (index, result) in self.publish_wave(wave).await {
                if result.is_err() {
                    failed.extend(&rows[index].lane);
                }
                results[index] = result;
            }
            start = end;
        }
        results
    }

    fn delays(&self, row: &OutboxRow) -> bool {
        let max = u64::try_from(MAX_DELAY.as_millis()).unwrap_or(u64::MAX);
        row.due_ms <= SystemClock.now_ms().saturating_add(max)
    }

    async fn close(&self) {
        let before = std::mem::replace(&mut *self.producer.write().await, State::Closed);
        if let State::Running(producer) = before
            && timeout(EXCHANGE, producer.shutdown()).await.is_err()
        {
            tracing::debug!("the producer did not stop in time");
        }
    }
}
