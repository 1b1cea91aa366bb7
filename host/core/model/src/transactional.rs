//! Transactional delivery: half messages, checked back by the broker (RocketMQ).
//!
//! The outgoing message is sent as a *half* message before the store's commit, and decided
//! after it. The broker's end of transaction goes one way and is never confirmed; halves that
//! stay undecided are checked back a bounded number of times, then discarded. So the outbox row
//! is kept as well, and published plainly where all else failed.

use stateright::{Model, Property, Representative};

use crate::rules::rules;
use crate::{Rules, RunId};

rules! {
    /// The rules of transactional delivery. Each line says what goes wrong without it.
    pub enum TransactionalRule {
        /// The half is sent after the commit: a crash in between, and nobody checks back.
        HalfBeforeCommit,
        /// The half bears the key alone: it is committed for another run's sake.
        HalfBearsTheRun,
        /// A run commits after its half was rolled back: its message is never seen.
        CommitTestsTheFence,
        /// A fence is lifted: the half was rolled back, and the run commits all the same.
        FenceIsForGood,
        /// Absent means rolled back, without a fence: the run may commit yet.
        AbsentIsFenced,
        /// Absent means committed: the message is seen, and the run never commits.
        AbsentIsNotCommitted,
        /// The fence is written although the run has committed since the look.
        FenceIsConditional,
        /// Absent is left unknown: the broker runs out of checks, then the run commits.
        AbsentIsDecided,
        /// There is no row: a half that the broker discards is lost.
        RowIsKept,
        /// The row is deleted once the end was sent, which may not arrive.
        SentIsNotConfirmed,
    }
}

/// One message whose effects include an outgoing message.
#[derive(Clone, Debug)]
pub struct Transactional {
    /// How many hosts there are.
    pub hosts: usize,
    /// How often the broker checks a half back.
    pub checks: u8,
    /// How many check-backs may come while the run may yet commit.
    pub early: u8,
    /// How many crashes and losses there are.
    pub faults: u8,
    /// Whether there is an outbox, for what the broker discards.
    pub outbox: bool,
    /// The rules in force.
    pub rules: Rules<TransactionalRule>,
}

/// What the broker knows of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// Nothing.
    Unsent,
    /// To be decided; checked back so many times.
    Open(u8),
    /// Never to be seen.
    RolledBack,
    /// Visible to consumers.
    Committed,
    /// Given up, undecided.
    Discarded,
}

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing.
    Idle,
    /// The handler has run.
    Ran(RunId),
    /// The half is confirmed.
    Prepared(RunId),
    /// The store has answered; the end is to be sent.
    Decided(RunId, bool),
}

/// Something on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Packet {
    /// To the broker: commit or roll back.
    End(RunId, bool),
    /// To the store: a commit that nobody waits for.
    Commit(RunId),
    /// To any host: what became of this run?
    CheckBack(RunId),
    /// A host found nothing and is about to fence. Only where a rule is missing.
    Fence(RunId),
}

/// One run of the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HalfRun {
    /// Its half message.
    pub half: Half,
    /// Whether it may never commit.
    pub fenced: bool,
}

/// Where everything stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransactionalState {
    runs: Vec<HalfRun>,
    done: Option<RunId>,
    row: bool,
    /// Whether the relay has published the row.
    published: bool,
    hosts: Vec<Phase>,
    net: Vec<Packet>,
    faults: u8,
    early: u8,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionalAction {
    /// A host finds no record and runs the handler.
    Run(usize),
    /// A host sends the half message.
    Prepare(usize),
    /// A host commits to the store.
    Commit(usize),
    /// A host's commit has no reply, and may land later; the host asks again.
    LoseReply(usize),
    /// A host sends the end of the transaction.
    End(usize),
    /// A host crashes.
    Crash(usize),
    /// Something arrives.
    Arrive(usize),
    /// Something is lost.
    Lose(usize),
    /// The broker checks back.
    CheckBack(RunId),
    /// The broker gives up.
    Discard(RunId),
    /// The relay publishes the row.
    Publish,
    /// The relay deletes the row.
    Delete,
}

/// Consumers see only the message of the run that is done.
pub const NO_PHANTOM: &str = "T1 what is seen was committed";
/// In the end the message is seen.
pub const DELIVERED: &str = "T2 what was committed is seen in the end";
/// In the end nothing is left undecided.
pub const DECIDED: &str = "T3 in the end nothing is undecided";
/// A fence did its work, and another run got through.
pub const FENCED: &str = "a run is fenced and another is done";

impl Transactional {
    fn commit(&self, state: &mut TransactionalState, run: RunId) -> Option<bool> {
        let fenced = state.runs[usize::from(run)].fenced;
        match state.done {
            Some(done) => Some(done == run),
            None if fenced && self.rules.keep(TransactionalRule::CommitTestsTheFence) => None,
            None => {
                state.done = Some(run);
                state.row = self.outbox && self.rules.keep(TransactionalRule::RowIsKept);
                Some(true)
            }
        }
    }

    /// A host answers a check-back.
    fn answer(&self, state: &mut TransactionalState, run: RunId) {
        let keep = |rule| self.rules.keep(rule);
        let by_key = !keep(TransactionalRule::HalfBearsTheRun);
        let end = match state.done {
            Some(done) => Some(done == run || by_key),
            None if !keep(TransactionalRule::AbsentIsNotCommitted) => Some(true),
            None if !keep(TransactionalRule::AbsentIsFenced) => Some(false),
            None if !keep(TransactionalRule::AbsentIsDecided) => None,
            None if !keep(TransactionalRule::FenceIsConditional) => {
                state.net.push(Packet::Fence(run));
                None
            }
            None => {
                state.runs[usize::from(run)].fenced = true;
                Some(false)
            }
        };
        state.net.extend(end.map(|commit| Packet::End(run, commit)));
    }

    fn arrive(&self, state: &mut TransactionalState, packet: Packet) {
        match packet {
            Packet::End(run, commit) => {
                let half = &mut state.runs[usize::from(run)].half;
                if let Half::Open(_) = half {
                    *half = if commit {
                        Half::Committed
                    } else {
                        Half::RolledBack
                    };
                }
            }
            Packet::Commit(run) => {
                self.commit(state, run);
            }
            Packet::CheckBack(run) => self.answer(state, run),
            Packet::Fence(run) => {
                state.runs[usize::from(run)].fenced = true;
                state.net.push(Packet::End(run, false));
            }
        }
    }

    /// Whether a run may yet commit.
    fn may_commit(state: &TransactionalState, run: RunId) -> bool {
        let mut hosts = state.hosts.iter();
        hosts.any(|phase| matches!(*phase, Phase::Ran(r) | Phase::Prepared(r) if r == run))
            || state.net.contains(&Packet::Commit(run))
    }

    fn is_awaited(state: &TransactionalState, run: RunId) -> bool {
        let mut net = state.net.iter();
        net.any(|packet| !matches!(packet, Packet::Commit(_)) && packet.run() == run)
    }

    fn host_actions(&self, state: &TransactionalState, actions: &mut Vec<TransactionalAction>) {
        use TransactionalAction::{Commit, Crash, End, LoseReply, Prepare, Run};
        for (host, &phase) in state.hosts.iter().enumerate() {
            match phase {
                Phase::Idle if state.done.is_none() => actions.push(Run(host)),
                Phase::Idle => continue,
                Phase::Ran(_) if self.rules.keep(TransactionalRule::HalfBeforeCommit) => {
                    actions.push(Prepare(host));
                }
                Phase::Ran(_) | Phase::Prepared(_) => {
                    actions.push(Commit(host));
                    if state.faults > 0 {
                        actions.push(LoseReply(host));
                    }
                }
                Phase::Decided(..) => actions.push(End(host)),
            }
            if phase != Phase::Idle && state.faults > 0 {
                actions.push(Crash(host));
            }
        }
    }

    fn broker_actions(&self, state: &TransactionalState, actions: &mut Vec<TransactionalAction>) {
        for (run, entry) in (0..).zip(&state.runs) {
            if let Half::Open(checks) = entry.half
                && !Self::is_awaited(state, run)
            {
                if checks >= self.checks {
                    actions.push(TransactionalAction::Discard(run));
                } else if state.early > 0 || !Self::may_commit(state, run) {
                    actions.push(TransactionalAction::CheckBack(run));
                }
            }
        }
        if state.row {
            actions.push(match state.published {
                false => TransactionalAction::Publish,
                true => TransactionalAction::Delete,
            });
        }
    }
}

impl Packet {
    fn run(self) -> RunId {
        match self {
            Self::End(run, _) | Self::Commit(run) | Self::CheckBack(run) | Self::Fence(run) => run,
        }
    }
}

impl Representative for TransactionalState {
    fn representative(&self) -> Self {
        let mut state = self.clone();
        state.hosts.sort_unstable();
        state.net.sort_unstable();
        state
    }
}

impl Model for Transactional {
    type State = TransactionalState;
    type Action = TransactionalAction;

    fn init_states(&self) -> Vec<TransactionalState> {
        vec![TransactionalState {
            runs: vec![],
            done: None,
            row: false,
            published: false,
            hosts: vec![Phase::Idle; self.hosts],
            net: vec![],
            faults: self.faults,
            early: self.early,
        }]
    }

    fn actions(&self, state: &TransactionalState, actions: &mut Vec<TransactionalAction>) {
        self.host_actions(state, actions);
        self.broker_actions(state, actions);
        for (index, packet) in state.net.iter().enumerate() {
            actions.push(TransactionalAction::Arrive(index));
            if state.faults > 0 && !matches!(packet, Packet::Commit(_)) {
                actions.push(TransactionalAction::Lose(index));
            }
        }
    }

    fn next_state(
        &self,
        last: &TransactionalState,
        action: TransactionalAction,
    ) -> Option<TransactionalState> {
        let keep = |rule| self.rules.keep(rule);
        let mut next = last.clone();
        match action {
            TransactionalAction::Run(host) => {
                next.hosts[host] = Phase::Ran(u8::try_from(next.runs.len()).ok()?);
                next.runs.push(HalfRun {
                    half: Half::Unsent,
                    fenced: false,
                });
            }
            TransactionalAction::Prepare(host) => {
                let Phase::Ran(run) = last.hosts[host] else {
                    return None;
                };
                next.runs[usize::from(run)].half = Half::Open(0);
                next.hosts[host] = Phase::Prepared(run);
            }
            TransactionalAction::Commit(host) => {
                let (Phase::Prepared(run) | Phase::Ran(run)) = last.hosts[host] else {
                    return None;
                };
                next.hosts[host] = match self.commit(&mut next, run) {
                    Some(commit) => Phase::Decided(run, commit),
                    None if !keep(TransactionalRule::FenceIsForGood) => {
                        next.runs[usize::from(run)].fenced = false;
                        Phase::Prepared(run)
                    }
                    // The next run has an id of its own.
                    None => Phase::Idle,
                };
            }
            TransactionalAction::LoseReply(host) => {
                next.faults -= 1;
                let (Phase::Prepared(run) | Phase::Ran(run)) = last.hosts[host] else {
                    return None;
                };
                next.net.push(Packet::Commit(run));
            }
            TransactionalAction::End(host) => {
                let Phase::Decided(run, commit) =
                    std::mem::replace(&mut next.hosts[host], Phase::Idle)
                else {
                    return None;
                };
                if !keep(TransactionalRule::HalfBeforeCommit) {
                    next.runs[usize::from(run)].half = Half::Open(0);
                }
                next.net.push(Packet::End(run, commit));
                next.row &= !commit || keep(TransactionalRule::SentIsNotConfirmed);
            }
            TransactionalAction::Crash(host) => {
                next.faults -= 1;
                next.hosts[host] = Phase::Idle;
            }
            TransactionalAction::Arrive(index) => {
                let packet = next.net.remove(index);
                self.arrive(&mut next, packet);
            }
            TransactionalAction::Lose(index) => {
                next.faults -= 1;
                next.net.remove(index);
            }
            TransactionalAction::CheckBack(run) => {
                if let Half::Open(checks) = &mut next.runs[usize::from(run)].half {
                    *checks += 1;
                }
                next.early -= u8::from(Self::may_commit(last, run));
                next.net.push(Packet::CheckBack(run));
            }
            TransactionalAction::Discard(run) => {
                next.runs[usize::from(run)].half = Half::Discarded;
            }
            TransactionalAction::Publish => next.published = true,
            TransactionalAction::Delete => next.row = false,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = Property::<Self>::always;
        let sometimes = Property::<Self>::sometimes;
        vec![
            always(NO_PHANTOM, |_, state| {
                let mut runs = (0..).zip(&state.runs);
                runs.all(|(run, entry)| entry.half != Half::Committed || state.done == Some(run))
            }),
            always(DELIVERED, |model, state| {
                let seen = |run: RunId| state.runs[usize::from(run)].half == Half::Committed;
                state.published || state.done.is_some_and(seen) || !is_quiescent(model, state)
            }),
            always(DECIDED, |model, state| {
                let open = |entry: &HalfRun| matches!(entry.half, Half::Open(_));
                !is_quiescent(model, state) || !(state.row || state.runs.iter().any(open))
            }),
            sometimes(FENCED, |_, state| {
                state.done.is_some() && state.runs.iter().any(|entry| entry.fenced)
            }),
        ]
    }
}

fn is_quiescent(model: &Transactional, state: &TransactionalState) -> bool {
    let mut actions = vec![];
    model.actions(state, &mut actions);
    actions.is_empty()
}
