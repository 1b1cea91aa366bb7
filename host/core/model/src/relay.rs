//! The relay: publishes the outbox. And the broker on its other side.

use crate::{Message, OutboxRow, Rule, Rules, Run, RunId, Store, Verdict, Version};

/// A host's relay. There is no lease: two may publish the same row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relay {
    /// What it is doing.
    pub step: RelayStep,
    /// The last row taken. Only looked at where a rule is missing.
    after: Version,
}

/// What a relay is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RelayStep {
    /// Nothing.
    #[default]
    Idle,
    /// It has a row, to publish.
    Took(Version, OutboxRow),
    /// The broker confirmed this row, to be deleted.
    Confirmed(Version),
}

/// What the broker did with a message, and whether the relay heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Publish {
    /// It has the message and said so.
    Confirmed,
    /// It has the message; the confirmation was lost.
    Unconfirmed,
    /// It never got the message.
    Lost,
}

/// A message that the broker has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Publication {
    /// By which consumers tell duplicates.
    pub id: (u8, usize),
    /// The message whose handler sent it.
    pub message: Message,
    /// What it says.
    pub body: RunId,
    /// Whether it came more than once.
    pub again: bool,
}

/// Everything that the broker has, in the order of first arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Published(pub Vec<Publication>);

impl Relay {
    /// The rows that it may take.
    pub fn candidates(&self, store: &Store, rules: Rules<Rule>) -> Vec<Version> {
        let lowest_of_lane = |version: Version, row: &OutboxRow| {
            let mut before = store.outbox.range(..version);
            row.message.lane.is_none() || before.all(|(_, b)| b.message.lane != row.message.lane)
        };
        let rows = store.outbox.iter().filter(|&(&version, row)| {
            (!rules.keep(Rule::LowestIsPublished) || lowest_of_lane(version, row))
                && (rules.keep(Rule::SweepBeginsAtTheLowest) || version > self.after)
        });
        rows.map(|(&version, _)| version).collect()
    }

    /// Takes a row: its stored bytes are what is published.
    pub fn take(&mut self, version: Version, store: &mut Store, rules: Rules<Rule>) {
        if let Some(&row) = store.outbox.get(&version) {
            self.step = RelayStep::Took(version, row);
        }
        if !rules.keep(Rule::SweepBeginsAtTheLowest) {
            self.after = version;
        }
        if !rules.keep(Rule::PublishedIsDeleted) {
            store.outbox.remove(&version);
        }
    }

    /// Publishes the row that it took.
    pub fn publish(&mut self, publish: Publish, broker: &mut Published, rules: Rules<Rule>) {
        let RelayStep::Took(version, row) = std::mem::take(&mut self.step) else {
            return;
        };
        if publish != Publish::Lost {
            broker.receive(row, rules);
        }
        if publish == Publish::Confirmed || !rules.keep(Rule::ConfirmedIsDeleted) {
            self.step = RelayStep::Confirmed(version);
        }
    }

    /// Deletes the row that was confirmed.
    pub fn delete(&mut self, store: &mut Store) {
        if let RelayStep::Confirmed(version) = std::mem::take(&mut self.step) {
            store.outbox.remove(&version);
        }
    }
}

impl Published {
    /// A run's message arrives before its commit. Only where a rule is missing.
    pub fn leak(&mut self, run: &Run) {
        if run.message.sends && matches!(run.verdict, Verdict::Done(_)) {
            let row = OutboxRow {
                message: run.message,
                body: run.id,
            };
            self.receive(row, Rules::ALL);
        }
    }

    /// A message arrives.
    pub fn receive(&mut self, row: OutboxRow, rules: Rules<Rule>) {
        let known = self.of(&row).count();
        let id = match rules.keep(Rule::IdOfTheMessage) {
            true => (row.message.key, 0),
            false => (row.message.key, known),
        };
        let OutboxRow { message, body } = row;
        match self.0.iter_mut().find(|p| p.id == id && p.body == body) {
            Some(publication) => publication.again = true,
            None => self.0.push(Publication {
                id,
                message,
                body,
                again: false,
            }),
        }
    }

    fn of(&self, row: &OutboxRow) -> impl Iterator<Item = &Publication> {
        let key = row.message.key;
        self.0.iter().filter(move |p| p.message.key == key)
    }
}
