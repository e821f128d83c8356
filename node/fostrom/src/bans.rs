//! Who failed too often to say who they are. Counted for a device id together with the address it comes from, so that nobody
//! bans another's device from elsewhere; at this node alone.
//!
//! # Invariants
//!
//! - **Bounded**: [`WATCHED_MAX`] pairs are watched. When there are more, those whose window is over are forgotten, and if that
//!   is not enough all that are not banned.
//!
//! Checked by the tests below.

use std::{collections::HashMap, net::IpAddr};

use moorline_core::{Text, UnixMillis};

/// Failures within [`WINDOW_MS`] that make a ban.
pub(crate) const FAILURES_MAX: u32 = 10;
/// How long failures count.
const WINDOW_MS: u64 = 5 * 60 * 1_000;
/// How long a ban lasts.
const BAN_MS: u64 = 15 * 60 * 1_000;
/// Pairs that are watched at once: about 100 bytes each.
const WATCHED_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct Watched {
    since: UnixMillis,
    failures: u32,
    banned_until: Option<UnixMillis>,
}

impl Watched {
    fn counts(&self, now: UnixMillis) -> bool {
        match self.banned_until {
            Some(until) => now < until,
            None => now.0 < self.since.0 + WINDOW_MS,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Bans(HashMap<(Text, IpAddr), Watched>);

impl Bans {
    /// Seconds that a ban still lasts.
    pub(crate) fn banned(&self, device: &Text, from: IpAddr, now: UnixMillis) -> Option<u32> {
        let until = self.0.get(&(device.clone(), from))?.banned_until?;
        let left_ms = until.0.checked_sub(now.0).filter(|left| *left > 0)?;
        u32::try_from(left_ms.div_ceil(1_000)).ok()
    }

    /// It failed again: whether that is a ban now.
    pub(crate) fn failed(&mut self, device: &Text, from: IpAddr, now: UnixMillis) -> bool {
        if self.0.len() >= WATCHED_MAX {
            self.0.retain(|_, watched| watched.counts(now));
        }
        if self.0.len() >= WATCHED_MAX {
            self.0.retain(|_, watched| watched.banned_until.is_some());
        }
        if self.0.len() >= WATCHED_MAX {
            self.0.clear();
        }
        let new = Watched { since: now, failures: 0, banned_until: None };
        let watched = self.0.entry((device.clone(), from)).or_insert(new);
        if !watched.counts(now) {
            *watched = new;
        }
        watched.failures += 1;
        if watched.failures >= FAILURES_MAX {
            watched.banned_until = Some(UnixMillis(now.0 + BAN_MS));
        }
        watched.banned_until.is_some()
    }

    /// It was let in.
    pub(crate) fn succeeded(&mut self, device: &Text, from: IpAddr) {
        self.0.remove(&(device.clone(), from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn at(s: u64) -> UnixMillis {
        UnixMillis(s * 1_000)
    }

    #[test]
    fn ten_failures_in_five_minutes_ban_for_fifteen() {
        let (mut bans, device) = (Bans::default(), Text::from("DEVICE0001"));
        for second in 0..9 {
            assert!(!bans.failed(&device, HERE, at(second)));
        }
        assert_eq!(bans.banned(&device, HERE, at(9)), None);
        assert!(bans.failed(&device, HERE, at(10)));
        assert_eq!(bans.banned(&device, HERE, at(10)), Some(900));
        assert_eq!(bans.banned(&device, THERE, at(10)), None, "from elsewhere it may");
        assert_eq!(bans.banned(&Text::from("DEVICE0002"), HERE, at(10)), None);
        assert_eq!(bans.banned(&device, HERE, at(909)), Some(1));
        assert_eq!(bans.banned(&device, HERE, at(910)), None);
        assert!(!bans.failed(&device, HERE, at(911)), "it begins anew");
    }

    #[test]
    fn failures_are_forgotten_with_time_and_by_success() {
        let (mut bans, device) = (Bans::default(), Text::from("DEVICE0001"));
        for minute in 0..60 {
            assert!(!bans.failed(&device, HERE, at(minute * 60)), "{minute}");
        }
        bans.succeeded(&device, HERE);
        for second in 0..9 {
            assert!(!bans.failed(&device, HERE, at(4_000 + second)));
        }
    }

    #[test]
    fn however_many_fail_there_is_room() {
        let mut bans = Bans::default();
        for number in 0..WATCHED_MAX + 10 {
            bans.failed(&Text::from(format!("D{number}")), HERE, at(0));
        }
        assert!(bans.0.len() <= WATCHED_MAX);
    }
}
