//! How a handler fails.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What a handler returns: nothing, or a reply that the host keeps and gives to duplicates.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Why a handler gives up on a message, and whether to try again. Either way the host drops
/// every effect that the run asked for.
///
/// `?` turns any [`std::error::Error`] into a retry, because an error that nobody thought of
/// may pass. Say [`reject`] where it never will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Retry { after: Option<Duration> },
    Reject,
}

/// It may succeed later: the host parks the message and runs the handler again, with growing
/// delays. After the last attempt the message becomes a dead letter.
///
/// ```
/// # use std::time::Duration;
/// let error = semel::retry("no exchange rate for today yet").after(Duration::from_secs(600));
/// assert!(error.is_retry());
/// ```
pub fn retry(reason: impl fmt::Display) -> Error {
    Error {
        kind: Kind::Retry { after: None },
        reason: reason.to_string(),
    }
}

/// It never will succeed: the message becomes a dead letter at once.
///
/// ```
/// let error = semel::reject(format_args!("the amount is {}", -5));
/// assert_eq!(error.reason(), "the amount is -5");
/// ```
pub fn reject(reason: impl fmt::Display) -> Error {
    Error {
        kind: Kind::Reject,
        reason: reason.to_string(),
    }
}

impl Error {
    /// Asks for at least this delay before the next attempt. A rejection stays a rejection.
    pub fn after(mut self, delay: Duration) -> Self {
        if let Kind::Retry { after } = &mut self.kind {
            *after = Some(delay);
        }
        self
    }

    /// Why, as the operator will read it.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the message is to be tried again.
    pub fn is_retry(&self) -> bool {
        matches!(self.kind, Kind::Retry { .. })
    }

    /// The delay that was asked for.
    pub fn delay(&self) -> Option<Duration> {
        match self.kind {
            Kind::Retry { after } => after,
            Kind::Reject => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

// `Error` itself is no `std::error::Error`: that is what leaves room for this conversion.
impl<E: StdError> From<E> for Error {
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason.push_str(": ");
            reason.push_str(&cause.to_string());
            source = cause.source();
        }
        retry(reason)
    }
}

/// Says what a failed step means for the message.
///
/// ```
/// use semel::OrFail;
///
/// fn half(text: &str) -> semel::Result<i64> {
///     let number: i64 = text.parse().or_reject("not a number")?;
///     number.checked_div(2).or_retry("cannot happen")
/// }
///
/// assert_eq!(half("8"), Ok(4));
/// assert_eq!(half("x").unwrap_err().reason(), "not a number: invalid digit found in string");
/// ```
pub trait OrFail<T> {
    /// The value, or a retry for this reason.
    fn or_retry(self, reason: impl fmt::Display) -> Result<T>;

    /// The value, or a rejection for this reason.
    fn or_reject(self, reason: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> OrFail<T> for std::result::Result<T, E> {
    fn or_retry(self, reason: impl fmt::Display) -> Result<T> {
        self.map_err(|error| retry(format_args!("{reason}: {error}")))
    }

    fn or_reject(self, reason: impl fmt::Display) -> Result<T> {
        self.map_err(|error| reject(format_args!("{reason}: {error}")))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_retry(self, reason: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| retry(reason))
    }

    fn or_reject(self, reason: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| reject(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_mark_makes_a_retry_with_the_whole_chain_of_causes() {
        fn parse() -> Result<u8> {
            Ok("x".parse::<u8>()?)
        }
        assert_eq!(parse(), Err(retry("invalid digit found in string")));

        let cause = std::io::Error::other("the disk is full");
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("can't write")
            }
        }
        impl StdError for Outer {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(
            Error::from(Outer(cause)).reason(),
            "can't write: the disk is full"
        );
    }

    #[test]
    fn a_delay_makes_no_retry_of_a_rejection() {
        let rejection = reject("no").after(Duration::from_secs(1));
        assert!(!rejection.is_retry());
        assert_eq!(rejection.delay(), None);
    }
}
