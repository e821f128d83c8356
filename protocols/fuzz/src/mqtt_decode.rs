//! Any bytes: the decoder does not panic, does not care how they are cut, and what it accepts can be encoded and
//! comes back equal.
//!
//! Input: one byte for version and side, one for the cuts, then what the peer sends.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use moorline_mqtt::{
    Packet, Version,
    codec::{DecodeError, Decoder, Limits, Outgoing, encode},
};

const LIMITS: Limits =
    Limits { packet_bytes: 256, user_properties: 8, property_bytes: 128, filters: 8 };

fn decoder(mode: u8) -> Decoder {
    let version = match mode & 0b11 {
        0 => Version::V31,
        1 => Version::V311,
        _ => Version::V5,
    };
    match mode >> 2 & 0b11 {
        0 => Decoder::server(LIMITS),
        1 => Decoder::client(version, LIMITS),
        _ => Decoder::server_after_connect(version, LIMITS),
    }
}

/// The packets that come out if at most `step` bytes come in at a time, and how it ends.
fn decode(
    mut decoder: Decoder,
    bytes: &[u8],
    step: usize,
) -> (Vec<(Version, Packet)>, Option<DecodeError>) {
    let (mut input, mut packets) = (BytesMut::new(), Vec::new());
    for part in bytes.chunks(step.max(1)) {
        input.extend_from_slice(part);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(packet)) => {
                    let version = decoder.version().expect("known once there is a packet");
                    packets.push((version, packet));
                }
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
    }
    (packets, None)
}

fn comes_back(mode: u8, version: Version, packet: &Packet) {
    let mut bytes = BytesMut::new();
    encode(packet, version, &mut bytes).expect("it came from the wire");
    if let Packet::Publish(publish) = packet {
        let len = Outgoing::from(publish).encoded_len(version).expect("it came from the wire");
        assert_eq!(len, bytes.len());
    }
    let mut decoder = match (mode >> 2 & 0b11, packet) {
        (_, Packet::Connect(_)) => Decoder::server(LIMITS),
        (1, _) => Decoder::client(version, LIMITS),
        _ => Decoder::server_after_connect(version, LIMITS),
    };
    let again = decoder.decode(&mut bytes).expect("it was accepted before");
    assert_eq!(again.as_ref(), Some(packet));
    assert!(bytes.is_empty());
}

fuzz_target!(|data: &[u8]| {
    let [mode, step, bytes @ ..] = data else { return };
    let whole = decode(decoder(*mode), bytes, usize::MAX);
    assert_eq!(decode(decoder(*mode), bytes, usize::from(*step)), whole);
    for (version, packet) in &whole.0 {
        comes_back(*mode, *version, packet);
    }
});
