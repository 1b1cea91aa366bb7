//! What hosts tell the source: which messages it may forget, and what became of them.

use semel_core::{Disposition, Position, Settlement};

use crate::oracle::{Broken, Fate, Oracle};
use crate::script::Content;

impl Oracle {
    /// The broker forgets a message.
    pub fn acknowledged(&self, position: &Position) -> Result<(), Broken> {
        let recorded = match self.content(position) {
            Content::Order(order) => {
                let found = self.records.get(&order.record());
                found.is_some_and(|found| found.fingerprint == order.fingerprint())
            }
            Content::Keyless | Content::Malformed => false,
        };
        let recorded = recorded || self.letters.contains_key(position);
        ensure!(recorded, "{position} is acknowledged and not recorded");
        Ok(())
    }

    /// Someone who waits at the source hears what became of a message.
    pub fn told(&self, settlement: &Settlement) -> Result<(), Broken> {
        let Settlement {
            position,
            disposition,
        } = settlement;
        let record = match self.content(position) {
            Content::Order(order) => self.records.get(&order.record()),
            Content::Keyless | Content::Malformed => None,
        };
        let truly = match disposition {
            Disposition::Done { reply, .. } => record.is_some_and(
                |record| matches!(&record.fate, Fate::Done { reply: kept, .. } if kept == reply),
            ),
            // It may have come further meanwhile.
            Disposition::Parked => record.is_some(),
            Disposition::Dead {
                cause: Some(cause), ..
            } if !cause.has_record() => self.letters.contains_key(position),
            Disposition::Dead { .. } => record.is_some(),
        };
        ensure!(truly, "{position} is told to be {disposition:?}");
        Ok(())
    }
}
