//! When an agent connects again.
//!
//! Invariant: after success the waits begin anew; after a refusal of the credentials the wait is long, because trying again
//! changes nothing and leads to a ban. Checked by this file's tests.

use crate::client::Ended;

/// Waits before the first attempt, the second, and so on; the last one stays.
pub const DELAYS_MS: [u64; 7] = [0, 1_000, 2_500, 5_000, 10_000, 15_000, 30_000];
/// The wait after the credentials were refused.
pub const UNAUTHORIZED_DELAY_MS: u64 = 300_000;
/// How much chance may add to a wait, in percent: agents of a node that died do not come back in step. The first wait
/// stays 0.
pub const JITTER_MAX_PERCENT: u64 = 20;

/// How long to wait before each attempt.
#[derive(Debug, Clone, Default)]
pub struct Reconnect {
    attempt: usize,
    refused: bool,
}

impl Reconnect {
    /// The last connection was let in.
    pub fn connected(&mut self) {
        *self = Self::default();
    }

    /// The last connection, or the attempt at one, ended; `None` if it never came to speak Moonlight.
    pub fn ended(&mut self, ended: Option<&Ended>) {
        self.refused = matches!(ended, Some(Ended::Unauthorized(_)));
    }

    /// Milliseconds before the next attempt. `chance`: any number; the same one gives the same wait.
    pub fn next_delay_ms(&mut self, chance: u64) -> u64 {
        let delay = match self.refused {
            true => UNAUTHORIZED_DELAY_MS,
            false => DELAYS_MS[self.attempt],
        };
        self.refused = false;
        self.attempt = (self.attempt + 1).min(DELAYS_MS.len() - 1);
        delay + chance % (delay * JITTER_MAX_PERCENT / 100 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{ConnectFailedReason, UnauthorizedReason};

    #[test]
    fn waits_grow_and_begin_anew_after_success() {
        let mut reconnect = Reconnect::default();
        let waits: Vec<u64> = (0..9).map(|_| reconnect.next_delay_ms(0)).collect();
        assert_eq!(waits, [0, 1_000, 2_500, 5_000, 10_000, 15_000, 30_000, 30_000, 30_000]);
        reconnect.connected();
        reconnect.ended(Some(&Ended::Goodbye));
        assert_eq!(reconnect.next_delay_ms(0), 0);
    }

    #[test]
    fn a_refusal_waits_five_minutes_and_a_failure_does_not() {
        let mut reconnect = Reconnect::default();
        assert_eq!(reconnect.next_delay_ms(0), 0);
        reconnect.ended(Some(&Ended::Unauthorized(UnauthorizedReason::SecretIncorrect)));
        assert_eq!(reconnect.next_delay_ms(0), UNAUTHORIZED_DELAY_MS);
        reconnect.connected();
        for expected in [0, 1_000, 2_500, 5_000] {
            assert_eq!(reconnect.next_delay_ms(0), expected);
            reconnect.ended(Some(&Ended::ConnectFailed(ConnectFailedReason::Unavailable)));
        }
    }

    #[test]
    fn chance_adds_a_fifth_at_most_and_nothing_to_the_first() {
        for chance in [0, 1, 199, 200, 201, u64::MAX] {
            let mut reconnect = Reconnect::default();
            assert_eq!(reconnect.next_delay_ms(chance), 0);
            let wait = reconnect.next_delay_ms(chance);
            assert!((1_000..=1_200).contains(&wait), "{chance}: {wait}");
        }
    }
}
