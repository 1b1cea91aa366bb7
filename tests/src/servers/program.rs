//! Where servers are, and where they may listen.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A program on the PATH, or where Debian keeps those of administrators.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let sbin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// Removes a directory when this process has ended, however it ends.
pub fn remove_at_exit(directory: &Path) -> Result<()> {
    // Nothing is ever written to its stdin, which closes with this process. The server in the
    // directory is killed at the same moment and may need another to be gone.
    let mut child = Command::new("sh")
        .args(["-c", "read -r _; sleep 2; rm -rf -- \"$0\""])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("can't start sh")?;
    // Kept open until this process ends.
    std::mem::forget(child.stdin.take());
    Ok(())
}
