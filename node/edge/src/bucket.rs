//! How often something may happen, for each of many keys: token buckets as pure code, time by argument.
//!
//! A bucket is one number: when it will be full again. Who finds it empty is told when his turn is, as long as that is
//! soon.
//!
//! # Invariants
//!
//! - **Bounded**: two generations of at most `keys_max` keys. A key that nobody asked for during a whole generation has a full
//!   bucket, so forgetting it changes nothing; when a generation is full early, forgetting lets somebody in too soon and
//!   keeps nobody out. Checked by this file's tests.

use std::{collections::HashMap, hash::Hash, mem};

use moorline_mqtt::Millis;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So often a second, in the long run; 0 for as often as anybody likes.
    pub per_s: u32,
    /// So often at once, after a pause.
    pub burst: u32,
    /// The longest that anybody waits for his turn.
    pub wait_ms_max: u64,
}

/// When somebody may; the later one is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// At once.
    Now,
    /// After so many milliseconds: the place is his.
    After(u64),
    /// It would take too long.
    Refused,
}

/// A bucket for each key.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    keys_max: usize,
    /// When each bucket is full again, in microseconds: those asked for since `turned`.
    young: HashMap<K, u64>,
    /// Those asked for in the generation before.
    old: HashMap<K, u64>,
    turned: u64,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Of this rate, for so many keys in each generation.
    #[must_use]
    pub fn new(rate: Rate, keys_max: usize) -> Self {
        Self { rate, keys_max, young: HashMap::new(), old: HashMap::new(), turned: 0 }
    }

    /// Changes the rate for all keys; what was taken stays taken.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// Takes one token out of a key's bucket, or one that will be in it soon.
    pub fn take(&mut self, key: K, now: Millis) -> Turn {
        let (turn, full_at) = self.look(&key, now);
        if turn != Turn::Refused && self.rate.per_s > 0 {
            self.young.insert(key, full_at);
        }
        turn
    }

    /// Puts a token back that was taken in vain. Whoever was told his turn since keeps it; the next one comes sooner.
    pub fn put_back(&mut self, key: &K) {
        let interval = match self.rate.per_s {
            0 => return,
            per_s => 1_000_000 / u64::from(per_s),
        };
        // Not there: its bucket is full.
        let full_at = self.young.get_mut(key).or_else(|| self.old.get_mut(key));
        if let Some(full_at) = full_at {
            *full_at = full_at.saturating_sub(interval);
        }
    }

    /// What taking a token would come to, without taking it.
    pub fn peek(&mut self, key: &K, now: Millis) -> Turn {
        self.look(key, now).0
    }

    /// When a key's turn is, and when its bucket is full again after that.
    fn look(&mut self, key: &K, now: Millis) -> (Turn, u64) {
        let Rate { per_s, burst, wait_ms_max } = self.rate;
        if per_s == 0 {
            return (Turn::Now, 0);
        }
        let now = now.0.saturating_mul(1_000);
        let interval = 1_000_000 / u64::from(per_s);
        let slack = interval * u64::from(burst.max(1) - 1);
        let wait_max = wait_ms_max * 1_000;
        // Nothing that was taken lasts longer.
        let generation = slack + wait_max + interval;
        if now.saturating_sub(self.turned) >= generation || self.young.len() >= self.keys_max {
            self.old = mem::take(&mut self.young);
            self.turned = now;
        }
        let full_at = self.young.get(key).or_else(|| self.old.get(key)).copied();
        let full_at = full_at.unwrap_or(now).max(now);
        let wait = (full_at - now).saturating_sub(slack);
        let turn = match wait {
            0 => Turn::Now,
            _ if wait > wait_max => Turn::Refused,
            _ => Turn::After(wait.div_ceil(1_000)),
        };
        (turn, full_at + interval)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Turn::{After, Now, Refused},
        *,
    };

    const RATE: Rate = Rate { per_s: 1, burst: 3, wait_ms_max: 2_000 };

    fn turns(buckets: &mut Buckets<u32>, key: u32, times: &[u64]) -> Vec<Turn> {
        times.iter().map(|at| buckets.take(key, Millis(*at))).collect()
    }

    #[test]
    fn a_burst_passes_then_turns_come_at_the_rate_and_who_would_wait_long_is_refused() {
        let mut buckets = Buckets::new(RATE, 10);
        let storm = turns(&mut buckets, 1, &[5_000; 7]);
        assert_eq!(storm, [Now, Now, Now, After(1_000), After(2_000), Refused, Refused]);
        // A refusal costs nothing: two seconds later there is one more place.
        assert_eq!(turns(&mut buckets, 1, &[6_000, 6_000]), [After(2_000), Refused]);
        assert_eq!(turns(&mut buckets, 2, &[6_000]), [Now], "another key has its own");
        // One that is put back can be taken again, and no other.
        buckets.put_back(&1);
        buckets.put_back(&3);
        assert_eq!(turns(&mut buckets, 1, &[6_000, 6_000]), [After(2_000), Refused]);
        assert_eq!(turns(&mut buckets, 1, &[60_000; 4]), [Now, Now, Now, After(1_000)]);
    }

    #[test]
    fn in_the_long_run_a_key_gets_its_rate_and_no_more() {
        for per_s in [1, 7, 500] {
            let rate = Rate { per_s, burst: per_s, wait_ms_max: 0 };
            let mut buckets = Buckets::new(rate, 10);
            let passed = (0..20_000).filter(|at| buckets.take(0_u32, Millis(*at)) == Now).count();
            let most = per_s as usize * 21;
            assert!(passed <= most && passed >= most - 2, "{per_s}: {passed} of {most}");
        }
        let mut off = Buckets::new(Rate { per_s: 0, ..RATE }, 10);
        assert!(turns(&mut off, 1, &[1; 100]).iter().all(|turn| *turn == Now));
    }

    #[test]
    fn keys_are_bounded_and_what_is_forgotten_is_let_in() {
        let mut buckets = Buckets::new(RATE, 10);
        for key in 0..1_000 {
            assert_eq!(buckets.take(key, Millis(1)), Now);
            assert!(buckets.young.len() <= 10 && buckets.old.len() <= 10);
        }
        // Within a generation nothing is forgotten while there is room.
        let mut buckets = Buckets::new(RATE, 10);
        assert_eq!(turns(&mut buckets, 1, &[0; 5]).last(), Some(&After(2_000)));
        for at in 0..5 {
            buckets.take(2, Millis(at * 1_000));
        }
        assert_eq!(buckets.take(1, Millis(4_000)), Now);
        assert_eq!(buckets.take(1, Millis(4_000)), Now, "one second of five is left");
        assert_eq!(buckets.take(1, Millis(4_000)), After(1_000));
    }
}
