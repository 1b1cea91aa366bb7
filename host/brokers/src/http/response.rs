//! What a server answered to a message.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use bytes::{Bytes, BytesMut};
use semel_core::{Header, MessageId, OutboxRow, Outgoing, Sink, SinkError};

/// The largest response that can become a message, in bytes.
pub const RESPONSE_LIMIT: usize = 1 << 20;
/// How much of a refusal's body becomes its reason, in characters.
const EXCERPT: usize = 200;
/// The longest time that a server can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Where responses go as messages.
#[derive(Clone)]
pub struct ResponseSink {
    /// The destination's name.
    pub destination: Arc<str>,
    /// Its sink.
    pub sink: Arc<dyn Sink>,
}

/// What a status says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has it.
    Taken,
    /// It will not be taken, however often it is sent.
    Refused,
    /// It may be taken later.
    Later {
        /// Whether that goes for every message.
        outage: bool,
    },
    /// The server points elsewhere, which is not followed.
    Redirected,
}

impl Verdict {
    /// The verdict of a status.
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Self::Later { outage: true },
            // Of the draft on Idempotency-Key, 409 says that the same message is under way.
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY => {
                Self::Later { outage: false }
            }
            status if status.is_success() => Self::Taken,
            status if status.is_redirection() => Self::Redirected,
            status if status.is_client_error() => Self::Refused,
            _ => Self::Later { outage: false },
        }
    }
}

/// A response, as far as it was read.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, or why there is none.
    pub body: Result<Bytes, BodyError>,
}

/// Why a response's body is not there.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is too large.
    #[error("the response has more than {RESPONSE_LIMIT} bytes")]
    TooLarge,
    /// It broke off.
    #[error("the response broke off: {0}")]
    Broken(#[from] reqwest::Error),
}

impl Answer {
    /// Reads a response.
    pub async fn read(mut response: reqwest::Response) -> Self {
        let mut body = BytesMut::new();
        let body = loop {
            match response.chunk().await {
                Ok(None) => break Ok(body.freeze()),
                Ok(Some(chunk)) if body.len() + chunk.len() <= RESPONSE_LIMIT => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => break Err(BodyError::TooLarge),
                Err(error) => break Err(error.without_url().into()),
            }
        };
        Self {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body,
        }
    }

    /// When the server wants to be asked again, if it says so in seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
    }

    /// The status and the beginning of the body, on one line.
    pub fn excerpt(&self) -> String {
        let body = self.body.as_deref().unwrap_or_default();
        let text = String::from_utf8_lossy(&body[..body.len().min(4 * EXCERPT)]);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(EXCERPT) {
            _ if line.is_empty() => self.status.to_string(),
            None => format!("{}: {line}", self.status),
            Some((end, _)) => format!("{}: {}…", self.status, &line[..end]),
        }
    }

    /// The message that the answer to `request` becomes.
    pub fn to_row(&self, body: Bytes, request: &OutboxRow, destination: &Arc<str>) -> OutboxRow {
        let header = |name: &str, value: &str| Header {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let media_type = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let mut headers = vec![
            header("status", self.status.as_str()),
            header("semel-response-to", request.message_id.as_str()),
        ];
        headers.extend(media_type.map(|value| header(CONTENT_TYPE.as_str(), value)));
        OutboxRow {
            message_id: MessageId::response_to(&request.message_id),
            due_ms: 0,
            outgoing: Outgoing {
                destination: Arc::clone(destination),
                key: request.outgoing.key.clone(),
                headers,
                body,
                delay_ms: None,
            },
            ..request.clone()
        }
    }
}

impl ResponseSink {
    /// Publishes the answer to a message. Done before the message is confirmed, a crash in
    /// between repeats both, under the same ids.
    pub async fn publish(&self, answer: &Answer, request: &OutboxRow) -> Result<(), SinkError> {
        let body = match &answer.body {
            Ok(body) => body.clone(),
            Err(error @ BodyError::TooLarge) => return Err(SinkError::Refused(error.to_string())),
            Err(error @ BodyError::Broken(_)) => {
                return Err(SinkError::Unavailable(error.to_string()));
            }
        };
        let row = answer.to_row(body, request, &self.destination);
        let results = self.sink.publish(std::slice::from_ref(&row)).await;
        let result = results.into_iter().next().unwrap_or(Err(SinkError::Held));
        let context = |reason| format!("the response for `{}`: {reason}", self.destination);
        result.map_err(|error| match error {
            SinkError::Refused(reason) => SinkError::Refused(context(reason)),
            error => SinkError::Unavailable(context(error.to_string())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_decides_what_becomes_of_a_message() {
        let verdict = |status: u16| Verdict::of(StatusCode::from_u16(status).unwrap());
        for status in [200, 201, 202, 204] {
            assert_eq!(verdict(status), Verdict::Taken, "{status}");
        }
        for status in [400, 401, 403, 404, 410, 413, 422] {
            assert_eq!(verdict(status), Verdict::Refused, "{status}");
        }
        for (status, outage) in [
            (429, true),
            (502, true),
            (503, true),
            (504, true),
            (408, false),
            (409, false),
            (425, false),
            (500, false),
            (501, false),
            (599, false),
        ] {
            assert_eq!(verdict(status), Verdict::Later { outage }, "{status}");
        }
        for status in [301, 302, 304, 307, 308] {
            assert_eq!(verdict(status), Verdict::Redirected, "{status}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        let answer = |body: &str| Answer {
            status: StatusCode::BAD_REQUEST,
            headers: HeaderMap::new(),
            body: Ok(Bytes::from(body.to_owned())),
        };
        assert_eq!(
            answer("no\n such   user").excerpt(),
            "400 Bad Request: no such user"
        );
        assert_eq!(answer("").excerpt(), "400 Bad Request");
        let long = answer(&"ä".repeat(1000)).excerpt();
        assert_eq!(long, format!("400 Bad Request: {}…", "ä".repeat(200)));
    }
}
