//! The matrix as a page of the documentation.

use std::thread;
use std::time::Duration;

use semel_tests::sweep::{Harm, Kind, Report};

/// The page.
pub fn write(report: &Report, seed: u64, took: Duration) -> String {
    let all = report.total(Kind::ALL);
    let kills = report.total(&[Kind::Kill, Kind::DoubleKill]);
    let double = report.total(&[Kind::DoubleKill]);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{HEAD}\n\
         ## Result\n\n\
         {trials} trials, {kills} kills, {double} trials with two of them: \
         **{lost} lost, {doubled} doubled, {wrong} wrong**. \
         {minutes:.0} minutes on {cores} cores, `--seed {seed}`.\n\n\
         {matrix}\n",
        trials = all.trials,
        kills = kills.strikes,
        double = double.struck,
        lost = all.flaws(Harm::Lost),
        doubled = all.flaws(Harm::Doubled),
        wrong = all.flaws(Harm::Wrong),
        minutes = took.as_secs_f64() / 60.0,
        matrix = report.markdown(),
    )
}

const HEAD: &str = "\
# The kill sweep

`make sweep` writes this page. Do not edit it.

A crash point stands before and after everything that a host does and others can see:
`semel-under-test --list-crash-points` lists them. A trial gives the real host a few orders, of
which some are duplicates, some bear the key of another, have no key, are rejected, or fail once
or for good. Two plugins handle each of them: one in any order, one in lanes; on databases they also
insert a row into a table beside the store's. On the way a fault strikes. Then the host is started
again, runs to its end, and everything that is found in the store and at consumers is compared with
books that were kept outside of the system: every effect exactly once, every outgoing message exactly
once after copies with the same id are dropped, nothing of a key that was not committed, every dead
letter, every lane in order.

| fault | what happens |
|---|---|
| recorded | none, and one kill: what the host passes is recorded; a crash point that it must pass and does not is an error |
| killed | SIGKILL at a passage of a crash point |
| killed twice | the same, and again while the next host recovers |
| paused | SIGSTOP at a crash point until another host has done all the work; then the zombie goes on |
| reply lost | a request to the store or the broker is carried out, and its connection breaks in place of the reply |
| store killed, broker killed | SIGKILL for the server, under load, and a restart, several times a trial |

| column | what it counts |
|---|---|
| crash points | those at which the fault struck, or that were recorded |
| trials | runs of the whole workload, each on a new store |
| struck | faults that struck; a host may come to its end before |
| lost, doubled, wrong | flaws; wrong is out of order, torn, or against the books |
| copies | outgoing messages that came again under the same id, which consumers drop |

Settings: redb syncs each commit to the disk; Redis with `appendonly yes` and
`appendfsync always`; MariaDB and PostgreSQL sync their logs at each commit; RocketMQ with
asynchronous flush and Kafka without fsync, as they come; RabbitMQ with quorum queues, of which each
plugin has its own. The host commits at most 8 runs at a time and has 24 in flight, so that there are
many commits to die in.
";
