//! What is left when nothing is under way must be what was promised.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use semel_core::{
    Admin, DeadLetterId, PluginName, Position, RecordId, RecordState, StoreError, Versioning,
};

use crate::broker;
use crate::oracle::{Broken, Fate, Oracle};
use crate::plan::PLUGIN;
use crate::script::Content;
use crate::world::World;

/// What a store has in the end.
pub struct Leftovers {
    pub records: BTreeMap<RecordId, RecordState>,
    pub letters: BTreeSet<DeadLetterId>,
    pub state: BTreeMap<String, Bytes>,
    /// Whether done records expired.
    pub expired: bool,
}

impl Leftovers {
    /// Looks into the store.
    pub async fn of(world: &World) -> Result<Self, StoreError> {
        let plugin = PluginName::new(PLUGIN);
        let mut records = BTreeMap::new();
        for sent in &world.plan.sent {
            if let Content::Order(order) = &sent.content {
                let id = order.record();
                let (state, _) = world.store.record(&id).await?;
                records.insert(id, state);
            }
        }
        let letters = world.store.list_dead(None, None, usize::MAX).await?;
        let mut state = BTreeMap::new();
        for (namespace, mark) in [(PLUGIN.into(), ""), (Versioning::namespace(&plugin), "#")] {
            let entries = world
                .store
                .list_state(&namespace, "", None, usize::MAX)
                .await?;
            let entries = entries.into_iter();
            state.extend(entries.map(|entry| (format!("{mark}{}", entry.name), entry.value)));
        }
        Ok(Self {
            records,
            letters: letters.into_iter().map(|letter| letter.id).collect(),
            state,
            expired: world.plan.freezes.is_some(),
        })
    }
}

impl Oracle {
    /// Tests what is left when nothing is under way.
    pub fn settled(&self, found: &Leftovers) -> Result<(), Broken> {
        for (number, contents) in self.contents.iter().enumerate() {
            for offset in 0..contents.len() as u64 {
                let partition = broker::partition(number);
                self.acknowledged(&Position { partition, offset })?;
            }
        }
        let mut letters: BTreeSet<_> = self.promises.settled()?.into_iter().collect();
        for (id, record) in &self.records {
            let state = found.records.get(id).unwrap_or(&RecordState::Absent);
            let same = match (&record.fate, state) {
                (
                    Fate::Done { run, reply },
                    RecordState::Done {
                        run: by,
                        reply: kept,
                        ..
                    },
                ) => run == by && reply == kept,
                (Fate::Done { .. }, RecordState::Absent) => found.expired,
                (Fate::Dead { letter }, RecordState::Dead { .. }) => {
                    letters.extend(letter.then(|| DeadLetterId::of_record(id)));
                    true
                }
                _ => false,
            };
            ensure!(
                same,
                "{} is {state:?} in the end, not {:?}",
                id.key,
                record.fate
            );
        }
        let plugin = PluginName::new(PLUGIN);
        let kept = self.letters.iter().filter(|(_, kept)| **kept);
        letters.extend(kept.map(|(position, _)| DeadLetterId::of_position(&plugin, position)));
        ensure!(
            letters == found.letters,
            "dead letters: {:?}, not {letters:?}",
            found.letters
        );
        ensure!(self.serial.state == found.state, "state: {:?}", found.state);
        Ok(())
    }
}
