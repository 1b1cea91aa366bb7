//! What must hold in every state that can be reached, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::{
    Ending, Event, Expected, Key, Message, Park, Protocol, RecordState, Run, State, StateKey,
    Verdict,
};

/// Nothing is lost: what was acknowledged is done, parked or dead in the store.
pub const RECORDED: &str = "1 what is acknowledged is recorded";
/// For one key at most one run's effects are ever applied, and no run is applied twice.
pub const ONCE: &str = "2 effects are applied at most once";
/// A record is done if and only if its effects, state and outgoing message, were applied.
pub const WHOLE: &str = "2 effects are applied whole";
/// Nothing is published whose run is not committed.
pub const INVISIBLE: &str = "3 no effect is visible before its commit";
/// State and verdicts are those of the same runs, one at a time, in the order of commits.
pub const SERIALIZABLE: &str = "4 as if messages were handled one at a time";
/// All copies of an outgoing message bear one id and say what the committed run said.
pub const SAME_MESSAGE: &str = "5 the same id and bytes each time";
/// Effects of a lane take place in the order of arrival within a partition.
pub const LANE_ORDER: &str = "7 a lane's effects are in order";
/// So do first occurrences downstream.
pub const SENT_IN_ORDER: &str = "7 a lane's outgoing messages are in order";
/// `Done` and `Dead` are final, but for an operator's replay.
pub const FINAL: &str = "8 done and dead are final";
/// Each failure is counted once, on the row that it replaces.
pub const COUNTED: &str = "9 each failure is counted once";
/// When nothing but faults can happen any more, everything is done or dead, and sent.
pub const SETTLED: &str = "10 in the end everything is settled";

/// A message was handled after it had been parked.
pub const RETRIED: &str = "a parked message is done";
/// A message waited behind its lane and was handled.
pub const WAITED: &str = "a message that waited is done";
/// A message died of its attempts.
pub const EXHAUSTED: &str = "a message is exhausted";
/// A dead letter was handled after a replay.
pub const REPLAYED: &str = "a replayed message is done";
/// A message with another payload was buried.
pub const MISMATCHED: &str = "a mismatch is buried";
/// Consumers downstream had to drop a duplicate.
pub const SENT_AGAIN: &str = "a message is sent again";
/// Everything was handled.
pub const ALL_DONE: &str = "all messages are done";

pub(crate) fn properties() -> Vec<Property<Protocol>> {
    let always = Property::<Protocol>::always;
    let sometimes = Property::<Protocol>::sometimes;
    vec![
        always(RECORDED, |model, state| {
            let mut messages = model.topic.iter();
            messages.all(|message| !is_acknowledged(message, state) || is_recorded(message, state))
        }),
        always(ONCE, |_, state| {
            let runs: BTreeSet<_> = applied(state).map(|run| run.id).collect();
            let keys: BTreeSet<_> = done(state).map(|run| run.message.key).collect();
            runs.len() == applied(state).count() && keys.len() == done(state).count()
        }),
        always(WHOLE, |model, state| {
            model
                .topic
                .iter()
                .all(|message| is_whole(message.key, state))
        }),
        always(INVISIBLE, |_, state| {
            let mut sent = state.published.0.iter();
            sent.all(|publication| is_done(publication.message.key, state))
        }),
        always(SERIALIZABLE, |_, state| one_at_a_time(state)),
        always(SAME_MESSAGE, |_, state| {
            let mut sent = state.published.0.iter();
            sent.all(|publication| {
                let key = publication.message.key;
                let same = |run: &Run| run.message.key != key || run.id == publication.body;
                publication.id == (key, 0) && done(state).all(same)
            })
        }),
        always(LANE_ORDER, |model, state| {
            is_in_order(model, done(state).map(|run| run.message))
        }),
        always(SENT_IN_ORDER, |model, state| {
            is_in_order(model, state.published.0.iter().map(|sent| sent.message))
        }),
        always(FINAL, |_, state| is_final(state)),
        always(COUNTED, |_, state| is_counted(state)),
        always(SETTLED, |model, state| {
            is_settled(model, state) || !is_quiescent(model, state)
        }),
        sometimes(RETRIED, |_, state| {
            done(state).any(|run| run.expected.attempt() > 0)
        }),
        sometimes(WAITED, |_, state| {
            let waited = |run: &Run| run.expected != Expected::Absent && run.message.lane.is_some();
            done(state).any(|run| waited(run) && run.expected.attempt() == 0)
        }),
        sometimes(EXHAUSTED, |_, state| {
            let exhausted = |run: &Run| matches!(run.verdict, Verdict::Dead(_));
            applied(state).any(|run| exhausted(run) && run.verdict.is_failure())
        }),
        sometimes(REPLAYED, |_, state| {
            let replayed = |event: &Event| matches!(event, Event::Replayed(..));
            state.store.history.iter().any(replayed) && done(state).next().is_some()
        }),
        sometimes(MISMATCHED, |_, state| !state.store.mismatches.is_empty()),
        sometimes(SENT_AGAIN, |_, state| {
            state
                .published
                .0
                .iter()
                .any(|publication| publication.again)
        }),
        sometimes(ALL_DONE, |model, state| {
            model
                .topic
                .iter()
                .all(|message| is_done(message.key, state))
        }),
    ]
}

fn applied(state: &State) -> impl Iterator<Item = &Run> {
    state.store.history.iter().filter_map(|event| match event {
        Event::Applied(_, run) => Some(run),
        Event::Replayed(..) => None,
    })
}

fn done(state: &State) -> impl Iterator<Item = &Run> {
    applied(state).filter(|run| matches!(run.verdict, Verdict::Done(_)))
}

fn is_done(key: Key, state: &State) -> bool {
    done(state).any(|run| run.message.key == key)
}

fn is_acknowledged(message: &Message, state: &State) -> bool {
    message.offset < state.watermarks[usize::from(message.partition)]
}

fn is_recorded(message: &Message, state: &State) -> bool {
    let record = state.store.records.get(&message.key);
    state.store.mismatches.contains(message)
        || record.is_some_and(|record| record.fingerprint == message.fingerprint)
}

fn is_whole(key: Key, state: &State) -> bool {
    let record = state.store.records.get(&key);
    let recorded = record.is_some_and(|record| record.state == RecordState::Done);
    let sent = |message: &Message| {
        let stored = state.store.outbox.values().map(|row| row.message);
        let sent = state.published.0.iter().map(|sent| sent.message);
        !message.sends || stored.chain(sent).any(|sent| sent.key == message.key)
    };
    let mut runs = done(state).filter(|run| run.message.key == key);
    recorded == is_done(key, state) && runs.all(|run| sent(&run.message))
}

fn one_at_a_time(state: &State) -> bool {
    let mut values: BTreeMap<StateKey, u8> = BTreeMap::new();
    for run in applied(state).filter(|run| !run.verdict.is_waiting()) {
        let handler = run.message.handler;
        let reads = handler.reads().iter();
        let reads: Vec<_> = reads.map(|key| values.get(key).copied()).collect();
        let mut endings = handler.endings(&reads).into_iter();
        let Some(ending) = endings.find(|ending| is_same_ending(ending, &run.verdict)) else {
            return false;
        };
        let Ending::Done(writes) = ending else {
            continue;
        };
        for write in writes {
            match write.op.apply(values.get(&write.key).copied()) {
                Some(value) => values.insert(write.key, value),
                None => values.remove(&write.key),
            };
        }
    }
    let stored = state.store.state.iter();
    stored.map(|(key, (_, value))| (key, value)).eq(&values)
}

fn is_same_ending(ending: &Ending, verdict: &Verdict) -> bool {
    match ending {
        Ending::Done(_) => matches!(verdict, Verdict::Done(_)),
        Ending::Retry => verdict.is_failure(),
        Ending::Reject => matches!(verdict, Verdict::Dead(_)) && !verdict.is_failure(),
    }
}

/// A message's place is that of its key's first occurrence. No order is claimed for keys that
/// were sent to several partitions.
fn is_in_order(model: &Protocol, messages: impl Iterator<Item = Message>) -> bool {
    let first = |message: &Message| {
        let mut same = model.topic.iter().filter(|other| other.key == message.key);
        let here = same
            .clone()
            .all(|other| other.partition == message.partition);
        same.next()
            .copied()
            .filter(|_| here && message.lane.is_some())
    };
    let placed: Vec<_> = messages.filter_map(|message| first(&message)).collect();
    let mut pairs =
        (1..placed.len()).flat_map(|later| (0..later).map(move |earlier| (earlier, later)));
    pairs.all(|(earlier, later)| !placed[later].precedes(&placed[earlier]))
}

fn is_final(state: &State) -> bool {
    let mut ended = BTreeSet::new();
    state.store.history.iter().all(|event| match event {
        Event::Replayed(_, key) => ended.remove(key),
        Event::Applied(_, run) => {
            let key = run.message.key;
            match run.verdict {
                Verdict::Park(_) => !ended.contains(&key),
                Verdict::Done(_) | Verdict::Dead(_) => ended.insert(key),
            }
        }
    })
}

/// Failures form a chain: each is of a run of the row that it replaces.
fn is_counted(state: &State) -> bool {
    let mut rows: BTreeMap<Key, Expected> = BTreeMap::new();
    state.store.history.iter().all(|event| {
        let (version, key, attempt) = match event {
            Event::Replayed(version, key) => (*version, *key, 0),
            Event::Applied(version, run) => {
                let key = run.message.key;
                let row = rows.remove(&key).unwrap_or(Expected::Absent);
                if run.verdict.is_failure() && run.expected != row {
                    return false;
                }
                match run.verdict {
                    Verdict::Park(Park { attempt, .. }) => (*version, key, attempt),
                    Verdict::Done(_) | Verdict::Dead(_) => return true,
                }
            }
        };
        rows.insert(key, Expected::Parked { version, attempt });
        true
    })
}

fn is_settled(model: &Protocol, state: &State) -> bool {
    let parked = |key: &Key| state.store.parked(*key).is_some();
    let settled = |message: &Message| is_recorded(message, state) && !parked(&message.key);
    state.store.outbox.is_empty() && model.topic.iter().all(settled)
}

fn is_quiescent(model: &Protocol, state: &State) -> bool {
    let mut actions = vec![];
    model.actions(state, &mut actions);
    actions.iter().all(|action| action.is_fault())
}
