//! What the client's errors say.

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Error, ErrorKind};

/// Whether the broker closed a channel since an exchange or a queue is missing.
pub(super) fn is_missing(error: &Error) -> bool {
    soft(error) == Some(&AMQPSoftError::NOTFOUND)
}

/// Whether the broker closed a channel because of what was sent: a message that is too large,
/// arguments that it does not take.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(
        soft(error),
        Some(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE)
    )
}

/// Why a channel was closed, if the broker closed it and nothing else.
fn soft(error: &Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}
