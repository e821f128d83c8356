//! Where a reader of a tenant's events is: an offset for each shard, in one short text.
//!
//! ```text
//!   3f.0.1z    shard 1 up to 3f, shard 2 not begun, shard 3 up to 1z; numbers with 36 digits
//! ```
//!
//! Applications keep it and give it back as it was: its form may change.

use std::fmt::{self, Write};

use moorline_core::{Offset, ShardId, shard::Shards};

/// The digits of offsets.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const RADIX: u64 = DIGITS.len() as u64;

/// Up to which offset each shard was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Of shard 1 and so on.
    offsets: Vec<Offset>,
}

impl Cursor {
    /// Before everything.
    #[must_use]
    pub fn begin(shards: Shards) -> Self {
        Self { offsets: vec![Offset(0); usize::from(shards.count())] }
    }

    /// Up to where a shard was read; 0 for one that is not of this cluster.
    #[must_use]
    pub fn of(&self, shard: ShardId) -> Offset {
        let place = usize::from(shard.0).checked_sub(1);
        place.and_then(|place| self.offsets.get(place).copied()).unwrap_or_default()
    }

    /// A shard was read up to here.
    pub fn set(&mut self, shard: ShardId, offset: Offset) {
        let place = usize::from(shard.0).checked_sub(1);
        if let Some(known) = place.and_then(|place| self.offsets.get_mut(place)) {
            *known = offset;
        }
    }

    /// Each shard with its offset.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, Offset)> {
        (1..).map(ShardId).zip(self.offsets.iter().copied())
    }

    /// Reads what was written for a cluster of so many shards.
    #[must_use]
    pub fn parse(text: &str, shards: Shards) -> Option<Self> {
        let offsets: Option<Vec<_>> = text.split('.').map(parse_offset).collect();
        let offsets = offsets?;
        (offsets.len() == usize::from(shards.count())).then_some(Self { offsets })
    }
}

fn parse_offset(text: &str) -> Option<Offset> {
    let canonical = !text.is_empty() && (text == "0" || !text.starts_with('0'));
    let digit = |byte: u8| DIGITS.iter().position(|digit| *digit == byte);
    let number = text.bytes().try_fold(0_u64, |number, byte| {
        number.checked_mul(RADIX)?.checked_add(digit(byte)? as u64)
    });
    number.filter(|_| canonical).map(Offset)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, offset) in self.offsets.iter().enumerate() {
            if place > 0 {
                f.write_char('.')?;
            }
            let (mut digits, mut rest) = (Vec::new(), offset.0);
            loop {
                digits.push(DIGITS[usize::try_from(rest % RADIX).expect("a digit")]);
                rest /= RADIX;
                if rest == 0 {
                    break;
                }
            }
            digits.iter().rev().try_for_each(|digit| f.write_char(char::from(*digit)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_as_it_was_written() {
        let shards = Shards::new(3);
        let mut cursor = Cursor::begin(shards);
        assert_eq!(cursor.to_string(), "0.0.0");
        for (offset, text) in
            [(1, "0.1.0"), (35, "0.z.0"), (36, "0.10.0"), (u64::MAX, "0.3w5e11264sgsf.0")]
        {
            cursor.set(ShardId(2), Offset(offset));
            assert_eq!(cursor.to_string(), text);
            assert_eq!(Cursor::parse(text, shards), Some(cursor.clone()));
            assert_eq!(cursor.of(ShardId(2)), Offset(offset));
        }
        cursor.set(ShardId(0), Offset(7));
        cursor.set(ShardId(4), Offset(7));
        assert_eq!((cursor.of(ShardId(0)), cursor.of(ShardId(4))), (Offset(0), Offset(0)));
        let all: Vec<_> = cursor.shards().map(|(shard, _)| shard.0).collect();
        assert_eq!(all, [1, 2, 3]);
    }

    #[test]
    fn what_is_no_cursor_of_this_cluster_is_noticed() {
        let shards = Shards::new(3);
        for wrong in [
            "",
            "0",
            "0.0",
            "0.0.0.0",
            "0..0",
            "0.00.0",
            "0.A.0",
            "0.-1.0",
            "0.3w5e11264sgsg.0",
            "a b.0.0",
        ] {
            assert_eq!(Cursor::parse(wrong, shards), None, "{wrong}");
        }
        assert_eq!(Cursor::parse("0", Shards::new(1)), Some(Cursor::begin(Shards::new(1))));
    }
}
