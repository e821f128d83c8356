//! The payload of a test message: it says which message it is, and proves that it is whole.
//!
//! ```text
//!   "MLC1" | publisher u32 | seq u64 | length u32 | filler … | crc32c(all before, topic) u32      big endian
//! ```
//!
//! The filler follows from the message id, so a byte swapped between two messages is seen even if somebody were to
//! repair the checksum.

use thiserror::Error;

use crate::history::MessageId;

const MAGIC: [u8; 4] = *b"MLC1";
const HEAD: usize = 4 + 4 + 8 + 4;
const TAIL: usize = 4;

/// The shortest payload, in bytes.
pub const LENGTH_MIN: usize = HEAD + TAIL;
/// The longest payload, in bytes; runs use far less.
pub const LENGTH_MAX: usize = 1 << 20;

/// What is wrong with a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Damaged {
    /// Not as long as it says, or not ours.
    #[error("the payload is cut or foreign")]
    Shape,
    /// The checksum over payload and topic does not hold.
    #[error("the checksum does not hold")]
    Checksum,
    /// The filler belongs to another message.
    #[error("the filler belongs to another message")]
    Filler,
}

/// The payload of one message, `length` bytes long (held between [`LENGTH_MIN`] and [`LENGTH_MAX`]).
pub fn write(message: MessageId, topic: &str, length: usize) -> Vec<u8> {
    let length = length.clamp(LENGTH_MIN, LENGTH_MAX);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&message.publisher.to_be_bytes());
    bytes.extend_from_slice(&message.seq.to_be_bytes());
    let stated = u32::try_from(length).expect("the length was clamped to 1 MiB");
    bytes.extend_from_slice(&stated.to_be_bytes());
    bytes.extend((0..length - LENGTH_MIN).map(|at| filler(message, at)));
    let crc = checksum(&bytes, topic);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// Which message a payload is, if it is whole and came on the topic it was written for.
pub fn read(bytes: &[u8], topic: &str) -> Result<MessageId, Damaged> {
    let message = claimed(bytes).ok_or(Damaged::Shape)?;
    let (body, crc) = bytes.split_at(bytes.len() - TAIL);
    if crc != checksum(body, topic).to_be_bytes() {
        return Err(Damaged::Checksum);
    }
    let right = body[HEAD..].iter().enumerate().all(|(at, &byte)| byte == filler(message, at));
    if right { Ok(message) } else { Err(Damaged::Filler) }
}

/// Which message a payload says it is, whole or not; none if even its shape is wrong.
pub fn claimed(bytes: &[u8]) -> Option<MessageId> {
    if bytes.len() < LENGTH_MIN || bytes[..4] != MAGIC {
        return None;
    }
    let publisher = u32::from_be_bytes(bytes[4..8].try_into().ok()?);
    let seq = u64::from_be_bytes(bytes[8..16].try_into().ok()?);
    let stated = u32::from_be_bytes(bytes[16..20].try_into().ok()?);
    (usize::try_from(stated) == Ok(bytes.len())).then_some(MessageId { publisher, seq })
}

fn filler(message: MessageId, at: usize) -> u8 {
    let mixed = message
        .seq
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(u64::from(message.publisher))
        .wrapping_add(at as u64);
    mixed.to_le_bytes()[at % 8]
}

fn checksum(body: &[u8], topic: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(body), topic.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: MessageId = MessageId { publisher: 5, seq: 77 };

    #[test]
    fn a_payload_names_its_message() {
        for length in [0, LENGTH_MIN, 100, 256, 5000] {
            let bytes = write(MESSAGE, "a/b", length);
            assert_eq!(bytes.len(), length.max(LENGTH_MIN));
            assert_eq!(read(&bytes, "a/b"), Ok(MESSAGE));
        }
    }

    #[test]
    fn another_topic_or_message_is_seen() {
        let mut bytes = write(MESSAGE, "a/b", 64);
        assert_eq!(read(&bytes, "a/c"), Err(Damaged::Checksum));
        assert_eq!(read(&bytes[..60], "a/b"), Err(Damaged::Shape));
        bytes[15] ^= 1;
        let crc = checksum(&bytes[..60], "a/b");
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(read(&bytes, "a/b"), Err(Damaged::Filler));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_seen(bit in 0..64_usize * 8) {
            let mut bytes = write(MESSAGE, "a/b", 64);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(read(&bytes, "a/b").is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(read(&bytes, "a/b").is_err());
        }
    }
}
