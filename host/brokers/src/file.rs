//! JSON Lines from a file or stdin, and to a file or stdout.

mod line;
mod progress;
mod reader;
mod record;
mod sink;
mod source;
mod survey;
mod tail;
mod timestamp;

use std::path::{Path, PathBuf};
use std::{fmt, io};

pub use progress::FileProgress;
pub use sink::FileSink;
pub use source::FileSource;
pub use survey::{examine_input, examine_output};

/// A file, or the standard stream that `-` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileName {
    /// Stdin where it is read, stdout where it is written.
    Standard,
    /// A path.
    Path(PathBuf),
}

impl FileName {
    /// From a command-line argument: `-` or a path.
    pub fn from_argument(argument: impl AsRef<Path>) -> Self {
        let path = argument.as_ref();
        if path.as_os_str() == "-" {
            Self::Standard
        } else {
            Self::Path(path.to_owned())
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("-"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The input can't be opened.
    #[error("can't read the input `{path}`: {source}")]
    Input {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The output can't be opened, or its end can't be read.
    #[error("can't write the output `{path}`: {source}")]
    Output {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process writes the output.
    #[error(
        "the output `{path}` is being written by another process: stop that one, or give this one another file"
    )]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// The reader's thread could not be started.
    #[error("can't start a thread to read the input: {0}")]
    Thread(io::Error),
}
