//! What there is to say of a broker and its queues. They are declared passively, which changes
//! nothing.

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ExchangeKind, Queue};
use semel_core::Finding;
use tokio::time::timeout;

use super::errors::is_missing;
use super::link::{EXCHANGE, channel, close, connect};
use super::url::{RabbitMqDestination, RabbitMqUrl};
use crate::causes::describe;
use crate::survey::Survey;

/// Looks at a broker, at queues that plugins consume, and at where the relay publishes to.
pub async fn examine_rabbitmq(
    url: &RabbitMqUrl,
    queues: &[String],
    destinations: &[RabbitMqDestination],
) -> Survey {
    let connection = match connect(url, "semel doctor").await {
        Ok(connection) => connection,
        Err(reason) => return Survey::unreachable(reason),
    };
    let mut findings = vec![match connection.status().blocked() {
        false => Finding::good("broker", "it answers, and lets this user in"),
        true => Finding::warning("broker", "it lets nobody publish: memory or disk run short")
            .advise("see to its alarms with `rabbitmq-diagnostics alarms`"),
    }];
    findings.push(Finding::unchecked(
        "clock",
        "RabbitMQ does not tell its time",
    ));
    for queue in queues {
        let subject = format!("queue {queue}");
        findings.push(match look(&connection, queue).await {
            Ok(Ok(found)) => Finding::good(subject, state(&found)),
            Ok(Err(error)) if is_missing(&error) && url.declare.is_some() => Finding::note(
                subject,
                "it does not exist: the next host declares it, as `declare` in the URL says",
            ),
            Ok(Err(error)) => {
                refused(subject, &error).advise("create it, or add `declare=quorum` to the URL")
            }
            Err(reason) => Finding::failure(subject, reason),
        });
    }
    for RabbitMqDestination {
        exchange,
        routing_key,
    } in destinations
    {
        findings.push(match exchange.as_str() {
            "" => {
                let subject = format!("queue {routing_key}");
                match look(&connection, routing_key).await {
                    Ok(Ok(found)) => Finding::good(subject, state(&found)),
                    Ok(Err(error)) => refused(subject, &error).advise("create it"),
                    Err(reason) => Finding::failure(subject, reason),
                }
            }
            exchange => {
                let subject = format!("exchange {exchange}");
                match look_at_exchange(&connection, exchange).await {
                    Ok(Ok(())) => Finding::good(
                        subject,
                        format!("it exists; whether a queue is bound with the routing key `{routing_key}` shows when something is published"),
                    ),
                    Ok(Err(error)) => refused(subject, &error).advise("declare it"),
                    Err(reason) => Finding::failure(subject, reason),
                }
            }
        });
    }
    if !queues.is_empty() {
        findings.push(
            Finding::unchecked(
                "kinds of queues",
                "AMQP does not tell whether a queue is durable or a quorum queue, nor its policies",
            )
            .advise(format!(
                "type `rabbitmqctl list_queues --vhost {} name type durable arguments policy`: \
                 durable quorum queues lose nothing that have no limit on deliveries, which is \
                 -1 on RabbitMQ 4 and none set on older versions (where -1 drops whatever is \
                 delivered again)",
                url.vhost
            )),
        );
    }
    close(&connection).await;
    Survey {
        findings,
        ..Survey::default()
    }
}

fn state(queue: &Queue) -> String {
    let (messages, consumers) = (queue.message_count(), queue.consumer_count());
    format!("it exists; messages that are ready: {messages}, consumers: {consumers}")
}

fn refused(subject: String, error: &lapin::Error) -> Finding {
    match is_missing(error) {
        true => Finding::failure(subject, "it does not exist"),
        false => Finding::failure(subject, describe(error)),
    }
}

/// On a channel of its own, which an error ends.
async fn look(connection: &Connection, queue: &str) -> Result<lapin::Result<Queue>, String> {
    let channel = channel(connection).await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default());
    let answer = timeout(EXCHANGE, declared).await;
    answer.map_err(|_| "no answer".to_owned())
}

/// The same for an exchange.
async fn look_at_exchange(
    connection: &Connection,
    exchange: &str,
) -> Result<lapin::Result<()>, String> {
    let channel = channel(connection).await?;
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let (kind, arguments) = (ExchangeKind::default(), FieldTable::default());
    let declared = channel.exchange_declare(exchange.into(), kind, passive, arguments);
    let answer = timeout(EXCHANGE, declared).await;
    answer.map_err(|_| "no answer".to_owned())
}
