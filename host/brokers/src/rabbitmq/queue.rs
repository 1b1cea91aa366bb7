use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::time::timeout;

use super::errors::is_missing;
use super::link::{EXCHANGE, channel};
use crate::causes::describe;

/// How often a message may be delivered. RabbitMQ 4 drops it after 20 times unless told
/// otherwise. To that version, -1 means that there is no limit; to older ones, which have none
/// unless told, it means to drop whatever is delivered again.
const NO_LIMIT: i32 = i32::MAX;

/// What a queue that is missing is declared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RabbitMqQueueKind {
    /// A quorum queue without a limit on deliveries.
    Quorum,
    /// The same with a single active consumer, which keeps lanes in order across hosts.
    QuorumSingle,
}

/// A channel on a connection where the queue is there, or is declared if it may be.
pub(super) async fn open(
    connection: &Connection,
    queue: &str,
    declare: Option<RabbitMqQueueKind>,
) -> Result<Channel, String> {
    let name = ShortString::try_new(queue)
        .map_err(|_| format!("the queue's name `{queue}` has more than 255 bytes"))?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let missing = match attempt(connection, &name, passive, FieldTable::default()).await? {
        Ok(channel) => return Ok(channel),
        Err(error) if is_missing(&error) => error,
        Err(error) => return Err(format!("queue `{queue}`: {}", describe(&error))),
    };
    let Some(kind) = declare else {
        return Err(format!(
            "queue `{queue}`: {} (create it, or add `declare=quorum` to the URL)",
            describe(&missing)
        ));
    };
    let declared = attempt(connection, &name, durable(), arguments(kind)).await?;
    declared.map_err(|error| format!("queue `{queue}`: {}", describe(&error)))
}

/// Declares on a channel of its own, which an error ends.
async fn attempt(
    connection: &Connection,
    queue: &ShortString,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<Result<Channel, lapin::Error>, String> {
    let channel = channel(connection).await?;
    let declared = channel.queue_declare(queue.clone(), options, arguments);
    match timeout(EXCHANGE, declared).await {
        Ok(Ok(_)) => Ok(Ok(channel)),
        Ok(Err(error)) => Ok(Err(error)),
        Err(_) => Err("no answer".to_owned()),
    }
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    }
}

fn arguments(kind: RabbitMqQueueKind) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    if kind == RabbitMqQueueKind::QuorumSingle {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(NO_LIMIT));
    arguments
}
