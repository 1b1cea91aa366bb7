//! State values kept between batches.
//!
//! A kept value may be stale when another host writes the same state. That costs a run, not
//! correctness: the commit tests every version.

use std::collections::HashMap;

use crate::{StateKey, Versioned};

/// Values longer than this are not kept.
const MAX_VALUE_BYTES: usize = 4_096;

/// A map of bounded size that forgets what was not used for longest, roughly: entries live in
/// two generations, and the old one is dropped as a whole.
pub(super) struct ValueCache {
    young: HashMap<StateKey, Versioned>,
    old: HashMap<StateKey, Versioned>,
    /// Entries of a generation.
    limit: usize,
}

impl ValueCache {
    pub(super) fn new(entries: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            limit: entries.div_ceil(2),
        }
    }

    /// The value; it counts as a use.
    pub(super) fn get(&mut self, key: &StateKey) -> Option<Versioned> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// The value; it counts as no use.
    pub(super) fn peek(&self, key: &StateKey) -> Option<&Versioned> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(super) fn insert(&mut self, key: StateKey, value: Versioned) {
        self.old.remove(&key);
        if value
            .value
            .as_ref()
            .is_some_and(|bytes| bytes.len() > MAX_VALUE_BYTES)
        {
            self.young.remove(&key);
            return;
        }
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        if self.limit > 0 {
            self.young.insert(key, value);
        }
    }

    pub(super) fn remove(&mut self, key: &StateKey) {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let key = |n: usize| StateKey {
            namespace: "p".into(),
            name: n.to_string().into(),
        };
        let mut cache = ValueCache::new(8);
        for n in 0..100 {
            cache.insert(
                key(n),
                Versioned {
                    version: n as u64,
                    value: None,
                },
            );
            assert_eq!(cache.get(&key(0)).map(|v| v.version), Some(0));
            assert!(cache.young.len() + cache.old.len() <= 8);
        }
        assert!(cache.peek(&key(50)).is_none());
        cache.insert(
            key(99),
            Versioned {
                version: 1,
                value: Some(vec![0; 5_000].into()),
            },
        );
        assert!(cache.peek(&key(99)).is_none());
    }
}
