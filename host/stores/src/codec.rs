//! Bytes that stores keep.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte of a blob: how the rest is written.
const POSTCARD: u8 = 1;

/// Stored bytes that do not mean anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// The blob begins with a byte that this version does not know.
    #[error("a stored {what} has the unknown format {format}: it was written by a newer semel")]
    Format {
        /// What it should be.
        what: &'static str,
        /// The byte.
        format: u8,
    },
    /// The blob is damaged.
    #[error("a stored {what} can't be read: {reason}")]
    Damaged {
        /// What it should be.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// A value as a blob.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut blob = Vec::with_capacity(256);
    blob.push(POSTCARD);
    postcard::to_extend(value, blob).expect("memory takes any value without maps or cycles")
}

/// The value of a blob.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    blob: &[u8],
) -> Result<T, CodecError> {
    match blob.split_first() {
        Some((&POSTCARD, rest)) => {
            postcard::from_bytes(rest).map_err(|error| CodecError::Damaged {
                what,
                reason: error.to_string(),
            })
        }
        Some((&format, _)) => Err(CodecError::Format { what, format }),
        None => Err(damaged(what, "it is empty")),
    }
}

/// For fixed layouts that are too short.
pub(crate) fn damaged(what: &'static str, reason: &str) -> CodecError {
    CodecError::Damaged {
        what,
        reason: reason.to_owned(),
    }
}

/// A key of several parts. Every part but the last is preceded by its length, so no two
/// splits of the same bytes collide and all keys with the same first parts stand together.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompositeKey(Vec<u8>);

impl CompositeKey {
    /// With a first part.
    pub(crate) fn new(part: &[u8]) -> Self {
        Self(Vec::with_capacity(part.len() + 48)).part(part)
    }

    /// Adds a part that others may follow.
    pub(crate) fn part(mut self, part: &[u8]) -> Self {
        let mut length = part.len();
        while length >= 0x80 {
            self.0.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.0.push(length as u8);
        self.0.extend_from_slice(part);
        self
    }

    /// Adds a number; smaller numbers come first.
    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Adds the last part.
    pub(crate) fn last(mut self, part: &[u8]) -> Self {
        self.0.extend_from_slice(part);
        self
    }

    /// The bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The first part of a key and what follows it.
    pub(crate) fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
        let mut length = 0;
        for (at, byte) in key.iter().enumerate().take(4) {
            length |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return key[at + 1..].split_at_checked(length);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_splits_of_the_same_bytes_are_other_keys() {
        let splits = [
            (&b"ab"[..], &b"c"[..]),
            (b"a", b"bc"),
            (b"", b"abc"),
            (b"abc", b""),
        ];
        for (i, (a, b)) in splits.iter().enumerate() {
            for (c, d) in &splits[i + 1..] {
                assert_ne!(
                    CompositeKey::new(a).last(b).as_bytes(),
                    CompositeKey::new(c).last(d).as_bytes()
                );
            }
        }
    }

    #[test]
    fn a_long_part_is_no_prefix_of_another() {
        let long = CompositeKey::new(&[7; 200]);
        assert_eq!(long.as_bytes().len(), 202);
        assert!(
            !CompositeKey::new(&[7; 72])
                .as_bytes()
                .starts_with(&long.as_bytes()[..2])
        );
    }

    #[test]
    fn a_key_is_taken_apart() {
        for part in [&b""[..], b"a", &[7; 127], &[7; 128], &[7; 300]] {
            let key = CompositeKey::new(part).last(b"rest");
            assert_eq!(
                CompositeKey::split(key.as_bytes()),
                Some((part, &b"rest"[..]))
            );
        }
        assert_eq!(CompositeKey::split(&[]), None);
        assert_eq!(CompositeKey::split(&[5, 1]), None);
        assert_eq!(CompositeKey::split(&[0x80; 9]), None);
    }

    #[test]
    fn blobs_of_another_format_are_refused() {
        let mut blob = encode(&("text", 7u64));
        assert_eq!(
            decode::<(String, u64)>("pair", &blob).unwrap(),
            ("text".into(), 7)
        );
        blob[0] = 9;
        let error = decode::<(String, u64)>("pair", &blob)
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown format 9"), "{error}");
        assert!(decode::<(String, u64)>("pair", &[]).is_err());
    }
}
