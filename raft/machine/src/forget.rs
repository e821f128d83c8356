//! What a deleted device or tenant leaves behind, and how it goes from all shards.
//!
//! ```text
//!   DeleteDevice (its shard), DeleteTenant (meta) ──► Forgetting row ── the leader there reads it, as often as it takes:
//!       ──► Forget in every shard: sessions with queue, subscriptions and will; what it retained      (pieces: Partly)
//!       ──► Forgotten here, once a round began FORGET_KEPT after the deletion
//! ```
//!
//! # Invariants
//!
//! - **A deletion is finished by whoever leads**: the row says what is to be done, and doing it twice is doing it once. Checked by
//!   `tests/rules/forget.rs`.
//! - **A later device of the same name keeps what is its own**: sessions and retained messages know the birth of their owner.
//!   Checked by the same test.
//! - **One `Forget` removes a bounded number of rows.**
//!
//! # Deliberately absent
//!
//! Who asks all shards (`node/service`). Mail, calls and credentials, which go with the device's row (`shard::devices`).

use std::collections::BTreeMap;

use moorline_core::{TenantId, Text, UnixMillis};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use crate::{
    keys::{Keys, each},
    registry::Owner,
    rows::{NumberRow, Row},
    step::Step,
};

/// Devices and tenants that a group remembers as deleted: about 150 bytes each. When there are more, deleting is refused until
/// some are done with.
pub const FORGETTING_MAX: usize = 200_000;
/// Owners in one `Forget` or `Forgotten`.
pub const FORGET_AT_ONCE_MAX: usize = 64;

/// Removes what these left in a shard: a piece of it. Answered with `Released`, or with `Partly` if there is more. A device of a
/// later birth is left alone; an owner without a device is a whole tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// Whose. At most [`FORGET_AT_ONCE_MAX`].
    pub owners: Vec<Owner>,
}

/// Nothing is left of these in any shard: the group that deleted them need not remember. Answered with `Done`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Whose. At most [`FORGET_AT_ONCE_MAX`].
    pub owners: Vec<Owner>,
}

/// The owner that stands for a whole tenant.
#[must_use]
pub fn whole(tenant: TenantId) -> Owner {
    Owner { tenant, device: Text::default(), born: 0 }
}

type Place = (TenantId, u64, Text);

/// Those deleted here that are still to be forgotten elsewhere, by when they were deleted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Forgetting(BTreeMap<Place, UnixMillis>);

fn place(owner: &Owner) -> Place {
    // A copy: the text may be a slice of a whole log entry.
    (owner.tenant, owner.born, Text::from(owner.device.as_str()))
}

impl Forgetting {
    pub(crate) fn open(keys: Keys, rows: &(impl View + ?Sized)) -> Result<Self, StorageError> {
        let mut all = BTreeMap::new();
        each(rows, &keys.range(Kind::Forgetting), |mut suffix, row| {
            let (tenant, born) = (TenantId(suffix.u32()?), suffix.u64()?);
            let at = UnixMillis(NumberRow::from_bytes(row)?.0);
            all.insert((tenant, born, suffix.text()?), at);
            Ok(())
        })?;
        Ok(Self(all))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= FORGETTING_MAX
    }

    /// It was deleted now.
    pub(crate) fn begin<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>, owner: &Owner) {
        step.put(step.keys.forgetting(owner), NumberRow(step.time.0).to_bytes());
        self.0.insert(place(owner), step.time);
    }

    pub(crate) fn end<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>, owners: &[Owner]) {
        for owner in owners {
            if self.0.remove(&place(owner)).is_some() {
                step.delete(step.keys.forgetting(owner));
            }
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Owner, UnixMillis)> {
        self.0.iter().map(|((tenant, born, device), at)| {
            (Owner { tenant: *tenant, device: device.clone(), born: *born }, *at)
        })
    }
}
