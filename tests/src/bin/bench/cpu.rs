//! CPU time, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of times in `/proc`, which is the same on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU time used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// By this process, all threads, those that ended included.
    pub host: Duration,
    /// By the servers.
    pub servers: Duration,
}

impl CpuTime {
    /// Up to now.
    pub fn now(servers: &[u32]) -> Result<Self> {
        let servers = servers.iter().map(|pid| of_process(&pid.to_string()));
        Ok(Self {
            host: of_process("self")?,
            servers: servers.sum::<Result<_>>()?,
        })
    }

    /// Since an earlier time.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            host: self.host.saturating_sub(earlier.host),
            servers: self.servers.saturating_sub(earlier.servers),
        }
    }
}

fn of_process(pid: &str) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The second field is the program's name in parentheses, which may hold anything.
    let ticks = text.rsplit_once(')').and_then(|(_, rest)| {
        let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u32>);
        Some(fields.next()?.ok()? + fields.next()?.ok()?)
    });
    Ok(TICK * ticks.with_context(|| format!("{path} has another form than expected"))?)
}
