//! Any filters and topics, added and removed in any order: the trie finds exactly what the naive matcher finds.
//!
//! Input: a list of operations. What must hold besides:
//!
//! - every well-formed topic name is a well-formed filter, which matches it;
//! - a filter that is ill-formed by the rules of 4.7, spelled out again here, is refused;
//! - when everything is removed nothing is found any more.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use moorline_core::{topic, trie::Trie};

type Input<'a, 'b> = &'a mut Unstructured<'b>;
type Drawn<T> = libfuzzer_sys::arbitrary::Result<T>;

/// Levels that meet often: empty ones, wildcards, system topics, text beyond ASCII, a wildcard out of place.
const LEVELS: [&str; 12] = ["", "a", "b", "ab", "+", "+", "#", "$SYS", "$", "é", "a+", "#b"];
/// Subscribers of one filter.
const KEYS: u8 = 3;
/// Levels of one drawn topic: deep enough for each path of the walk.
const DEPTH_MAX: usize = 6;
/// Raw bytes of one drawn topic.
const RAW_BYTES_MAX: usize = 24;

/// A name or filter, mostly of known levels and mostly well-formed.
fn draw(u: Input<'_, '_>) -> Drawn<Vec<u8>> {
    if u.ratio(1, 8)? {
        let len = u.int_in_range(0..=RAW_BYTES_MAX)?;
        return Ok(u.bytes(len)?.to_vec());
    }
    let mut levels = Vec::new();
    for _ in 0..u.int_in_range(1..=DEPTH_MAX)? {
        levels.push(*u.choose(&LEVELS)?);
    }
    Ok(levels.join("/").into_bytes())
}

/// 4.7.1 and 4.7.3 once more, byte by byte and not level by level.
fn is_filter_by_bytes(filter: &[u8]) -> bool {
    let at = |index: usize| filter.get(index).copied();
    let begins = |index: usize| index == 0 || at(index - 1) == Some(b'/');
    let fits = |(index, &byte): (usize, &u8)| match byte {
        0 => false,
        b'#' => begins(index) && index + 1 == filter.len(),
        b'+' => begins(index) && matches!(at(index + 1), None | Some(b'/')),
        _ => true,
    };
    !filter.is_empty() && filter.iter().enumerate().all(fits)
}

#[derive(Default)]
struct World {
    trie: Trie<u8, u32>,
    model: BTreeMap<(Vec<u8>, u8), u32>,
    next: u32,
}

impl World {
    fn step(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let drawn = draw(u)?;
        let well_formed = topic::is_filter(&drawn);
        assert_eq!(well_formed, is_filter_by_bytes(&drawn), "{drawn:02x?}");
        if topic::is_name(&drawn) {
            assert!(well_formed && topic::matches(&drawn, &drawn), "{drawn:02x?}");
            self.compare(&drawn);
        }
        if !well_formed {
            return Ok(());
        }
        let key = u.int_in_range(0..=KEYS - 1)?;
        let named = (drawn.clone(), key);
        assert_eq!(self.trie.get(&drawn, &key), self.model.get(&named));
        match u.int_in_range(0..=2)? {
            0 | 1 => {
                self.next += 1;
                let replaced = self.trie.insert(&drawn, key, self.next);
                assert_eq!(replaced, self.model.insert(named, self.next));
            }
            _ => assert_eq!(self.trie.remove(&drawn, &key), self.model.remove(&named)),
        }
        assert_eq!(self.trie.len(), self.model.len());
        Ok(())
    }

    fn compare(&self, name: &[u8]) {
        let mut found = Vec::new();
        self.trie.matches(name, |&key, &value| found.push((key, value)));
        found.sort_unstable();
        let matching = self.model.iter().filter(|((filter, _), _)| topic::matches(filter, name));
        let mut naive: Vec<_> = matching.map(|((_, key), &value)| (*key, value)).collect();
        naive.sort_unstable();
        assert_eq!(found, naive, "{name:02x?}");
    }

    fn empty(mut self) {
        let names: Vec<_> = self.model.keys().map(|(filter, _)| filter.clone()).collect();
        for ((filter, key), value) in std::mem::take(&mut self.model) {
            assert_eq!(self.trie.remove(&filter, &key), Some(value));
        }
        assert!(self.trie.is_empty());
        for name in names.iter().filter(|name| topic::is_name(name)) {
            self.compare(name);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let mut world = World::default();
    // Running out of input ends a run early; that is no finding.
    while !u.is_empty() && world.step(&mut u).is_ok() {}
    world.empty();
});
