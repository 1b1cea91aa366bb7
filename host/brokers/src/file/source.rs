use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{thread, vec};

use async_trait::async_trait;
use semel_core::{
    Clock, Delivery, Partition, Position, Received, Source, SourceError, SystemClock,
};
use tokio::sync::{Mutex, mpsc};

use super::reader::{Origin, Reader, Told};
use super::{FileError, FileName, FileProgress};

/// How long [`FileSource::receive`] waits on a stream that pauses.
const POLL: Duration = Duration::from_millis(100);

/// How many blocks the reader may be ahead.
const BLOCKS_AHEAD: usize = 4;

/// Messages of a JSON Lines file or stream, as one subscriber sees them.
///
/// A line is `{"topic", "id"?, "key"?, "headers"?, "timestamp"?, "body"}`:
///
/// - `body` is any JSON value and is handed over as written, byte for byte; or
///   `{"base64": "…"}`, which stands for the bytes it encodes.
/// - `headers` is an object of strings. A name that repeats has an array of strings.
/// - `timestamp` is in milliseconds since 1970-01-01 UTC, or RFC 3339 text. Without it: when
///   the file was last changed; for a stream, when it was opened.
/// - Without `id`, the id is `file:PATH:LINE` with the canonical path; for a stream,
///   `stdin:RUN:LINE`, where `RUN` is drawn anew for each run. So give ids to messages that
///   may come again by another way: as a second file, or through a pipe.
///
/// Blank lines are skipped. A line that does not parse is a malformed delivery to the first
/// subscriber. Offsets are line numbers from 1.
///
/// There is one partition, `file:PATH` or `stdin:RUN`, and nothing to acknowledge: a file is
/// read from its start each time, and the records in the store make that harmless. A file may
/// grow between runs, but one with other content needs another name.
#[derive(Debug)]
pub struct FileSource {
    incoming: Mutex<Incoming>,
}

#[derive(Debug)]
struct Incoming {
    blocks: mpsc::Receiver<Told>,
    /// What is left of a block.
    rest: vec::IntoIter<Delivery>,
    failed: Option<String>,
}

impl FileSource {
    /// Opens an input for subscribers, each with a list of topics, and starts to read it. One
    /// thread reads for all of them, at the pace of the slowest.
    pub fn open(
        input: &FileName,
        subscriptions: Vec<Vec<String>>,
    ) -> Result<(Vec<Self>, Arc<FileProgress>), FileError> {
        match input {
            FileName::Standard => Self::stream(io::stdin(), subscriptions),
            FileName::Path(path) => {
                let error = |source| FileError::Input {
                    path: path.clone(),
                    source,
                };
                let file = File::open(path).map_err(error)?;
                let metadata = file.metadata().map_err(error)?;
                if metadata.is_dir() {
                    return Err(error(io::ErrorKind::IsADirectory.into()));
                }
                if !metadata.is_file() {
                    // A pipe gives something else each time that it is opened.
                    return Self::stream(file, subscriptions);
                }
                let name = format!("file:{}", path.canonicalize().map_err(error)?.display());
                let changed = metadata.modified().map_err(error)?;
                let origin = Origin {
                    partition: Partition::new(&name),
                    id_prefix: format!("{name}:"),
                    timestamp_ms: milliseconds(changed),
                };
                let progress = FileProgress::new(Some(metadata.len()));
                Self::start(file, origin, progress, subscriptions)
            }
        }
    }

    /// Reads something that can be read only once, like stdin.
    pub fn stream(
        input: impl Read + Send + 'static,
        subscriptions: Vec<Vec<String>>,
    ) -> Result<(Vec<Self>, Arc<FileProgress>), FileError> {
        let now_ms = SystemClock.now_ms();
        let run = RandomState::new().hash_one(now_ms);
        let name = format!("stdin:{run:016x}");
        let origin = Origin {
            partition: Partition::new(&name),
            id_prefix: format!("{name}:"),
            timestamp_ms: now_ms,
        };
        Self::start(input, origin, FileProgress::new(None), subscriptions)
    }

    fn start(
        input: impl Read + Send + 'static,
        origin: Origin,
        progress: FileProgress,
        subscriptions: Vec<Vec<String>>,
    ) -> Result<(Vec<Self>, Arc<FileProgress>), FileError> {
        let progress = Arc::new(progress);
        let mut sources = Vec::new();
        let mut senders = Vec::new();
        for topics in subscriptions {
            let (sender, blocks) = mpsc::channel(BLOCKS_AHEAD);
            senders.push((topics, sender));
            sources.push(Self {
                incoming: Mutex::new(Incoming {
                    blocks,
                    rest: Vec::new().into_iter(),
                    failed: None,
                }),
            });
        }
        let reader = Reader::new(origin, Arc::clone(&progress), senders);
        thread::Builder::new()
            .name("semel-input".to_owned())
            .spawn(move || reader.run(input))
            .map_err(FileError::Thread)?;
        Ok((sources, progress))
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Source for FileSource {
    async fn receive(&self, limit: usize) -> Result<Received, SourceError> {
        let mut incoming = self.incoming.lock().await;
        if let Some(reason) = &incoming.failed {
            return Err(SourceError::Failed(reason.clone()));
        }
        let mut batch: Vec<Delivery> = incoming.rest.by_ref().take(limit).collect();
        while batch.len() < limit {
            let told = if batch.is_empty() {
                match tokio::time::timeout(POLL, incoming.blocks.recv()).await {
                    Err(_) => break,
                    Ok(None) => return Ok(Received::End),
                    Ok(Some(told)) => told,
                }
            } else {
                match incoming.blocks.try_recv() {
                    Err(_) => break,
                    Ok(told) => told,
                }
            };
            match told {
                Told::Batch(deliveries) => {
                    incoming.rest = deliveries.into_iter();
                    batch.extend(incoming.rest.by_ref().take(limit - batch.len()));
                }
                Told::Failed(reason) => {
                    incoming.failed = Some(reason.clone());
                    if batch.is_empty() {
                        return Err(SourceError::Failed(reason));
                    }
                    break;
                }
            }
        }
        Ok(Received::Batch(batch))
    }

    async fn acknowledge(&self, _positions: &[Position]) -> Result<(), SourceError> {
        Ok(())
    }

    async fn close(&self) {
        self.incoming.lock().await.blocks.close();
    }
}
