//! Why a plugin is refused, and what its author or operator can do.

use std::path::{Path, PathBuf};

use semel_core::ManifestError;

/// A file that can't be used as a plugin.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub reason: Refusal,
}

impl LoadError {
    pub(crate) fn new(path: &Path, reason: Refusal) -> Self {
        Self {
            path: path.to_owned(),
            reason,
        }
    }
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// The file is not WebAssembly, or damaged.
    #[error(
        "is not a valid WebAssembly file: {0}. Was it copied whole? Build it again and copy it \
         under another name, then rename it"
    )]
    Invalid(String),
    /// Something is imported that the host does not offer.
    #[error("imports `{import}`: {why}. {advice}")]
    Import {
        /// The import's name.
        import: String,
        /// Why that is refused.
        why: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A core module could not be made a component.
    #[error(
        "can't be turned into a component: {0}. Build it against the `wit` directory of this \
         host's version"
    )]
    Encode(String),
    /// The imports or the export `handle` are not those of the contract.
    #[error(
        "does not fit the contract `semel:plugin@0.1.0`: {0}. Build it with an SDK, or against \
         the `wit` directory, of this host's version"
    )]
    Contract(String),
    /// The plugin says nothing of itself.
    #[error(
        "has no manifest: annotate the handler with `#[semel::handler(topics = [\"…\"])]`, or put \
         a file {} beside it with `name = \"…\"` and `topics = [\"…\"]`", sidecar.display()
    )]
    NoManifest {
        /// The file that would do.
        sidecar: PathBuf,
    },
    /// The manifest in the file can't be read.
    #[error(
        "its custom section `semel:manifest` can't be read: {0}. Build it with an SDK of this \
         host's version"
    )]
    BadSection(String),
    /// Several manifests that differ.
    #[error("has {0} manifests that differ: put one handler into one file")]
    ManyManifests(usize),
    /// The sidecar file can't be read.
    #[error("its sidecar {} can't be read: {reason}", file.display())]
    Sidecar {
        /// The sidecar.
        file: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// The manifest can't be used.
    #[error("its manifest can't be used: {0}")]
    Manifest(#[from] ManifestError),
    /// It can't be compiled.
    #[error("can't be compiled: {0}")]
    Compile(String),
    /// It does not start.
    #[error("does not start: {0}. Whatever runs before `handle` must not fail")]
    Start(String),
    /// Another plugin bears the name.
    #[error(
        "has the name `{name}`, which {} has already: two plugins with one name would share \
         their records. Remove one, or give it another name in its manifest or a sidecar file",
        first.display()
    )]
    SameName {
        /// The name.
        name: String,
        /// Who bears it.
        first: PathBuf,
    },
}

/// The sandbox can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// WebAssembly can't be run here.
    #[error("can't set up WebAssembly: {0}")]
    Engine(String),
    /// The ticker's thread can't be started.
    #[error("can't start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The directory for compiled plugins can't be used.
    #[error("can't keep compiled plugins in {}: {reason}", dir.display())]
    Cache {
        /// The directory.
        dir: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
}

/// An error of wasmtime's with all its causes, in a line.
pub(crate) fn chain(error: &wasmtime::Error) -> String {
    format!("{error:#}")
}
