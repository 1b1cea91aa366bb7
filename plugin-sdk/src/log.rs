//! Lines for the operator.

use std::fmt;

use crate::backend::Backend;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Each step.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What happened.
    Info,
    /// What may need a look.
    Warn,
    /// What needs a look.
    Error,
}

/// Writes lines under the plugin's name: see [`Context::log`](crate::Context::log).
///
/// Lines are written at once, also by runs that come to nothing.
#[derive(Clone, Copy)]
pub struct Log<'c>(pub(crate) &'c dyn Backend);

impl Log<'_> {
    /// Writes one line.
    pub fn write(&self, level: Level, text: impl fmt::Display) {
        self.0.log(level, &text.to_string());
    }

    /// Writes one line at [`Level::Trace`].
    pub fn trace(&self, text: impl fmt::Display) {
        self.write(Level::Trace, text);
    }

    /// Writes one line at [`Level::Debug`].
    pub fn debug(&self, text: impl fmt::Display) {
        self.write(Level::Debug, text);
    }

    /// Writes one line at [`Level::Info`].
    pub fn info(&self, text: impl fmt::Display) {
        self.write(Level::Info, text);
    }

    /// Writes one line at [`Level::Warn`].
    pub fn warn(&self, text: impl fmt::Display) {
        self.write(Level::Warn, text);
    }

    /// Writes one line at [`Level::Error`].
    pub fn error(&self, text: impl fmt::Display) {
        self.write(Level::Error, text);
    }
}

impl fmt::Debug for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}
