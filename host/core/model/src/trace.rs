//! A step in words.

use crate::{Action, Publish, State};

/// What an action does in a state.
pub fn line(state: &State, action: &Action) -> String {
    let message = |host: usize, job: usize| state.hosts[host].jobs[job].message;
    let batch = |host: usize| -> Vec<_> {
        let runs = state.hosts[host].batch.iter();
        runs.map(|run| (run.message, &run.verdict)).collect()
    };
    match *action {
        Action::Assign(host, partition) => format!("host {host} is assigned partition {partition}"),
        Action::Receive(host, partition) => {
            let offset = state.hosts[host].sessions[&partition];
            format!("host {host} receives offset {offset} of partition {partition}")
        }
        Action::Check(host, job) => format!("host {host} checks {:?}", message(host, job)),
        Action::Read(host, job) => format!("host {host}: {:?} reads", message(host, job)),
        Action::End(host, job, ref ending) => {
            format!("host {host}: {:?} ends: {ending:?}", message(host, job))
        }
        Action::Wait(host, job) => {
            format!(
                "host {host}: {:?} is to wait behind its lane",
                message(host, job)
            )
        }
        Action::Bury(host, job) => format!("host {host} buries {:?}", message(host, job)),
        Action::Commit(host) => format!("host {host} commits {:?}", batch(host)),
        Action::LoseReply(host) => format!("host {host} sends {:?}, gets no reply", batch(host)),
        Action::WriteRest(host, job) => {
            format!("host {host} writes the rest of {:?}", message(host, job))
        }
        Action::Acknowledge(host, partition) => {
            format!("host {host} acknowledges partition {partition}")
        }
        Action::TakeUp(host, key) => {
            let row = state.store.parked(key).map(|row| row.message);
            format!("host {host} takes up {row:?}")
        }
        Action::Crash(host, false) => format!("host {host} crashes"),
        Action::Crash(host, true) => format!("host {host} sends {:?} and crashes", batch(host)),
        Action::Land(_, false) => "a late request lands".to_owned(),
        Action::Land(_, true) => "a late request lands, and will land again".to_owned(),
        Action::Replay(key) => format!("the operator replays key {key}"),
        Action::Drop(key) => format!("the operator drops key {key}"),
        Action::Take(host, version) => format!("relay {host} takes row {version}"),
        Action::Publish(host, Publish::Confirmed) => format!("relay {host} publishes"),
        Action::Publish(host, Publish::Unconfirmed) => {
            format!("relay {host} publishes and is not told so")
        }
        Action::Publish(host, Publish::Lost) => format!("relay {host} publishes in vain"),
        Action::Delete(host) => format!("relay {host} deletes the row"),
    }
}
