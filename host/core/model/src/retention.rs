//! Retention: records expire, which is the one place where time enters.

use stateright::{Model, Property, Representative};

use crate::Rules;
use crate::rules::rules;

rules! {
    /// The rules of retention. Each line says what goes wrong without it.
    pub enum RetentionRule {
        /// A zombie that checked before the record was there commits after it expired.
        CommitTestsTheHorizon,
        /// The bucket is taken when the run is committed: it is never too old.
        BucketOfTheCheck,
        /// Records go first and the horizon moves later: a zombie commits in between.
        HorizonMovesFirst,
        /// The source delivers a message again that was handled so long ago that its record
        /// is gone.
        RetentionOutlastsRedelivery,
    }
}

/// For how many buckets the source may deliver the message again.
const REDELIVERY: u8 = 2;
/// How many buckets there are.
const END: u8 = 6;

/// One message that hosts handle while time passes.
#[derive(Clone, Debug)]
pub struct Retention {
    /// How many hosts there are.
    pub hosts: usize,
    /// The rules in force.
    pub rules: Rules<RetentionRule>,
}

/// Where everything stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetentionState {
    /// The store's time bucket.
    now: u8,
    /// Records of buckets below it are gone, or about to go.
    horizon: u8,
    /// The bucket of the done record.
    done: Option<u8>,
    /// How many runs were applied.
    applied: u8,
    /// When the message was first delivered.
    delivered: Option<u8>,
    /// The bucket of each host's check, if it is running the handler.
    running: Vec<Option<u8>>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RetentionAction {
    /// Time passes.
    Tick,
    /// The horizon moves, and what is below it goes with it.
    Expire,
    /// What is below the new horizon goes. Only where a rule is missing.
    Sweep,
    /// A host receives the message and checks it.
    Check(usize),
    /// A host commits its run.
    Commit(usize),
    /// A host crashes.
    Crash(usize),
}

/// At most one run is applied.
pub const ONCE_FOR_GOOD: &str = "2 at most once, whatever expires";
/// The record expires, and that is survived.
pub const EXPIRED: &str = "a done record expires";

impl Retention {
    fn retention(&self) -> u8 {
        let longer = self.rules.keep(RetentionRule::RetentionOutlastsRedelivery);
        if longer { REDELIVERY } else { REDELIVERY - 1 }
    }

    fn due_horizon(&self, state: &RetentionState) -> u8 {
        state.now.saturating_sub(self.retention())
    }
}

impl Representative for RetentionState {
    fn representative(&self) -> Self {
        let mut state = self.clone();
        state.running.sort_unstable();
        state
    }
}

impl Model for Retention {
    type State = RetentionState;
    type Action = RetentionAction;

    fn init_states(&self) -> Vec<RetentionState> {
        vec![RetentionState {
            running: vec![None; self.hosts],
            ..RetentionState::default()
        }]
    }

    fn actions(&self, state: &RetentionState, actions: &mut Vec<RetentionAction>) {
        if state.now < END {
            actions.push(RetentionAction::Tick);
        }
        let due = self.due_horizon(state);
        if due > state.horizon {
            actions.push(RetentionAction::Expire);
            if !self.rules.keep(RetentionRule::HorizonMovesFirst) {
                actions.push(RetentionAction::Sweep);
            }
        }
        let since = state.delivered.map_or(0, |first| state.now - first);
        for (host, running) in state.running.iter().enumerate() {
            match running {
                None if state.done.is_none() && since <= REDELIVERY => {
                    actions.push(RetentionAction::Check(host));
                }
                None => {}
                Some(_) => {
                    actions.push(RetentionAction::Commit(host));
                    actions.push(RetentionAction::Crash(host));
                }
            }
        }
    }

    fn next_state(&self, last: &RetentionState, action: RetentionAction) -> Option<RetentionState> {
        let mut next = last.clone();
        let due = self.due_horizon(last);
        match action {
            RetentionAction::Tick => next.now += 1,
            RetentionAction::Expire => {
                next.horizon = due;
                next.done = last.done.filter(|&bucket| bucket >= due);
            }
            RetentionAction::Sweep => next.done = last.done.filter(|&bucket| bucket >= due),
            RetentionAction::Check(host) => {
                next.delivered.get_or_insert(last.now);
                next.running[host] = Some(last.now);
            }
            RetentionAction::Commit(host) => {
                let checked = next.running[host].take()?;
                let bucket = match self.rules.keep(RetentionRule::BucketOfTheCheck) {
                    true => checked,
                    false => last.now,
                };
                let expired =
                    bucket < last.horizon && self.rules.keep(RetentionRule::CommitTestsTheHorizon);
                if last.done.is_none() && !expired {
                    next.done = Some(last.now);
                    next.applied += 1;
                }
            }
            RetentionAction::Crash(host) => next.running[host] = None,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = Property::<Self>::always;
        let sometimes = Property::<Self>::sometimes;
        vec![
            always(ONCE_FOR_GOOD, |_, state| state.applied <= 1),
            sometimes(EXPIRED, |_, state| {
                state.applied == 1 && state.done.is_none()
            }),
        ]
    }
}
