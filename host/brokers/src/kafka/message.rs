//! How messages of Semel travel as records of Kafka.
//!
//! A record has what a message has: a key and a body of any bytes, and headers in order, whose
//! names may repeat. The message id is a header of its own, `semel-id`, before the others. What
//! other producers send may be no text:
//!
//! | of a record | in a message |
//! |---|---|
//! | key | the one key: as text, or in base64 where it is no text |
//! | header value | as text, or in base64 where it is no text; empty where it is null |
//! | null body (a tombstone) | an empty body |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rdkafka::message::{Header as SentHeader, Headers as _, OwnedHeaders};
use semel_core::{Header, Message, OutboxRow, SinkError};

const ID: &str = "semel-id";

/// The headers that a row is sent with.
pub(super) fn to_headers(row: &OutboxRow) -> Result<OwnedHeaders, SinkError> {
    let headers = &row.outgoing.headers;
    // Others read a name up to there.
    if let Some(header) = headers.iter().find(|header| header.name.contains('\0')) {
        return Err(SinkError::Refused(format!(
            "the name of the header {:?} contains a null character, which Kafka's clients can't read",
            header.name
        )));
    }
    let own = OwnedHeaders::new_with_capacity(headers.len() + 1).insert(SentHeader {
        key: ID,
        value: Some(row.message_id.as_str()),
    });
    Ok(headers.iter().fold(own, |all, header| {
        all.insert(SentHeader {
            key: &header.name,
            value: Some(header.value.as_str()),
        })
    }))
}

/// A record as it was received. `position` names it where it bears no id of its own.
pub(super) fn from_kafka(
    received: &impl rdkafka::Message,
    topic: Arc<str>,
    position: impl FnOnce() -> String,
) -> Result<Message, String> {
    let (id, headers) = match received.headers() {
        None => (None, Vec::new()),
        // The client panics where a name is not UTF-8.
        Some(_) => catch_unwind(AssertUnwindSafe(|| read_headers(received)))
            .map_err(|_| "the name of a header is not UTF-8".to_owned())?,
    };
    Ok(Message {
        id: id.unwrap_or_else(position),
        topic,
        keys: received.key().map(as_text).into_iter().collect(),
        headers,
        body: Bytes::copy_from_slice(received.payload().unwrap_or_default()),
        timestamp_ms: received
            .timestamp()
            .to_millis()
            .and_then(|millis| u64::try_from(millis).ok())
            .unwrap_or_default(),
    })
}

/// The id, which is the first header of its name, and the other headers.
fn read_headers(received: &impl rdkafka::Message) -> (Option<String>, Vec<Header>) {
    let mut id = None;
    let mut headers = Vec::new();
    for header in received.headers().into_iter().flat_map(|all| all.iter()) {
        let value = as_text(header.value.unwrap_or_default());
        if id.is_none() && header.key == ID && !value.is_empty() {
            id = Some(value);
        } else {
            headers.push(Header {
                name: header.key.to_owned(),
                value,
            });
        }
    }
    (id, headers)
}

fn as_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => STANDARD.encode(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::row;
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;

    fn received(key: Option<&[u8]>, body: Option<&[u8]>, headers: OwnedHeaders) -> Message {
        let record = OwnedMessage::new(
            body.map(<[u8]>::to_vec),
            key.map(<[u8]>::to_vec),
            "t".to_owned(),
            Timestamp::CreateTime(7),
            0,
            0,
            Some(headers),
        );
        from_kafka(&record, "t".into(), || "t/0:0".to_owned()).unwrap()
    }

    #[test]
    fn headers_come_out_as_they_went_in() {
        for headers in [
            &[][..],
            &[("b", "1"), ("a", ""), ("b", "2")],
            &[("semel-id", "theirs"), ("Ünïcode", "\u{1}\n")],
        ] {
            let row = row(None, headers, b"");
            let message = received(None, None, to_headers(&row).unwrap());
            assert_eq!(message.id, row.message_id.as_str());
            assert_eq!(message.headers, row.outgoing.headers);
        }
        let nul = to_headers(&row(None, &[("a\0b", "1")], b""));
        assert!(matches!(nul, Err(SinkError::Refused(_))));
    }

    #[test]
    fn what_is_no_text_comes_out_in_base64() {
        let headers = OwnedHeaders::new()
            .insert(SentHeader {
                key: "bytes",
                value: Some(&b"\xff"[..]),
            })
            .insert(SentHeader::<&[u8]> {
                key: "null",
                value: None,
            });
        let message = received(Some(b"\xff\0"), None, headers);
        assert_eq!(message.keys, [STANDARD.encode(b"\xff\0")]);
        let values: Vec<_> = message.headers.iter().map(|h| h.value.as_str()).collect();
        assert_eq!(values, ["/w==", ""]);
        assert_eq!(
            (
                message.id.as_str(),
                message.timestamp_ms,
                message.body.len()
            ),
            ("t/0:0", 7, 0)
        );
    }
}
