//! A map that its copies share until one of them changes.
//!
//! The world is published anew at every change, and most changes touch one kind of object. So a copy of
//! it costs six reference counts, and a change the map that it is in.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// See the module. Whoever writes to it through `DerefMut` has a map of its own from then on.
pub struct Part<K, V>(Arc<BTreeMap<K, V>>);

impl<K, V> Part<K, V> {
    /// Whether both are one map, so that they need not be compared.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Part<K, V> {
    /// Puts a value in. False if it was there, and then nothing is copied.
    pub fn put(&mut self, key: K, value: V) -> bool {
        let news = self.get(&key) != Some(&value);
        if news {
            self.insert(key, value);
        }
        news
    }

    /// Takes a value out. False if there was none, and then nothing is copied.
    pub fn take(&mut self, key: &K) -> bool {
        let news = self.contains_key(key);
        if news {
            self.remove(key);
        }
        news
    }
}

impl<K, V> Deref for Part<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.0
    }
}

impl<K: Ord + Clone, V: Clone> DerefMut for Part<K, V> {
    fn deref_mut(&mut self) -> &mut BTreeMap<K, V> {
        Arc::make_mut(&mut self.0)
    }
}

impl<K, V> Clone for Part<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Part<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Part<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Part<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || self.0 == other.0
    }
}

impl<K, V> From<BTreeMap<K, V>> for Part<K, V> {
    fn from(map: BTreeMap<K, V>) -> Self {
        Self(Arc::new(map))
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Part<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        BTreeMap::from(pairs).into()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Part<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        pairs.into_iter().collect::<BTreeMap<K, V>>().into()
    }
}

impl<'a, K, V> IntoIterator for &'a Part<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a, K: Ord + Clone, V: Clone> IntoIterator for &'a mut Part<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = btree_map::IterMut<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<K: Serialize, V: Serialize> Serialize for Part<K, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Part<K, V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(from).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_one_map_until_one_of_them_changes() {
        let mut part = Part::from([(1, "one"), (2, "two")]);
        let copy = part.clone();
        assert!(!part.put(1, "one") && !part.take(&3));
        assert!(part.is(&copy));
        assert!(part.put(1, "uno") && part.take(&2));
        assert!(!part.is(&copy) && part != copy);
        assert_eq!((part.len(), copy.len(), copy[&1]), (1, 2, "one"));
        let text = serde_json::to_string(&copy).unwrap();
        assert_eq!(text, r#"{"1":"one","2":"two"}"#);
    }
}
