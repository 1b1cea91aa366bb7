//! The comparison of the books with what is found.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use semel_core::{Cause, RecordState};

use super::books::{BookEntry, Publication};
use super::found::{Found, LANED, PluginFound, Published, Tallied};
use super::{Books, Configuration};

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// How bad it is.
    pub harm: Harm,
    /// What is wrong.
    pub what: String,
}

/// What a flaw comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Harm {
    /// Something that must be there is not.
    Lost,
    /// Something is there more than once.
    Doubled,
    /// Anything else: out of order, torn, not in the books.
    Wrong,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harm = match self.harm {
            Harm::Lost => "lost",
            Harm::Doubled => "doubled",
            Harm::Wrong => "wrong",
        };
        write!(f, "{harm}: {}", self.what)
    }
}

/// How what is found is to be understood.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What was swept.
    pub configuration: Configuration,
    /// How many hosts wrote to files of their own.
    pub outputs: usize,
}

impl Books {
    /// Everything that is wrong.
    pub fn audit(&self, found: &Found, terms: Terms) -> Vec<Flaw> {
        let mut audit = Audit {
            books: self,
            terms,
            flaws: Vec::new(),
        };
        for (name, plugin) in &found.plugins {
            let of_plugin = |message: &&Published| message.body.plugin == *name;
            let published: Vec<&Published> = found.published.iter().filter(of_plugin).collect();
            audit.plugin(name, plugin, &published);
        }
        for message in &found.published {
            if !found.plugins.contains_key(message.body.plugin.as_str()) {
                audit.flaw(Harm::Wrong, format!("nobody published {message:?}"));
            }
        }
        if found.outbox > 0 {
            let what = format!("{} outgoing messages are still in the store", found.outbox);
            audit.flaw(Harm::Lost, what);
        }
        audit.flaws
    }
}

struct Audit<'b> {
    books: &'b Books,
    terms: Terms,
    flaws: Vec<Flaw>,
}

impl Audit<'_> {
    fn flaw(&mut self, harm: Harm, what: String) {
        self.flaws.push(Flaw { harm, what });
    }

    /// Demands that something is there this many times.
    fn count(&mut self, what: impl fmt::Display, expected: usize, found: usize) {
        let what = format!("{what}: {found} and not {expected}");
        match found {
            _ if found < expected => self.flaw(Harm::Lost, what),
            _ if found > expected && expected == 0 => self.flaw(Harm::Wrong, what),
            _ if found > expected => self.flaw(Harm::Doubled, what),
            _ => {}
        }
    }

    fn plugin(&mut self, name: &str, found: &PluginFound, published: &[&Published]) {
        let mut applied: HashMap<&str, usize> = HashMap::new();
        for order in found.histories.values().flatten() {
            *applied.entry(order).or_default() += 1;
        }
        let books = self.books;
        for (id, entry) in &books.entries {
            let times = usize::from(entry.dead.is_none());
            let counted = found.counts.get(id).copied().unwrap_or(0);
            let counted = usize::try_from(counted).unwrap_or(0);
            self.count(format_args!("{name} counted {id}"), times, counted);
            if let Some(rows) = &found.rows {
                let rows = rows.get(id).copied().unwrap_or(0);
                self.count(format_args!("{name} wrote a row of {id}"), times, rows);
            }
            let in_history = applied.remove(id.as_str()).unwrap_or(0);
            self.count(format_args!("{name} applied {id}"), times, in_history);
            self.record(name, id, entry, found);
        }
        for id in applied.keys() {
            self.flaw(
                Harm::Wrong,
                format!("{name} applied {id}, which nobody sent"),
            );
        }
        let Terms {
            configuration,
            outputs: hosts,
        } = self.terms;
        let ordered = configuration.applies_in_order(hosts);
        if name == LANED && ordered && found.histories != books.histories {
            for (user, expected) in &books.histories {
                let is = found.histories.get(user);
                if is != Some(expected) {
                    let what = format!("{name}: {user} has {is:?}, must have {expected:?}");
                    self.flaw(Harm::Wrong, what);
                }
            }
        }
        if found.parked > 0 {
            let what = format!("{name} has {} messages parked", found.parked);
            self.flaw(Harm::Lost, what);
        }
        self.letters(name, found);
        self.published(name, found, published);
        let ordered = self.terms.configuration.keeps_order() && self.terms.outputs == 1;
        if name == LANED && ordered {
            self.order_of_lanes(published);
        }
    }

    fn record(&mut self, name: &str, id: &str, entry: &BookEntry, found: &PluginFound) {
        let state = found.records.get(id);
        let what = format!("{name}: the record of {id} is {state:?}");
        match (state, entry.dead) {
            (None | Some(RecordState::Absent), _) => self.flaw(Harm::Lost, what),
            (Some(RecordState::Done { .. }), None) | (Some(RecordState::Dead { .. }), Some(_)) => {}
            _ => self.flaw(Harm::Wrong, what),
        }
        let letters = found.letters.iter().filter(|letter| {
            let record = letter.record.as_ref();
            record.is_some_and(|record| record.key.as_bytes() == id.as_bytes())
        });
        let causes: Vec<Cause> = letters.map(|letter| letter.cause).collect();
        let expected: Vec<Cause> = entry.dead.into_iter().collect();
        let count = format!("{name} buried {id}");
        self.count(count, expected.len(), causes.len());
        if causes.len() == expected.len() && causes != expected {
            let what = format!("{name} buried {id} as {causes:?} and not {expected:?}");
            self.flaw(Harm::Wrong, what);
        }
    }

    /// Letters that end no record.
    fn letters(&mut self, name: &str, found: &PluginFound) {
        let mut by_content: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut refused: HashMap<&str, usize> = HashMap::new();
        for letter in found
            .letters
            .iter()
            .filter(|letter| letter.record.is_none())
        {
            if letter.cause == Cause::Undeliverable {
                *refused.entry(&letter.message.id).or_default() += 1;
            } else {
                let body = String::from_utf8_lossy(&letter.message.body).into_owned();
                let content = (letter.cause.to_string(), body);
                *by_content.entry(content).or_default() += 1;
            }
        }
        let books = self.books;
        for (content, &times) in &books.letters {
            let (cause, body) = content;
            let mut is = by_content.remove(content).unwrap_or(0);
            if !self.terms.configuration.has_positions() {
                // Sent again, it is another letter.
                is = is.min(times);
            }
            self.count(format_args!("{name} buried as {cause} {body}"), times, is);
        }
        for (cause, body) in by_content.keys() {
            let what = format!("{name} buried as {cause}, against the books: {body}");
            self.flaw(Harm::Wrong, what);
        }
        let done = books.entries.values().filter(|entry| entry.dead.is_none());
        let wide = done.flat_map(|entry| &entry.publish);
        let wide =
            wide.filter(|how| self.terms.configuration.refuses() && **how == Publication::Wide);
        let wide = wide.count();
        self.count(
            format_args!("{name} has refused messages"),
            wide,
            refused.len(),
        );
    }

    /// Every outgoing message of a done key once, after copies with the same id are dropped,
    /// and none of another key.
    fn published(&mut self, name: &str, found: &PluginFound, published: &[&Published]) {
        let mut by_id: HashMap<&str, &Tallied> = HashMap::new();
        let mut by_ordinal: HashMap<(&str, usize), HashSet<&str>> = HashMap::new();
        for Published {
            message_id, body, ..
        } in published
        {
            let first = *by_id.entry(message_id).or_insert(body);
            if first != body {
                let what = format!("{message_id} has two contents: {first:?} and {body:?}");
                self.flaw(Harm::Wrong, what);
            }
            let ids = by_ordinal.entry((&body.id, body.ordinal)).or_default();
            ids.insert(message_id);
            let history = found.histories.get(&body.user);
            let at_place = history.and_then(|orders| orders.get(body.place.wrapping_sub(1)));
            if at_place != Some(&body.id) {
                let what = format!("{name} published {body:?}, but {at_place:?} is at its place");
                self.flaw(Harm::Wrong, what);
            }
        }
        let books = self.books;
        for (id, entry) in &books.entries {
            for (ordinal, how) in entry.publish.iter().enumerate() {
                let refused = self.terms.configuration.refuses() && *how == Publication::Wide;
                let times = usize::from(entry.dead.is_none() && !refused);
                let ids = by_ordinal.remove(&(id.as_str(), ordinal));
                let what = format!("{name} published message {ordinal} of {id} ({how:?})");
                self.count(what, times, ids.map_or(0, |ids| ids.len()));
            }
        }
        for (id, ordinal) in by_ordinal.keys() {
            let what = format!("{name} published a message {ordinal} of {id}");
            self.flaw(Harm::Wrong, what);
        }
    }

    /// First occurrences of messages without a delay are in the order of their lane.
    fn order_of_lanes(&mut self, published: &[&Published]) {
        let mut last: HashMap<&str, ((usize, usize), &str)> = HashMap::new();
        let mut seen = HashSet::new();
        for Published {
            message_id,
            stream,
            body,
        } in published
        {
            let publish = self.books.entries.get(&body.id).map(|entry| &entry.publish);
            let how = publish.and_then(|publish| publish.get(body.ordinal));
            if matches!(how, Some(Publication::Later(_))) || !seen.insert(message_id) {
                continue;
            }
            let place = (body.place, body.ordinal);
            if let Some((before, in_stream)) = last.insert(&body.user, (place, stream))
                && (before > place || in_stream != stream)
            {
                let what = format!("{body:?} was published after {before:?} of its lane");
                self.flaw(Harm::Wrong, what);
            }
        }
    }
}
