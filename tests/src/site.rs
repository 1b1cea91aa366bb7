//! A directory in which the real `semel` is run as a user would run it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::child::{Process, bound_command};
use crate::installation;

/// How long a command that looks at a store may take.
const COMMAND: Duration = Duration::from_secs(60);

/// A working directory with plugins, in which `semel` runs.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
    runs: AtomicUsize,
}

/// A `semel` that runs. It is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub process: Process,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A `semel` that ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// Its log, its errors and its summary for people.
    pub stderr: String,
}

impl Site {
    /// A new directory, on the same disk as the build: `/tmp` may be no disk at all.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("semel-site-")
            .tempdir_in(installation::build_dir()?)?;
        Ok(Self {
            dir,
            runs: AtomicUsize::new(0),
        })
    }

    /// A new directory with these examples as plugins.
    pub fn with_plugins(names: &[&str]) -> Result<Self> {
        let site = Self::new()?;
        for name in names {
            site.install(&installation::plugin(name)?)?;
        }
        Ok(site)
    }

    /// Where it is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Leaves the directory behind when this process ends, and says where it is.
    pub fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    /// Copies a plugin file into `plugins`.
    pub fn install(&self, file: &Path) -> Result<()> {
        let name = file.file_name().context("a plugin has a file name")?;
        self.write(&format!("plugins/{}", name.display()), &fs::read(file)?)
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(name);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))
    }

    /// Reads a file as text.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
    }

    /// Starts `semel` with these arguments. Nothing is on its stdin.
    pub fn start(&self, arguments: &[&str]) -> Result<Running> {
        self.start_with(arguments, |command| {
            command.stdin(Stdio::null());
        })
    }

    /// The same with changes to the command, such as its environment. Stdout and stderr go to
    /// files: a pipe that nobody reads would stop the host.
    pub fn start_with(
        &self,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Running> {
        self.start_program(&installation::semel()?, arguments, change)
    }

    /// The same with another build of the host.
    pub fn start_program(
        &self,
        program: &Path,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Running> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let stdout = self.path(&format!("run-{number}.stdout"));
        let stderr = self.path(&format!("run-{number}.stderr"));
        let mut command = bound_command(program);
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            // Compiled plugins are shared by all sites, so that each compiles once.
            .env("XDG_CACHE_HOME", installation::build_dir()?.join("cache"))
            .env_remove("SEMEL_STORE")
            .env_remove("SEMEL_CONFIG");
        change(&mut command);
        Ok(Running {
            process: Process::start(command)?,
            stdout,
            stderr,
        })
    }

    /// Runs `semel` to its end, whatever that is.
    pub fn run(&self, arguments: &[&str], limit: Duration) -> Result<Ended> {
        self.start(arguments)?.wait(limit)
    }

    /// Runs a command that is expected to succeed, and gives what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.run(arguments, COMMAND)?;
        Ok(ended.succeeded(&arguments.join(" "))?.stdout)
    }

    /// The same for a command that prints JSON Lines.
    pub fn ask_json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        json_lines(&self.ask(arguments)?)
    }
}

impl Running {
    /// Waits for its end. After `limit` it is killed, and that is an error.
    pub fn wait(mut self, limit: Duration) -> Result<Ended> {
        let status = self.process.wait(limit).with_context(|| self.stderr())?;
        Ok(Ended {
            status,
            stdout: fs::read_to_string(&self.stdout)?,
            stderr: self.stderr(),
        })
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits until its log has a line with this text.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> Result<()> {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let log = self.stderr();
            if log.contains(text) {
                return Ok(());
            }
            let ended = self.process.ended()?;
            ensure!(
                ended.is_none() && std::time::Instant::now() < deadline,
                "no `{text}` in the log within {limit:?} ({ended:?}):\n{log}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Ended {
    /// An error with all that it said unless its exit code is 0.
    pub fn succeeded(self, what: &str) -> Result<Self> {
        ensure!(
            self.status.success(),
            "`semel {what}` ended with {}:\n{}",
            self.status,
            self.stderr
        );
        Ok(self)
    }

    /// The log, an event each with the lines that belong to it.
    pub fn events(&self) -> Vec<String> {
        let mut events: Vec<String> = Vec::new();
        for line in self.stderr.lines() {
            match events.last_mut() {
                Some(event) if line.starts_with(' ') => {
                    event.push('\n');
                    event.push_str(line);
                }
                _ => events.push(line.to_owned()),
            }
        }
        events
    }

    /// The summary of `semel run --summary json`.
    pub fn summary(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("no summary: {:?}\n{}", self.stdout, self.stderr))
    }
}

/// The lines of a text as JSON.
pub fn json_lines(text: &str) -> Result<Vec<Value>> {
    let lines = text.lines().enumerate();
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).with_context(|| format!("line {}: {line}", at + 1))
        })
        .collect()
}
