//! Which subscribers want a topic: filters in, matches out.
//!
//! ```text
//!   exact filters ── one hash lookup of the whole topic
//!   wildcards ────── a tree of levels in an arena, walked with an explicit stack
//! ```
//!
//! # Invariants
//!
//! - **Equal to the naive matcher** [`crate::topic::matches`], for every filter and topic. Checked by the property test.
//! - **No recursion**: a filter of 65,535 slashes costs memory, never the stack. Checked by `deep_filters_are_harmless`.
//! - **Nothing is left behind**: removing every filter leaves only the root. Checked by the property test.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use crate::topic::{has_wildcard, levels};

/// Filters with their subscribers. `K` names a subscriber of a filter, `V` is what it asked for.
///
/// Matches of one topic come in an order that depends only on the filters and keys, never on hashing.
#[derive(Clone)]
pub struct Trie<K, V> {
    exact: HashMap<Box<[u8]>, BTreeMap<K, V>>,
    nodes: Vec<Node<K, V>>,
    free: Vec<usize>,
    subscribers: usize,
}

#[derive(Clone)]
struct Node<K, V> {
    children: HashMap<Box<[u8]>, usize>,
    single: Option<usize>,
    /// Subscribers of the filter that ends here.
    here: BTreeMap<K, V>,
    /// Subscribers of this path followed by `/#`.
    below: BTreeMap<K, V>,
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self {
            children: HashMap::new(),
            single: None,
            here: BTreeMap::new(),
            below: BTreeMap::new(),
        }
    }
}

impl<K, V> Node<K, V> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.single.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }
}

const ROOT: usize = 0;

impl<K: Ord, V> Default for Trie<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, V> Trie<K, V> {
    /// An empty trie.
    #[must_use]
    pub fn new() -> Self {
        Self {
            exact: HashMap::new(),
            nodes: vec![Node::default()],
            free: Vec::new(),
            subscribers: 0,
        }
    }

    /// How many (filter, subscriber) pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscribers
    }

    /// Whether there is no subscriber.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscribers == 0
    }

    /// Adds or replaces one subscriber of a well-formed filter; gives what it replaced.
    pub fn insert(&mut self, filter: &[u8], key: K, value: V) -> Option<V> {
        let replaced = if has_wildcard(filter) {
            let (node, below) = self.walk_or_grow(filter);
            let place =
                if below { &mut self.nodes[node].below } else { &mut self.nodes[node].here };
            place.insert(key, value)
        } else {
            self.exact.entry(filter.into()).or_default().insert(key, value)
        };
        self.subscribers += usize::from(replaced.is_none());
        replaced
    }

    /// Removes one subscriber of a filter; gives what it had asked for.
    pub fn remove(&mut self, filter: &[u8], key: &K) -> Option<V> {
        let removed = if has_wildcard(filter) {
            self.remove_wildcard(filter, key)
        } else {
            let subscribers = self.exact.get_mut(filter)?;
            let removed = subscribers.remove(key);
            if subscribers.is_empty() {
                self.exact.remove(filter);
            }
            removed
        }?;
        self.subscribers -= 1;
        Some(removed)
    }

    /// Whether `filter` has the subscriber `key`.
    #[must_use]
    pub fn get(&self, filter: &[u8], key: &K) -> Option<&V> {
        if !has_wildcard(filter) {
            return self.exact.get(filter)?.get(key);
        }
        let (path, below) = self.walk(filter)?;
        let node = &self.nodes[*path.last()?];
        if below { node.below.get(key) } else { node.here.get(key) }
    }

    /// Calls `visit` for each subscriber of each filter that matches `topic`. A subscriber with several matching
    /// filters is visited once for each.
    pub fn matches<'a>(&'a self, topic: &[u8], mut visit: impl FnMut(&'a K, &'a V)) {
        if let Some(subscribers) = self.exact.get(topic) {
            subscribers.iter().for_each(|(key, value)| visit(key, value));
        }
        if self.nodes[ROOT].is_empty() {
            return;
        }
        let names: Vec<&[u8]> = levels(topic).collect();
        let system = topic.starts_with(b"$");
        let mut stack = vec![(ROOT, 0)];
        while let Some((at, depth)) = stack.pop() {
            let node = &self.nodes[at];
            let wildcards = !(system && depth == 0);
            if wildcards {
                node.below.iter().for_each(|(key, value)| visit(key, value));
            }
            let Some(&name) = names.get(depth) else {
                node.here.iter().for_each(|(key, value)| visit(key, value));
                continue;
            };
            if let Some(&child) = node.children.get(name) {
                stack.push((child, depth + 1));
            }
            if let (true, Some(child)) = (wildcards, node.single) {
                stack.push((child, depth + 1));
            }
        }
    }

    /// The nodes along a wildcard filter, and whether it ends in `#`.
    fn walk(&self, filter: &[u8]) -> Option<(Vec<usize>, bool)> {
        let mut path = vec![ROOT];
        for level in levels(filter) {
            let node = &self.nodes[*path.last()?];
            match level {
                b"#" => return Some((path, true)),
                b"+" => path.push(node.single?),
                name => path.push(*node.children.get(name)?),
            }
        }
        Some((path, false))
    }

    fn walk_or_grow(&mut self, filter: &[u8]) -> (usize, bool) {
        let mut at = ROOT;
        for level in levels(filter) {
            at = match level {
                b"#" => return (at, true),
                b"+" => match self.nodes[at].single {
                    Some(child) => child,
                    None => {
                        let child = self.allocate();
                        self.nodes[at].single = Some(child);
                        child
                    }
                },
                name => match self.nodes[at].children.get(name) {
                    Some(&child) => child,
                    None => {
                        let child = self.allocate();
                        self.nodes[at].children.insert(name.into(), child);
                        child
                    }
                },
            };
        }
        (at, false)
    }

    fn allocate(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        })
    }

    fn remove_wildcard(&mut self, filter: &[u8], key: &K) -> Option<V> {
        let (path, below) = self.walk(filter)?;
        let last = *path.last()?;
        let place = if below { &mut self.nodes[last].below } else { &mut self.nodes[last].here };
        let removed = place.remove(key)?;

        let names: Vec<&[u8]> = levels(filter).collect();
        for depth in (1..path.len()).rev() {
            if !self.nodes[path[depth]].is_empty() {
                break;
            }
            let parent = &mut self.nodes[path[depth - 1]];
            match names[depth - 1] {
                b"+" => parent.single = None,
                name => {
                    parent.children.remove(name);
                }
            }
            self.nodes[path[depth]] = Node::default();
            self.free.push(path[depth]);
        }
        Some(removed)
    }
}

impl<K, V> fmt::Debug for Trie<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trie").field("subscribers", &self.subscribers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic;

    fn found(trie: &Trie<u32, ()>, name: &str) -> Vec<u32> {
        let mut keys = Vec::new();
        trie.matches(name.as_bytes(), |key, ()| keys.push(*key));
        keys.sort_unstable();
        keys
    }

    proptest! {
        #[test]
        fn equals_the_naive_matcher_and_leaves_nothing(
            filters in prop::collection::vec("(\\$?[ab]?|\\+)(/([ab]?|\\+)){0,3}(/#)?|#", 1..12),
            names in prop::collection::vec("\\$?[ab]?(/[ab]?){0,4}", 1..12),
        ) {
            let filters: Vec<_> = filters.into_iter().filter(|f| topic::is_filter(f.as_bytes())).collect();
            let mut trie = Trie::new();
            for (key, filter) in filters.iter().enumerate() {
                trie.insert(filter.as_bytes(), u32::try_from(key).unwrap(), ());
            }
            for name in names.iter().filter(|name| topic::is_name(name.as_bytes())) {
                let naive: Vec<_> = (0..).zip(&filters)
                    .filter(|(_, filter)| topic::matches(filter.as_bytes(), name.as_bytes()))
                    .map(|(key, _)| key).collect();
                prop_assert_eq!(found(&trie, name), naive, "{}", name);
            }
            for (key, filter) in (0..).zip(&filters) {
                prop_assert!(trie.get(filter.as_bytes(), &key).is_some());
                prop_assert!(trie.remove(filter.as_bytes(), &key).is_some());
            }
            prop_assert!(trie.is_empty() && trie.exact.is_empty() && trie.nodes[ROOT].is_empty());
            prop_assert_eq!(trie.free.len() + 1, trie.nodes.len());
        }
    }

    #[test]
    fn deep_filters_are_harmless() {
        let deep = "/".repeat(65_534) + "+";
        let mut trie = Trie::new();
        trie.insert(deep.as_bytes(), 1, ());
        assert_eq!(found(&trie, &("/".repeat(65_534) + "x")), [1]);
        trie.remove(deep.as_bytes(), &1).unwrap();
        assert!(trie.nodes[ROOT].is_empty());
    }

    #[test]
    fn replacing_keeps_one_subscriber() {
        let mut trie = Trie::new();
        assert_eq!(trie.insert(b"a/+", 1, 'x'), None);
        assert_eq!(trie.insert(b"a/+", 1, 'y'), Some('x'));
        assert_eq!((trie.len(), trie.get(b"a/+", &1)), (1, Some(&'y')));
    }
}
