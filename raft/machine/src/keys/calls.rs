//! Where the rows of calls are: in the device's bucket, by its birth, in order of number.

use bytes::Bytes;
use moorline_storage::{StorageError, key::Kind};

use super::{Keys, Place, Suffix};
use crate::rows::corrupt;

/// Numbers are above 0.
fn unsigned(number: i32) -> u32 {
    number.cast_unsigned()
}

impl Keys {
    pub(crate) fn call_line(self, of: Place) -> Bytes {
        self.key(of.bucket, Kind::CallLine, 8).u64(of.born).done()
    }

    pub(crate) fn call_card(self, of: Place, number: i32) -> Bytes {
        self.key(of.bucket, Kind::CallCard, 12).u64(of.born).u32(unsigned(number)).done()
    }

    pub(crate) fn call_asked(self, of: Place, number: i32) -> Bytes {
        self.key(of.bucket, Kind::CallAsked, 12).u64(of.born).u32(unsigned(number)).done()
    }

    pub(crate) fn call_answered(self, of: Place, number: i32) -> Bytes {
        self.key(of.bucket, Kind::CallAnswered, 12).u64(of.born).u32(unsigned(number)).done()
    }

    pub(crate) fn call_by_id(self, of: Place, id: u128) -> Bytes {
        let key = self.key(of.bucket, Kind::CallById, 24).u64(of.born);
        key.bytes(&id.to_be_bytes()).done()
    }
}

impl Suffix<'_> {
    /// The birth and the number in the key of a call.
    pub(crate) fn call(mut self) -> Result<(u64, i32), StorageError> {
        let (born, number) = (self.u64()?, self.u32()?);
        let number = i32::try_from(number).ok().filter(|number| *number > 0);
        Ok((born, number.ok_or_else(|| corrupt("key", &"it is no call's"))?))
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_of_calls_keep_their_bytes() {
        // Frozen: disks hold these.
        let (keys, of) = (Keys::new(ShardId(2)), Place { bucket: 3, born: 4 });
        #[rustfmt::skip]
        let table = [
            (keys.call_line(of),              "0002 0003 5e 0000000000000004"),
            (keys.call_card(of, 1),           "0002 0003 5f 0000000000000004 00000001"),
            (keys.call_card(of, i32::MAX),    "0002 0003 5f 0000000000000004 7fffffff"),
            (keys.call_asked(of, 1),          "0002 0003 60 0000000000000004 00000001"),
            (keys.call_answered(of, 1),       "0002 0003 61 0000000000000004 00000001"),
            (keys.call_by_id(of, 7),          "0002 0003 62 0000000000000004 00000000000000000000000000000007"),
        ];
        for (key, expected) in table {
            assert_eq!(hex(&key), expected.replace(' ', ""));
        }
    }

    #[test]
    fn a_call_is_found_in_its_key() {
        let (keys, of) = (Keys::new(ShardId(2)), Place { bucket: 3, born: 4 });
        let read = |number| Suffix::of(&keys.call_card(of, number)).unwrap().call();
        for number in [1, 256, i32::MAX] {
            assert_eq!(read(number).unwrap(), (4, number));
        }
        assert!(read(0).is_err() && read(-1).is_err());
    }
}
