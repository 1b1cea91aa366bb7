//! What the client's errors say.

use semel_rocketmq_client::ClientError;

use crate::causes;

// The broker's codes.
pub(super) const SYSTEM_BUSY: i32 = 2;
pub(super) const MESSAGE_ILLEGAL: i32 = 13;
pub(super) const SERVICE_NOT_AVAILABLE: i32 = 14;
pub(super) const NO_PERMISSION: i32 = 16;
pub(super) const TOPIC_NOT_EXIST: i32 = 17;

/// An error with what led to it, in a line.
pub(super) fn describe(error: &ClientError) -> String {
    let text = causes::describe(error);
    // The client keeps the broker's code, and not its words.
    match error.broker_response_code() {
        Some(code) => format!("{text} (code {code}{})", meaning(code)),
        None => text,
    }
}

fn meaning(code: i32) -> &'static str {
    match code {
        SYSTEM_BUSY => ", the broker is busy",
        MESSAGE_ILLEGAL => ", no message for a broker",
        SERVICE_NOT_AVAILABLE => ", the broker can't store anything now: see its log and disk",
        NO_PERMISSION => ", not permitted: see the broker's `brokerPermission` and access control",
        TOPIC_NOT_EXIST => ", the topic is missing: create it with `mqadmin updateTopic`",
        _ => "",
    }
}
