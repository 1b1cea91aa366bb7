//! Messages for a handler under test.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::base64;

/// The timestamp of messages that are given none: 2026-01-01T00:00:00Z.
const TIMESTAMP_MS: u64 = 1_767_225_600_000;

/// A message for the handler under test, as a producer would send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    pub(super) id: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) keys: Vec<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) timestamp_ms: u64,
    pub(super) attempt: u32,
}

impl Incoming {
    /// A message with these bytes, to the handler's first topic, with an id of its own.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            id: None,
            topic: None,
            keys: Vec::new(),
            headers: Vec::new(),
            body: body.into(),
            timestamp_ms: TIMESTAMP_MS,
            attempt: 0,
        }
    }

    /// A message with a value as JSON.
    ///
    /// # Panics
    /// If the value has no JSON form.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Self {
        Self::new(serde_json::to_vec(value).expect("a test's message has a JSON form"))
    }

    /// A message from a line of the host's input format:
    /// `{"topic", "id"?, "key"?, "headers"?, "timestamp"?, "body"}`, where `body` is any JSON
    /// value, taken over as its bytes, or `{"base64": "…"}`. Timestamps are milliseconds here,
    /// where the host also takes text.
    ///
    /// # Errors
    /// If the line is something else.
    pub fn from_json_line(line: &str) -> Result<Self, LineError> {
        let line: Line =
            serde_json::from_str(line).map_err(|error| LineError(error.to_string()))?;
        let body = match serde_json::from_str::<Base64>(line.body.get()) {
            Ok(text) => base64::decode(&text.base64)
                .ok_or_else(|| LineError("the body is no base64".to_owned()))?,
            Err(_) => line.body.get().as_bytes().to_vec(),
        };
        Ok(Self {
            id: line.id,
            topic: Some(line.topic),
            keys: line.key.into_iter().collect(),
            headers: line.headers.map_or_else(Vec::new, |headers| headers.0),
            timestamp_ms: line.timestamp.unwrap_or(TIMESTAMP_MS),
            ..Self::new(body)
        })
    }

    /// Sets the broker's stable id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the topic.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Adds a key of the broker's (`keys` in a key expression).
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets when the broker first took it, in milliseconds since 1970-01-01 UTC.
    pub fn timestamp_ms(mut self, timestamp_ms: u64) -> Self {
        self.timestamp_ms = timestamp_ms;
        self
    }

    /// Sets how many times the handler failed on it before.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }
}

/// A line that holds no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError(String);

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a message in JSON Lines: {}", self.0)
    }
}

impl std::error::Error for LineError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    topic: String,
    id: Option<String>,
    key: Option<String>,
    headers: Option<Headers>,
    timestamp: Option<u64>,
    body: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

/// An object of strings, or of arrays of strings where a name repeats.
struct Headers(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            One(String),
            Several(Vec<String>),
        }

        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings or of arrays of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Headers, M::Error> {
                let mut headers = Vec::new();
                while let Some((name, values)) = map.next_entry::<String, Values>()? {
                    match values {
                        Values::One(value) => headers.push((name, value)),
                        Values::Several(values) => {
                            headers.extend(values.into_iter().map(|value| (name.clone(), value)));
                        }
                    }
                }
                Ok(Headers(headers))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_body_byte_for_byte() {
        let line = r#"{"topic":"t","id":"i","key":"k","headers":{"h":"v","a":["1","2"]},"timestamp":5,"body":{"a": 1.0}}"#;
        let expected = Incoming::new(r#"{"a": 1.0}"#)
            .id("i")
            .topic("t")
            .key("k")
            .header("h", "v")
            .header("a", "1")
            .header("a", "2")
            .timestamp_ms(5);
        assert_eq!(Incoming::from_json_line(line), Ok(expected));

        let line = r#"{"topic":"t","body":{"base64":"AAE="}}"#;
        assert_eq!(Incoming::from_json_line(line).unwrap().body, [0, 1]);
        assert!(Incoming::from_json_line(r#"{"topic":"t"}"#).is_err());
        assert!(Incoming::from_json_line(r#"{"topic":"t","body":{"base64":"!"}}"#).is_err());
    }
}
