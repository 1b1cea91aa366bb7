//! A real Redis server of one test's own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// How long a server may take to load its data and answer.
const START: Duration = Duration::from_secs(20);

/// A server on a free port of 127.0.0.1, with a directory of its own. Stopped when dropped.
#[derive(Debug)]
pub struct RedisServer {
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
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
            directory: tempfile::tempdir()?,
            port: free_port()?,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            process: None,
        };
        server.restart().await?;
        Ok(server)
    }

    /// Starts it again on the same port and data, after [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let program = find_program("redis-server").context(
            "redis-server is not on the PATH: run `make tools`, or on Debian and Ubuntu \
             `apt-get install redis-server`",
        )?;
        let log = std::fs::File::create(self.directory.path().join("log"))?;
        let process = Command::new(program)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "yes"])
            .args(["--maxmemory-policy", "noeviction", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("redis-server does not start")?;
        self.process = Some(process);
        self.wait_until_ready().await
    }

    /// Kills it at once, as a power cut would (but for what the system has not written yet).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; either way it is gone after.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Lets it stand still, so that it answers nothing and keeps its connections.
    pub fn pause(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().context("the server does not run")?;
        let status = Command::new("kill")
            .args([signal, &pid.to_string()])
            .status()?;
        ensure!(status.success(), "kill {signal} {pid} failed");
        Ok(())
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
        self.process.as_ref().map(Child::id)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + START;
        loop {
            if self.answers().await {
                return Ok(());
            }
            let process = self.process.as_mut().context("it was not started")?;
            let ended = process.try_wait()?;
            if ended.is_some() || Instant::now() > until {
                let log = std::fs::read_to_string(self.directory.path().join("log"))?;
                bail!("redis-server is not ready ({ended:?}):\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn answers(&self) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)).await else {
            return false;
        };
        let mut pong = [0; 7];
        stream.write_all(b"PING\r\n").await.is_ok()
            && stream.read_exact(&mut pong).await.is_ok()
            && &pong == b"+PONG\r\n"
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn find_program(name: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|path| Path::new(path).is_file())
}
