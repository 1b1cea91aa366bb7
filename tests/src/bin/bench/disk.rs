//! The disk that durable rows write to: what an fsync costs there.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Synced writes that are timed.
const PROBES: usize = 64;

/// Where durable rows keep their files.
pub struct Disk {
    path: PathBuf,
    /// The kind of file system, such as `ext4`.
    pub file_system: String,
    /// The median time of a write of 4 KiB with `fdatasync`.
    pub sync: Duration,
}

impl Disk {
    /// Looks at the disk that this directory is on.
    pub fn probe(path: &Path) -> Result<Self> {
        let path = path
            .canonicalize()
            .with_context(|| format!("{}: give another directory with --dir", path.display()))?;
        Ok(Self {
            file_system: file_system(&path).unwrap_or_else(|| "unknown".to_owned()),
            sync: sync_time(&path)?,
            path,
        })
    }

    /// A directory that goes when it is dropped.
    pub fn directory(&self) -> Result<TempDir> {
        Ok(TempDir::with_prefix_in("semel-bench-", &self.path)?)
    }
}

fn sync_time(path: &Path) -> Result<Duration> {
    let directory = TempDir::with_prefix_in("semel-bench-", path)?;
    let mut file = File::create(directory.path().join("probe"))?;
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let started = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times[PROBES / 2])
}

/// By the mount whose point is the longest beginning of the path.
fn file_system(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    mounts
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.as_os_str().len())
        .map(|(_, kind)| kind.to_owned())
}
