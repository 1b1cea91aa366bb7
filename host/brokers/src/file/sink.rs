use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use semel_core::{OutboxRow, Sink, SinkError};
use tokio::sync::Mutex;

use super::record::to_line;
use super::tail::{last_ids, mend};
use super::{FileError, FileName};

/// How many ids are remembered so that their rows are not written again.
const REMEMBERED: usize = 65_536;

/// Appends published messages to a file or stdout, one JSON object a line:
/// `{"id", "destination", "key", "headers", "body"}`.
///
/// - `key` is text, `{"base64": "…"}` where it is not UTF-8, or null.
/// - `headers` and `body` have the form in which [`FileSource`](super::FileSource) reads
///   them: a body that is JSON of one line stands as it is, any other in base64.
///
/// Rows are confirmed once the file's data is synchronised to the disk; on stdout, once they
/// are written. When a file is opened, a torn last line that a killed process left is removed.
///
/// A row whose id is among the last 65,536 lines is confirmed and not written again. Rows
/// that were written but not confirmed before a kill are always among them. So a file that
/// one host owns has each message once; a lock keeps a second host out while the first runs.
#[derive(Debug)]
pub struct FileSink {
    output: Arc<Mutex<Output>>,
    name: FileName,
}

impl FileSink {
    /// Opens an output, which is created if it isn't there.
    pub fn open(name: &FileName) -> Result<Self, FileError> {
        let output = match name {
            FileName::Standard => Output::stream(Box::new(io::stdout())),
            FileName::Path(path) => Output::open(path)?,
        };
        Ok(Self {
            output: Arc::new(Mutex::new(output)),
            name: name.clone(),
        })
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn publish(&self, rows: &[OutboxRow]) -> Vec<Result<(), SinkError>> {
        let lines: Vec<(String, Vec<u8>)> = rows
            .iter()
            .map(|row| (row.message_id.as_str().to_owned(), to_line(row)))
            .collect();
        let mut output = Arc::clone(&self.output).lock_owned().await;
        let written = tokio::task::spawn_blocking(move || output.append(lines)).await;
        let result = match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
        .map_err(|error| SinkError::Unavailable(format!("writing `{}`: {error}", self.name)));
        vec![result; rows.len()]
    }

    async fn close(&self) {
        // Gives up the lock with the file.
        self.output.lock().await.target = Target::Closed;
    }
}

struct Output {
    target: Target,
    recent: Recent,
}

enum Target {
    File {
        file: File,
        /// Up to here all is whole lines.
        length: u64,
        /// Whether a failed write may have left something behind that.
        torn: bool,
    },
    Stream(Box<dyn Write + Send>),
    Closed,
}

impl Output {
    fn stream(stream: Box<dyn Write + Send>) -> Self {
        Self {
            target: Target::Stream(stream),
            recent: Recent::default(),
        }
    }

    fn open(path: &Path) -> Result<Self, FileError> {
        let error = |source| FileError::Output {
            path: path.to_owned(),
            source,
        };
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        if !is_new && !path.metadata().map_err(error)?.is_file() {
            let stream = options.write(true).open(path).map_err(error)?;
            return Ok(Self::stream(Box::new(stream)));
        }
        options.read(true).append(true).create(true);
        let mut file = options.open(path).map_err(error)?;
        file.try_lock().map_err(|reason| match reason {
            TryLockError::WouldBlock => FileError::Locked {
                path: path.to_owned(),
            },
            TryLockError::Error(source) => error(source),
        })?;
        if is_new {
            sync_directory(path).map_err(error)?;
        }
        let torn = mend(&mut file).map_err(error)?;
        if torn > 0 {
            tracing::warn!(
                output = %path.display(),
                bytes = torn,
                "removed a torn last line that a killed process left"
            );
        }
        let mut recent = Recent::default();
        for id in last_ids(&mut file, REMEMBERED).map_err(error)? {
            recent.insert(id);
        }
        let length = file.metadata().map_err(error)?.len();
        let torn = false;
        Ok(Self {
            target: Target::File { file, length, torn },
            recent,
        })
    }

    /// Writes the lines whose ids are new, all or none of them.
    fn append(&mut self, lines: Vec<(String, Vec<u8>)>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut ids: Vec<String> = Vec::new();
        let mut in_this_call = HashSet::new();
        for (id, line) in lines {
            if !self.recent.contains(&id) && in_this_call.insert(id.clone()) {
                bytes.extend(line);
                ids.push(id);
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.target.write(&bytes)?;
        ids.into_iter().for_each(|id| self.recent.insert(id));
        Ok(())
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("remembered", &self.recent.order.len())
            .finish_non_exhaustive()
    }
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Closed => Err(io::Error::other("it is closed")),
            Self::Stream(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
            Self::File { file, length, torn } => {
                if *torn {
                    file.set_len(*length)?;
                }
                *torn = true;
                file.write_all(bytes)?;
                file.sync_data()?;
                *torn = false;
                *length += bytes.len() as u64;
                Ok(())
            }
        }
    }
}

/// The ids written last.
#[derive(Default)]
struct Recent {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Recent {
    fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    fn insert(&mut self, id: String) {
        if self.ids.insert(id.clone()) {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// Makes a new file's name durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
