//! Chance from a seed: SplitMix64, enough to choose where a write tears and the same on every machine.

/// A stream of numbers that follows from its seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to and including `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        let wide = u128::from(self.next()) * (most as u128 + 1);
        usize::try_from(wide >> 64).expect("not more than `most`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_everything_and_both_ends_are_reached() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.up_to(3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).contains(&0) && draw(7).contains(&3));
        assert_eq!(Random::new(1).up_to(0), 0);
    }
}
