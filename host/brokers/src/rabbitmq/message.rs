//! How messages of Semel travel as messages of AMQP.
//!
//! AMQP's headers are a map, without order or repetition, of short names to values of many
//! types, and it has no record key. What does not fit travels in headers of its own:
//!
//! | | what |
//! |---|---|
//! | property `message-id` | the message id; it becomes the `id` at the other end |
//! | header `semel-key` | the record key; it becomes the one key |
//! | header `semel-headers` | all headers as JSON, where they are no plain map |
//!
//! Headers that fit are plain headers of type text, so that consumers other than Semel see them.
//! What other producers send is read like this:
//!
//! | of a message | in Semel's |
//! |---|---|
//! | `message-id` | the `id`; without one the id is empty, and an empty key is refused |
//! | header of text | as text, or in base64 where it is no text |
//! | header of another type | as JSON writes it |
//! | properties `type`, `correlation-id`, `content-type`, `content-encoding`, `reply-to`, `app-id` | headers `amqp:type` … |
//! | routing key, unless it came by the default exchange | header `amqp:routing-key` |
//! | `timestamp`, or the header `timestamp_in_ms` | the time; without one, that of receipt |

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use semel_core::{Clock, Header, Message, OutboxRow, SinkError, SystemClock};
use serde_json::Value;

const KEY: &str = "semel-key";
const HEADERS: &str = "semel-headers";
const OWN_PREFIX: &str = "semel-";
const PROPERTY_PREFIX: &str = "amqp:";
const TIMESTAMP: &str = "timestamp_in_ms";

/// How often the broker has tried before. It differs from delivery to delivery, so handlers
/// don't see it.
const DELIVERY_COUNT: &str = "x-delivery-count";

const PERSISTENT: u8 = 2;

/// What the other properties and the frame itself take, in bytes, with room to spare.
const OVERHEAD: usize = 1024;

/// The properties that a row is sent with. They must fit into one frame.
pub(super) fn to_properties(
    row: &OutboxRow,
    frame_max: u32,
    now_ms: u64,
) -> Result<BasicProperties, SinkError> {
    let refused = |reason: String| Err(SinkError::Refused(reason));
    let outgoing = &row.outgoing;
    let Ok(id) = ShortString::try_new(row.message_id.as_str()) else {
        return refused("the message id has more than 255 bytes".to_owned());
    };
    let mut table = FieldTable::default();
    let mut size = 0;
    let mut add = |name: &str, value: &[u8]| {
        if let Ok(name) = ShortString::try_new(name) {
            size += name.as_str().len() + value.len() + 8;
            table.insert(name, AMQPValue::LongString(value.to_vec().into()));
        }
    };
    for header in outgoing.headers.iter().filter(|header| fits(header)) {
        add(&header.name, header.value.as_bytes());
    }
    if !is_plain(&outgoing.headers) {
        let headers = outgoing.headers.iter();
        let pairs: Vec<_> = headers.map(|h| (&h.name, &h.value)).collect();
        let json = serde_json::to_vec(&pairs).expect("pairs of strings are valid JSON");
        add(HEADERS, &json);
    }
    if let Some(key) = &outgoing.key {
        add(KEY, key);
    }
    let room = match usize::try_from(frame_max).unwrap_or(usize::MAX) {
        0 => usize::MAX,
        frame => frame.saturating_sub(OVERHEAD),
    };
    if size > room {
        return refused(format!(
            "headers and key take {size} bytes, the broker's `frame_max` leaves {room}"
        ));
    }
    Ok(BasicProperties::default()
        .with_message_id(id)
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now_ms / 1000)
        .with_headers(table))
}

/// How often the broker has delivered a message before, where it counts.
pub(super) fn delivery_count(received: &Delivery) -> u64 {
    let table = received.properties.headers().as_ref();
    let count = table.and_then(|table| table.inner().get(DELIVERY_COUNT));
    count.and_then(|count| json(count).as_u64()).unwrap_or(0)
}

/// A message as it was received, with its body, which was taken from it.
pub(super) fn from_rabbitmq(
    received: &Delivery,
    body: Bytes,
    topic: Arc<str>,
) -> Result<Message, String> {
    let properties = &received.properties;
    let empty = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&empty).inner();
    let keys = table.get(KEY).map(text);
    let headers = match table.get(HEADERS) {
        Some(listed) => serde_json::from_str::<Vec<(String, String)>>(&text(listed))
            .map_err(|error| format!("the header {HEADERS} is no list of headers: {error}"))?
            .into_iter()
            .map(|(name, value)| Header { name, value })
            .collect(),
        None => {
            let sent = table
                .iter()
                .filter(|(name, _)| !is_taken(name.as_str()))
                .map(|(name, value)| Header {
                    name: name.to_string(),
                    value: text(value),
                });
            sent.chain(of_properties(received)).collect()
        }
    };
    let sent_ms = table.get(TIMESTAMP).and_then(|time| json(time).as_u64());
    let sent_ms = sent_ms.or_else(|| properties.timestamp().map(|time| time.saturating_mul(1000)));
    let id = properties.message_id().as_ref();
    Ok(Message {
        id: id.map(ToString::to_string).unwrap_or_default(),
        topic,
        keys: keys.into_iter().collect(),
        headers,
        timestamp_ms: sent_ms.unwrap_or_else(|| SystemClock.now_ms()),
        body,
    })
}

fn of_properties(received: &Delivery) -> impl Iterator<Item = Header> {
    let properties = &received.properties;
    let routing_key =
        (!received.exchange.as_str().is_empty()).then(|| received.routing_key.clone());
    [
        ("type", properties.kind().clone()),
        ("correlation-id", properties.correlation_id().clone()),
        ("content-type", properties.content_type().clone()),
        ("content-encoding", properties.content_encoding().clone()),
        ("reply-to", properties.reply_to().clone()),
        ("app-id", properties.app_id().clone()),
        ("routing-key", routing_key),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        Some(Header {
            name: format!("{PROPERTY_PREFIX}{name}"),
            value: value?.to_string(),
        })
    })
}

/// Whether a name is the broker's or this module's.
fn is_taken(name: &str) -> bool {
    // The broker routes copies to what CC and BCC say.
    name.starts_with(OWN_PREFIX)
        || name.starts_with(PROPERTY_PREFIX)
        || matches!(name, DELIVERY_COUNT | "CC" | "BCC")
}

fn fits(header: &Header) -> bool {
    (1..=255).contains(&header.name.len()) && !is_taken(&header.name)
}

/// Whether headers come out of a map as they went in.
fn is_plain(headers: &[Header]) -> bool {
    headers.iter().all(fits) && headers.windows(2).all(|pair| pair[0].name < pair[1].name)
}

fn text(value: &AMQPValue) -> String {
    match json(value) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn json(value: &AMQPValue) -> Value {
    let bytes = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => Value::from(STANDARD.encode(bytes)),
    };
    match value {
        AMQPValue::Boolean(value) => Value::from(*value),
        AMQPValue::ShortShortInt(value) => Value::from(*value),
        AMQPValue::ShortShortUInt(value) => Value::from(*value),
        AMQPValue::ShortInt(value) => Value::from(*value),
        AMQPValue::ShortUInt(value) => Value::from(*value),
        AMQPValue::LongInt(value) => Value::from(*value),
        AMQPValue::LongUInt(value) => Value::from(*value),
        AMQPValue::LongLongInt(value) => Value::from(*value),
        AMQPValue::Float(value) => Value::from(*value),
        AMQPValue::Double(value) => Value::from(*value),
        AMQPValue::DecimalValue(value) => {
            Value::from(f64::from(value.value) / 10_f64.powi(i32::from(value.scale)))
        }
        AMQPValue::ShortString(value) => Value::from(value.as_str()),
        AMQPValue::LongString(value) => bytes(value.as_bytes()),
        AMQPValue::ByteArray(value) => bytes(value.as_slice()),
        AMQPValue::Timestamp(value) => Value::from(*value),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => {
            let members = table.inner().iter();
            members
                .map(|(name, value)| (name.to_string(), json(value)))
                .collect()
        }
        AMQPValue::Void => Value::Null,
    }
}
