//! Where a message carries its business key or its lane.

mod pointer;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{MAX_KEY_BYTES, Message};
use pointer::{Pointer, PointerError};

/// An expression over a message: `id`, `keys`, `header:NAME`, `json:/pointer` (RFC 6901), or
/// several of these joined by ` + `.
///
/// One term gives its text as it is. Several give each text preceded by its length and a
/// colon, so that `a + b` never equals another split of the same characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyExpression {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Id,
    Keys,
    Header(String),
    Json(Pointer),
}

/// Why an expression can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{term}` is no key expression: use `id`, `keys`, `header:NAME` or `json:/pointer`, several joined by ` + `"
)]
pub struct KeySyntaxError {
    /// The part that can't be read.
    pub term: String,
}

/// Why a message has no usable key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The expression finds nothing.
    #[error("`{term}` finds nothing in the message")]
    Missing {
        /// The term that comes up empty.
        term: String,
    },
    /// The expression finds an empty text. It would make all such messages one.
    #[error("`{term}` is empty in the message")]
    Empty {
        /// The term that comes up empty.
        term: String,
    },
    /// The expression finds something that is neither text nor a whole number.
    #[error("`{term}` is {found}, not a string or a whole number")]
    Type {
        /// The term.
        term: String,
        /// What is there instead.
        found: &'static str,
    },
    /// The body is no JSON.
    #[error("`{term}` needs a JSON body, and this one is none: {reason}")]
    NotJson {
        /// The term.
        term: String,
        /// What is wrong and where.
        reason: String,
    },
    /// The key is too long for a store's index.
    #[error("the key has {bytes} bytes, {MAX_KEY_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl KeyExpression {
    /// The source's stable id: what a plugin without a key of its own goes by.
    pub fn id() -> Self {
        Self {
            terms: vec![Term::Id],
        }
    }

    /// Whether it is the source's stable id alone, which does not survive a producer's resend.
    pub fn is_id(&self) -> bool {
        self.terms == [Term::Id]
    }

    /// Whether it reads what the source names a message by: its id or its keys.
    pub fn reads_id_or_keys(&self) -> bool {
        let mut terms = self.terms.iter();
        terms.any(|term| matches!(term, Term::Id | Term::Keys))
    }

    /// The names of the headers that it reads.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().filter_map(|term| match term {
            Term::Header(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether several terms are joined.
    pub fn is_composite(&self) -> bool {
        self.terms.len() > 1
    }

    /// The key of a message, at most [`MAX_KEY_BYTES`] long and never empty.
    pub fn evaluate(&self, message: &Message) -> Result<String, KeyError> {
        let key = match self.terms.as_slice() {
            [term] => term.evaluate(message)?.into_owned(),
            terms => {
                let mut key = String::new();
                for term in terms {
                    Self::join(&mut key, &term.evaluate(message)?);
                }
                key
            }
        };
        if key.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLong { bytes: key.len() });
        }
        Ok(key)
    }

    /// The key that several texts make together, as [`evaluate`](Self::evaluate) builds it.
    pub fn compose(parts: &[impl AsRef<str>]) -> Vec<u8> {
        match parts {
            [part] => part.as_ref().as_bytes().to_vec(),
            parts => {
                let mut key = String::new();
                parts
                    .iter()
                    .for_each(|part| Self::join(&mut key, part.as_ref()));
                key.into_bytes()
            }
        }
    }

    fn join(key: &mut String, part: &str) {
        key.push_str(&part.len().to_string());
        key.push(':');
        key.push_str(part);
    }
}

impl Term {
    fn evaluate<'m>(&self, message: &'m Message) -> Result<Cow<'m, str>, KeyError> {
        let text = match self {
            Self::Id => Some(Cow::Borrowed(message.id.as_str())),
            Self::Keys => match message.keys.as_slice() {
                [] => None,
                [key] => Some(Cow::Borrowed(key.as_str())),
                keys => Some(Cow::Owned(keys.join(" "))),
            },
            Self::Header(name) => {
                let header = message.headers.iter().find(|header| header.name == *name);
                header.map(|header| Cow::Borrowed(header.value.as_str()))
            }
            Self::Json(pointer) => match pointer.find(&message.body) {
                Ok(text) => text.map(Cow::Owned),
                Err(PointerError::Type(found)) => {
                    return Err(KeyError::Type {
                        term: self.to_string(),
                        found,
                    });
                }
                Err(PointerError::NotJson(reason)) => {
                    return Err(KeyError::NotJson {
                        term: self.to_string(),
                        reason,
                    });
                }
            },
        };
        match text {
            None => Err(KeyError::Missing {
                term: self.to_string(),
            }),
            Some(text) if text.is_empty() => Err(KeyError::Empty {
                term: self.to_string(),
            }),
            Some(text) => Ok(text),
        }
    }
}

impl FromStr for KeyExpression {
    type Err = KeySyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let terms = text.split(" + ").map(str::trim).map(Term::from_str);
        Ok(Self {
            terms: terms.collect::<Result<_, _>>()?,
        })
    }
}

impl FromStr for Term {
    type Err = KeySyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || KeySyntaxError {
            term: text.to_owned(),
        };
        match text.split_once(':') {
            None if text == "id" => Ok(Self::Id),
            None if text == "keys" => Ok(Self::Keys),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_owned())),
            Some(("json", pointer)) => Pointer::parse(pointer)
                .map(Self::Json)
                .ok_or_else(malformed),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("id"),
            Self::Keys => f.write_str("keys"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}

impl fmt::Display for KeyExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(" + ")?;
            }
            write!(f, "{term}")?;
        }
        Ok(())
    }
}

impl Serialize for KeyExpression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyExpression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Message {
        Message {
            id: "m-1".into(),
            topic: "orders".into(),
            keys: vec!["k1".into()],
            headers: vec![],
            body: body.to_owned().into(),
            timestamp_ms: 0,
        }
    }

    fn key(expression: &str, body: &str) -> Result<String, KeyError> {
        let expression: KeyExpression = expression.parse().unwrap();
        expression.evaluate(&message(body))
    }

    #[test]
    fn a_single_term_is_its_text() {
        assert_eq!(key("id", "").unwrap(), "m-1");
        assert_eq!(key("keys", "").unwrap(), "k1");
        assert_eq!(key("json:/a/b", r#"{"x":[1],"a":{"b":"v"}}"#).unwrap(), "v");
        assert_eq!(key("json:/a/1", r#"{"a":[1,-20]}"#).unwrap(), "-20");
        assert_eq!(key("json:", r#""whole""#).unwrap(), "whole");
        assert_eq!(
            key("json:/a~1b", r#"{"a/b":"escaped"}"#).unwrap(),
            "escaped"
        );
        assert_eq!(
            key("json:/big", r#"{"big":123456789012345678901}"#).unwrap(),
            "123456789012345678901"
        );
    }

    #[test]
    fn composites_of_different_splits_differ() {
        let split = |a: &str, b: &str| {
            key("json:/a + json:/b", &format!(r#"{{"a":"{a}","b":"{b}"}}"#)).unwrap()
        };
        assert_ne!(split("x+y", "z"), split("x", "y+z"));
        assert_ne!(split("1:a", "b"), split("1", "a1:b"));
        assert_eq!(
            split("ab", "c").as_bytes(),
            KeyExpression::compose(&["ab", "c"])
        );
    }

    #[test]
    fn what_is_no_key_is_an_error() {
        assert!(matches!(
            key("json:/a", r#"{"b":1}"#),
            Err(KeyError::Missing { .. })
        ));
        assert!(matches!(
            key("json:/a", r#"{"a":null}"#),
            Err(KeyError::Missing { .. })
        ));
        assert!(matches!(
            key("json:/a", r#"{"a":""}"#),
            Err(KeyError::Empty { .. })
        ));
        assert!(matches!(
            key("json:/a", r#"{"a":1.5}"#),
            Err(KeyError::Type { .. })
        ));
        assert!(matches!(
            key("json:/a", r#"{"a":[1]}"#),
            Err(KeyError::Type { .. })
        ));
        assert!(matches!(
            key("json:/a", r#"{"a":1"#),
            Err(KeyError::NotJson { .. })
        ));
        assert!(matches!(
            key("header:h", "{}"),
            Err(KeyError::Missing { .. })
        ));
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_KEY_BYTES + 1));
        assert!(matches!(
            key("json:/a", &long),
            Err(KeyError::TooLong { .. })
        ));
    }

    #[test]
    fn expressions_print_as_they_are_written() {
        for text in [
            "id",
            "keys",
            "header:X-Id",
            "json:/a/b",
            "json:/a + header:b",
        ] {
            assert_eq!(text.parse::<KeyExpression>().unwrap().to_string(), text);
        }
        for text in ["", "ids", "header:", "json:a", "json:/a + ", "json:/~2"] {
            assert!(text.parse::<KeyExpression>().is_err(), "{text}");
        }
    }
}
