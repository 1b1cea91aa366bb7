//! One line of input.

use std::borrow::Cow;
use std::fmt;

use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use bytes::Bytes;
use semel_core::Header;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::timestamp::parse_rfc3339;

/// Standard base64 whose padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A line as it is written. What is absent may also be null.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub(super) topic: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(super) key: Option<Text<'a>>,
    #[serde(default)]
    pub(super) headers: Option<Headers>,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Text that is not copied where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Why a line is no message, and at which byte of it, from 1, where that is known.
#[derive(Debug)]
pub(super) struct LineError {
    pub(super) column: Option<usize>,
    pub(super) reason: String,
}

impl<'a> Line<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let text = std::str::from_utf8(line).map_err(|error| LineError {
            column: Some(error.valid_up_to() + 1),
            reason: "not UTF-8".to_owned(),
        })?;
        serde_json::from_str(text).map_err(|error| {
            let column = error.column();
            let text = error.to_string();
            // The position within the line stands beside the line's number instead.
            let reason = text.split(" at line 1 column ").next().unwrap_or(&text);
            LineError {
                column: (column > 0).then_some(column),
                reason: reason.to_owned(),
            }
        })
    }

    pub(super) fn timestamp_ms(&self) -> Option<u64> {
        self.timestamp.as_ref().map(|t| t.0)
    }

    /// The payload: the JSON value as written, or what its one member `base64` stands for.
    pub(super) fn body(&self) -> Result<Bytes, LineError> {
        let raw = self.body.get();
        match as_base64(raw) {
            None => Ok(Bytes::copy_from_slice(raw.as_bytes())),
            Some(encoded) => match BASE64.decode(encoded.as_bytes()) {
                Ok(bytes) => Ok(Bytes::from(bytes)),
                Err(error) => Err(LineError {
                    column: None,
                    reason: format!("`body.base64` can't be decoded: {error}"),
                }),
            },
        }
    }
}

/// What stands in `{"base64": "…"}`, if a JSON text is just that.
pub(super) fn as_base64(json: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Encoded<'a> {
        #[serde(borrow)]
        base64: Cow<'a, str>,
    }

    let inside = json.strip_prefix('{')?.trim_start();
    if !inside.starts_with("\"base64\"") {
        return None;
    }
    let encoded: Encoded<'_> = serde_json::from_str(json).ok()?;
    Some(encoded.base64)
}

struct Timestamp(u64);

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl Visitor<'_> for Form {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("milliseconds since 1970, or a time such as `2026-03-01T12:00:00Z`")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Timestamp, E> {
                Ok(Timestamp(value))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                parse_rfc3339(text)
                    .map(Timestamp)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Form)
    }
}

/// An object of strings. A name that repeats has an array of them.
pub(super) struct Headers(pub(super) Vec<Header>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a header's value must be a string or an array of strings"
        )]
        enum Values {
            One(String),
            Several(Vec<String>),
        }

        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Headers, M::Error> {
                let mut headers: Vec<Header> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if headers.iter().any(|header| header.name == name) {
                        return Err(M::Error::custom(format_args!(
                            "the header `{name}` stands twice; give it an array of values"
                        )));
                    }
                    match map.next_value()? {
                        Values::One(value) => headers.push(Header { name, value }),
                        Values::Several(values) => {
                            headers.extend(values.into_iter().map(|value| {
                                let name = name.clone();
                                Header { name, value }
                            }))
                        }
                    }
                }
                Ok(Headers(headers))
            }
        }

        deserializer.deserialize_map(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(line: &str) -> Bytes {
        Line::parse(line.as_bytes()).unwrap().body().unwrap()
    }

    fn error(line: &[u8]) -> String {
        let error = match Line::parse(line) {
            Ok(line) => line.body().map(|_| ()).unwrap_err(),
            Err(error) => error,
        };
        format!("{}@{}", error.reason, error.column.unwrap_or(0))
    }

    #[test]
    fn a_body_is_handed_over_as_written() {
        assert_eq!(
            body(r#"{"topic":"t","body": {"a" : 1.0} }"#),
            r#"{"a" : 1.0}"#
        );
        assert_eq!(body(r#"{"topic":"t","body":"x\u00e9"}"#), r#""x\u00e9""#);
        assert_eq!(body(r#"{"topic":"t","body":null}"#), "null");
    }

    #[test]
    fn base64_is_decoded_only_where_it_stands_alone() {
        assert_eq!(
            body(r#"{"topic":"t","body":{"base64":"AAH/"}}"#)[..],
            [0, 1, 255]
        );
        assert_eq!(body(r#"{"topic":"t","body":{ "base64" : "" }}"#), "");
        assert_eq!(body(r#"{"topic":"t","body":{"base64":"YQ"}}"#), "a");
        let two = r#"{"base64":"YQ","more":1}"#;
        assert_eq!(body(&format!(r#"{{"topic":"t","body":{two}}}"#)), two);
        assert!(error(br#"{"topic":"t","body":{"base64":"%"}}"#).starts_with("`body.base64`"));
    }

    #[test]
    fn everything_else_may_be_absent_or_null() {
        let line =
            br#"{"topic":"t","id":null,"key":null,"headers":null,"timestamp":null,"body":1}"#;
        let line = Line::parse(line).unwrap();
        assert!(line.id.is_none() && line.key.is_none() && line.headers.is_none());
        assert_eq!(line.timestamp_ms(), None);
    }

    #[test]
    fn headers_keep_their_order_and_may_repeat() {
        let line = br#"{"topic":"t","headers":{"b":"1","a":["2","3"]},"body":1}"#;
        let headers = Line::parse(line).unwrap().headers.unwrap().0;
        let pairs: Vec<_> = headers.iter().map(|h| (&*h.name, &*h.value)).collect();
        assert_eq!(pairs, [("b", "1"), ("a", "2"), ("a", "3")]);
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        assert_eq!(error(b"{\"topic\":\"\xff\"}"), "not UTF-8@11");
        assert_eq!(error(br#"{"topic":"t"}"#), "missing field `body`@13");
        assert_eq!(
            error(br#"{"topic":"t","body":1"#),
            "EOF while parsing an object@21"
        );
        assert!(error(br#"{"topic":"t","boby":1}"#).starts_with("unknown field `boby`"));
        assert!(error(br#"{"topic":"t","body":1,"body":2}"#).starts_with("duplicate field"));
        assert!(error(br#"{"topic":"t","timestamp":-1,"body":1}"#).contains("milliseconds since"));
        assert!(error(br#"{"topic":"t","headers":{"a":1},"body":1}"#).contains("header's value"));
        assert!(error(br#"{"topic":"t","headers":{"a":"","a":""},"body":1}"#).contains("twice"));
        assert!(error(b"[1]").contains("@"));
    }
}
