//! Which member of a consumer group reads which shards: each its part of them, as long as it says that it is there.
//!
//! ```text
//!   join ─► has its part of what nobody reads ──says so every RENEW──► gives back what is more than its part ─► leaves
//!               ▲────────── what members had that left, or fell silent for LEASE ──────────┘
//! ```
//!
//! # Invariants
//!
//! - **A shard has one reader**: it is a document, written in the place of the version that was read, and nobody takes a shard of one who
//!   is there. Clocks of nodes that differ by more than [`LEASE`] may let two read for a while: then events come twice, and none is
//!   lost.
//! - **What is given back is committed before**: the next reader goes on behind it.
//! - **Each has its part**: as many as all others, or one more; who comes has it when all others have said twice that they are there.
//!
//! Checked below, and by the cluster tests (`drogue_applications.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{ShardId, TenantId, Text};
use moorline_machine::documents::{Expect, Space};
use moorline_service::registry::{Registry, RegistryError, documents::is_conflict};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long a member has its shards that says nothing any more.
const LEASE: Duration = Duration::from_secs(10);
/// How often it says so.
pub(crate) const RENEW: Duration = Duration::from_secs(3);
/// How often one looks that has nothing to read.
pub(crate) const LOOK: Duration = Duration::from_secs(2);
/// How often it is tried again when another member wrote before.
const TRIES_MAX: usize = 5;
/// Members of one group: who comes when there are so many waits until one goes.
const MEMBERS_MAX: usize = 256;
/// The space of a tenant where groups are.
const SPACE: &str = "drogue-members";

/// Who is there, and who reads what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Group {
    /// Until when each has what it has if it says nothing more, in milliseconds since 1970.
    members: BTreeMap<String, u64>,
    shards: BTreeMap<u16, String>,
}

impl Group {
    /// How many shards a member should have: the first ones by name have one more.
    fn part(&self, own: &str, shards: usize) -> usize {
        let many = self.members.len().max(1);
        let rank = self.members.keys().position(|name| name == own).unwrap_or(many);
        shards / many + usize::from(rank < shards % many)
    }

    fn of(&self, own: &str) -> BTreeSet<ShardId> {
        let owned = self.shards.iter().filter(|(_, owner)| *owner == own);
        owned.map(|(shard, _)| ShardId(*shard)).collect()
    }

    /// A member says that it is there until then. It takes what nobody has, up to its part, and gives back what is more, if it may. `false`: there
    /// is no room for it.
    fn renew(&mut self, own: &str, now_ms: u64, all: &[ShardId], gives: bool) -> bool {
        self.members.retain(|name, until| name == own || *until > now_ms);
        if !self.members.contains_key(own) && self.members.len() >= MEMBERS_MAX {
            return false;
        }
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        self.members.insert(own.to_owned(), now_ms.saturating_add(lease_ms));
        let Self { members, shards } = self;
        shards.retain(|shard, owner| members.contains_key(owner) && all.contains(&ShardId(*shard)));
        let (part, mut has) = (self.part(own, all.len()), self.of(own).len());
        let free: Vec<_> = all.iter().filter(|shard| !self.shards.contains_key(&shard.0)).collect();
        for shard in free.into_iter().take(part.saturating_sub(has)) {
            self.shards.insert(shard.0, own.to_owned());
            has += 1;
        }
        if gives {
            for shard in self.of(own).into_iter().rev().take(has.saturating_sub(part)) {
                self.shards.remove(&shard.0);
            }
        }
        true
    }

    fn leave(&mut self, own: &str) {
        self.members.remove(own);
        self.shards.retain(|_, owner| owner != own);
    }
}

/// One member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    space: Space,
    group: Text,
    own: String,
    /// Until when it has its shards, by its own clock.
    until_ms: u64,
    shards: BTreeSet<ShardId>,
}

impl Member {
    pub(crate) fn new(tenant: TenantId, group: Text) -> Self {
        let own = Uuid::from_u128(rand::random()).to_string();
        let space = Space::of_tenant(tenant, SPACE);
        Self { space, group, own, until_ms: 0, shards: BTreeSet::new() }
    }

    /// Says that it is there, and from now on for [`LEASE`]: what it reads. `gives`: it may give back what is more than its part, since all that
    /// it has read is committed. What it has it keeps as long as its time lasts, while nobody answers.
    pub(crate) async fn renew(
        &mut self,
        registry: &Registry,
        now_ms: u64,
        gives: bool,
    ) -> BTreeSet<ShardId> {
        let all = registry.event_shards(self.space.tenant, None);
        let own = self.own.clone();
        let change = |group: &mut Group| group.renew(&own, now_ms, &all, gives);
        match self.change(registry, change).await {
            Some(group) => {
                self.until_ms = group.members.get(&self.own).copied().unwrap_or_default();
                self.shards = group.of(&self.own);
            }
            None if now_ms >= self.until_ms => self.shards.clear(),
            None => {}
        }
        self.shards.clone()
    }

    /// It reads no more: others may at once.
    pub(crate) async fn leave(&mut self, registry: &Registry) {
        let own = self.own.clone();
        let change = |group: &mut Group| {
            group.leave(&own);
            true
        };
        // Without an answer it falls silent, which costs the others a while.
        drop(self.change(registry, change).await);
    }

    /// Changes the group: how it is then. Nothing if nobody answered, or the change is none.
    async fn change(
        &self,
        registry: &Registry,
        change: impl Fn(&mut Group) -> bool,
    ) -> Option<Group> {
        for _ in 0..TRIES_MAX {
            let found = registry.document(&self.space, &self.group).await.ok()?;
            let expect = found.as_ref().map_or(Expect::Absent, |of| Expect::Version(of.version));
            let read = found.and_then(|found| serde_json::from_slice(&found.body).ok());
            let mut group: Group = read.unwrap_or_default();
            if !change(&mut group) {
                return None;
            }
            match self.write(registry, &group, expect).await {
                Ok(()) => return Some(group),
                Err(error) if is_conflict(&error) => {}
                Err(_) => return None,
            }
        }
        None
    }

    async fn write(
        &self,
        registry: &Registry,
        group: &Group,
        expect: Expect,
    ) -> Result<(), RegistryError> {
        if group.members.is_empty() {
            return registry.delete_document(&self.space, &self.group, expect).await.map(drop);
        }
        let body = Bytes::from(serde_json::to_vec(group).expect("texts and numbers"));
        registry.put_document(&self.space, &self.group, body, expect).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_MS: u64 = 10_000;

    fn all(many: u16) -> Vec<ShardId> {
        (1..=many).map(ShardId).collect()
    }

    fn parts(group: &Group, names: &[&str]) -> Vec<usize> {
        names.iter().map(|name| group.of(name).len()).collect()
    }

    #[test]
    fn each_has_its_part_and_no_shard_two_readers() {
        let (shards, names) = (all(12), ["a", "b", "c", "d", "e"]);
        let mut group = Group::default();
        for many in 1..=names.len() {
            let here = &names[..many];
            let mut before: BTreeMap<u16, String> = group.shards.clone();
            for round in 0..2 {
                for name in here {
                    assert!(group.renew(name, 0, &shards, true));
                    // Nothing is taken from one who is there.
                    for (shard, owner) in &before {
                        let now = group.shards.get(shard);
                        assert!(owner == name || now == Some(owner), "{many} {round} {name}");
                    }
                    before = group.shards.clone();
                }
            }
            for name in here {
                group.renew(name, 0, &shards, true);
            }
            let parts = parts(&group, here);
            assert_eq!(parts.iter().sum::<usize>(), shards.len(), "{parts:?}");
            assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1, "{parts:?}");
        }
    }

    #[test]
    fn who_is_silent_or_leaves_is_followed() {
        let shards = all(4);
        let mut group = Group::default();
        group.renew("a", 0, &shards, true);
        assert_eq!(parts(&group, &["a"]), [4]);
        group.renew("b", 0, &shards, true);
        assert_eq!(parts(&group, &["a", "b"]), [4, 0], "it has to give back before");
        group.renew("a", 1, &shards, false);
        assert_eq!(parts(&group, &["a", "b"]), [4, 0], "it may not yet");
        group.renew("a", 1, &shards, true);
        group.renew("b", 1, &shards, true);
        assert_eq!(parts(&group, &["a", "b"]), [2, 2]);
        group.renew("b", LEASE_MS, &shards, true);
        assert_eq!(parts(&group, &["a", "b"]), [2, 2]);
        group.renew("b", LEASE_MS + 1, &shards, true);
        assert_eq!(parts(&group, &["a", "b"]), [0, 4], "its time is over");
        group.leave("b");
        assert_eq!(group, Group::default());
    }

    #[test]
    fn there_are_more_members_than_shards_and_no_more_than_may_be() {
        let shards = all(2);
        let mut group = Group::default();
        for number in 0..MEMBERS_MAX {
            assert!(group.renew(&format!("{number:03}"), 0, &shards, true));
        }
        assert!(!group.renew("one more", 0, &shards, true));
        assert!(group.renew("000", 0, &shards, false), "who is there stays");
        assert_eq!(group.shards.len(), 2);
        assert!(group.renew("one more", LEASE_MS + 1, &shards, true));
        // A cluster has as many shards as it was made with: what is none is nobody's.
        group.shards.insert(9, "one more".to_owned());
        group.renew("one more", LEASE_MS + 1, &shards, true);
        assert_eq!(group.shards.keys().copied().collect::<Vec<_>>(), [1, 2]);
    }
}
