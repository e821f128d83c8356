//! Consumer groups: where each is, and which of its members reads which shards: each its part of them, as long as it says that it is
//! there.
//!
//! ```text
//!   a group   enrolled ─► granted ─► read ─► … ─► nobody reads for KEPT: it makes room
//!   a member  join ─► has its part of what nobody reads ──says so every RENEW──► gives back what is more than its part ─► leaves
//!                        ▲────────── what members had that left, or fell silent for LEASE ──────────┘
//! ```
//!
//! # Invariants
//!
//! - **A group is where its document says, or further**: the document stands before a subscription is granted, outlives its members, and
//!   only grows. What streams keep of a group (its commits) is as far or less far, and is missing where it has read nothing.
//! - **A shard has one reader**: the document is written in the place of the version that was read, and nobody takes a shard of one who
//!   is there. Whoever waits measures by its own clock how long another one has said nothing, so clocks of nodes need not agree; a node
//!   that stands still for longer than [`LEASE`] may read on for a moment: then events come twice, and none is lost.
//! - **What is given back is read up to where the same write says**: the next reader goes on behind it.
//! - **Each has its part**: as many as all others, or one more; who comes has it when all others have said twice that they are there.
//! - **Bounded**: a tenant has [`GROUPS_MAX`], a group [`MEMBERS_MAX`].
//!
//! Checked below, and by the cluster tests (`drogue_applications.rs`, `drogue_mends.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{Offset, ShardId, TenantId, Text};
use moorline_machine::{
    documents::{Document, Expect, Space},
    events::{CONSUMERS_PER_STREAM_MAX, EventRefused},
};
use moorline_service::registry::{
    ConsumerGroup, Cursor, Registry, RegistryError, documents::is_conflict,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use crate::door::Door;

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
/// How long a group may take to be there.
const ENROL_WAIT: Duration = Duration::from_secs(10);
/// Groups of one tenant: its streams keep no more.
const GROUPS_MAX: usize = CONSUMERS_PER_STREAM_MAX;
/// How long a group is kept that nobody reads for: as long as events are.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a group's document and streams are waited for by who has something else to do: well within [`LEASE`].
const ASK_WAIT: Duration = Duration::from_secs(3);
/// The same of a commit, which is said again.
const COMMIT_WAIT: Duration = Duration::from_secs(1);
/// The space of a tenant where groups are.
const SPACE: &str = "drogue-groups";

/// What is kept of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Group {
    /// Who is there: a number that is another one whenever it says so.
    members: BTreeMap<String, u64>,
    /// Who reads what.
    shards: BTreeMap<u16, String>,
    /// Up to where it has read.
    cursor: String,
    /// Whether its streams know it. If they do no more, somebody has had it forgotten.
    committed: bool,
    /// When somebody was there, in milliseconds since 1970, more or less.
    used_ms: u64,
}

impl Group {
    fn read(document: &Document) -> Self {
        // One that can't be read is nobody's, and nowhere.
        serde_json::from_slice(&document.body).unwrap_or_default()
    }

    fn body(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers").into()
    }

    /// Whether it says where it is.
    fn has_place(&self, registry: &Registry) -> bool {
        registry.cursor(&self.cursor).is_some()
    }

    /// Whether nobody will miss it. `known`: by its streams.
    fn is_stale(&self, known: bool, now_ms: u64) -> bool {
        let age = Duration::from_millis(now_ms.saturating_sub(self.used_ms));
        age > KEPT || self.committed && !known
    }

    /// Its readers have read up to here.
    fn has_read(&mut self, registry: &Registry, own: &str, cursor: &Cursor) {
        let mut reached = registry.cursor(&self.cursor).unwrap_or_else(|| cursor.clone());
        for shard in self.of(own) {
            reached.set(shard, cursor.of(shard).max(reached.of(shard)));
        }
        self.cursor = reached.to_string();
    }

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

    /// A member says that it is there. It takes what nobody has, up to its part, also of those who were silent for too long, and gives
    /// back what is more, if it may. `false`: there is no room for it.
    fn renew(
        &mut self,
        own: &str,
        silent: &BTreeSet<String>,
        all: &[ShardId],
        gives: bool,
    ) -> bool {
        self.members.retain(|name, _| name == own || !silent.contains(name));
        if !self.members.contains_key(own) && self.members.len() >= MEMBERS_MAX {
            return false;
        }
        let beat = self.members.entry(own.to_owned()).or_default();
        *beat = beat.wrapping_add(1);
        let Self { members, shards, .. } = self;
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

fn space(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, SPACE)
}

/// The further of two cursors, in each shard.
fn further(one: &Cursor, other: &Cursor) -> Cursor {
    let mut furthest = one.clone();
    for (shard, offset) in other.shards() {
        furthest.set(shard, offset.max(one.of(shard)));
    }
    furthest
}

/// Why there is no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ungrouped {
    /// The application has as many as it may.
    Full,
    /// Nobody can say.
    Unavailable,
}

impl Door {
    /// A subscription begins, and where it does is certain before it is granted: where its group is, which there is then; without one
    /// here.
    pub(crate) async fn begins(
        &self,
        tenant: TenantId,
        group: Option<&Text>,
    ) -> Result<Option<Cursor>, Ungrouped> {
        let begun = async {
            match group {
                Some(group) => self.enrol(tenant, group).await.map(|()| None),
                None => self.registry.newest(tenant).await.map(Some),
            }
        };
        match timeout(ENROL_WAIT, begun).await {
            Ok(Ok(start)) => Ok(start),
            Ok(Err(RegistryError::Events(EventRefused::TooManyConsumers))) => {
                self.metrics.groups_refused.with_label_values(&["full"]).inc();
                let group = group.map(Text::as_str).unwrap_or_default();
                warn!(
                    tenant = tenant.0,
                    group, "the application has as many consumer groups as it may"
                );
                Err(Ungrouped::Full)
            }
            Ok(Err(_)) | Err(_) => {
                self.metrics.groups_refused.with_label_values(&["unavailable"]).inc();
                Err(Ungrouped::Unavailable)
            }
        }
    }

    /// A group there is from now on: what comes later comes to it, whether or not somebody reads then.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]: there is no such group, unless there was before. [`EventRefused::TooManyConsumers`]: there is no room for it.
    async fn enrol(&self, tenant: TenantId, group: &Text) -> Result<(), RegistryError> {
        let (registry, space) = (&self.registry, space(tenant));
        for _ in 0..TRIES_MAX {
            // Before what the streams know of it: who is known there is never taken for forgotten.
            let Some(found) = registry.document(&space, group).await? else {
                return self.begin_group(tenant, group).await;
            };
            let kept = Group::read(&found);
            if !kept.committed || kept.has_place(registry) && self.is_known(tenant, group).await {
                return Ok(());
            }
            // Somebody has had it forgotten: it begins with what comes.
            let cursor = registry.newest(tenant).await?.to_string();
            let anew = Group { cursor, committed: false, used_ms: self.now_ms(), ..kept };
            let expect = Expect::Version(found.version);
            match registry.put_document(&space, group, anew.body(), expect).await {
                Ok(_) => return Ok(()),
                // Another member has just done so, or says that it is there.
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(RegistryError::Unavailable)
    }

    /// Whether its streams know a group. While one of them does not answer they do: it goes on where its document says, then.
    async fn is_known(&self, tenant: TenantId, group: &Text) -> bool {
        match timeout(ASK_WAIT, self.registry.consumers(tenant)).await {
            Ok(Ok(known)) => known.iter().any(|known| known.name == *group),
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// A group there was not before.
    async fn begin_group(&self, tenant: TenantId, group: &Text) -> Result<(), RegistryError> {
        let (registry, space) = (&self.registry, space(tenant));
        let known = self.make_room(tenant).await?;
        let is_known = known.iter().find(|known| known.name == *group);
        let cursor = match is_known {
            Some(known) => known.cursor.clone(),
            None => registry.newest(tenant).await?,
        };
        let committed = is_known.is_some();
        let text = cursor.to_string();
        let mut new = Group { cursor: text, committed, used_ms: self.now_ms(), ..Group::default() };
        let version = match registry.put_document(&space, group, new.body(), Expect::Absent).await {
            Ok(version) => version,
            // Another member has just begun it.
            Err(error) if is_conflict(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        match registry.commit_shards(tenant, group, cursor.shards().collect()).await {
            Err(error @ RegistryError::Events(EventRefused::TooManyConsumers)) => {
                self.forget(tenant, group, version).await;
                Err(error)
            }
            // Whoever has it forgotten before it has read anything is heard. A member that was faster says so with its next commit.
            Ok(known) if !committed && !known.is_empty() => {
                new.committed = true;
                let said = new.body();
                drop(registry.put_document(&space, group, said, Expect::Version(version)).await);
                Ok(())
            }
            // What is not known there yet will be: the document says where it is.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Room for one more group, if need be in the place of those that nobody misses. What the streams know of all.
    async fn make_room(&self, tenant: TenantId) -> Result<Vec<ConsumerGroup>, RegistryError> {
        let most = u16::try_from(GROUPS_MAX).unwrap_or(u16::MAX);
        // Before what the streams know, as above.
        let page = self.registry.documents(&space(tenant), None, most).await?;
        let known = self.registry.consumers(tenant).await?;
        if !page.more && page.documents.len() < GROUPS_MAX {
            return Ok(known);
        }
        let names: BTreeSet<&Text> = known.iter().map(|known| &known.name).collect();
        let now_ms = self.now_ms();
        let is_stale = |one: &&Document| Group::read(one).is_stale(names.contains(&one.id), now_ms);
        for stale in page.documents.iter().filter(is_stale) {
            if self.forget(tenant, &stale.id, stale.version).await {
                info!(tenant = tenant.0, group = %stale.id, "a consumer group that nobody read for makes room");
                return Ok(known);
            }
        }
        Err(RegistryError::Events(EventRefused::TooManyConsumers))
    }

    /// Forgets a group, unless somebody has come to it since: whether there is room. Who comes to it meanwhile finds one that was
    /// forgotten, and keeps it by writing it. What stays is found the next time, since nobody misses it.
    async fn forget(&self, tenant: TenantId, group: &Text, version: u64) -> bool {
        let (registry, space) = (&self.registry, space(tenant));
        let forgotten = Group { committed: true, ..Group::default() };
        let expect = Expect::Version(version);
        let Ok(version) = registry.put_document(&space, group, forgotten.body(), expect).await
        else {
            return false;
        };
        drop(registry.delete_consumer(tenant, group).await);
        registry.delete_document(&space, group, Expect::Version(version)).await.is_ok()
    }
}

/// When others were heard last: what number they had, and since when.
#[derive(Debug, Default)]
struct Heard(BTreeMap<String, (u64, Instant)>);

impl Heard {
    /// Who has said nothing for [`LEASE`].
    fn silent(&mut self, group: &Group, now: Instant) -> BTreeSet<String> {
        self.0.retain(|name, _| group.members.contains_key(name));
        let mut silent = BTreeSet::new();
        for (name, beat) in &group.members {
            let (heard, since) = self.0.entry(name.clone()).or_insert((*beat, now));
            if *heard != *beat {
                (*heard, *since) = (*beat, now);
            }
            if now.duration_since(*since) >= LEASE {
                silent.insert(name.clone());
            }
        }
        silent
    }
}

/// One member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    tenant: TenantId,
    group: Text,
    own: String,
    heard: Heard,
    /// Until when it has its shards, and which.
    until: Instant,
    shards: BTreeSet<ShardId>,
    /// Its streams know the group, which its document does not say yet.
    committed: bool,
    /// What they are not told again: what they have taken.
    known: Option<Cursor>,
    /// It was said that they did not take it.
    warned: bool,
}

impl Member {
    pub(crate) fn new(tenant: TenantId, group: Text) -> Self {
        Self {
            tenant,
            group,
            own: Uuid::from_u128(rand::random()).to_string(),
            heard: Heard::default(),
            until: Instant::now(),
            shards: BTreeSet::new(),
            committed: false,
            known: None,
            warned: false,
        }
    }

    /// Says that it is there, and from now on for [`LEASE`]: what it reads. `cursor`: how far it is. `gives`: it may give back what is
    /// more than its part, since nothing of it is on its way. What it has it keeps as long as its time lasts, while nobody answers.
    pub(crate) async fn renew(
        &mut self,
        door: &Door,
        cursor: Option<&Cursor>,
        gives: bool,
    ) -> BTreeSet<ShardId> {
        let began = Instant::now();
        let all = door.registry.event_shards(self.tenant, None);
        let (own, committed) = (self.own.clone(), self.committed);
        let change = |group: &mut Group, heard: &mut Heard| {
            let silent = heard.silent(group, Instant::now());
            if let Some(cursor) = cursor {
                group.has_read(&door.registry, &own, cursor);
            }
            group.committed |= committed;
            group.renew(&own, &silent, &all, gives)
        };
        match self.change(door, change).await {
            Some(group) => {
                (self.until, self.shards) = (began + LEASE, group.of(&self.own));
                // It is said once: later the streams may be told to forget the group.
                self.committed = false;
            }
            None if Instant::now() >= self.until => self.shards.clear(),
            None => {}
        }
        self.shards.clone()
    }

    /// It reads no more: others may at once, behind where it is.
    pub(crate) async fn leave(&mut self, door: &Door, cursor: Option<&Cursor>) {
        let own = self.own.clone();
        let change = |group: &mut Group, _: &mut Heard| {
            if let Some(cursor) = cursor {
                group.has_read(&door.registry, &own, cursor);
            }
            group.leave(&own);
            true
        };
        // Without an answer it falls silent, which costs the others a while.
        drop(self.change(door, change).await);
    }

    /// Where its group is, as others left it.
    pub(crate) async fn place(&mut self, door: &Door) -> Result<Cursor, RegistryError> {
        let (registry, space) = (&door.registry, space(self.tenant));
        // Before what the streams know of it: who is known there is never taken for forgotten.
        let found = registry.document(&space, &self.group).await?;
        let group = found.as_ref().map(Group::read).unwrap_or_default();
        let Ok(Ok(known)) = timeout(ASK_WAIT, registry.consumers(self.tenant)).await else {
            // A shard without a leader keeps nobody from reading the others.
            let said = registry.cursor(&group.cursor).ok_or(RegistryError::Unavailable)?;
            self.known.get_or_insert_with(|| said.clone());
            return Ok(said);
        };
        let known = known.into_iter().find(|known| known.name == self.group);
        self.known = known.as_ref().map(|known| known.cursor.clone());
        match (registry.cursor(&group.cursor), known) {
            (Some(said), Some(known)) => Ok(further(&said, &known.cursor)),
            (Some(said), None) if !group.committed => Ok(said),
            (None, Some(known)) => Ok(known.cursor),
            // It is new, or was forgotten: it begins with what comes.
            (_, None) => {
                let newest = registry.newest(self.tenant).await?;
                (self.committed, self.known) = (false, None);
                let change = |group: &mut Group, _: &mut Heard| {
                    (group.committed, group.cursor) = (false, newest.to_string());
                    true
                };
                let changed = self.change(door, change).await;
                changed.map(|_| newest.clone()).ok_or(RegistryError::Unavailable)
            }
        }
    }

    /// It has read up to here: whether its streams know. It is not waited for long, since reading is, and may have been taken all the
    /// same. A shard in which nothing was read since is not told, so that one without a leader matters to its own events only.
    pub(crate) async fn commit(&mut self, door: &Door, cursor: &Cursor) -> bool {
        let moved = |(shard, offset): &(ShardId, Offset)| {
            self.known.as_ref().is_none_or(|known| known.of(*shard) != *offset)
        };
        let moved: Vec<_> = cursor.shards().filter(moved).collect();
        let is_any = moved.iter().any(|(_, offset)| *offset > Offset(0));
        let commit = door.registry.commit_shards(self.tenant, &self.group, moved);
        let taken = timeout(COMMIT_WAIT, commit).await;
        let Err(error) = taken.unwrap_or(Err(RegistryError::Unavailable)) else {
            self.known = Some(cursor.clone());
            // Who has read nothing is not known there.
            self.committed |= is_any;
            return true;
        };
        door.metrics.commits_failed.inc();
        let Self { tenant, group, warned, .. } = self;
        if !mem::replace(warned, true) {
            warn!(tenant = tenant.0, %group, %error, "how far a consumer group is was not committed");
        }
        false
    }

    /// Changes the group: how it is then. Nothing if nobody answered in time, or the change is none.
    async fn change(
        &mut self,
        door: &Door,
        change: impl FnMut(&mut Group, &mut Heard) -> bool,
    ) -> Option<Group> {
        timeout(ASK_WAIT, self.changed(door, change)).await.ok().flatten()
    }

    async fn changed(
        &mut self,
        door: &Door,
        mut change: impl FnMut(&mut Group, &mut Heard) -> bool,
    ) -> Option<Group> {
        let space = space(self.tenant);
        for _ in 0..TRIES_MAX {
            let found = door.registry.document(&space, &self.group).await.ok()?;
            let expect = found.as_ref().map_or(Expect::Absent, |of| Expect::Version(of.version));
            let mut group = found.as_ref().map(Group::read).unwrap_or_default();
            if !change(&mut group, &mut self.heard) {
                return None;
            }
            group.used_ms = door.now_ms();
            let written =
                door.registry.put_document(&space, &self.group, group.body(), expect).await;
            match written {
                Ok(_) => return Some(group),
                Err(error) if is_conflict(&error) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::shard::Shards;

    use super::*;

    fn cursor(text: &str) -> Cursor {
        Cursor::parse(text, Shards::new(3)).unwrap()
    }

    fn nobody() -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn silent(name: &str) -> BTreeSet<String> {
        BTreeSet::from([name.to_owned()])
    }

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
                    assert!(group.renew(name, &nobody(), &shards, true));
                    // Nothing is taken from one who is there.
                    for (shard, owner) in &before {
                        let now = group.shards.get(shard);
                        assert!(owner == name || now == Some(owner), "{many} {round} {name}");
                    }
                    before = group.shards.clone();
                }
            }
            for name in here {
                group.renew(name, &nobody(), &shards, true);
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
        group.renew("a", &nobody(), &shards, true);
        assert_eq!(parts(&group, &["a"]), [4]);
        group.renew("b", &nobody(), &shards, true);
        assert_eq!(parts(&group, &["a", "b"]), [4, 0], "it has to give back before");
        group.renew("a", &nobody(), &shards, false);
        assert_eq!(parts(&group, &["a", "b"]), [4, 0], "it may not yet");
        group.renew("a", &nobody(), &shards, true);
        group.renew("b", &nobody(), &shards, true);
        assert_eq!(parts(&group, &["a", "b"]), [2, 2]);
        group.renew("b", &nobody(), &shards, true);
        assert_eq!(parts(&group, &["a", "b"]), [2, 2]);
        group.renew("b", &silent("a"), &shards, true);
        assert_eq!(parts(&group, &["a", "b"]), [0, 4], "its time is over");
        group.leave("b");
        assert_eq!(group, Group::default());
    }

    #[test]
    fn there_are_more_members_than_shards_and_no_more_than_may_be() {
        let shards = all(2);
        let mut group = Group::default();
        for number in 0..MEMBERS_MAX {
            assert!(group.renew(&format!("{number:03}"), &nobody(), &shards, true));
        }
        assert!(!group.renew("one more", &nobody(), &shards, true));
        assert!(group.renew("000", &nobody(), &shards, false), "who is there stays");
        assert_eq!(group.shards.len(), 2);
        assert!(group.renew("one more", &silent("001"), &shards, true));
        // A cluster has as many shards as it was made with: what is none is nobody's.
        group.shards.insert(9, "one more".to_owned());
        group.renew("one more", &silent("001"), &shards, true);
        assert_eq!(group.shards.keys().copied().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_group_is_where_it_has_read_or_begun_in_each_shard() {
        let table =
            [("0.0.0", "5.0.0", "5.0.0"), ("3.4.0", "5.0.0", "5.4.0"), ("7.7.7", "0.0.0", "7.7.7")];
        for (began, committed, expected) in table {
            let found = further(&cursor(began), &cursor(committed));
            assert_eq!(found.to_string(), expected, "{began} {committed}");
        }
    }

    #[test]
    fn a_member_is_silent_that_says_nothing_for_as_long_by_whoever_waits() {
        let began = Instant::now();
        let mut heard = Heard::default();
        #[rustfmt::skip]
        let table = [
            // It is measured from when it was heard, whatever any clock of others says.
            (1, 0, false), (1, 9, false),
            (2, 11, false), (2, 20, false), (2, 21, true), (2, 22, true),
            (3, 23, false), (3, 33, true),
        ];
        for (beat, s, expected) in table {
            let members = BTreeMap::from([("a".to_owned(), beat)]);
            let group = Group { members, ..Group::default() };
            let found = heard.silent(&group, began + Duration::from_secs(s));
            assert_eq!(found.contains("a"), expected, "{beat} {s}");
        }
        assert_eq!(heard.silent(&Group::default(), began), nobody());
        assert!(heard.0.is_empty(), "who left is forgotten");
    }

    #[test]
    fn groups_that_nobody_misses_make_room() {
        let kept_ms = u64::try_from(KEPT.as_millis()).unwrap();
        let of = |committed, used_ms| Group { committed, used_ms, ..Group::default() };
        #[rustfmt::skip]
        let table = [
            (of(true, 1_000),  true,  kept_ms,         false),
            (of(false, 1_000), false, kept_ms,         false),
            (of(true, 1_000),  true,  kept_ms + 1_001, true),
            (of(false, 1_000), false, kept_ms + 1_001, true),
            (of(true, 1_000),  false, 1_000,           true),
            (of(true, 1_000),  true,  0,               false),
        ];
        for (group, known, now_ms, expected) in table {
            assert_eq!(group.is_stale(known, now_ms), expected, "{group:?} {known} {now_ms}");
        }
    }
}
