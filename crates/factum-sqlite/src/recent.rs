//! A bounded map that keeps the entries used last.

use std::{borrow::Borrow, hash::Hash};

use hashbrown::HashMap;

/// A bounded map that keeps the entries used last. It has two generations; when the younger is
/// full, the older is dropped as a whole.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    max: usize,
}

impl<K: Hash + Eq, V: Copy> Recent<K, V> {
    /// An empty map of at most this many entries.
    pub(crate) fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), max }
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value);
        Some(value)
    }

    /// Changes the value of a key that was used lately, and returns it.
    pub(crate) fn update<Q: Hash + Eq + ?Sized>(
        &mut self,
        key: &Q,
        change: impl FnOnce(&mut V),
    ) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.young.get_mut(key).map(|value| {
            change(value);
            *value
        })
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.max / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let mut recent = Recent::new(8);
        recent.insert("used".to_owned(), 0);
        for n in 1..1_000 {
            recent.insert(format!("once-{n}"), n);
            assert_eq!(recent.get("used"), Some(0));
            assert!(recent.young.len() + recent.old.len() <= 8);
        }
        assert_eq!(recent.get("once-1"), None);
        assert_eq!(recent.get("once-999"), Some(999));
    }

    #[test]
    fn a_newer_value_hides_the_older_one() {
        let mut recent = Recent::new(4);
        for n in 0..20 {
            recent.insert("a".to_owned(), n);
            recent.insert(format!("other-{n}"), n);
            assert_eq!(recent.get("a"), Some(n));
        }
        recent.clear();
        assert_eq!(recent.get("a"), None);
    }
}
