//! A map that its copies share until one of them changes, and then all but what changed.
//!
//! The world is published anew at every change, and most changes touch one object of one kind. So a copy of
//! it costs six reference counts, and a change one for each object of the kind that it is in.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::iter::Map;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// See the module.
pub struct Part<K, V>(Arc<BTreeMap<K, Arc<V>>>);

impl<K, V> Part<K, V> {
    /// Whether both are one map, so that they need not be compared.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in the order of the keys.
    pub fn iter(&self) -> Walk<'_, K, V> {
        self.into_iter()
    }

    /// The keys in their order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.0.keys()
    }

    /// The values in the order of the keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.0.values().map(|value| &**value)
    }
}

impl<K: Ord, V> Part<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map(|value| &**value)
    }

    /// Is there such a key?
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// The keys of which the two have not the same, or only one has anything.
    pub fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a K>
    where
        V: PartialEq,
    {
        let mut keys = Vec::new();
        if self.is(other) {
            return keys;
        }
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return keys,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                // A value is of one key only, so the keys need not be read: most values are the same.
                (Some((_, one)), Some((_, other))) if Arc::ptr_eq(one, other) => Ordering::Equal,
                (Some((key, _)), Some((other, _))) => key.cmp(other),
            };
            let here = (order != Ordering::Greater).then(|| ours.next()).flatten();
            let there = (order != Ordering::Less).then(|| theirs.next()).flatten();
            let same = |(_, a): (_, &Arc<V>), (_, b): (_, &Arc<V>)| Arc::ptr_eq(a, b) || a == b;
            if !here.zip(there).is_some_and(|(a, b)| same(a, b)) {
                keys.extend(here.or(there).map(|(key, _)| key));
            }
        }
    }
}

impl<K: Ord + Clone, V> Part<K, V> {
    /// Puts a value in, and gives the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<Arc<V>> {
        Arc::make_mut(&mut self.0).insert(key, Arc::new(value))
    }

    /// Takes a value out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        Arc::make_mut(&mut self.0).remove(key)
    }

    /// Makes of a key what it is in `other`: the same value, shared, or none. Nothing is copied where that is so
    /// already.
    pub fn follow(&mut self, other: &Self, key: &K) {
        match (self.0.get(key), other.0.get(key)) {
            (Some(ours), Some(theirs)) if Arc::ptr_eq(ours, theirs) => {}
            (_, Some(theirs)) => {
                Arc::make_mut(&mut self.0).insert(key.clone(), theirs.clone());
            }
            (_, None) => drop(self.take(key)),
        }
    }

    /// Shares with `other`, which was read earlier, what is equal in both.
    pub fn share(&mut self, other: &Self)
    where
        V: PartialEq,
    {
        for (key, ours) in Arc::make_mut(&mut self.0) {
            if let Some(theirs) = other.0.get(key).filter(|theirs| *theirs == ours) {
                *ours = theirs.clone();
            }
        }
    }

    /// Takes a value out. False if there was none, and then nothing is copied.
    pub fn take(&mut self, key: &K) -> bool {
        self.contains_key(key) && self.remove(key).is_some()
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.0 = Arc::default();
    }
}

impl<K: Ord + Clone, V: Clone> Part<K, V> {
    /// Puts a value in. False if it was there, and then nothing is copied.
    pub fn put(&mut self, key: K, value: V) -> bool
    where
        V: PartialEq,
    {
        let news = self.get(&key) != Some(&value);
        if news {
            self.insert(key, value);
        }
        news
    }

    /// A value to change, which is this map's own from then on.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let value = Arc::make_mut(&mut self.0).get_mut(key)?;
        Some(Arc::make_mut(value))
    }

    /// The same, put in first if there is none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        Arc::make_mut(Arc::make_mut(&mut self.0).entry(key).or_default())
    }

    /// All values to change, which are this map's own from then on.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let all = Arc::make_mut(&mut self.0).iter_mut();
        all.map(|(key, value)| (key, Arc::make_mut(value)))
    }
}

impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V> std::ops::Index<&Q> for Part<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        &self.0[key]
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
        let mut pairs = self.0.iter().zip(&*other.0);
        let mut equal = || {
            pairs.all(|((key, ours), (other, theirs))| {
                Arc::ptr_eq(ours, theirs) || (key == other && ours == theirs)
            })
        };
        self.is(other) || (self.len() == other.len() && equal())
    }
}

impl<K: Ord, V> From<BTreeMap<K, V>> for Part<K, V> {
    fn from(map: BTreeMap<K, V>) -> Self {
        map.into_iter().collect()
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Part<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Part<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let shared = pairs.into_iter().map(|(key, value)| (key, Arc::new(value)));
        Self(Arc::new(shared.collect()))
    }
}

/// What a [`Part`] is walked by.
pub(super) type Walk<'a, K, V> = Map<btree_map::Iter<'a, K, Arc<V>>, Pair<'a, K, V>>;
/// Takes the sharing off.
pub(super) type Pair<'a, K, V> = fn((&'a K, &'a Arc<V>)) -> (&'a K, &'a V);

impl<'a, K, V> IntoIterator for &'a Part<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Walk<'a, K, V>;

    fn into_iter(self) -> Walk<'a, K, V> {
        self.0.iter().map(|(key, value)| (key, &**value))
    }
}

impl<K: Serialize, V: Serialize> Serialize for Part<K, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
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
        assert_eq!(
            serde_json::from_str::<Part<i32, &str>>(&text).unwrap(),
            copy
        );
    }

    #[test]
    fn a_change_of_one_value_leaves_the_others_shared() {
        let mut part = Part::from([(1, String::from("one")), (2, String::from("two"))]);
        let copy = part.clone();
        part.get_mut(&1).unwrap().push('!');
        *part.or_default(3) = "three".into();
        assert_eq!((&*part[&1], &*copy[&1]), ("one!", "one"));
        assert!(std::ptr::eq(&raw const part[&2], &raw const copy[&2]));
        let mut some = Part::from([(3, String::new()), (4, String::new())]);
        for key in 2..=4 {
            some.follow(&part, &key);
        }
        assert_eq!(some.keys().collect::<Vec<_>>(), [&2, &3]);
        let mut read_again = Part::from([(1, String::from("one?")), (2, String::from("two"))]);
        read_again.share(&part);
        assert!(std::ptr::eq(&raw const read_again[&2], &raw const part[&2]));
        assert_eq!(read_again[&1], "one?");
        assert!(std::ptr::eq(&raw const some[&2], &raw const part[&2]));
    }

    #[test]
    fn what_differs_is_found_by_key_whoever_has_it() {
        let one: Part<u8, &str> = [(1, "a"), (2, "b"), (3, "c"), (5, "e")].into();
        let mut other = one.clone();
        assert!(one.differing(&other).is_empty());
        // Equal, though not the same.
        other.insert(1, "a");
        other.insert(2, "B");
        other.insert(4, "d");
        other.remove(&5);
        assert_eq!(one.differing(&other), [&2, &4, &5]);
        assert_eq!(other.differing(&one), [&2, &4, &5]);
        assert_eq!(one.differing(&Part::default()), [&1, &2, &3, &5]);
    }
}
