//! Which numbers of one origin have come: a floor below which all are known, and a bit for each number above.
//!
//! # Invariants
//!
//! - **Bounded**: only numbers less than [`NUMBERS_SPAN_MAX`] above the floor are kept, so that one origin takes 8 KiB at
//!   most, however long it leaves its lowest number open.
//! - **One form for one content**: no bit below the floor, no empty word at the end. Rows and replicas compare equal.
//!
//! Checked by the tests below.

use std::collections::VecDeque;

/// How far the numbers of one origin may lie apart while the lowest is open: as many as a client has packet ids, so no client
/// that completes what it begins gets there.
pub const NUMBERS_SPAN_MAX: u64 = 65_536;

/// Bits of one word.
const WORD: u64 = u64::BITS as u64;

/// Numbers of one origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers {
    floor: u64,
    /// A bit for each number from that of the floor's word on.
    words: VecDeque<u64>,
}

impl Numbers {
    /// What [`Self::floor`] and [`Self::words`] gave; `None` if they never did.
    pub(crate) fn from_words(floor: u64, words: Vec<u64>) -> Option<Self> {
        let numbers = Self { floor, words: words.into() };
        let below = numbers.words.front().is_some_and(|first| first & below(floor) != 0);
        let bounded = numbers.words.len() as u64 <= NUMBERS_SPAN_MAX / WORD + 1;
        let ends = numbers.words.back() != Some(&0);
        (!below && bounded && ends).then_some(numbers)
    }

    /// Everything below is known.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// The bits, from the word of the floor on.
    pub(crate) fn words(&self) -> impl ExactSizeIterator<Item = u64> {
        self.words.iter().copied()
    }

    /// Everything below `floor` is known from now on.
    pub fn raise(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        let passed = usize::try_from(floor / WORD - self.floor / WORD).unwrap_or(usize::MAX);
        self.words.drain(..passed.min(self.words.len()));
        self.floor = floor;
        if let Some(first) = self.words.front_mut() {
            *first &= !below(floor);
        }
        while self.words.back() == Some(&0) {
            self.words.pop_back();
        }
    }

    /// Whether a number is not too far above the floor to be kept.
    #[must_use]
    pub fn has_room(&self, number: u64) -> bool {
        number.saturating_sub(self.floor) < NUMBERS_SPAN_MAX
    }

    /// Whether a number came.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let word = || self.words.get(self.word_of(number));
        number < self.floor || word().is_some_and(|word| word & bit(number) != 0)
    }

    /// Keeps a number; whether it is new. One that there is no room for is not kept and is new each time.
    pub fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        if self.has_room(number) {
            let at = self.word_of(number);
            if at >= self.words.len() {
                self.words.resize(at + 1, 0);
            }
            self.words[at] |= bit(number);
        }
        true
    }

    /// Where the word of a number from the floor on is.
    fn word_of(&self, number: u64) -> usize {
        usize::try_from(number / WORD - self.floor / WORD).unwrap_or(usize::MAX)
    }
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD)
}

/// The bits of its word that are below a number.
fn below(number: u64) -> u64 {
    bit(number) - 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_widest_span_takes_8_kib() {
        for floor in [0, 1, 63, 64, 1_000_001] {
            let mut numbers = Numbers::default();
            numbers.raise(floor);
            let last = floor + NUMBERS_SPAN_MAX - 1;
            assert!(numbers.insert(last) && !numbers.insert(last));
            assert!(!numbers.has_room(last + 1));
            assert!(numbers.insert(last + 1) && !numbers.contains(last + 1), "not kept");
            assert!(numbers.words.len() as u64 <= NUMBERS_SPAN_MAX / WORD + 1);
            numbers.raise(last + 1);
            assert!(numbers.words.is_empty() && numbers.contains(last));
        }
    }

    #[test]
    fn words_that_were_never_given_are_not_read() {
        for (floor, words) in [(1, vec![1]), (0, vec![1, 0]), (0, vec![1; 1026])] {
            assert_eq!(Numbers::from_words(floor, words), None);
        }
    }

    proptest! {
        #[test]
        fn they_are_what_a_set_would_be(steps in prop::collection::vec((any::<bool>(), 0..700_u64), 1..99)) {
            let (mut numbers, mut set, mut floor) = (Numbers::default(), BTreeSet::new(), 0);
            for (raises, number) in steps {
                if raises {
                    floor = floor.max(number);
                    numbers.raise(number);
                } else {
                    let new = number >= floor && set.insert(number);
                    prop_assert_eq!(numbers.insert(number), new);
                }
                set = set.split_off(&floor);
                for number in 0..700 {
                    prop_assert_eq!(numbers.contains(number), number < floor || set.contains(&number));
                }
                let words = numbers.words().collect();
                prop_assert_eq!(Numbers::from_words(numbers.floor(), words), Some(numbers.clone()));
            }
        }
    }
}
