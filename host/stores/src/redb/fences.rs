//! Runs that must not be committed any more.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use semel_core::{PluginName, RunId};

use super::Broken;
use super::tables::{FENCES, fence_key};

/// The table of fences inside a write transaction.
pub(super) struct FenceTable<'t> {
    fences: Table<'t, &'static [u8], u64>,
    /// Nearly always there is none.
    any: bool,
}

impl<'t> FenceTable<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Broken> {
        let fences = transaction.open_table(FENCES)?;
        let any = !fences.is_empty()?;
        Ok(Self { fences, any })
    }

    pub(super) fn has(&self, plugin: &PluginName, run: RunId) -> Result<bool, Broken> {
        if !self.any {
            return Ok(false);
        }
        let key = fence_key(plugin, run);
        Ok(self.fences.get(key.as_bytes())?.is_some())
    }

    /// Fences a run in this bucket time, which is not before that of the run's check.
    pub(super) fn insert(
        &mut self,
        plugin: &PluginName,
        run: RunId,
        time_ms: u64,
    ) -> Result<(), Broken> {
        let key = fence_key(plugin, run);
        self.fences.insert(key.as_bytes(), time_ms)?;
        self.any = true;
        Ok(())
    }

    /// Drops the fences that a horizon makes needless: the checks of those runs are too old.
    pub(super) fn expire(&mut self, plugin: &PluginName, horizon_ms: u64) -> Result<(), Broken> {
        if !self.any {
            return Ok(());
        }
        let first = fence_key(plugin, RunId::from_bytes([0; 16]));
        let last = fence_key(plugin, RunId::from_bytes([0xff; 16]));
        let of_plugin = first.as_bytes()..=last.as_bytes();
        self.fences
            .retain_in(of_plugin, |_, time_ms| time_ms >= horizon_ms)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use redb::Database;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn expiry_drops_what_the_horizon_passed_and_nothing_else() {
        let memory = Database::builder().create_with_backend(InMemoryBackend::new());
        let transaction = memory.unwrap().begin_write().unwrap();
        let mut fences = FenceTable::open(&transaction).unwrap();
        let [points, audit] = ["points", "audit"].map(PluginName::new);
        let [early, late] = [1, u64::MAX].map(|number| RunId::new(number, number));
        assert!(!fences.has(&points, early).unwrap());
        fences.insert(&points, early, 100).unwrap();
        fences.insert(&points, late, 101).unwrap();
        fences.insert(&audit, early, 100).unwrap();
        fences.expire(&points, 100).unwrap();
        assert!(fences.has(&points, early).unwrap());
        fences.expire(&points, 101).unwrap();
        assert!(!fences.has(&points, early).unwrap());
        assert!(fences.has(&points, late).unwrap());
        assert!(fences.has(&audit, early).unwrap());
        assert!(!fences.has(&audit, late).unwrap());
    }
}
