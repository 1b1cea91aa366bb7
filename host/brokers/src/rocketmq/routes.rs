use std::collections::HashMap;
use std::time::{Duration, Instant};

use semel_core::OutboxRow;
use semel_rocketmq_client::{MessageQueue, Producer};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::errors::describe;

/// How long looking up a route may take.
const LOOK_UP: Duration = Duration::from_secs(10);

/// How long a topic's list of queues is used before it is asked for again.
const AGE: Duration = Duration::from_secs(30);

/// The queues of topics.
#[derive(Default)]
pub(super) struct Routes {
    known: Mutex<HashMap<String, Route>>,
}

struct Route {
    queues: Vec<MessageQueue>,
    since: Instant,
}

impl Routes {
    /// A topic's queues, at least one, always in the same order. An error says why there are
    /// none.
    pub(super) async fn queues(
        &self,
        producer: &dyn Producer,
        topic: &str,
    ) -> Result<Vec<MessageQueue>, String> {
        let mut known = self.known.lock().await;
        if let Some(route) = known.get(topic)
            && route.since.elapsed() < AGE
        {
            return Ok(route.queues.clone());
        }
        let reason = match timeout(LOOK_UP, producer.queues(topic)).await {
            Ok(Ok(mut queues)) if !queues.is_empty() => {
                queues.sort_by_cached_key(|queue| {
                    (queue.broker_name().as_str().to_owned(), queue.queue_id())
                });
                let route = Route {
                    queues: queues.clone(),
                    since: Instant::now(),
                };
                known.insert(topic.to_owned(), route);
                return Ok(queues);
            }
            Ok(Ok(_)) => "it has no queue to write to".to_owned(),
            Ok(Err(error)) => describe(&error),
            Err(_) => "no answer".to_owned(),
        };
        Err(format!(
            "no route to the topic `{topic}` (create it with `mqadmin updateTopic`): {reason}"
        ))
    }
}

/// The queue of a row: for a lane the same as long as the topic has the same queues, else the
/// one whose `turn` it is.
pub(super) fn choose<'a>(
    queues: &'a [MessageQueue],
    row: &OutboxRow,
    turn: usize,
) -> &'a MessageQueue {
    let number = match &row.lane {
        Some(lane) => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(lane.plugin.as_str().len() as u64).to_be_bytes());
            hasher.update(lane.plugin.as_str().as_bytes());
            hasher.update(lane.lane.as_bytes());
            let mut first = [0; 8];
            first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
            u64::from_be_bytes(first)
        }
        None => turn as u64,
    };
    &queues[(number % queues.len() as u64) as usize]
}
