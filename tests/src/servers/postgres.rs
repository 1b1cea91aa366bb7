//! A real PostgreSQL server of one test's own, or of all tests of a process.

use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::certificates::Certificates;
use super::program::{answer, find_program, free_ports, home};
use crate::child::{Process, bound_command};

/// How long a server may take to recover and answer.
const START: Duration = Duration::from_secs(60);

const MISSING: &str = "is not there: run `make tools`, or on Debian and Ubuntu \
                       `apt-get install postgresql`";

/// A server on a free port of 127.0.0.1, with a directory of its own. It stops when it is
/// dropped, and also when the process that started it dies.
#[derive(Debug)]
pub struct PostgresServer {
    // Dropped before its directory.
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    databases: AtomicUsize,
}

impl PostgresServer {
    /// Starts one that syncs its log at each commit, as it does by default.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with more settings, such as `["synchronous_commit=off"]`.
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        let directory = home("postgres")?;
        if let Some((user, group)) = other_user()? {
            std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
            chown(directory.path(), Some(user), Some(group))?;
        }
        let output = unprivileged(Command::new(program("initdb")?))?
            .args(["--username=semel", "--auth=trust", "--no-sync"])
            .args(["--locale=C", "--encoding=UTF8", "--pgdata"])
            .arg(directory.path().join("data"))
            .current_dir(directory.path())
            .output()?;
        ensure!(output.status.success(), "initdb: {output:?}");
        let mut server = Self {
            process: None,
            directory,
            port: free_ports(&[0])?,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            databases: AtomicUsize::new(0),
        };
        server.restart().await?;
        Ok(server)
    }

    /// Starts one that can speak TLS, and shows what it is given then.
    pub async fn start_with_tls(certificates: &Certificates) -> Result<Self> {
        if let Some((user, group)) = other_user()? {
            certificates.give_to(user, group)?;
        }
        let certificate = format!("ssl_cert_file={}", certificates.certificate().display());
        let key = format!("ssl_key_file={}", certificates.key().display());
        Self::start_with(&["ssl=on", &certificate, &key]).await
    }

    /// One server for all tests of this process, which takes seconds to make.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<PostgresServer> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts it again on the same port and data, after [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.process = Some(self.launch()?);
        let until = Instant::now() + START;
        while self.sql("SELECT 1").is_err() {
            let process = self.process.as_mut().context("it was not started")?;
            if let Some(ended) = process.ended()? {
                let log = std::fs::read_to_string(self.directory.path().join("log"))?;
                // Processes of the one that was killed take a moment to notice.
                ensure!(
                    log.contains("still in use") && Instant::now() < until,
                    "postgres is not ready ({ended:?}):\n{log}"
                );
                self.process = Some(self.launch()?);
            }
            if Instant::now() > until {
                bail!("postgres did not answer within {START:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn launch(&self) -> Result<Process> {
        let log = File::create(self.directory.path().join("log"))?;
        let mut command = unprivileged(bound_command(&program("postgres")?))?;
        command
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .arg("-k")
            .arg(self.directory.path())
            // Many hosts come and go at a time, and those that died leave connections for a while.
            .args(["-c", "shared_buffers=64MB", "-c", "max_connections=400"]);
        for option in &self.options {
            command.args(["-c", option]);
        }
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Process::start(command)
    }

    /// Kills it at once, as a power cut would (but for what the system has not written yet).
    pub fn kill(&mut self) {
        // Dropped, it is killed.
        self.process = None;
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// A new, empty database, as a store URL.
    pub fn database(&self) -> Result<String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}"))?;
        Ok(self.url(&name))
    }

    /// The store URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://semel@127.0.0.1:{}/{database}", self.port)
    }

    /// What the server answers to a statement, in the database `postgres`.
    pub fn sql(&self, statement: &str) -> Result<String> {
        self.sql_in("postgres", statement)
    }

    /// What the server answers to a statement, with a bar between columns.
    pub fn sql_in(&self, database: &str, statement: &str) -> Result<String> {
        answer(self.client(database, statement)?, statement)
    }

    /// A client that sends statements, to be started.
    pub fn client(&self, database: &str, statements: &str) -> Result<Command> {
        let mut client = Command::new(program("psql")?);
        client
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set", "ON_ERROR_STOP=1", "--host=127.0.0.1"])
            .args(["--username=semel", "--dbname", database])
            .arg(format!("--port={}", self.port))
            .args(["--command", statements])
            .stdin(Stdio::null());
        Ok(client)
    }
}

/// A program of the newest PostgreSQL that there is.
fn program(name: &str) -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found: Vec<_> = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("bin").join(name).is_file())
        .collect();
    found.sort_by_key(|path| version(path));
    let newest = found.pop().map(|path| path.join("bin").join(name));
    let found = newest.or_else(|| find_program(name));
    found.with_context(|| format!("{name} {MISSING}"))
}

/// Who the server runs as, if this process is root, whom it refuses.
fn other_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let user = ["postgres:", "nobody:"]
        .iter()
        .find_map(|name| users.lines().find(|line| line.starts_with(name)));
    let mut numbers = user.context("no user `postgres`")?.split(':').skip(2);
    let mut next = || anyhow::Ok(numbers.next().context("no user id")?.parse::<u32>()?);
    Ok(Some((next()?, next()?)))
}

/// The same command as that user.
fn unprivileged(command: Command) -> Result<Command> {
    let Some((user, group)) = other_user()? else {
        return Ok(command);
    };
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args([format!("--reuid={user}"), format!("--regid={group}")])
        .args(["--clear-groups", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    Ok(wrapped)
}
