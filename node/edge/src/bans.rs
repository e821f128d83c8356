//! Who failed too often to say who they are: pure code, time by argument. Counted at this node alone.
//!
//! # Invariants
//!
//! - **Bounded**: [`WATCHED_MAX`] keys are watched. When there are more, those whose window is over are forgotten, and if that
//!   is not enough all that are not banned.
//! - **Nobody bans another's device from elsewhere**: an identity is counted together with the address it comes from. An address
//!   alone is banned after ten times as many failures, since a whole site may share one.
//!
//! Checked by the tests below.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_core::{Text, UnixMillis};

/// Keys that are watched at once: about 100 bytes each.
const WATCHED_MAX: usize = 65_536;
/// For what has no rule of its own platform: an identity from one address.
pub const IDENTITY_RULE: BanRule = BanRule { failures_max: 5, window_ms: 60_000, ban_ms: 300_000 };
/// The same for all identities of an address.
pub const ADDRESS_RULE: BanRule = BanRule { failures_max: 50, window_ms: 60_000, ban_ms: 300_000 };

/// How many failures make a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanRule {
    /// So many within the window.
    pub failures_max: u32,
    /// How long failures count.
    pub window_ms: u64,
    /// How long a ban lasts.
    pub ban_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    since: UnixMillis,
    failures: u32,
    banned_until: Option<UnixMillis>,
}

impl Watched {
    fn counts(&self, rule: BanRule, now: UnixMillis) -> bool {
        match self.banned_until {
            Some(until) => now < until,
            None => now.0 < self.since.0 + rule.window_ms,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Bans<K> {
    rule: BanRule,
    watched: HashMap<K, Watched>,
}

impl<K: Eq + Hash> Bans<K> {
    /// Nobody is banned yet.
    #[must_use]
    pub fn new(rule: BanRule) -> Self {
        Self { rule, watched: HashMap::new() }
    }

    /// Seconds that a ban still lasts.
    #[must_use]
    pub fn banned(&self, key: &K, now: UnixMillis) -> Option<u32> {
        let until = self.watched.get(key)?.banned_until?;
        let left_ms = until.0.checked_sub(now.0).filter(|left| *left > 0)?;
        u32::try_from(left_ms.div_ceil(1_000)).ok()
    }

    /// It failed again: whether that is a ban now.
    pub fn failed(&mut self, key: K, now: UnixMillis) -> bool {
        let rule = self.rule;
        if self.watched.len() >= WATCHED_MAX {
            self.watched.retain(|_, watched| watched.counts(rule, now));
        }
        if self.watched.len() >= WATCHED_MAX {
            self.watched.retain(|_, watched| watched.banned_until.is_some());
        }
        if self.watched.len() >= WATCHED_MAX {
            self.watched.clear();
        }
        let new = Watched { since: now, failures: 0, banned_until: None };
        let watched = self.watched.entry(key).or_insert(new);
        if !watched.counts(rule, now) {
            *watched = new;
        }
        watched.failures += 1;
        if watched.failures >= rule.failures_max {
            watched.banned_until = Some(UnixMillis(now.0 + rule.ban_ms));
        }
        watched.banned_until.is_some()
    }

    /// It was let in.
    pub fn succeeded(&mut self, key: &K) {
        self.watched.remove(key);
    }
}

/// Who failed too often at a door without a rule of its own: identities from an address, and addresses. Clones are the same.
#[derive(Debug, Clone)]
pub struct Doorkeeper(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    identities: Bans<(Text, IpAddr)>,
    addresses: Bans<IpAddr>,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        let (identities, addresses) = (Bans::new(IDENTITY_RULE), Bans::new(ADDRESS_RULE));
        Self(Arc::new(Mutex::new(Kept { identities, addresses })))
    }
}

impl Doorkeeper {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds that a ban of an identity from an address, or of the address, still lasts.
    #[must_use]
    pub fn banned(&self, identity: &Text, from: IpAddr, now: UnixMillis) -> Option<u32> {
        let (kept, from) = (self.kept(), from.to_canonical());
        let of_identity = kept.identities.banned(&(identity.clone(), from), now);
        of_identity.max(kept.addresses.banned(&from, now))
    }

    /// It showed something wrong: whether it is banned now.
    pub fn failed(&self, identity: &Text, from: IpAddr, now: UnixMillis) -> bool {
        let (mut kept, from) = (self.kept(), from.to_canonical());
        let identity = kept.identities.failed((identity.clone(), from), now);
        kept.addresses.failed(from, now) || identity
    }

    /// It was let in: its failures are forgotten, those of others from that address are not.
    pub fn succeeded(&self, identity: &Text, from: IpAddr) {
        self.kept().identities.succeeded(&(identity.clone(), from.to_canonical()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
    const RULE: BanRule = BanRule { failures_max: 10, window_ms: 300_000, ban_ms: 900_000 };

    fn at(s: u64) -> UnixMillis {
        UnixMillis(s * 1_000)
    }

    fn key(device: &str, from: IpAddr) -> (Text, IpAddr) {
        (Text::from(device), from)
    }

    #[test]
    fn ten_failures_in_five_minutes_ban_for_fifteen() {
        let (mut bans, device) = (Bans::new(RULE), || key("DEVICE0001", HERE));
        for second in 0..9 {
            assert!(!bans.failed(device(), at(second)));
        }
        assert_eq!(bans.banned(&device(), at(9)), None);
        assert!(bans.failed(device(), at(10)));
        assert_eq!(bans.banned(&device(), at(10)), Some(900));
        assert_eq!(bans.banned(&key("DEVICE0001", THERE), at(10)), None, "from elsewhere it may");
        assert_eq!(bans.banned(&key("DEVICE0002", HERE), at(10)), None);
        assert_eq!(bans.banned(&device(), at(909)), Some(1));
        assert_eq!(bans.banned(&device(), at(910)), None);
        assert!(!bans.failed(device(), at(911)), "it begins anew");
    }

    #[test]
    fn failures_are_forgotten_with_time_and_by_success() {
        let (mut bans, device) = (Bans::new(RULE), || key("DEVICE0001", HERE));
        for minute in 0..60 {
            assert!(!bans.failed(device(), at(minute * 60)), "{minute}");
        }
        bans.succeeded(&device());
        for second in 0..9 {
            assert!(!bans.failed(device(), at(4_000 + second)));
        }
    }

    #[test]
    fn however_many_fail_there_is_room() {
        let mut bans = Bans::new(RULE);
        for number in 0..WATCHED_MAX + 10 {
            bans.failed(key(&format!("D{number}"), HERE), at(0));
        }
        assert!(bans.watched.len() <= WATCHED_MAX);
    }

    #[test]
    fn an_address_is_banned_after_many_identities_and_its_neighbours_are_not() {
        let keeper = Doorkeeper::default();
        for number in 0..ADDRESS_RULE.failures_max - 1 {
            assert!(!keeper.failed(&Text::from(format!("D{number}")), HERE, at(1)), "{number}");
        }
        assert_eq!(keeper.banned(&Text::from("D"), HERE, at(1)), None);
        keeper.succeeded(&Text::from("D"), HERE);
        assert!(keeper.failed(&Text::from("D"), HERE, at(1)));
        assert_eq!(keeper.banned(&Text::from("any"), HERE, at(1)), Some(300));
        assert_eq!(keeper.banned(&Text::from("any"), THERE, at(1)), None);
        let (one, keeper) = (Text::from("one"), Doorkeeper::default());
        let failures: Vec<_> = (0..5).map(|_| keeper.failed(&one, THERE, at(2))).collect();
        assert_eq!(failures, [false, false, false, false, true]);
        assert_eq!(keeper.banned(&Text::from("two"), THERE, at(2)), None);
    }
}
