//! The lines of a file that a host is writing.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;

use crate::site::Running;

/// How often a growing file is looked at.
const POLL: Duration = Duration::from_millis(1);

/// Counts whole lines of a file that may grow, reading only what is new.
#[derive(Debug)]
pub struct LineCount {
    path: PathBuf,
    read: u64,
    lines: usize,
}

/// What became of an attempt to kill a host in the midst of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// It was at work, and died of SIGKILL.
    Hit {
        /// The lines of its output then.
        lines: usize,
    },
    /// It ended by itself before.
    Missed,
}

impl LineCount {
    /// Of a file that need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: 0,
            lines: 0,
        }
    }

    /// How many there are now. A torn last line that was removed may have been read already,
    /// but its end never was, so it never counted.
    pub fn now(&mut self) -> Result<usize> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut new = Vec::new();
        file.read_to_end(&mut new)?;
        // Only whole lines are skipped the next time.
        if let Some(end) = new.iter().rposition(|byte| *byte == b'\n') {
            self.read += end as u64 + 1;
            self.lines += new[..=end].iter().filter(|byte| **byte == b'\n').count();
        }
        Ok(self.lines)
    }

    /// Waits until there are this many. The answer is false if the host ends before.
    pub fn reach(&mut self, lines: usize, host: &mut Running, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while self.now()? < lines {
            if host.process.ended()?.is_some() {
                return Ok(false);
            }
            ensure!(
                Instant::now() < deadline,
                "the output has {} lines and not {lines} after {limit:?}; the host says:\n{}",
                self.lines,
                host.stderr()
            );
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    /// Kills a host with SIGKILL once its output has this many lines, and up to `delay` later,
    /// so that any step of the protocol may be the last.
    pub fn kill_at(
        &mut self,
        lines: usize,
        delay: Duration,
        host: &mut Running,
        limit: Duration,
    ) -> Result<Kill> {
        if self.reach(lines, host, limit)? {
            std::thread::sleep(delay);
            if host.process.kill()? {
                return Ok(Kill::Hit { lines: self.now()? });
            }
        }
        Ok(Kill::Missed)
    }
}

/// Random lines at which to kill a host `kills` times on its way to `total` lines, each in a
/// part of the way of its own, and none near its end.
pub fn kill_points(kills: usize, total: usize, random: &mut StdRng) -> Vec<usize> {
    let part = total * 4 / 5 / kills.max(1);
    (0..kills)
        .map(|kill| kill * part + random.random_range(1..=part.max(1)))
        .collect()
}
