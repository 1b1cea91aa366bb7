//! The thread that reads an input and hands its lines to those who subscribed to their topics.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use semel_core::{Delivery, Message, Partition, Payload, Position};
use tokio::sync::mpsc;

use super::FileProgress;
use super::line::{Line, LineError};

/// How much is read at a time, in bytes. What was read is handed over before the next read,
/// so that nothing waits in here while a stream pauses.
const BLOCK: usize = 256 * 1024;

/// The longest line that is read as a message, in bytes.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// How much of a malformed line is kept, in bytes.
const MAX_RAW: usize = 1024 * 1024;

/// What the reader tells a source.
pub(super) enum Told {
    Batch(Vec<Delivery>),
    Failed(String),
}

/// Where an input's messages come from when they say nothing of it themselves.
pub(super) struct Origin {
    pub(super) partition: Partition,
    /// What ids start with that are made of line numbers.
    pub(super) id_prefix: String,
    pub(super) timestamp_ms: u64,
}

pub(super) struct Reader {
    origin: Origin,
    progress: Arc<FileProgress>,
    routes: HashMap<Arc<str>, Vec<usize>>,
    subscribers: Vec<Subscriber>,
    /// The number of the line being read, from 1.
    line: u64,
    /// The first bytes of a line that is longer than what is kept.
    overlong: Option<Overlong>,
}

struct Subscriber {
    sender: mpsc::Sender<Told>,
    batch: Vec<Delivery>,
}

struct Overlong {
    start: Bytes,
    length: u64,
}

impl Reader {
    /// One that gives malformed lines to the first of the subscribers.
    pub(super) fn new(
        origin: Origin,
        progress: Arc<FileProgress>,
        subscriptions: Vec<(Vec<String>, mpsc::Sender<Told>)>,
    ) -> Self {
        let mut routes: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        let mut subscribers = Vec::new();
        for (index, (topics, sender)) in subscriptions.into_iter().enumerate() {
            for topic in topics {
                let route = routes.entry(topic.into()).or_default();
                if route.last() != Some(&index) {
                    route.push(index);
                }
            }
            let batch = Vec::new();
            subscribers.push(Subscriber { sender, batch });
        }
        Self {
            origin,
            progress,
            routes,
            subscribers,
            line: 1,
            overlong: None,
        }
    }

    /// Reads to the end, or until nobody listens any more.
    pub(super) fn run(mut self, mut input: impl Read) {
        // From `start` on, what is read but not handed over yet: the beginning of a line.
        let mut buffer: Vec<u8> = Vec::with_capacity(2 * BLOCK);
        loop {
            if !self.flush() {
                return;
            }
            let kept = buffer.len();
            buffer.resize(kept + BLOCK, 0);
            let read = input.read(&mut buffer[kept..]);
            buffer.truncate(kept + *read.as_ref().unwrap_or(&0));
            let count = match read {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.fail(&error),
            };
            if count == 0 {
                self.line(&buffer);
                self.flush();
                return;
            }
            self.progress.add_bytes(count);
            let consumed = self.lines(&buffer, kept);
            buffer.drain(..consumed);
            if buffer.len() > MAX_LINE || self.overlong.is_some() {
                self.swallow(&mut buffer);
            }
        }
    }

    /// Hands over the whole lines of a buffer of which the first bytes are known to hold no
    /// line's end. Returns how many bytes that was.
    fn lines(&mut self, buffer: &[u8], known: usize) -> usize {
        let mut start = 0;
        let mut from = known;
        while let Some(length) = memchr::memchr(b'\n', &buffer[from..]) {
            self.line(&buffer[start..from + length]);
            start = from + length + 1;
            from = start;
        }
        start
    }

    /// Forgets the bytes of a line that is too long, save for its start.
    fn swallow(&mut self, buffer: &mut Vec<u8>) {
        let overlong = self.overlong.get_or_insert_with(|| Overlong {
            start: Bytes::copy_from_slice(&buffer[..MAX_RAW]),
            length: 0,
        });
        overlong.length += buffer.len() as u64;
        buffer.clear();
        buffer.shrink_to(2 * BLOCK);
    }

    fn line(&mut self, bytes: &[u8]) {
        let offset = self.line;
        self.line += 1;
        let overlong = self.overlong.take().or_else(|| {
            (bytes.len() > MAX_LINE).then(|| Overlong {
                start: Bytes::copy_from_slice(&bytes[..MAX_RAW]),
                length: 0,
            })
        });
        if let Some(overlong) = overlong {
            self.progress.add_line();
            let length = overlong.length + bytes.len() as u64;
            let reason = format!(
                "longer than {MAX_LINE} bytes: {length}, of which the first {MAX_RAW} are kept"
            );
            let column = None;
            return self.malformed(offset, LineError { column, reason }, overlong.start);
        }
        let bytes = match offset {
            1 => bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes),
            _ => bytes,
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        self.progress.add_line();
        match self.route(offset, bytes) {
            Ok(()) => {}
            Err(error) => {
                let raw = bytes.strip_suffix(b"\r").unwrap_or(bytes);
                let raw = &raw[..raw.len().min(MAX_RAW)];
                self.malformed(offset, error, Bytes::copy_from_slice(raw));
            }
        }
    }

    fn route(&mut self, offset: u64, bytes: &[u8]) -> Result<(), LineError> {
        let line = Line::parse(bytes)?;
        let body = line.body()?;
        let Some((topic, indices)) = self.routes.get_key_value(&*line.topic) else {
            self.progress.add_unrouted();
            return Ok(());
        };
        let timestamp_ms = line.timestamp_ms();
        let message = Arc::new(Message {
            id: match line.id {
                Some(id) => id.0.into_owned(),
                None => format!("{}{offset}", self.origin.id_prefix),
            },
            topic: Arc::clone(topic),
            keys: line.key.into_iter().map(|key| key.0.into_owned()).collect(),
            headers: line.headers.map_or_else(Vec::new, |headers| headers.0),
            body,
            timestamp_ms: timestamp_ms.unwrap_or(self.origin.timestamp_ms),
        });
        for &index in indices {
            self.subscribers[index].batch.push(Delivery {
                position: Position {
                    partition: self.origin.partition.clone(),
                    offset,
                },
                payload: Payload::Message(Arc::clone(&message)),
            });
        }
        Ok(())
    }

    fn malformed(&mut self, offset: u64, error: LineError, raw: Bytes) {
        self.progress.add_malformed();
        let column = error.column.map(|column| format!(", column {column}"));
        let reason = format!(
            "line {offset}{}: {}",
            column.unwrap_or_default(),
            error.reason
        );
        let partition = self.origin.partition.clone();
        if let Some(first) = self.subscribers.first_mut() {
            first.batch.push(Delivery {
                position: Position { partition, offset },
                payload: Payload::Malformed { reason, raw },
            });
        }
    }

    /// Hands over what was read, waiting for those who are behind. False if nobody listens.
    fn flush(&mut self) -> bool {
        let mut listening = false;
        for subscriber in &mut self.subscribers {
            if !subscriber.batch.is_empty() {
                let batch = std::mem::take(&mut subscriber.batch);
                // A subscriber that has left gets nothing; the others go on.
                let _ = subscriber.sender.blocking_send(Told::Batch(batch));
            }
            listening |= !subscriber.sender.is_closed();
        }
        listening
    }

    fn fail(&mut self, error: &io::Error) {
        for subscriber in &mut self.subscribers {
            let reason = format!(
                "reading {} stopped in line {}: {error}",
                self.origin.partition, self.line
            );
            let _ = subscriber.sender.blocking_send(Told::Failed(reason));
        }
    }
}
