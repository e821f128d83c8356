//! Where the rows of values are: in the device's bucket, by its birth; how far a history goes, and its parts, in none.
//!
//! A birth is a place in the log of this group, so no other device of it has the same: one that is made anew begins with
//! nothing, and what the earlier one left is found by its own.

use bytes::Bytes;
use moorline_core::TenantId;
use moorline_storage::{StorageError, key::Kind};

use super::{Keys, Suffix};
use crate::values::{POINTS, Part, TOLD};

/// A device's place: its bucket and its birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) bucket: u16,
    pub(crate) born: u64,
}

/// Times before 1970 come before those behind it.
const SIGN: u64 = 1 << 63;

impl Keys {
    pub(crate) fn sheet(self, of: Place, part: Part) -> Bytes {
        self.key(of.bucket, Kind::Values, 9).u64(of.born).u8(part.number()).done()
    }

    pub(crate) fn told(self, of: Place) -> Bytes {
        self.key(of.bucket, Kind::Values, 9).u64(of.born).u8(TOLD).done()
    }

    pub(crate) fn point(self, of: Place, ts_ms: i64) -> Bytes {
        let ts = ts_ms.cast_unsigned() ^ SIGN;
        self.key(of.bucket, Kind::Values, 17).u64(of.born).u8(POINTS).u64(ts).done()
    }

    /// From and to of a device's points from `from_ms` on, up to `to_ms`; without it to the last.
    pub(crate) fn points(self, of: Place, from_ms: i64, to_ms: Option<i64>) -> (Bytes, Bytes) {
        let to = match to_ms {
            Some(to_ms) => self.point(of, to_ms),
            None => self.key(of.bucket, Kind::Values, 9).u64(of.born).u8(POINTS + 1).done(),
        };
        (self.point(of, from_ms), to)
    }

    pub(crate) fn history(self, tenant: TenantId) -> Bytes {
        self.whole(Kind::History, 4).u32(tenant.0).done()
    }

    pub(crate) fn history_part(self, tenant: TenantId, number: u64) -> Bytes {
        self.whole(Kind::HistoryPart, 12).u32(tenant.0).u64(number).done()
    }

    pub(crate) fn point_garbage(self, of: Place) -> Bytes {
        self.key(of.bucket, Kind::PointGarbage, 8).u64(of.born).done()
    }
}

impl Suffix<'_> {
    /// The birth and the time in the key of a point.
    pub(crate) fn point(mut self) -> Result<(u64, i64), StorageError> {
        let born = self.u64()?;
        self.byte()?;
        Ok((born, (self.u64()? ^ SIGN).cast_signed()))
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::{AttributeScope, ShardId};

    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_of_values_keep_their_bytes() {
        // Frozen: disks hold these.
        let (keys, tenant) = (Keys::new(ShardId(2)), TenantId(5));
        let of = Place { bucket: 3, born: 4 };
        let scope = Part::Attributes;
        #[rustfmt::skip]
        let table = [
            (keys.sheet(of, scope(AttributeScope::Client)), "0002 0003 5a 0000000000000004 01"),
            (keys.sheet(of, scope(AttributeScope::Shared)), "0002 0003 5a 0000000000000004 02"),
            (keys.sheet(of, scope(AttributeScope::Server)), "0002 0003 5a 0000000000000004 03"),
            (keys.point(of, 1),          "0002 0003 5a 0000000000000004 04 8000000000000001"),
            (keys.point(of, -1),         "0002 0003 5a 0000000000000004 04 7fffffffffffffff"),
            (keys.sheet(of, Part::Latest),                  "0002 0003 5a 0000000000000004 05"),
            (keys.told(of),                                 "0002 0003 5a 0000000000000004 06"),
            (keys.history(tenant),       "0002 ffff 5b 00000005"),
            (keys.history_part(tenant, 6), "0002 ffff 5c 00000005 0000000000000006"),
            (keys.point_garbage(of),     "0002 0003 5d 0000000000000004"),
        ];
        for (key, expected) in table {
            assert_eq!(hex(&key), expected.replace(' ', ""));
        }
    }

    #[test]
    fn points_lie_in_the_order_of_their_times() {
        let keys = Keys::new(ShardId(2));
        let of = Place { bucket: 3, born: 4 };
        let times = [i64::MIN, -1, 0, 1, i64::MAX];
        let (from, to) = keys.points(of, i64::MIN, None);
        for pair in times.windows(2) {
            assert!(keys.point(of, pair[0]) < keys.point(of, pair[1]));
        }
        for ts_ms in times {
            let key = keys.point(of, ts_ms);
            assert!(from <= key && key < to, "{ts_ms}");
            assert_eq!(Suffix::of(&key).unwrap().point().unwrap(), (4, ts_ms));
            for born in [3, 5] {
                let other = keys.point(Place { born, ..of }, ts_ms);
                assert!(other < from || to <= other, "{ts_ms}");
            }
        }
        for part in Part::ALL {
            let key = keys.sheet(of, part);
            assert!(key < from || to <= key, "{part:?}");
        }
        assert!(to <= keys.told(of));
        assert_eq!(keys.points(of, 1, Some(2)), (keys.point(of, 1), keys.point(of, 2)));
    }
}
