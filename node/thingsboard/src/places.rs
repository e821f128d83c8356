//! How many of something are there at once at this node, for each of those that have them and for all together.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Those that are taken. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Places<K> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    each_max: usize,
    all_max: usize,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// So many for each, and for all.
    pub(crate) fn new(each_max: usize, all_max: usize) -> Self {
        Self { taken: Arc::default(), each_max, all_max }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // Every change is one number.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, unless there are as many as there may be.
    pub(crate) fn take(&self, whose: K) -> Option<Place<K>> {
        let mut all = self.lock();
        // No more entries than places: each has one at least.
        if all.values().sum::<usize>() >= self.all_max {
            return None;
        }
        let taken = all.entry(whose.clone()).or_default();
        if *taken >= self.each_max {
            return None;
        }
        *taken += 1;
        drop(all);
        Some(Place { places: self.clone(), whose })
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Clone + Eq + Hash> {
    places: Places<K>,
    whose: K,
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut all = self.places.lock();
        if let Some(taken) = all.get_mut(&self.whose) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_so_many_and_all_have_and_get_their_places_back() {
        let places = Places::new(3, 5);
        let mut taken: Vec<_> = (0..3).map(|_| places.take("a").unwrap()).collect();
        assert!(places.take("a").is_none());
        let others = [places.take("b"), places.take("b"), places.take("b")];
        assert_eq!(others.each_ref().map(Option::is_some), [true, true, false]);
        assert!(places.take("c").is_none(), "all are taken");
        taken.pop();
        assert!(places.take("c").is_some());
        drop((taken, others));
        assert!(places.lock().is_empty());
    }
}
