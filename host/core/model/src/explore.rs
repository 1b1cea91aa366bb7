//! Explores a model, and says what was found.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Representative};

/// What an exploration of every reachable state found.
#[derive(Clone, Debug)]
pub struct Explored {
    /// How many states there are, but for symmetry.
    pub states: usize,
    /// The longest path to a state that was not seen before.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Invariants that were violated.
    pub violated: BTreeSet<&'static str>,
    /// What was reached that was to be reached.
    pub reached: BTreeSet<&'static str>,
}

/// A shortest way to the violation of an invariant.
#[derive(Clone, Debug)]
pub struct Refutation<M: Model> {
    /// The states and the actions taken in them.
    pub path: Vec<(M::State, Option<M::Action>)>,
    /// How many states were seen on the way.
    pub states: usize,
    /// How long it took.
    pub time: Duration,
}

impl<M: Model> Refutation<M> {
    /// How many actions lead there.
    pub fn steps(&self) -> usize {
        self.path.len() - 1
    }
}

/// What can be explored.
pub trait Explorable:
    Model<State: StateBounds, Action: Clone + Debug + PartialEq> + Send + Sync + 'static
{
}

/// What a state must be for that.
pub trait StateBounds: Clone + Debug + PartialEq + Hash + Representative + Send + Sync {}

impl<S: Clone + Debug + PartialEq + Hash + Representative + Send + Sync> StateBounds for S {}

impl<M> Explorable for M where
    M: Model<State: StateBounds, Action: Clone + Debug + PartialEq> + Send + Sync + 'static
{
}

/// Visits every state.
pub fn explore<M: Explorable>(model: M) -> Explored {
    let expectations: HashMap<_, _> = model
        .properties()
        .into_iter()
        .map(|property| (property.name, property.expectation))
        .collect();
    let started = Instant::now();
    let checker = model
        .checker()
        .threads(2)
        .symmetry()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    let found = checker.discoveries().into_keys();
    let (reached, violated) = found.partition(|name| expectations[name] == Expectation::Sometimes);
    Explored {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        time: started.elapsed(),
        violated,
        reached,
    }
}

/// Looks for a shortest violation of an invariant.
pub fn refute<M: Explorable>(model: M, invariant: &'static str) -> Option<Refutation<M>> {
    let started = Instant::now();
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyOf([invariant].into()))
        .spawn_bfs()
        .join();
    Some(Refutation {
        path: checker.discovery(invariant)?.into_vec(),
        states: checker.unique_state_count(),
        time: started.elapsed(),
    })
}

/// Whether no state can be reached from itself. Then every execution ends, so what holds in
/// all states in which nothing can happen any more comes about in the end.
pub fn always_ends<M: Explorable>(model: &M) -> bool {
    let mut seen: HashMap<u64, Visit> = HashMap::new();
    let mut path: Vec<(u64, Vec<M::State>)> = vec![];
    let mut open = model.init_states();
    loop {
        match open.pop() {
            Some(state) => {
                let name = name(&state.representative());
                match seen.get(&name) {
                    Some(Visit::OnPath) => return false,
                    Some(Visit::Left) => {}
                    None => {
                        seen.insert(name, Visit::OnPath);
                        let next = model.next_states(&state);
                        path.push((name, std::mem::replace(&mut open, next)));
                    }
                }
            }
            None => {
                let Some((name, rest)) = path.pop() else {
                    return true;
                };
                seen.insert(name, Visit::Left);
                open = rest;
            }
        }
    }
}

enum Visit {
    OnPath,
    Left,
}

fn name(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}
