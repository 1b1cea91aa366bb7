//! What a request is told of its message.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use semel_core::{Cause, Disposition, Position};
use serde_json::json;

use super::problem::{Kind, Problem, RETRY};

/// Says that the reply is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The answer to a message whose record is durable.
pub fn settled(disposition: Disposition, position: &Position) -> Result<Response, Problem> {
    match disposition {
        Disposition::Done { reply, duplicate } => {
            let mut response = match reply {
                None => StatusCode::NO_CONTENT.into_response(),
                Some(body) => {
                    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
                    let media_type = match is_json {
                        true => "application/json",
                        false => "application/octet-stream",
                    };
                    ([(CONTENT_TYPE, media_type)], body).into_response()
                }
            };
            if duplicate {
                let headers = response.headers_mut();
                headers.insert(REPLAYED, HeaderValue::from_static("true"));
            }
            Ok(response)
        }
        Disposition::Parked => {
            let body = json!({
                "status": "parked",
                "detail": "the handler failed for now; the message is kept and will be tried again: send it again under the same key for its reply",
                "position": position.to_string(),
            });
            Ok((StatusCode::ACCEPTED, self::json(&body)).into_response())
        }
        Disposition::Dead { cause, reason } => {
            let (kind, detail) = match cause {
                Some(Cause::Mismatch) => (
                    Kind::KeyReused,
                    "the same key was used for another payload: give a new message a new key",
                ),
                Some(Cause::NoKey) => (Kind::NoBusinessKey, "the message carries no usable key"),
                Some(Cause::NoVersion) => (Kind::NoVersion, "the message carries no version"),
                Some(_) => (Kind::Dead, "the message was given up"),
                None => (
                    Kind::Dead,
                    "an earlier request with the same key was given up",
                ),
            };
            let detail = match reason {
                Some(reason) => format!("{detail}: {reason}"),
                None => detail.to_owned(),
            };
            Err(Problem::new(kind, detail).of(position))
        }
    }
}

/// A body of JSON.
pub fn json(value: &serde_json::Value) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], value.to_string())
}

/// The host goes away before the message is settled, or taken.
pub fn shutting_down() -> Problem {
    Problem::new(
        Kind::ShuttingDown,
        "the host is shutting down; whether the message was handled shows when it is sent again under the same key",
    )
    .retry_after(RETRY)
}
