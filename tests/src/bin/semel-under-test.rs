//! `semel` with its crash points armed: the environment says where it kills or stops itself,
//! and where it writes down what it passed.
#![forbid(unsafe_code)]
#![recursion_limit = "512"] // the RocketMQ client's futures nest deeply

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use semel_core::crash::{CrashPoint, at_crash_points};
use semel_tests::passage::{CRASH_AT, PAUSE_AT, Passage, RECORD};

static ORDERS: OnceLock<Orders> = OnceLock::new();

/// What to do on the way.
struct Orders {
    passed: Vec<AtomicU64>,
    record: Option<File>,
    crash_at: Vec<Passage>,
    pause_at: Vec<Passage>,
}

impl Orders {
    fn from_environment() -> Result<Self> {
        let passages = |name| match env::var(name) {
            Ok(list) => Passage::list(&list).context(name),
            Err(_) => Ok(Vec::new()),
        };
        let record = env::var_os(RECORD).map(|file| {
            let opened = OpenOptions::new().create(true).append(true).open(&file);
            opened.with_context(|| format!("can't write {}", file.display()))
        });
        Ok(Self {
            passed: CrashPoint::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            record: record.transpose()?,
            crash_at: passages(CRASH_AT)?,
            pause_at: passages(PAUSE_AT)?,
        })
    }
}

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("--list-crash-points") {
        for point in CrashPoint::ALL {
            println!("{}", point.name());
        }
        return ExitCode::SUCCESS;
    }
    match Orders::from_environment() {
        Ok(orders) => {
            ORDERS.get_or_init(|| orders);
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    at_crash_points(pass);
    semel_host::main()
}

fn pass(point: CrashPoint) {
    let Some(orders) = ORDERS.get() else { return };
    let hit = orders.passed[point as usize].fetch_add(1, Relaxed) + 1;
    if let Some(mut record) = orders.record.as_ref() {
        // One write a line: threads don't mix, and a killed process has left whole lines.
        let line = format!("{}\n", point.name());
        record
            .write_all(line.as_bytes())
            .expect("the disk has room for the record");
    }
    let passage = Passage { point, hit };
    if orders.crash_at.contains(&passage) {
        send_to_self(Signal::KILL);
    }
    if orders.pause_at.contains(&passage) {
        send_to_self(Signal::STOP);
    }
}

/// The signal goes to the process, by way of this thread: it acts before this thread goes on.
/// Sent by the process's own number, SIGSTOP acts when the first thread comes to run, and this one is
/// past the crash point by then.
fn send_to_self(signal: Signal) {
    let thread = this_thread().expect("/proc says which thread this is");
    kill_process(thread, signal).expect("a process may signal itself");
}

fn this_thread() -> Option<Pid> {
    // PROCESS/task/THREAD
    let link = fs::read_link("/proc/thread-self").ok()?;
    Pid::from_raw(link.file_name()?.to_str()?.parse().ok()?)
}
