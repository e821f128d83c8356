//! How tests hold rows to their bytes.

use std::fmt::Debug;

use super::Row;
use crate::codec::hex;

/// A row has these bytes, and no others are taken for it.
#[track_caller]
pub(super) fn check<R: Row + PartialEq + Debug>(row: &R, expected: &str) {
    check_open(row, 0, expected);
    let mut longer = row.to_bytes().to_vec();
    longer.push(0);
    assert!(R::from_bytes(&longer.into()).is_err(), "{row:?} with more");
}

/// The same of a row whose last `tail` bytes have no length in front, and may be fewer or more.
#[track_caller]
pub(super) fn check_open<R: Row + PartialEq + Debug>(row: &R, tail: usize, expected: &str) {
    let bytes = row.to_bytes();
    assert_eq!(hex(&bytes), expected.replace(' ', ""), "{row:?}");
    assert_eq!(&R::from_bytes(&bytes).unwrap(), row);
    for len in 0..bytes.len() - tail {
        assert!(R::from_bytes(&bytes.slice(..len)).is_err(), "{row:?} at {len}");
    }
    let mut newer = bytes.to_vec();
    newer[0] += 1;
    assert!(R::from_bytes(&newer.into()).is_err(), "{row:?} of a later version");
}
