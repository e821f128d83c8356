//! The fixed header (2.1): packet type, flags, and a length that is believed only as far as the limit.

use super::{DecodeError, Version};

/// Most bytes a variable byte integer may take (1.5.5).
const VARINT_BYTES_MAX: usize = 4;
/// Largest variable byte integer, and so the largest remaining length.
pub(super) const VARINT_MAX: u32 = 268_435_455;

/// The types of packets, with their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of the packet, but for PUBLISH, which has flags of its own.
    pub(super) fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.reserved_flags()
    }

    /// What the four flags have to be (table 2-2). PUBLISH has its own.
    fn reserved_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            Self::Connect
            | Self::ConnAck
            | Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubComp
            | Self::SubAck
            | Self::UnsubAck
            | Self::PingReq
            | Self::PingResp
            | Self::Disconnect
            | Self::Auth => 0,
        }
    }

    /// Whether only a server sends it.
    pub(super) fn is_from_server(self) -> bool {
        matches!(self, Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp)
    }

    /// Whether only a client sends it.
    pub(super) fn is_from_client(self) -> bool {
        matches!(self, Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq)
    }
}

/// Refuses reserved flags that are not as they have to be. MQTT 3.1 reserved none: its CONNECT may have any, and what
/// it asks again may have DUP.
pub(super) fn check_flags(
    kind: PacketType,
    flags: u8,
    version: Version,
) -> Result<(), DecodeError> {
    let ignored = match (version, kind) {
        (Version::V31, PacketType::Connect) => 0b1111,
        (Version::V31, PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe) => {
            0b1000
        }
        _ => 0,
    };
    if flags & !ignored == kind.reserved_flags() & !ignored {
        Ok(())
    } else {
        Err(DecodeError::Malformed("reserved flags of the fixed header"))
    }
}

/// The type in the first byte of a packet.
pub(super) fn kind(byte: u8) -> Result<PacketType, DecodeError> {
    // It can be read and is forbidden (table 2-1), like the packets of the other side.
    PacketType::from_bits(byte >> 4).ok_or(DecodeError::Protocol("packet type 0"))
}

/// The flags in the first byte of a packet. Those of a CONNECT are left to whoever knows its version.
pub(super) fn flags(
    byte: u8,
    kind: PacketType,
    version: Option<Version>,
) -> Result<u8, DecodeError> {
    let flags = byte & 0x0f;
    if kind != PacketType::Publish {
        if let Some(version) = version {
            check_flags(kind, flags, version)?;
        }
        return Ok(flags);
    }
    match flags >> 1 & 0b11 {
        3 => Err(DecodeError::Malformed("PUBLISH with QoS 3")),
        0 if flags & 0b1000 != 0 => Err(DecodeError::Malformed("PUBLISH with QoS 0 and DUP")),
        _ => Ok(flags),
    }
}

/// Reads a variable byte integer off the front: its value and how many bytes it took. `None`: more bytes are needed.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                return Err(DecodeError::Malformed("variable byte integer longer than needed"));
            }
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= VARINT_BYTES_MAX {
        return Err(DecodeError::Malformed("variable byte integer of more than four bytes"));
    }
    Ok(None)
}

/// How many bytes `value` takes as a variable byte integer.
pub(super) fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_are_canonical_and_incremental() {
        type Read = Result<Option<(u32, usize)>, ()>;
        #[rustfmt::skip]
        let table: [(&[u8], Read); 12] = [
            (b"", Ok(None)),                         (b"\x00", Ok(Some((0, 1)))),
            (b"\x7f", Ok(Some((127, 1)))),           (b"\x80", Ok(None)),
            (b"\x80\x01", Ok(Some((128, 2)))),       (b"\x80\x00", Err(())),
            (b"\xff\xff\x7f", Ok(Some((2_097_151, 3)))), (b"\xff\xff\xff", Ok(None)),
            (b"\xff\xff\xff\x7f", Ok(Some((VARINT_MAX, 4)))), (b"\x80\x80\x80\x00", Err(())),
            (b"\xff\xff\xff\xff", Err(())),          (b"\x05rest", Ok(Some((5, 1)))),
        ];
        for (bytes, expected) in table {
            assert_eq!(varint(bytes).map_err(|_| ()), expected, "{bytes:02x?}");
            if let Ok(Some((value, len))) = expected {
                assert_eq!(varint_len(value), len);
            }
        }
    }
}
