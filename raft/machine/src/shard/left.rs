//! Memberships of shares that ended a while ago: the news that began one may come later than the news of its end, from another
//! connection or by another way, and must not bring it back.
//!
//! # Invariants
//!
//! - **A later beginning replaces the note of an end**, and only that: a member and a note of it are never there at once.
//!   Checked by `tests/rules/shares.rs`.
//! - **Bounded** in time and number: [`LEFT_MS`], [`LEFT_MAX`]. What comes back after that is found by the share's leader, which
//!   asks after members that are not attached (`node/service`).

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{TenantId, Text, UnixMillis, shard::bucket_of};
use moorline_storage::Rows;

use super::ShardState;
use crate::{
    command::SessionId,
    rows::{LeftRow, Row},
    step::Step,
};

/// How long the end of a membership is remembered, in log time: longer than any news of it can be under way.
pub const LEFT_MS: u64 = 10 * 60 * 1000;
/// Ends that a shard remembers: about 250 bytes each. Beyond it the oldest is forgotten.
pub const LEFT_MAX: usize = 100_000;
/// Ends that one `Tick` forgets.
const LEFT_PER_TICK_MAX: usize = 1024;

/// Whose subscription to what it was.
pub(super) type Membership = (TenantId, Text, SessionId);

/// The ends that a shard remembers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Left {
    known: BTreeMap<Membership, LeftRow>,
    by_age: BTreeSet<(UnixMillis, Membership)>,
}

impl Left {
    pub(super) fn insert(&mut self, of: Membership, row: LeftRow) {
        self.by_age.insert((row.at, of.clone()));
        self.known.insert(of, row);
    }

    fn remove(&mut self, of: &Membership) -> bool {
        let Some(row) = self.known.remove(of) else { return false };
        self.by_age.remove(&(row.at, of.clone()));
        true
    }

    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.by_age.first().map(|(at, _)| forgotten_at(*at))
    }
}

impl ShardState {
    /// Whether a membership of this version is known to have ended.
    pub(super) fn has_left(&self, of: &Membership, version: u64) -> bool {
        self.left.known.get(of).is_some_and(|row| version <= row.version)
    }

    /// A membership of this version, and of every earlier one, has ended.
    pub(super) fn note_left<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        of: Membership,
        version: u64,
    ) {
        if self.has_left(&of, version) {
            return;
        }
        if !self.left.remove(&of)
            && self.left.known.len() >= LEFT_MAX
            && let Some((_, oldest)) = self.left.by_age.first().cloned()
        {
            self.forget_left(step, &oldest);
        }
        let row = LeftRow { version, at: step.time };
        step.put(self.key_of_left(&of), row.to_bytes());
        self.left.insert(of, row);
    }

    pub(super) fn forget_left<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        of: &Membership,
    ) {
        if self.left.remove(of) {
            step.delete(self.key_of_left(of));
        }
    }

    fn key_of_left(&self, (tenant, filter, member): &Membership) -> bytes::Bytes {
        let bucket = bucket_of(*tenant, filter.as_bytes());
        self.keys.share_left(bucket, *tenant, *member, filter)
    }

    /// Forgets what ended long ago: a piece of it.
    pub(super) fn expire_left<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for _ in 0..LEFT_PER_TICK_MAX {
            match self.left.by_age.first() {
                Some((at, of)) if forgotten_at(*at) <= step.time => {
                    let of = of.clone();
                    self.forget_left(step, &of);
                }
                Some(_) | None => return,
            }
        }
    }
}

fn forgotten_at(left_at: UnixMillis) -> UnixMillis {
    UnixMillis(left_at.0.saturating_add(LEFT_MS))
}
