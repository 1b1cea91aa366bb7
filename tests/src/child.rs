//! Child processes that never outlive their parent.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(2);

/// A command that the kernel kills when the process that started it dies in whatever way.
/// `setpriv`, which every Debian has, asks for that and then becomes `program`, so that the
/// process id is the program's own.
pub fn bound_command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A child process. It is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    started: Instant,
}

impl Process {
    /// Starts a [`bound_command`].
    pub fn start(command: Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let child = spawn_for_life(command).with_context(|| format!("can't start {shown}"))?;
        Ok(Self {
            child,
            started: Instant::now(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The time since it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Its stdin, if that is a pipe that nobody took yet. It ends when it is dropped.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Kills it with SIGKILL. The answer is whether it was still running.
    pub fn kill(&mut self) -> Result<bool> {
        let was_running = self.ended()?.is_none();
        self.child.kill()?;
        let status = self.child.wait()?;
        Ok(was_running && is_sigkill(status))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Lets it stand still, so that it answers nothing and keeps its connections.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets one that stands still go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process id is above 0")?;
        kill_process(pid, signal).with_context(|| format!("no signal for process {}", self.id()))
    }

    /// Whether it stands still after SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The state follows the program's name, which stands in parentheses.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// Waits for its end. After `limit` it is killed, and that is an error.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.kill()?;
                anyhow::bail!("process {} did not end within {limit:?}", self.id());
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process died of SIGKILL.
pub fn is_sigkill(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(9)
}

/// Starts a process from a thread that lives as long as this process. The kernel's signal to
/// the child comes with the end of a thread, and a test's thread ends with the test.
fn spawn_for_life(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (orders, incoming) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in incoming {
                // Nobody waits any more if this fails.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, child) = mpsc::channel();
    let gone = || io::Error::from(ErrorKind::BrokenPipe);
    ORDERS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}
