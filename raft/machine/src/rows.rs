//! The rows of a group: what they hold, and their bytes. Each begins with a version.
//!
//! # Invariants
//!
//! - **Never renumbered.** Disks hold these bytes. Frozen by the golden tests of each file (`golden.rs`).
//! - **A row that can't be read stops the replica** ([`StorageError::Corrupt`]): it is rebuilt from the leader, never
//!   guessed at.

pub(crate) mod audit;
pub(crate) mod calls;
pub(crate) mod documents;
pub(crate) mod events;
#[cfg(test)]
mod golden;
mod item;
mod kept;
pub(crate) mod mail;
mod meta;
pub(crate) mod presence;
mod registry;
mod sessions;
pub(crate) mod values;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::UnixMillis;
use moorline_storage::StorageError;

use crate::codec::{Malformed, Reader};

pub(crate) use self::{
    item::{Item, SharedMessage},
    kept::{AwaitedRow, DueWillRow, RetainedRow, WillRow},
    meta::{
        ClusterRow, LevelRow, MemberRow, NodeRow, PlacementRow, RouteRow, TargetRow, TenantRow,
    },
    registry::RegistryCountsRow,
    sessions::{
        CountersRow, FilterRow, GarbageRow, LeftRow, MembershipRow, OriginRow, SessionRow,
        SubscriptionRow,
    },
};

const VERSION: u8 = 1;

/// A row that one version of this crate can write and read.
pub(crate) trait Row: Sized {
    /// What a damaged one is called.
    const WHAT: &'static str;
    /// Bytes it usually has, its version included.
    const BYTES: usize;

    fn write(&self, out: &mut BytesMut);
    fn read(reader: &mut Reader) -> Result<Self, Malformed>;

    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_u8(VERSION);
        self.write(&mut out);
        out.freeze()
    }

    fn from_bytes(bytes: &Bytes) -> Result<Self, StorageError> {
        let mut reader = Reader::new(bytes.clone(), Self::WHAT);
        let row = match reader.u8() {
            Ok(VERSION) => Self::read(&mut reader),
            Ok(_) => Err(Malformed { what: "row version" }),
            Err(error) => Err(error),
        };
        row.and_then(|row| reader.end().map(|()| row)).map_err(|error| corrupt(Self::WHAT, &error))
    }
}

/// A row or entry of this group can't be read.
pub(crate) fn corrupt(what: &str, why: &impl ToString) -> StorageError {
    StorageError::Corrupt { what: what.to_owned(), why: why.to_string() }
}

/// A single number: log time, the next session id of a bucket, the references of a shared message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumberRow(pub(crate) u64);

impl Row for NumberRow {
    const WHAT: &'static str = "number row";
    const BYTES: usize = 9;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        reader.u64().map(Self)
    }
}

/// How far a producer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerRow {
    pub(crate) last_seq: u64,
    pub(crate) last_seen: UnixMillis,
}

impl Row for ProducerRow {
    const WHAT: &'static str = "producer row";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.last_seq);
        out.put_u64(self.last_seen.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { last_seq: reader.u64()?, last_seen: reader.millis()? })
    }
}

#[cfg(test)]
mod tests {
    use super::{golden::check, *};

    #[test]
    fn numbers_and_producers_keep_their_bytes() {
        // Frozen: disks hold these.
        check(&NumberRow(5), "01 0000000000000005");
        check(
            &ProducerRow { last_seq: 1, last_seen: UnixMillis(2) },
            "01 0000000000000001 0000000000000002",
        );
    }
}
