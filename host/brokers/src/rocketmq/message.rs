//! How messages of Semel travel as messages of RocketMQ.
//!
//! Properties of RocketMQ are a map of non-empty texts without order, some of whose names are
//! taken, and its bodies are never empty. What does not fit travels in properties of its own:
//!
//! | property | what |
//! |---|---|
//! | `SEMEL_ID` | the message id; it becomes the `id` at the other end |
//! | `SEMEL_KEY`, `SEMEL_KEY_BASE64` | the record key, as text or in base64; it becomes the one key |
//! | `SEMEL_HEADERS` | all headers as JSON, where they are no plain map |
//! | `SEMEL_EMPTY` | the body is empty; RocketMQ carries one byte |
//! | `SEMEL_RUN` | of a transactional message: the run that its fate hangs on, in hexadecimal |
//! | `SEMEL_PLUGIN`, `SEMEL_RECORD` | the plugin and, in base64, the business key of that run |
//!
//! Headers that fit are plain properties, so that consumers other than Semel see them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use semel_core::{
    BusinessKey, Header, Message, MessageId, OutboxRow, PluginName, RecordId, Run, RunId, SinkError,
};
use semel_rocketmq_client::{
    Message as Sent, MessageBuilder, MessageExt, TAKEN_PROPERTIES as TAKEN_NAMES,
};
use std::sync::Arc;

const ID: &str = "SEMEL_ID";
const KEY: &str = "SEMEL_KEY";
const KEY_BASE64: &str = "SEMEL_KEY_BASE64";
const HEADERS: &str = "SEMEL_HEADERS";
const EMPTY: &str = "SEMEL_EMPTY";
const RUN: &str = "SEMEL_RUN";
const PLUGIN: &str = "SEMEL_PLUGIN";
const RECORD: &str = "SEMEL_RECORD";
const OWN_PREFIX: &str = "SEMEL_";

/// What the broker accepts of properties, in bytes.
const MAX_PROPERTIES: usize = 32_767;

/// A row as it is sent. `now_ms` decides whether the broker is to delay it.
pub(super) fn to_rocketmq(row: &OutboxRow, topic: &str, now_ms: u64) -> Result<Sent, SinkError> {
    build(row, topic, now_ms, BTreeMap::new())
}

/// A row as it is sent before its run is committed.
pub(super) fn to_half(row: &OutboxRow, topic: &str, run: &Run) -> Result<Sent, SinkError> {
    let origin = [
        (RUN, run.id.to_string()),
        (PLUGIN, run.record.plugin.to_string()),
        (RECORD, STANDARD.encode(run.record.key.as_bytes())),
    ];
    let origin = origin.map(|(name, value)| (name.to_owned(), value));
    build(row, topic, row.due_ms, BTreeMap::from(origin))
}

/// The run that the fate of a half message hangs on, if it bears one.
pub(super) fn run_of(half: &MessageExt) -> Option<(RecordId, RunId)> {
    let get = |name: &str| half.properties().get(name).map(|value| value.as_str());
    let run = u128::from_str_radix(get(RUN)?, 16).ok()?;
    let record = RecordId {
        plugin: PluginName::new(get(PLUGIN)?),
        key: BusinessKey::new(STANDARD.decode(get(RECORD)?).ok()?),
    };
    Some((record, RunId::from_bytes(run.to_be_bytes())))
}

/// Whether it is the message with this id, and not one that only has it among its keys.
pub(super) fn has_id(received: &MessageExt, id: &MessageId) -> bool {
    let found = received.properties().get(ID);
    found.is_some_and(|found| found.as_str() == id.as_str())
}

fn build(
    row: &OutboxRow,
    topic: &str,
    now_ms: u64,
    mut properties: BTreeMap<String, String>,
) -> Result<Sent, SinkError> {
    let outgoing = &row.outgoing;
    let id = row.message_id.as_str();
    let mut keys = vec![id.to_owned()];
    properties.insert(ID.to_owned(), id.to_owned());

    match outgoing.key.as_deref().map(|key| (key, as_text(key))) {
        None => {}
        Some((_, Some(text))) => {
            if !text.contains(char::is_whitespace) {
                keys.push(text.to_owned());
            }
            properties.insert(KEY.to_owned(), text.to_owned());
        }
        Some((key, None)) => {
            properties.insert(KEY_BASE64.to_owned(), format!("={}", STANDARD.encode(key)));
        }
    }
    for header in outgoing.headers.iter().filter(|header| fits(header)) {
        properties.insert(header.name.clone(), header.value.clone());
    }
    if !is_plain(&outgoing.headers) {
        let pairs: Vec<_> = outgoing
            .headers
            .iter()
            .map(|h| (&h.name, &h.value))
            .collect();
        let json = serde_json::to_string(&pairs).expect("pairs of strings are valid JSON");
        properties.insert(HEADERS.to_owned(), json);
    }
    let body = if outgoing.body.is_empty() {
        properties.insert(EMPTY.to_owned(), "1".to_owned());
        Bytes::from_static(b" ")
    } else {
        outgoing.body.clone()
    };

    let size: usize = properties.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
    // The client and the broker add some of their own.
    if size + 1024 > MAX_PROPERTIES {
        return Err(SinkError::Refused(format!(
            "headers and key take {size} bytes, RocketMQ carries {MAX_PROPERTIES}"
        )));
    }
    let mut builder = MessageBuilder::new().topic(topic).body(body).keys(keys);
    if row.due_ms > now_ms {
        builder = builder.deliver_time_ms(row.due_ms);
    }
    for (name, value) in properties {
        builder = builder
            .raw_property(name, value)
            .map_err(|error| SinkError::Refused(error.to_string()))?;
    }
    builder
        .build()
        .map_err(|error| SinkError::Refused(error.to_string()))
}

/// A message as it was received. `position` names it where it bears no id of its own.
pub(super) fn from_rocketmq(
    received: &MessageExt,
    topic: Arc<str>,
    position: impl FnOnce() -> String,
) -> Result<Message, String> {
    let properties = received.properties();
    let get = |name: &str| properties.get(name).map(|value| value.as_str());

    let id = match get(ID).or_else(|| get("UNIQ_KEY")) {
        Some(id) => id.to_owned(),
        None => position(),
    };
    let keys = match (get(KEY), get(KEY_BASE64)) {
        (Some(key), _) => vec![key.to_owned()],
        // A key that is no text has none of its kind in a message.
        (None, Some(encoded)) => vec![encoded.trim_start_matches('=').to_owned()],
        (None, None) => match (get("KEYS"), get(ID)) {
            // It is the id, which stands in its own place.
            (_, Some(_)) | (None, None) => Vec::new(),
            (Some(keys), None) => keys.split_whitespace().map(str::to_owned).collect(),
        },
    };
    let headers = match get(HEADERS) {
        Some(json) => serde_json::from_str::<Vec<(String, String)>>(json)
            .map_err(|error| format!("the property {HEADERS} is no list of headers: {error}"))?
            .into_iter()
            .map(|(name, value)| Header { name, value })
            .collect(),
        None => {
            let mut headers: Vec<Header> = properties
                .iter()
                .filter(|(name, _)| !is_taken(name.as_str()))
                .map(|(name, value)| Header {
                    name: name.to_string(),
                    value: value.to_string(),
                })
                .collect();
            headers.sort_by(|a, b| a.name.cmp(&b.name));
            headers
        }
    };
    let body = match get(EMPTY) {
        Some(_) => Bytes::new(),
        None => received.body().unwrap_or_default(),
    };
    Ok(Message {
        id,
        topic,
        keys,
        headers,
        body,
        timestamp_ms: u64::try_from(received.store_timestamp()).unwrap_or_default(),
    })
}

/// Whether a name is the client's, the broker's or this module's.
fn is_taken(name: &str) -> bool {
    TAKEN_NAMES.contains(name)
        || name.starts_with(OWN_PREFIX)
        || name.starts_with("__")
        || matches!(
            name,
            "TRACE_CONTEXT" | "TRANSACTION_CHECK_TIMES" | "INNER_NUM" | "INNER_BASE"
        )
}

/// Text that RocketMQ's encoding of properties can carry.
fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty() && !text.contains(['\u{1}', '\u{2}', '\0']))
}

fn fits(header: &Header) -> bool {
    let texts = [&header.name, &header.value];
    texts.iter().all(|text| as_text(text.as_bytes()).is_some()) && !is_taken(&header.name)
}

/// Whether headers come out of a map of properties as they went in.
fn is_plain(headers: &[Header]) -> bool {
    headers.iter().all(fits) && headers.windows(2).all(|pair| pair[0].name < pair[1].name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::row;
    use semel_core::{Effects, Expected, Fingerprint, Partition, Position, Verdict};

    fn through(row: &OutboxRow) -> Message {
        let mut received = MessageExt::default();
        received.set_message_inner(to_rocketmq(row, "t", 0).unwrap());
        from_rocketmq(&received, "t".into(), || unreachable!("it has an id")).unwrap()
    }

    #[test]
    fn id_key_headers_and_body_come_out_as_they_went_in() {
        let headers: [&[(&str, &str)]; 5] = [
            &[],
            &[("a", "1"), ("b", "2")],
            &[("b", "1"), ("a", "2"), ("b", "3")],
            &[("empty", ""), ("separators", "\u{1}\u{2}")],
            &[("KEYS", "x"), ("SEMEL_ID", "y")],
        ];
        for headers in headers {
            for body in [&b""[..], b" ", b"{}", b"\0\xff"] {
                let row = row(Some(b"key 1"), headers, body);
                let message = through(&row);
                assert_eq!(message.id, row.message_id.as_str());
                assert_eq!(message.keys, ["key 1"]);
                assert_eq!(message.headers, row.outgoing.headers);
                assert_eq!(message.body, row.outgoing.body);
            }
        }
    }

    #[test]
    fn a_key_that_is_no_text_comes_out_in_base64() {
        assert_eq!(through(&row(Some(b"\xff"), &[], b"1")).keys, ["/w=="]);
        assert_eq!(through(&row(Some(b""), &[], b"1")).keys, [""]);
        assert!(through(&row(None, &[], b"1")).keys.is_empty());
    }

    #[test]
    fn others_see_the_headers_and_can_look_up_id_and_key() {
        let row = row(Some(b"k1"), &[("b", "1"), ("a", "2")], b"1");
        let sent = to_rocketmq(&row, "t", 0).unwrap();
        let property = |name: &str| sent.property(name).unwrap().to_string();
        assert_eq!(property("KEYS"), format!("{} k1", row.message_id.as_str()));
        assert_eq!((property("a"), property("b")), ("2".into(), "1".into()));
    }

    #[test]
    fn a_half_message_says_whose_it_is_and_consumers_do_not_see_it() {
        let record = RecordId {
            plugin: PluginName::new("p"),
            key: BusinessKey::new(&b"\0\x01\xff"[..]),
        };
        let run = Run {
            id: RunId::new(u64::MAX, 7),
            record: record.clone(),
            fingerprint: Fingerprint::of(b"1"),
            position: Position {
                partition: Partition::new("q"),
                offset: 0,
            },
            lane: None,
            expected: Expected::Absent,
            bucket: 0,
            reads: vec![],
            ended_ms: 0,
            verdict: Verdict::Done(Effects::default()),
        };
        let row = row(Some(b"k1"), &[("a", "1")], b"1");
        let mut half = MessageExt::default();
        half.set_message_inner(to_half(&row, "t", &run).unwrap());
        assert_eq!(run_of(&half), Some((record, run.id)));
        assert!(has_id(&half, &row.message_id));
        let seen = from_rocketmq(&half, "t".into(), String::new).unwrap();
        assert_eq!(seen, through(&row));

        let mut plain = MessageExt::default();
        plain.set_message_inner(to_rocketmq(&row, "t", 0).unwrap());
        assert_eq!(run_of(&plain), None);
    }

    #[test]
    fn a_message_that_only_names_another_is_not_the_other() {
        let other = row(None, &[], b"1");
        let mut naming = row(None, &[], b"1");
        naming.outgoing.key = Some(Bytes::from(other.message_id.as_str().to_owned()));
        naming.message_id = MessageId::derive(
            &RecordId {
                plugin: PluginName::new("p"),
                key: BusinessKey::new("another"),
            },
            0,
        );
        let mut found = MessageExt::default();
        found.set_message_inner(to_rocketmq(&naming, "t", 0).unwrap());
        assert!(has_id(&found, &naming.message_id) && !has_id(&found, &other.message_id));
    }

    #[test]
    fn what_others_sent_is_read_too() {
        let sent = MessageBuilder::new()
            .topic("t")
            .body_slice(b"1")
            .keys(vec!["k1".into(), "k2".into()])
            .tags("tag")
            .raw_property("h", "v")
            .unwrap()
            .build_unchecked();
        let mut received = MessageExt::default();
        received.set_message_inner(sent);
        received.set_store_timestamp(7);
        let message = from_rocketmq(&received, "t".into(), || "position".into()).unwrap();
        assert_eq!(message.id, "position");
        assert_eq!(message.keys, ["k1", "k2"]);
        assert_eq!(message.headers.len(), 1);
        assert_eq!(message.timestamp_ms, 7);
    }

    #[test]
    fn only_what_is_not_due_is_delayed() {
        let mut row = row(None, &[], b"1");
        row.due_ms = 1000;
        let delayed = |now| {
            let sent = to_rocketmq(&row, "t", now).unwrap();
            sent.property("TIMER_DELIVER_MS").is_some()
        };
        assert!(delayed(999) && !delayed(1000));
    }

    #[test]
    fn properties_that_are_too_large_are_refused() {
        let long = "x".repeat(MAX_PROPERTIES);
        let row = row(None, &[("h", &long)], b"1");
        let error = to_rocketmq(&row, "t", 0).unwrap_err();
        assert!(matches!(error, SinkError::Refused(_)));
    }
}
