//! A real Redis server of one test's own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::certificates::Certificates;
use super::program::{find_program, free_ports, wait_until_up};
use crate::child::{Process, bound_command};

/// How long a server may take to load its data and answer.
const START: Duration = Duration::from_secs(20);

/// A server on a free port of 127.0.0.1, with a directory of its own. It stops when it is
/// dropped, and also when the process that started it dies.
#[derive(Debug)]
pub struct RedisServer {
    // Dropped before its directory.
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
}

impl RedisServer {
    /// Starts one that keeps every write in its append-only file, and syncs it each second.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one that syncs each write before it is answered.
    pub async fn start_synced() -> Result<Self> {
        Self::start_with(&["--appendfsync", "always"]).await
    }

    /// Starts one with more options, such as `["--maxmemory-policy", "allkeys-lru"]`.
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        let mut server = Self {
            process: None,
            directory: tempfile::tempdir()?,
            port: free_ports(&[0])?,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        server.restart().await?;
        Ok(server)
    }

    /// Starts one that shows what it is given on a port with TLS, beside the plain one. Where
    /// that is, as a store URL, comes with it.
    pub async fn start_with_tls(certificates: &Certificates) -> Result<(Self, String)> {
        let port = free_ports(&[0])?;
        let path = |path: PathBuf| path.display().to_string();
        let server = Self::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-auth-clients",
            "no",
            "--tls-ca-cert-file",
            &path(certificates.ca()),
            "--tls-cert-file",
            &path(certificates.certificate()),
            "--tls-key-file",
            &path(certificates.key()),
        ])
        .await?;
        Ok((server, format!("rediss://127.0.0.1:{port}/0")))
    }

    /// Starts it again on the same port and data, after [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let program = find_program("redis-server").context(
            "redis-server is not on the PATH: run `make tools`, or on Debian and Ubuntu \
             `apt-get install redis-server`",
        )?;
        let log_path = self.directory.path().join("log");
        let log = std::fs::File::create(&log_path)?;
        let mut command = bound_command(&program);
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "yes"])
            .args(["--maxmemory-policy", "noeviction", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::start(command)?;
        let is_up = async || self.answers().await;
        let up = wait_until_up("Redis", process, &log_path, START, is_up);
        self.process = Some(up.await?);
        Ok(())
    }

    /// Kills it at once, as a power cut would (but for what the system has not written yet).
    pub fn kill(&mut self) {
        // Dropped, it is killed.
        self.process = None;
    }

    /// The process, if it runs.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("the server does not run")
    }

    /// Where it listens, as a store URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Sends a command as a line, and gives the first line of the answer, such as `:1`.
    pub async fn ask(&self, command: &str) -> Result<String> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await?);
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        Ok(answer.trim_end().to_owned())
    }

    async fn answers(&self) -> bool {
        self.ask("PING").await.is_ok_and(|answer| answer == "+PONG")
    }
}
