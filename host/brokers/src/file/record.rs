//! One line of output.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use semel_core::{Header, OutboxRow};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::line::as_base64;

/// A published message as a line of JSON, with the line's end.
pub(super) fn to_line(row: &OutboxRow) -> Vec<u8> {
    let outgoing = &row.outgoing;
    let record = Record {
        id: row.message_id.as_str(),
        destination: &outgoing.destination,
        key: outgoing.key.as_deref().map(Key),
        headers: Headers(&outgoing.headers),
        body: Body(&outgoing.body),
    };
    let mut line = serde_json::to_vec(&record).expect("strings and validated JSON only");
    line.push(b'\n');
    line
}

/// The id in a line of output, if it is one.
pub(super) fn id_of(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Identified {
        id: String,
    }

    serde_json::from_slice(line)
        .ok()
        .map(|Identified { id }| id)
}

#[derive(Serialize)]
struct Record<'a> {
    id: &'a str,
    destination: &'a str,
    key: Option<Key<'a>>,
    headers: Headers<'a>,
    body: Body<'a>,
}

/// Text as text, anything else in base64.
struct Key<'a>(&'a [u8]);

impl Serialize for Key<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => encode(self.0, serializer),
        }
    }
}

/// JSON of one line as it is, anything else in base64. So is JSON that would be taken for
/// base64 when it is read again.
struct Body<'a>(&'a [u8]);

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_one_line = memchr::memchr2(b'\n', b'\r', self.0).is_none();
        let json = is_one_line
            .then(|| serde_json::from_slice::<&RawValue>(self.0).ok())
            .flatten();
        match json {
            // White space around the value would be lost.
            Some(raw) if raw.get().len() == self.0.len() && as_base64(raw.get()).is_none() => {
                raw.serialize(serializer)
            }
            _ => encode(self.0, serializer),
        }
    }
}

fn encode<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry("base64", &STANDARD.encode(bytes))?;
    map.end()
}

/// In the order of first appearance; the values of a name that repeats as an array.
struct Headers<'a>(&'a [Header]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, header) in self.0.iter().enumerate() {
            let same = |other: &&Header| other.name == header.name;
            if self.0[..index].iter().any(|other| same(&other)) {
                continue;
            }
            let values = self.0[index..].iter().filter(same).map(|h| &h.value);
            let values: Vec<&String> = values.collect();
            match values.as_slice() {
                [value] => map.serialize_entry(&header.name, value)?,
                _ => map.serialize_entry(&header.name, &values)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::row;

    fn line(key: Option<&'static [u8]>, headers: &[(&str, &str)], body: &'static [u8]) -> String {
        let row = row(key, headers, body);
        let line = String::from_utf8(to_line(&row)).unwrap();
        assert_eq!(id_of(line.as_bytes()).unwrap(), row.message_id.as_str());
        let rest = line.split_once("\"destination\":").unwrap().1;
        rest.to_owned()
    }

    #[test]
    fn json_stands_as_it_is() {
        assert_eq!(
            line(Some(b"k"), &[("a", "1")], br#"{"x" : 1.0}"#),
            "\"d\",\"key\":\"k\",\"headers\":{\"a\":\"1\"},\"body\":{\"x\" : 1.0}}\n"
        );
    }

    #[test]
    fn anything_else_is_base64() {
        let cases: [(&[u8], &str); 6] = [
            (b"", ""),
            (b"{", "ew=="),
            (b" 1", "IDE="),
            (b"[1,\n2]", "WzEsCjJd"),
            (b"\"\xff\"", "Iv8i"),
            (br#"{"base64":""}"#, "eyJiYXNlNjQiOiIifQ=="),
        ];
        for (body, encoded) in cases {
            let expected = format!(
                "\"d\",\"key\":null,\"headers\":{{}},\"body\":{{\"base64\":\"{encoded}\"}}}}\n"
            );
            assert_eq!(line(None, &[], body), expected);
        }
        assert!(line(Some(b"\xff"), &[], b"1").contains(r#""key":{"base64":"/w=="}"#));
    }

    #[test]
    fn headers_that_repeat_become_an_array() {
        let line = line(None, &[("b", "1"), ("a", "2"), ("b", "3")], b"1");
        assert!(
            line.contains(r#""headers":{"b":["1","3"],"a":"2"}"#),
            "{line}"
        );
    }
}
