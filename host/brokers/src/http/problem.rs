//! What went wrong, as RFC 9457 has it.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use semel_core::Position;
use serde::Serialize;

/// When a request that found no room, or no answer yet, should come again.
pub const RETRY: Duration = Duration::from_secs(1);

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $status:ident, $name:literal, $title:literal;)*) => {
        /// What kind of problem. Its name is the end of the problem's `type`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// The status, the name and the title.
            fn describe(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$kind => (StatusCode::$status, $name, $title),)*
                }
            }
        }
    };
}

kinds! {
    /// The request can't be understood.
    BadRequest = BAD_REQUEST, "bad-request", "The request can't be understood";
    /// A key is needed and there is none.
    KeyMissing = BAD_REQUEST, "key-missing", "Idempotency-Key is missing";
    /// The key can't be used.
    KeyInvalid = BAD_REQUEST, "key-invalid", "Idempotency-Key can't be used";
    /// The message carries no business key.
    NoBusinessKey = BAD_REQUEST, "no-business-key", "The message has no business key";
    /// The message carries no version.
    NoVersion = BAD_REQUEST, "no-version", "The message has no version";
    /// The one-time token is none of this topic's.
    TokenInvalid = BAD_REQUEST, "token-invalid", "The one-time token is not valid";
    /// The one-time token's time is over.
    TokenExpired = GONE, "token-expired", "The one-time token has expired";
    /// No or wrong credentials.
    Unauthorized = UNAUTHORIZED, "unauthorized", "A bearer token is needed";
    /// A web page asks without credentials.
    CrossOrigin = FORBIDDEN, "cross-origin", "Web pages need a token";
    /// No plugin handles the topic.
    UnknownTopic = NOT_FOUND, "unknown-topic", "No such topic";
    /// There is nothing at the path.
    NotFound = NOT_FOUND, "not-found", "No such resource";
    /// The path is there for other methods.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here";
    /// The request came too slowly.
    RequestTimeout = REQUEST_TIMEOUT, "request-timeout", "The request took too long to arrive";
    /// The body is too large.
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "The body is too large";
    /// The same message is being handled.
    InFlight = CONFLICT, "in-flight", "The same request is being handled";
    /// The key belongs to another payload.
    KeyReused = UNPROCESSABLE_ENTITY, "key-reused", "The key was used for another payload";
    /// The handler gave the message up.
    Dead = UNPROCESSABLE_ENTITY, "dead-letter", "The message was given up";
    /// There is no room for another message.
    Busy = SERVICE_UNAVAILABLE, "busy", "Too many messages are waiting";
    /// It is not settled yet.
    NotSettled = SERVICE_UNAVAILABLE, "not-settled", "The message is not settled yet";
    /// The host is going away.
    ShuttingDown = SERVICE_UNAVAILABLE, "shutting-down", "The host is shutting down";
    /// Messages would have to wait.
    NotReady = SERVICE_UNAVAILABLE, "not-ready", "The host is not consuming";
}

/// A problem, to be answered with.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    detail: String,
    position: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<&'a str>,
}

impl Problem {
    /// A problem of a kind, and what the client should know of it.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            position: None,
            retry_after: None,
            allow: None,
        }
    }

    /// With the position of the message that it is about: operators find it there.
    pub fn of(mut self, position: &Position) -> Self {
        self.position = Some(position.to_string());
        self
    }

    /// Worth another try after this time.
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// With the methods that are allowed.
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The answer to a request for `path`.
    pub fn answer(self, path: &str) -> Response {
        let (status, name, title) = self.kind.describe();
        let document = Document {
            r#type: format!("urn:semel:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            instance: path,
            position: self.position.as_deref(),
        };
        let body = serde_json::to_vec(&document).expect("a document of strings is valid JSON");
        let mut response = (status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, json);
        if let Some(time) = self.retry_after {
            headers.insert(RETRY_AFTER, time.as_secs().max(1).into());
        }
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
