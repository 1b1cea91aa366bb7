//! A real MariaDB server of one test's own, or of all tests of a process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::certificates::Certificates;
use super::program::{answer, find_program, free_ports, home, wait_until_up};
use crate::child::{Process, bound_command};

/// How long a server may take to recover and answer.
const START: Duration = Duration::from_secs(60);

const MISSING: &str = "is not there: run `make tools`, or on Debian and Ubuntu \
                       `apt-get install mariadb-server`";

/// What the server does whenever it starts.
const INIT: &str = "CREATE USER IF NOT EXISTS 'semel'@'%' IDENTIFIED BY 'secret';\n\
                    GRANT ALL ON *.* TO 'semel'@'%';\n";

/// A server on a free port of 127.0.0.1, with a directory of its own. It stops when it is
/// dropped, and also when the process that started it dies.
#[derive(Debug)]
pub struct MariadbServer {
    // Dropped before its directory.
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    databases: AtomicUsize,
}

impl MariadbServer {
    /// Starts one that syncs its log at each commit, as it does by default.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with more options, such as `["--log-bin", "--binlog-format=STATEMENT"]`.
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        let directory = home("mariadb")?;
        let install = find_program("mariadb-install-db");
        let install = install.with_context(|| format!("mariadb-install-db {MISSING}"))?;
        let output = Command::new(install)
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--skip-name-resolve"])
            .args(as_root())
            .arg(option("--datadir", &directory.path().join("data")))
            .output()?;
        ensure!(output.status.success(), "mariadb-install-db: {output:?}");
        std::fs::write(directory.path().join("init.sql"), INIT)?;
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
        let certificate = format!("--ssl-cert={}", certificates.certificate().display());
        let key = format!("--ssl-key={}", certificates.key().display());
        Self::start_with(&[&certificate, &key]).await
    }

    /// One server for all tests of this process, which takes seconds to make.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<MariadbServer> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts it again on the same port and data, after [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let program = find_program("mariadbd");
        let program = program.with_context(|| format!("mariadbd {MISSING}"))?;
        let path = |name: &str| self.directory.path().join(name);
        let log_path = path("log");
        let log = File::create(&log_path)?;
        let mut command = bound_command(&program);
        command
            .args(["--no-defaults", "--bind-address=127.0.0.1"])
            .args(as_root())
            .args([&format!("--port={}", self.port), "--max-connections=400"])
            .arg(option("--datadir", &path("data")))
            .arg(option("--socket", &path("socket")))
            .arg(option("--pid-file", &path("pid")))
            .arg(option("--init-file", &path("init.sql")))
            .args([
                "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=64M",
            ])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::start(command)?;
        let is_up = async || self.sql("SELECT 1").is_ok();
        let up = wait_until_up("MariaDB", process, &log_path, START, is_up);
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
        format!("mysql://semel:secret@127.0.0.1:{}/{database}", self.port)
    }

    /// What the server answers to a statement, with a tab between columns.
    pub fn sql(&self, statement: &str) -> Result<String> {
        answer(self.client(statement)?, statement)
    }

    /// A client that sends statements, to be started.
    pub fn client(&self, statements: &str) -> Result<Command> {
        let client = find_program("mariadb");
        let mut client = Command::new(client.with_context(|| format!("mariadb {MISSING}"))?);
        client
            .args(["--no-defaults", "--host=127.0.0.1", "--user=semel"])
            .args(["--password=secret", "--batch", "--skip-column-names"])
            .arg(format!("--port={}", self.port))
            .args(["--execute", statements])
            .stdin(Stdio::null());
        Ok(client)
    }
}

/// What root must say to run a server; others must not.
fn as_root() -> Option<&'static str> {
    rustix::process::geteuid()
        .is_root()
        .then_some("--user=root")
}

fn option(name: &str, path: &Path) -> PathBuf {
    PathBuf::from(format!("{name}={}", path.display()))
}
