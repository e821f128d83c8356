//! The bytes of entries and marks: keys `shard u16 | kind u8 | index u64 or mark u8`, values
//! `version u8 | crc32c u32 | body`, big-endian. The checksum covers key, version and body, so that a record in the wrong
//! place is noticed too.
//!
//! Frozen by this file's golden test.

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{StorageError, log::Mark, record::Reader};

const VERSION: u8 = 1;
/// Kinds of keys. Frozen: disks hold these numbers.
const ENTRY: u8 = 1;
const MARK: u8 = 2;
const WHAT: &str = "log record";

pub(super) const HEAD_BYTES: usize = 5;
const ENTRY_KEY_BYTES: usize = 11;
const MARK_KEY_BYTES: usize = 4;

/// Where an entry lies.
pub(super) fn entry_key(group: ShardId, index: u64) -> [u8; ENTRY_KEY_BYTES] {
    let [high, low] = group.0.to_be_bytes();
    let [a, b, c, d, e, f, g, h] = index.to_be_bytes();
    [high, low, ENTRY, a, b, c, d, e, f, g, h]
}

/// Where a mark lies.
pub(super) fn mark_key(group: ShardId, mark: Mark) -> [u8; MARK_KEY_BYTES] {
    let [high, low] = group.0.to_be_bytes();
    [high, low, MARK, mark as u8]
}

/// From and to of a group's entries.
pub(super) fn entries(group: ShardId) -> ([u8; 3], [u8; 3]) {
    let [high, low] = group.0.to_be_bytes();
    ([high, low, ENTRY], [high, low, ENTRY + 1])
}

/// The index of an entry's key.
pub(super) fn index_of(key: &[u8]) -> Result<u64, StorageError> {
    let index = key.get(3..).and_then(|index| <[u8; 8]>::try_from(index).ok());
    index.map(u64::from_be_bytes).ok_or_else(|| StorageError::Corrupt {
        what: WHAT.to_owned(),
        why: format!("a key of {} bytes", key.len()),
    })
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &[VERSION]);
    crc32c::crc32c_append(crc, body)
}

/// What stands in front of a body.
pub(super) fn head(key: &[u8], body: &[u8]) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = checksum(key, body).to_be_bytes();
    [VERSION, a, b, c, d]
}

/// The body of a record, if it is what was written there.
pub(super) fn open(key: &[u8], value: &[u8]) -> Result<Bytes, StorageError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(value), VERSION, WHAT)?;
    let written = reader.u32()?;
    let body = reader.rest();
    let found = checksum(key, &body);
    if found == written {
        return Ok(body);
    }
    Err(StorageError::Corrupt {
        what: WHAT.to_owned(),
        why: format!("its checksum is {found:08x}, not {written:08x} (key {key:02x?})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: ShardId = ShardId(0x0102);

    #[test]
    fn keys_and_records_keep_their_bytes() {
        let key = entry_key(GROUP, 0x0304);
        assert_eq!(key, *b"\x01\x02\x01\0\0\0\0\0\0\x03\x04");
        assert_eq!(mark_key(GROUP, Mark::Installing), *b"\x01\x02\x02\x05");
        assert_eq!(entries(GROUP), (*b"\x01\x02\x01", *b"\x01\x02\x02"));
        assert_eq!(head(&key, b"body"), FROZEN);
    }

    const FROZEN: [u8; HEAD_BYTES] = [1, 119, 223, 151, 68];

    #[test]
    fn every_flipped_bit_and_a_wrong_place_are_noticed() {
        let key = entry_key(GROUP, 7);
        let record = [&head(&key, b"body")[..], b"body"].concat();
        assert_eq!(open(&key, &record).unwrap()[..], *b"body");
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(&key, &flipped), Err(StorageError::Corrupt { .. })), "bit {bit}");
        }
        assert!(open(&entry_key(GROUP, 8), &record).is_err());
        assert!(open(&key, &record[..3]).is_err());
        assert!(index_of(b"\x01\x02\x01").is_err());
    }
}
