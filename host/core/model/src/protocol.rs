//! The steps of the protocol, and what goes wrong between them.

use std::collections::BTreeSet;

use stateright::{Model, Property, Representative};

use crate::{
    Ending, Event, Host, Job, Key, Message, Publish, Published, RecordState, RelayStep, Rule,
    Rules, Run, RunId, Step, Store, Version, invariants,
};

/// A topic, hosts that consume it, and how much may go wrong.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The messages.
    pub topic: Vec<Message>,
    /// How many hosts there are.
    pub hosts: usize,
    /// How many messages of a partition a host has in flight.
    pub window: usize,
    /// After how many failures a message is dead.
    pub attempts: u8,
    /// What may go wrong.
    pub faults: Faults,
    /// The rules in force.
    pub rules: Rules<Rule>,
}

/// How many times each thing may go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A host crashes.
    pub crashes: u8,
    /// A partition is given to a host while another still believes to have it.
    pub zombies: u8,
    /// A commit's reply is lost, and the request lands later.
    pub lost_replies: u8,
    /// A request that landed lands again.
    pub resent: u8,
    /// A publish is not confirmed.
    pub lost_publishes: u8,
    /// The operator replays or drops a dead letter.
    pub operations: u8,
}

/// Where everything stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What is durable.
    pub store: Store,
    /// Up to where each partition is acknowledged.
    pub watermarks: Vec<u8>,
    /// What was sent.
    pub published: Published,
    /// What is in memory.
    pub hosts: Vec<Host>,
    /// Commit requests that nobody waits for and that have yet to land.
    pub late: Vec<Vec<Run>>,
    /// What may still go wrong.
    pub left: Faults,
}

/// A step. Hosts, jobs, partitions and requests go by their indices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The broker gives a host a partition.
    Assign(usize, u8),
    /// A host receives its next message.
    Receive(usize, u8),
    /// A host checks a message.
    Check(usize, usize),
    /// A handler reads.
    Read(usize, usize),
    /// A handler ends; its run is staged.
    End(usize, usize, Ending),
    /// A message is staged to be parked behind its lane.
    Wait(usize, usize),
    /// A mismatched message is buried.
    Bury(usize, usize),
    /// A host commits its batch.
    Commit(usize),
    /// A host commits its batch and gets no reply; the request lands later.
    LoseReply(usize),
    /// The other half of a run is written. Only where a rule is missing.
    WriteRest(usize, usize),
    /// A host acknowledges.
    Acknowledge(usize, u8),
    /// A host takes up a parked row.
    TakeUp(usize, Key),
    /// A host crashes. Its batch may have been sent.
    Crash(usize, bool),
    /// A late request lands, and may land again.
    Land(usize, bool),
    /// The operator replays a dead letter.
    Replay(Key),
    /// The operator drops a dead letter.
    Drop(Key),
    /// A relay takes a row.
    Take(usize, Version),
    /// A relay publishes it.
    Publish(usize, Publish),
    /// A relay deletes it.
    Delete(usize),
}

impl Action {
    /// Whether nobody may count on it.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Crash(..)
                | Self::LoseReply(_)
                | Self::Land(_, true)
                | Self::Replay(_)
                | Self::Drop(_)
                | Self::Publish(_, Publish::Unconfirmed | Publish::Lost)
        )
    }
}

impl State {
    /// A name for a run that nothing else bears.
    fn fresh_run(&self) -> RunId {
        let batches = self.hosts.iter().map(|host| &host.batch);
        let pending = batches.chain(&self.late).flatten().map(|run| run.id);
        let seen = self.hosts.iter().flat_map(Host::seen_runs);
        let applied = self.store.history.iter().filter_map(|event| match event {
            Event::Applied(_, run) => Some(run.id),
            Event::Replayed(..) => None,
        });
        let taken: BTreeSet<_> = pending.chain(seen).chain(applied).collect();
        (1..).find(|id| !taken.contains(id)).unwrap_or_default()
    }

    fn is_assigned(&self, partition: u8) -> bool {
        let mut hosts = self.hosts.iter();
        hosts.any(|host| host.sessions.contains_key(&partition))
    }
}

/// Hosts have no names in the protocol.
impl Representative for State {
    fn representative(&self) -> Self {
        let mut state = self.clone();
        state.hosts.sort_unstable();
        state.late.sort_unstable();
        state
    }
}

impl Protocol {
    fn partitions(&self) -> u8 {
        let last = self.topic.iter().map(|message| message.partition).max();
        last.map_or(0, |last| last + 1)
    }

    fn message_at(&self, partition: u8, offset: u8) -> Option<&Message> {
        let mut topic = self.topic.iter();
        topic.find(|message| (message.partition, message.offset) == (partition, offset))
    }

    fn source_actions(&self, state: &State, host: usize, actions: &mut Vec<Action>) {
        for partition in 0..self.partitions() {
            let watermark = state.watermarks[usize::from(partition)];
            match state.hosts[host].sessions.get(&partition) {
                Some(&next) => {
                    let room = state.hosts[host].in_flight(partition) < self.window;
                    if room && self.message_at(partition, next).is_some() {
                        actions.push(Action::Receive(host, partition));
                    }
                    if state.hosts[host].watermark(partition, self.rules).is_some() {
                        actions.push(Action::Acknowledge(host, partition));
                    }
                }
                None => {
                    let free = !state.is_assigned(partition) || state.left.zombies > 0;
                    if free && self.message_at(partition, watermark).is_some() {
                        actions.push(Action::Assign(host, partition));
                    }
                }
            }
        }
    }

    fn job_actions(&self, state: &State, host: usize, actions: &mut Vec<Action>) {
        let this = &state.hosts[host];
        for (index, job) in this.jobs.iter().enumerate() {
            match &job.step {
                Step::Received => actions.push(Action::Check(host, index)),
                Step::Mismatched => actions.push(Action::Bury(host, index)),
                Step::Waiting if this.may_wait(job, self.rules) => {
                    actions.push(Action::Wait(host, index));
                }
                Step::Running(_) if this.may_run(job, self.rules) => {
                    if this.next_read(job).is_some() {
                        actions.push(Action::Read(host, index));
                    }
                    let endings = this.endings(job).into_iter();
                    actions.extend(endings.map(|ending| Action::End(host, index, ending)));
                }
                Step::HalfWritten(_) => actions.push(Action::WriteRest(host, index)),
                _ => {}
            }
        }
        if !this.batch.is_empty() {
            actions.push(Action::Commit(host));
            if state.left.lost_replies > 0 {
                actions.push(Action::LoseReply(host));
            }
        }
        if !this.has_taken_up() {
            let due = state.store.due(self.rules);
            actions.extend(due.map(|row| Action::TakeUp(host, row.message.key)));
        }
        if this.is_busy() && state.left.crashes > 0 {
            actions.push(Action::Crash(host, false));
            if !this.batch.is_empty() {
                actions.push(Action::Crash(host, true));
            }
        }
    }

    fn relay_actions(&self, state: &State, host: usize, actions: &mut Vec<Action>) {
        let relay = &state.hosts[host].relay;
        match relay.step {
            RelayStep::Idle => {
                let rows = relay.candidates(&state.store, self.rules).into_iter();
                actions.extend(rows.map(|version| Action::Take(host, version)));
            }
            RelayStep::Took(..) => {
                actions.push(Action::Publish(host, Publish::Confirmed));
                if state.left.lost_publishes > 0 {
                    actions.push(Action::Publish(host, Publish::Unconfirmed));
                    actions.push(Action::Publish(host, Publish::Lost));
                }
            }
            RelayStep::Confirmed(_) => actions.push(Action::Delete(host)),
        }
    }

    fn operator_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (&key, record) in &state.store.records {
            if let RecordState::Dead(Some(_)) = record.state
                && state.left.operations > 0
            {
                actions.extend([Action::Replay(key), Action::Drop(key)]);
            }
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            store: Store::default(),
            watermarks: vec![0; self.partitions().into()],
            published: Published::default(),
            hosts: vec![Host::default(); self.hosts],
            late: vec![],
            left: self.faults,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for host in 0..self.hosts {
            self.source_actions(state, host, actions);
            self.job_actions(state, host, actions);
            self.relay_actions(state, host, actions);
        }
        self.operator_actions(state, actions);
        for request in 0..state.late.len() {
            actions.push(Action::Land(request, false));
            if state.left.resent > 0 {
                actions.push(Action::Land(request, true));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let rules = self.rules;
        let mut next = last.clone();
        let run = last.fresh_run();
        let State {
            store,
            watermarks,
            published,
            hosts,
            late,
            left,
        } = &mut next;
        match action {
            Action::Assign(host, partition) => {
                let mut from = watermarks[usize::from(partition)];
                if last.is_assigned(partition) {
                    left.zombies -= 1;
                    from += u8::from(!rules.keep(Rule::PrefixIsDelivered));
                }
                hosts[host].sessions.insert(partition, from);
            }
            Action::Receive(host, partition) => {
                let offset = hosts[host].sessions.get_mut(&partition)?;
                let message = *self.message_at(partition, *offset)?;
                *offset += 1;
                hosts[host].jobs.push(Job::received(message));
            }
            Action::Check(host, job) => hosts[host].check(job, store, rules),
            Action::Read(host, job) => hosts[host].read(job, store, rules),
            Action::End(host, job, ending) => {
                hosts[host].end(job, ending, run, self.attempts, store, rules);
                if !rules.keep(Rule::CommittedIsPublished) {
                    hosts[host].batch.iter().for_each(|run| published.leak(run));
                }
            }
            Action::Wait(host, job) => hosts[host].wait(job, run),
            Action::Bury(host, job) => {
                let job = &mut hosts[host].jobs[job];
                store.bury(job.message);
                job.step = Step::Recorded;
            }
            Action::Commit(host) => {
                let outcomes = store.commit(&hosts[host].batch, rules);
                hosts[host].learn(&outcomes, rules);
            }
            Action::LoseReply(host) => {
                left.lost_replies -= 1;
                late.push(hosts[host].doubt(rules));
            }
            Action::WriteRest(host, job) => {
                let job = &mut hosts[host].jobs[job];
                if let Step::HalfWritten(run) = std::mem::replace(&mut job.step, Step::Recorded) {
                    store.write_rest(&run, rules);
                }
            }
            Action::Acknowledge(host, partition) => {
                let watermark = hosts[host].watermark(partition, rules)?;
                watermarks[usize::from(partition)] = watermark;
                hosts[host].acknowledged(partition, watermark, rules);
            }
            Action::TakeUp(host, key) => {
                hosts[host].jobs.push(Job::taken_up(store.parked(key)?));
            }
            Action::Crash(host, sent) => {
                left.crashes -= 1;
                let crashed = std::mem::take(&mut hosts[host]);
                late.extend(sent.then_some(crashed.batch));
            }
            Action::Land(request, again) => {
                left.resent -= u8::from(again);
                let runs = late.remove(request);
                store.commit(&runs, rules);
                late.extend(again.then_some(runs));
            }
            Action::Replay(key) => {
                left.operations -= 1;
                store.replay(key);
            }
            Action::Drop(key) => {
                left.operations -= 1;
                store.drop_dead(key, rules);
            }
            Action::Take(host, version) => hosts[host].relay.take(version, store, rules),
            Action::Publish(host, publish) => {
                left.lost_publishes -= u8::from(publish != Publish::Confirmed);
                hosts[host].relay.publish(publish, published, rules);
            }
            Action::Delete(host) => hosts[host].relay.delete(store),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants::properties()
    }
}
