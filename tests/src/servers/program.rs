//! What a server needs to start: its program, a directory and ports.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::child::Process;

/// How often a server is tried to start: another process may take a port in the instant between
/// looking and starting.
const TRIES: usize = 3;

/// How often a server is asked whether it is up.
const POLL: Duration = Duration::from_millis(20);

/// A program on the PATH, or where Debian keeps those of administrators.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let sbin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(sbin)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// Where `scripts/install-tools.sh` puts what no package has.
pub(super) fn tools() -> Result<PathBuf> {
    match env::var_os("SEMEL_TOOLS") {
        Some(path) => Ok(PathBuf::from(path)),
        None => {
            let home = env::var_os("HOME").context("neither SEMEL_TOOLS nor HOME is set")?;
            Ok(PathBuf::from(home).join(".cache/semel/tools"))
        }
    }
}

/// A new directory for a server of this name.
pub(super) fn home(server: &str) -> Result<TempDir> {
    let prefix = format!("semel-{server}-");
    remove_leftovers(&prefix);
    Ok(TempDir::with_prefix(format!("{prefix}{}-", process::id()))?)
}

/// Removes the directories of servers whose owners are gone: one that is shared by the tests of
/// a process is never dropped. Their names are this prefix and the owner's process id.
fn remove_leftovers(prefix: &str) {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let Some((pid, _)) = owner.and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            // Someone else may be at it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A port such that it and the ports at these distances from it are free.
pub fn free_ports(distances: &[i32]) -> Result<u16> {
    for _ in 0..200 {
        // Below the ports that the kernel gives to clients.
        let port: u16 = rand::random_range(20_000..32_000);
        let bind = |distance: &i32| {
            let port = u16::try_from(i32::from(port) + distance)?;
            anyhow::Ok(TcpListener::bind(("127.0.0.1", port))?)
        };
        if distances
            .iter()
            .map(bind)
            .collect::<Result<Vec<_>>>()
            .is_ok()
        {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 between 20000 and 32000")
}

/// Starts a server, and again where that fails. `start` chooses its ports.
pub(super) async fn try_start(mut start: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    for _ in 1..TRIES {
        if start().await.is_ok() {
            return Ok(());
        }
    }
    start().await
}

/// Waits until a server is up. Where it ends before, or takes longer than `limit`, the error
/// says what it logged.
pub(super) async fn wait_until_up(
    name: &str,
    mut process: Process,
    log: &Path,
    limit: Duration,
    is_up: impl AsyncFn() -> bool,
) -> Result<Process> {
    let deadline = Instant::now() + limit;
    while !is_up().await {
        let ended = process.ended()?;
        if ended.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(log).unwrap_or_default();
            bail!("{name} is not up ({ended:?}):\n{log}");
        }
        sleep(POLL).await;
    }
    Ok(process)
}

/// What a server answers to a statement by way of its client.
pub(super) fn answer(mut client: Command, statement: &str) -> Result<String> {
    let output = client.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{statement}: {error}");
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
