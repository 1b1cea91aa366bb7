//! A message as a line that `semel run --input` reads, or `semel run --output` writes.

use semel_core::{Cause, DeadLetter, Header, Message, OutboxRow};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::output;

/// What to print of a dead letter: its message as an input line, or, where the input was no
/// message, the text as it was found. An outgoing message is a line of output.
pub fn of_letter(letter: &DeadLetter) -> LetterLine<'_> {
    if let Some(row) = &letter.outgoing {
        LetterLine::Outgoing(OutputLine::from(&**row))
    } else if letter.cause == Cause::Malformed {
        let raw = output::text_or_base64(&letter.message.body);
        LetterLine::Malformed { malformed: raw }
    } else {
        LetterLine::Message(InputLine::from(&letter.message))
    }
}

/// One line of JSON.
#[derive(Serialize)]
#[serde(untagged)]
pub enum LetterLine<'m> {
    /// Can be sent again as it stands.
    Message(InputLine<'m>),
    /// Was to be published.
    Outgoing(OutputLine<'m>),
    /// Has to be made a message first.
    Malformed {
        /// The line.
        malformed: Box<RawValue>,
    },
}

/// `{"topic", "id", "key"?, "headers"?, "timestamp", "body"}`.
#[derive(Serialize)]
pub struct InputLine<'m> {
    topic: &'m str,
    id: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Headers::is_empty")]
    headers: Headers<'m>,
    timestamp: u64,
    body: Box<RawValue>,
}

impl<'m> From<&'m Message> for InputLine<'m> {
    fn from(message: &'m Message) -> Self {
        Self {
            topic: &message.topic,
            id: &message.id,
            key: (!message.keys.is_empty()).then(|| message.keys.join(" ")),
            headers: Headers(&message.headers),
            timestamp: message.timestamp_ms,
            body: body(&message.body),
        }
    }
}

/// `{"id", "destination", "key", "headers", "body"}`.
#[derive(Serialize)]
pub struct OutputLine<'m> {
    id: &'m str,
    destination: &'m str,
    key: Option<Box<RawValue>>,
    headers: Headers<'m>,
    body: Box<RawValue>,
}

impl<'m> From<&'m OutboxRow> for OutputLine<'m> {
    fn from(row: &'m OutboxRow) -> Self {
        let outgoing = &row.outgoing;
        Self {
            id: row.message_id.as_str(),
            destination: &outgoing.destination,
            key: outgoing.key.as_deref().map(output::text_or_base64),
            headers: Headers(&outgoing.headers),
            body: body(&outgoing.body),
        }
    }
}

/// A body that itself reads `{"base64": …}` has to be encoded, or it would be decoded.
fn body(bytes: &[u8]) -> Box<RawValue> {
    let json = output::json_of_bytes(bytes);
    let looks_encoded = serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(json.get())
        .is_ok_and(|map| map.len() == 1 && map.contains_key("base64"));
    if looks_encoded {
        output::base64_json(bytes)
    } else {
        json
    }
}

/// An object; a name that repeats has an array of its values.
struct Headers<'m>(&'m [Header]);

impl Headers<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (at, header) in self.0.iter().enumerate() {
            let same = |other: &&Header| other.name == header.name;
            if self.0[..at].iter().any(|other| same(&other)) {
                continue;
            }
            let values: Vec<&str> = self.0[at..]
                .iter()
                .filter(same)
                .map(|header| header.value.as_str())
                .collect();
            match values.as_slice() {
                [value] => map.serialize_entry(&header.name, value)?,
                values => map.serialize_entry(&header.name, values)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(body: &'static [u8], headers: &[(&str, &str)]) -> String {
        let message = Message {
            id: "m-1".into(),
            topic: "orders".into(),
            keys: vec!["k".into()],
            headers: headers
                .iter()
                .map(|(name, value)| Header {
                    name: (*name).into(),
                    value: (*value).into(),
                })
                .collect(),
            body: bytes::Bytes::from_static(body),
            timestamp_ms: 5,
        };
        serde_json::to_string(&InputLine::from(&message)).unwrap()
    }

    #[test]
    fn a_message_is_a_line_of_input() {
        assert_eq!(
            line(b"{\"a\": 1.0}", &[("x", "1"), ("y", "2"), ("x", "3")]),
            r#"{"topic":"orders","id":"m-1","key":"k","headers":{"x":["1","3"],"y":"2"},"timestamp":5,"body":{"a": 1.0}}"#
        );
    }

    #[test]
    fn bodies_that_are_no_json_or_look_encoded_are_encoded() {
        assert!(line(b"hello", &[]).ends_with(r#""body":{"base64":"aGVsbG8="}}"#));
        let twice = line(br#"{"base64":"YQ=="}"#, &[]);
        assert!(
            twice.ends_with(r#""body":{"base64":"eyJiYXNlNjQiOiJZUT09In0="}}"#),
            "{twice}"
        );
    }
}
