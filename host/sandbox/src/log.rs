//! What a plugin says: its log lines, stdout and stderr, under the plugin's name.

use std::sync::Arc;

use tracing::Level;

/// Bytes of the last error lines that are kept for a dead letter.
const TAIL_BYTES: usize = 4 << 10;

/// Bytes of one line.
const LINE_BYTES: usize = 8 << 10;

/// The log of one run.
#[derive(Debug)]
pub(crate) struct GuestLog {
    plugin: Arc<str>,
    bytes_left: usize,
    cut: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    tail: String,
}

/// One of a plugin's two standard outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl GuestLog {
    pub(crate) fn new(plugin: Arc<str>, bytes: usize) -> Self {
        Self {
            plugin,
            bytes_left: bytes,
            cut: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
            tail: String::new(),
        }
    }

    /// A line from the contract's `log.write`.
    pub(crate) fn write(&mut self, level: Level, text: &str) {
        if level == Level::ERROR {
            self.remember(text);
        }
        self.emit(level, text);
    }

    /// Bytes on a standard output. They become lines as their ends arrive.
    pub(crate) fn print(&mut self, stream: Stream, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let mut line = self.take_open(stream);
            line.extend_from_slice(&rest[..end]);
            self.print_line(stream, &line);
            rest = &rest[end + 1..];
        }
        let open = self.open(stream);
        let room = LINE_BYTES.saturating_sub(open.len());
        open.extend_from_slice(&rest[..rest.len().min(room)]);
    }

    /// Ends lines that are still open.
    pub(crate) fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = self.take_open(stream);
            self.print_line(stream, &line);
        }
    }

    /// The last lines on stderr and at error level, which is where a panic says what it is.
    pub(crate) fn tail(&self) -> &str {
        &self.tail
    }

    fn open(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn take_open(&mut self, stream: Stream) -> Vec<u8> {
        std::mem::take(self.open(stream))
    }

    fn print_line(&mut self, stream: Stream, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(line);
        match stream {
            Stream::Stdout => self.emit(Level::INFO, &text),
            Stream::Stderr => {
                self.remember(&text);
                self.emit(Level::WARN, &text);
            }
        }
    }

    fn remember(&mut self, text: &str) {
        if !self.tail.is_empty() {
            self.tail.push('\n');
        }
        self.tail.push_str(prefix(text, TAIL_BYTES));
        if let Some(excess) = self.tail.len().checked_sub(TAIL_BYTES) {
            let from = (excess..).find(|&at| self.tail.is_char_boundary(at));
            self.tail.drain(..from.unwrap_or_default());
        }
    }

    fn emit(&mut self, level: Level, text: &str) {
        // An empty line costs something too.
        let cost = text.len().max(16);
        if cost > self.bytes_left && !self.cut {
            self.cut = true;
            tracing::warn!(
                target: "semel::plugin",
                plugin = &*self.plugin,
                "this run logs more than it may: the rest of its log is cut"
            );
        }
        if self.cut {
            return;
        }
        self.bytes_left -= cost;
        emit(&self.plugin, level, text);
    }
}

/// Writes one line under a plugin's name.
pub(crate) fn emit(plugin: &str, level: Level, text: &str) {
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(
                target: "semel::plugin", Level::$level, plugin, "{}", Printable(text)
            )
        };
    }
    match level {
        Level::TRACE => event!(TRACE),
        Level::DEBUG => event!(DEBUG),
        Level::INFO => event!(INFO),
        Level::WARN => event!(WARN),
        Level::ERROR => event!(ERROR),
    }
}

/// Text of a plugin, of bounded length and without what could steer a terminal.
struct Printable<'a>(&'a str);

impl std::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = prefix(self.0, LINE_BYTES);
        for part in shown.split_inclusive(|c: char| c.is_control() && !"\n\t".contains(c)) {
            match part.chars().next_back() {
                Some(c) if c.is_control() && !"\n\t".contains(c) => {
                    f.write_str(&part[..part.len() - c.len_utf8()])?;
                    write!(f, "{}", c.escape_unicode())?;
                }
                _ => f.write_str(part)?,
            }
        }
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, "… ({more} more bytes)"),
        }
    }
}

fn prefix(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_error_lines() {
        let mut log = GuestLog::new("p".into(), 1 << 20);
        for number in 0..2_000 {
            log.print(Stream::Stderr, format!("line {number} ä\n").as_bytes());
        }
        log.print(Stream::Stdout, b"not kept\n");
        log.write(Level::ERROR, "panicked at");
        log.print(Stream::Stderr, b"open end");
        log.finish();
        assert!(log.tail().len() <= TAIL_BYTES);
        assert!(
            log.tail().ends_with("line 1999 ä\npanicked at\nopen end"),
            "{}",
            log.tail()
        );
    }

    #[test]
    fn a_log_is_cut_at_its_limit() {
        let mut log = GuestLog::new("p".into(), 100);
        log.write(Level::INFO, &"x".repeat(90));
        assert!(!log.cut);
        log.write(Level::INFO, "");
        assert!(log.cut);
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let shown = Printable("a\u{1b}[31m\tb\nc").to_string();
        assert_eq!(shown, "a\\u{1b}[31m\tb\nc");
        let long = "ä".repeat(LINE_BYTES);
        assert!(
            Printable(&long)
                .to_string()
                .ends_with("… (8192 more bytes)")
        );
    }
}
