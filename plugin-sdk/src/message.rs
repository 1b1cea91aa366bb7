//! The message that a handler is called with.

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use crate::{Result, reject};

/// A message, raw. A handler may take it in place of a serde type, and can always see it
/// through [`Context::message`](crate::Context::message).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The broker's stable id: the same for every delivery of one send, another one when
    /// the producer sends again.
    pub id: String,
    /// The business key: effects happen once per plugin and key.
    pub key: Vec<u8>,
    /// The topic it was sent to.
    pub topic: String,
    /// The producer's headers, in order. Names may repeat.
    pub headers: Vec<(String, String)>,
    /// The payload, as sent.
    pub body: Vec<u8>,
    /// When the broker first took it, in milliseconds since 1970-01-01 UTC. It is also what
    /// the handler's clock shows.
    pub timestamp_ms: u64,
    /// How many times the handler failed on it before: 0 on the first run.
    pub attempt: u32,
}

impl Message {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(header, _)| header == name);
        header.map(|(_, value)| value.as_str())
    }

    /// When the broker first took it.
    pub fn timestamp(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.timestamp_ms)
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    /// A rejection that says what was expected and where, with the body's beginning.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            reject(format_args!(
                "the body is not the JSON that the handler takes: {error}; it begins {}",
                beginning(&self.body)
            ))
        })
    }
}

/// The first characters of a body, for error messages: on one line.
fn beginning(body: &[u8]) -> String {
    const SHOWN: usize = 60;
    let more = if body.len() > SHOWN { "…" } else { "" };
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    // A character that was cut through.
    let shown = shown.trim_end_matches(char::REPLACEMENT_CHARACTER);
    format!("`{}{more}`", shown.replace(char::is_control, " "))
}

#[cfg(test)]
mod tests {
    use super::beginning;

    #[test]
    fn a_body_is_quoted_on_one_line_and_cut() {
        assert_eq!(beginning(b"{\"a\":\n1}"), "`{\"a\": 1}`");
        let long = "é".repeat(100);
        assert_eq!(
            beginning(format!("x{long}").as_bytes()),
            format!("`x{}…`", "é".repeat(29))
        );
    }
}
