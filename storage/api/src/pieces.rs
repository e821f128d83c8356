//! Rows outside of a store: what a backup consists of.
//!
//! ```text
//!   piece   "MLROWS" | version 1 | rows…          row   key length u32 | value length u32 | key | value
//! ```
//!
//! Where a piece ends is decided by its rows' keys ([`Cutter`]), not by how many came before: a row more or less changes the piece
//! in which it is and perhaps the next, and all others keep their bytes, by which they are known again.
//!
//! # Invariants
//!
//! - **Reading never panics and never believes a length**; keys ascend. What does not is [`StorageError::Corrupt`].
//! - **The same rows make the same pieces.** Frozen by this file's tests: an incremental backup by another version must find again
//!   what is there.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::StorageError;

const MAGIC: &[u8] = b"MLROWS\x01";
/// A piece does not end before: each costs an entry in a list, a file, and two questions.
const BYTES_MIN: usize = 256 * 1024;
/// How many bytes more it has on average.
const BYTES_MORE: u64 = 768 * 1024;
/// It ends behind the row with which it has so many. With the largest row it still fits into one message between nodes.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Lengths in front of a row.
const LENGTHS_BYTES: usize = 8;

/// Makes pieces of rows that come in order.
#[derive(Debug)]
pub struct Cutter {
    bytes: BytesMut,
    rows: u64,
}

/// Rows in one buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What is kept of it.
    pub bytes: Bytes,
    /// How many rows are in it.
    pub rows: u64,
}

impl Default for Cutter {
    fn default() -> Self {
        Self { bytes: BytesMut::from(MAGIC), rows: 0 }
    }
}

impl Cutter {
    /// Takes the next row. Answers a piece, if one ends with it.
    ///
    /// # Panics
    ///
    /// If a key or value has 4 GiB: no row is nearly that large.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Option<Piece> {
        let length = |part: &[u8]| u32::try_from(part.len()).expect("rows are small");
        self.bytes.put_u32(length(key));
        self.bytes.put_u32(length(value));
        self.bytes.put_slice(key);
        self.bytes.put_slice(value);
        self.rows += 1;
        let row = (LENGTHS_BYTES + key.len() + value.len()) as u64;
        let full = self.bytes.len() >= BYTES_MAX;
        let ends = self.bytes.len() >= BYTES_MIN && hash(key) % BYTES_MORE < row;
        if full || ends { self.finish() } else { None }
    }

    /// The last piece, if there are rows that are in none.
    pub fn finish(&mut self) -> Option<Piece> {
        if self.rows == 0 {
            return None;
        }
        let Self { bytes, rows } = std::mem::take(self);
        Some(Piece { bytes: bytes.freeze(), rows })
    }
}

/// FNV-1a, and its upper half into its lower: what the least bits say depends on the whole key.
fn hash(key: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325, step);
    hash ^ (hash >> 32)
}

/// The rows of a piece, in order. They stay slices of it.
///
/// # Errors
///
/// [`StorageError::Corrupt`] if it is none.
pub fn rows(piece: Bytes) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
    let corrupt = |why: &str| StorageError::Corrupt { what: "a piece".into(), why: why.into() };
    let mut rest = piece;
    if !rest.starts_with(MAGIC) {
        return Err(corrupt("it does not begin as pieces of this version do"));
    }
    rest.advance(MAGIC.len());
    let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
    while !rest.is_empty() {
        if rest.len() < LENGTHS_BYTES {
            return Err(corrupt("it ends in the middle of a row"));
        }
        let (key, value) = (rest.get_u32() as usize, rest.get_u32() as usize);
        if rest.len() < key || rest.len() - key < value {
            return Err(corrupt("it ends in the middle of a row"));
        }
        let (key, value) = (rest.split_to(key), rest.split_to(value));
        if rows.last().is_some_and(|(before, _)| *before >= key) {
            return Err(corrupt("its rows are not in order"));
        }
        rows.push((key, value));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// So many rows of 1,000 bytes and more, in order.
    fn many(numbers: impl Iterator<Item = u32>) -> Vec<(Bytes, Bytes)> {
        let row = |number: u32| {
            let value = vec![number.to_be_bytes()[3]; 1000 + number as usize % 50];
            (Bytes::from(format!("{number:08}")), Bytes::from(value))
        };
        numbers.map(row).collect()
    }

    fn cut(rows: &[(Bytes, Bytes)]) -> Vec<Piece> {
        let mut cutter = Cutter::default();
        let mut pieces: Vec<_> =
            rows.iter().filter_map(|(key, value)| cutter.push(key, value)).collect();
        pieces.extend(cutter.finish());
        pieces
    }

    #[test]
    fn rows_come_out_as_they_went_in() {
        for count in [0, 1, 2, 20_000] {
            let wanted = many(0..count);
            let pieces = cut(&wanted);
            assert_eq!(pieces.is_empty(), count == 0);
            let read: Vec<_> =
                pieces.iter().flat_map(|piece| rows(piece.bytes.clone()).unwrap()).collect();
            assert_eq!(read, wanted);
            assert_eq!(pieces.iter().map(|piece| piece.rows).sum::<u64>(), u64::from(count));
            let (_, whole) = pieces.split_last().unzip();
            for piece in whole.unwrap_or_default() {
                assert!((BYTES_MIN..BYTES_MAX + 2000).contains(&piece.bytes.len()));
            }
        }
    }

    #[test]
    fn a_row_more_changes_few_pieces() {
        let before: BTreeSet<_> =
            cut(&many(0..30_000)).into_iter().map(|piece| piece.bytes).collect();
        assert!(before.len() > 10, "{} pieces", before.len());
        for missing in [0, 15_000, 29_999] {
            let rows = many((0..30_000).filter(|number| *number != missing));
            let new = cut(&rows).into_iter().filter(|piece| !before.contains(&piece.bytes)).count();
            assert!((1..=4).contains(&new), "{new} new pieces without row {missing}");
        }
    }

    #[test]
    fn a_piece_keeps_its_bytes() {
        // Frozen: backups consist of these.
        let pieces = cut(&[(Bytes::from("k"), Bytes::from("vw"))]);
        assert_eq!(pieces[0].bytes[..], *b"MLROWS\x01\0\0\0\x01\0\0\0\x02kvw");
        assert_eq!([hash(b""), hash(b"a")], [0xcbf2_9ce4_4fd0_bfc1, 0xaf63_dc4c_2962_30c0]);
    }

    #[test]
    fn what_is_cut_off_or_out_of_order_is_corrupt() {
        let pieces = cut(&many(0..2));
        let whole = &pieces[0].bytes;
        let between = whole.len() - (LENGTHS_BYTES + 8 + 1001);
        for end in (0..whole.len()).filter(|end| ![MAGIC.len(), between].contains(end)) {
            assert!(rows(whole.slice(..end)).is_err(), "{end} bytes");
        }
        let mut huge = MAGIC.to_vec();
        huge.extend([0xff; 8]);
        assert!(rows(Bytes::from(huge)).is_err());
        let twice = [whole, &whole[MAGIC.len()..]].concat();
        assert!(rows(Bytes::from(twice)).is_err());
        assert!(rows(Bytes::from_static(b"MLROWS\x02")).is_err(), "of a later version");
    }
}
