//! Where requests hand in messages and wait for what becomes of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use semel_core::{
    Delivery, Disposition, Fingerprint, Message, Partition, Payload, Position, Settlement,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use crate::lock::lock;

/// A plugin's desk: the queue of what it is to handle, and those who wait.
///
/// A message stays until it is settled, also if whoever handed it in no longer waits: the
/// engine has it, and the same request again must meet it.
#[derive(Debug)]
pub struct Desk {
    plugin: String,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    open: bool,
    /// Handed in and not received by the engine.
    queue: VecDeque<Delivery>,
    waiting: HashMap<Position, Waiter>,
    in_flight: HashSet<Call>,
    /// The offset of the next message of each partition.
    next: HashMap<Partition, u64>,
    /// When the engine last asked for messages.
    polled: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Disposition>,
    call: Option<Call>,
    _permit: OwnedSemaphorePermit,
}

/// What makes two requests that are under way at the same time the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    topic: Arc<str>,
    key: String,
    fingerprint: Fingerprint,
}

/// A message to be handled.
#[derive(Debug)]
pub struct Submission {
    /// Where its positions count.
    pub partition: Partition,
    /// The message. Without an id, its position becomes one.
    pub message: Message,
    /// Its idempotency key, if the same request must not be under way twice.
    pub exclusive: Option<String>,
    /// Its room among all that wait; given back when it is settled.
    pub permit: OwnedSemaphorePermit,
}

/// A message that was handed in.
#[derive(Debug)]
pub struct Submitted {
    /// Where.
    pub position: Position,
    /// What became of it; an error once the desk is closed.
    pub answer: oneshot::Receiver<Disposition>,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The same request is under way.
    InFlight,
    /// The desk is closed.
    Closed,
}

impl Desk {
    /// The desk of a plugin.
    pub fn new(plugin: &str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            state: Mutex::new(State {
                open: true,
                queue: VecDeque::new(),
                waiting: HashMap::new(),
                in_flight: HashSet::new(),
                next: HashMap::new(),
                polled: None,
            }),
            arrived: Notify::new(),
        }
    }

    /// Whose desk it is.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Hands in a message.
    pub fn submit(&self, submission: Submission) -> Result<Submitted, Refusal> {
        let Submission {
            partition,
            mut message,
            exclusive,
            permit,
        } = submission;
        let call = exclusive.map(|key| Call {
            topic: Arc::clone(&message.topic),
            key,
            fingerprint: Fingerprint::of(&message.body),
        });
        let mut state = self.state();
        if !state.open {
            return Err(Refusal::Closed);
        }
        if let Some(call) = &call
            && !state.in_flight.insert(call.clone())
        {
            return Err(Refusal::InFlight);
        }
        let next = state.next.entry(partition.clone()).or_default();
        *next += 1;
        let position = Position {
            partition,
            offset: *next,
        };
        if message.id.is_empty() {
            message.id = position.to_string();
        }
        let (sender, answer) = oneshot::channel();
        let waiter = Waiter {
            answer: sender,
            call,
            _permit: permit,
        };
        state.waiting.insert(position.clone(), waiter);
        state.queue.push_back(Delivery {
            position: position.clone(),
            payload: Payload::Message(Arc::new(message)),
        });
        drop(state);
        self.arrived.notify_one();
        Ok(Submitted { position, answer })
    }

    /// Up to `limit` messages in the order in which they were handed in, as soon as there is
    /// one; none after `patience`.
    pub async fn receive(&self, limit: usize, patience: Duration) -> Vec<Delivery> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            {
                let mut state = self.state();
                state.polled = Some(Instant::now());
                let count = limit.min(state.queue.len());
                if count > 0 {
                    return state.queue.drain(..count).collect();
                }
            }
            let arrived = tokio::time::timeout_at(deadline, self.arrived.notified());
            if arrived.await.is_err() {
                return Vec::new();
            }
        }
    }

    /// Tells those who wait what became of their messages.
    pub fn settle(&self, settlements: Vec<Settlement>) {
        let mut state = self.state();
        for Settlement {
            position,
            disposition,
        } in settlements
        {
            if let Some(waiter) = state.waiting.remove(&position) {
                if let Some(call) = &waiter.call {
                    state.in_flight.remove(call);
                }
                // Whoever waited may have left.
                let _ = waiter.answer.send(disposition);
            }
        }
    }

    /// Takes no more messages, and lets those who wait go without an answer.
    pub fn close(&self) {
        let mut state = self.state();
        state.open = false;
        state.queue.clear();
        state.waiting.clear();
        state.in_flight.clear();
    }

    /// Whether messages are taken and someone asked for them within this time.
    pub fn is_polled(&self, within: Duration) -> bool {
        let state = self.state();
        state.open && state.polled.is_some_and(|at| at.elapsed() <= within)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    const PATIENCE: Duration = Duration::from_millis(10);

    fn submission(key: &str, body: &str, exclusive: bool, room: &Arc<Semaphore>) -> Submission {
        Submission {
            partition: Partition::new("p"),
            message: Message {
                id: String::new(),
                topic: "orders".into(),
                keys: vec![],
                headers: vec![],
                body: body.to_owned().into(),
                timestamp_ms: 0,
            },
            exclusive: exclusive.then(|| key.to_owned()),
            permit: Arc::clone(room).try_acquire_owned().unwrap(),
        }
    }

    fn parked(position: &Position) -> Vec<Settlement> {
        vec![Settlement {
            position: position.clone(),
            disposition: Disposition::Parked,
        }]
    }

    #[tokio::test]
    async fn messages_are_received_in_order_with_ascending_offsets() {
        let (desk, room) = (Desk::new("p"), Arc::new(Semaphore::new(9)));
        let submit = |body| desk.submit(submission("", body, false, &room)).unwrap();
        let waiting = ["a", "b", "c"].map(submit);
        let first = desk.receive(2, PATIENCE).await;
        let offsets: Vec<u64> = first.iter().map(|d| d.position.offset).collect();
        assert_eq!(offsets, [1, 2]);
        let Payload::Message(message) = &first[0].payload else {
            panic!("it is a message")
        };
        assert_eq!((&message.body[..], message.id.as_str()), (&b"a"[..], "p:1"));
        assert_eq!(desk.receive(2, PATIENCE).await.len(), 1);
        assert!(desk.receive(2, PATIENCE).await.is_empty());
        assert_eq!(waiting[2].position.offset, 3);
    }

    #[tokio::test]
    async fn the_same_request_conflicts_until_it_is_settled_even_if_nobody_waits() {
        let (desk, room) = (Desk::new("p"), Arc::new(Semaphore::new(9)));
        let submit = |body| desk.submit(submission("k", body, true, &room));
        let Submitted { position, answer } = submit("a").unwrap();
        drop(answer);
        assert_eq!(submit("a").unwrap_err(), Refusal::InFlight);
        assert!(
            submit("another payload").is_ok(),
            "the engine tells these apart"
        );
        desk.settle(parked(&position));
        assert!(submit("a").is_ok());
    }

    #[tokio::test]
    async fn room_is_given_back_with_the_settlement_and_not_before() {
        let (desk, room) = (Desk::new("p"), Arc::new(Semaphore::new(1)));
        let Submitted { position, answer } =
            desk.submit(submission("k", "a", true, &room)).unwrap();
        desk.receive(1, PATIENCE).await;
        assert_eq!(room.available_permits(), 0);
        desk.settle(parked(&position));
        assert_eq!(room.available_permits(), 1);
        assert_eq!(answer.await, Ok(Disposition::Parked));
    }

    #[tokio::test]
    async fn a_closed_desk_lets_everyone_go() {
        let (desk, room) = (Desk::new("p"), Arc::new(Semaphore::new(1)));
        let waiting = desk.submit(submission("k", "a", true, &room)).unwrap();
        assert!(!desk.is_polled(Duration::from_secs(5)), "nobody has asked");
        desk.receive(1, PATIENCE).await;
        assert!(desk.is_polled(Duration::from_secs(5)));
        desk.close();
        assert!(waiting.answer.await.is_err());
        assert!(!desk.is_polled(Duration::from_secs(5)));
        let refused = desk.submit(submission("k", "a", true, &room));
        assert_eq!(refused.unwrap_err(), Refusal::Closed);
    }
}
