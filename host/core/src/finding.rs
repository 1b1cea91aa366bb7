//! What was found where someone looked, for people. A store's `open` refuses by it and warns of
//! it, and `semel doctor` prints it whole.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A clock that differs by more is worth a warning.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// A clock that differs by more is wrong.
const WRONG: Duration = Duration::from_secs(60);

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Good,
    /// Nothing to judge: a fact, or what could not be looked at.
    Note,
    /// It works, but something may be lost or surprise.
    Warning,
    /// It does not work, or breaks a promise.
    Failure,
}

/// A point that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was looked at, such as the name of a setting.
    pub subject: String,
    /// What was found, and what it means.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Level::Good, subject, found)
    }

    /// A fact.
    pub fn note(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Level::Note, subject, found)
    }

    /// Something that nobody looked at, and why.
    pub fn unchecked(subject: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::new(Level::Note, subject, format!("not checked: {why}"))
    }

    /// Something that may be lost or surprise.
    pub fn warning(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Level::Warning, subject, found)
    }

    /// Something that does not work, or breaks a promise.
    pub fn failure(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Level::Failure, subject, found)
    }

    /// The same with what to do about it.
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    /// Compares a server's clock with that of this machine, which said `before_ms` when the server
    /// was asked and `after_ms` when it had answered.
    pub fn of_clock(theirs_ms: u64, before_ms: u64, after_ms: u64) -> Self {
        let ahead = theirs_ms.saturating_sub(after_ms);
        let behind = before_ms.saturating_sub(theirs_ms);
        let skew = Duration::from_millis(ahead.max(behind));
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        if skew <= NOTICEABLE {
            let bound = ahead.max(behind) + after_ms.saturating_sub(before_ms);
            return Self::good("clock", format!("within {bound} ms of this machine's"));
        }
        let found = format!("{:.1} s {side} this machine's", skew.as_secs_f64());
        let advice = "let both machines follow one time server, with chrony or systemd-timesyncd";
        match skew > WRONG {
            false => Self::warning("clock", format!("{found}: retries and delays are off by that")),
            true => Self::failure(
                "clock",
                format!("{found}: done records may be forgotten too early, and retries and delays are off by that"),
            ),
        }
        .advise(advice)
    }

    fn new(level: Level, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            level,
            subject: subject.into(),
            found: found.into(),
            advice: None,
        }
    }
}

/// What was found and what to do, in one sentence.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)?;
        match &self.advice {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_the_request_does_not_explain() {
        let level = |theirs_ms| Finding::of_clock(theirs_ms, 100_000, 100_400).level;
        assert_eq!(level(100_200), Level::Good);
        assert_eq!(level(99_000), Level::Good);
        assert_eq!(level(98_999), Level::Warning);
        assert_eq!(level(101_401), Level::Warning);
        assert_eq!(level(160_400), Level::Warning);
        assert_eq!(level(160_401), Level::Failure);
        let ahead = Finding::of_clock(103_900, 100_000, 100_400).to_string();
        assert!(
            ahead.starts_with("3.5 s ahead of this machine's"),
            "{ahead}"
        );
    }
}
