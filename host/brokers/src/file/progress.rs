use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far an input is read, for a progress bar. Shared by all sources of the input.
#[derive(Debug, Default)]
pub struct FileProgress {
    total: Option<u64>,
    bytes: AtomicU64,
    lines: AtomicU64,
    unrouted: AtomicU64,
    malformed: AtomicU64,
}

impl FileProgress {
    pub(super) fn new(total: Option<u64>) -> Self {
        Self {
            total,
            ..Self::default()
        }
    }

    /// The file's size in bytes when it was opened; unknown for a stream.
    pub fn bytes_total(&self) -> Option<u64> {
        self.total
    }

    /// Bytes read so far. May exceed the total if the file grows meanwhile.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Lines read so far that are not blank.
    pub fn lines(&self) -> u64 {
        self.lines.load(Relaxed)
    }

    /// How many of them have a topic that nobody subscribed to.
    pub fn unrouted(&self) -> u64 {
        self.unrouted.load(Relaxed)
    }

    /// How many of them are no messages.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Relaxed)
    }

    pub(super) fn add_bytes(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn add_line(&self) {
        self.lines.fetch_add(1, Relaxed);
    }

    pub(super) fn add_unrouted(&self) {
        self.unrouted.fetch_add(1, Relaxed);
    }

    pub(super) fn add_malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }
}
