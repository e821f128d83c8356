//! What the tests share: the device of the test vectors, hex, and all packets of a stream.

use bytes::{Bytes, BytesMut};
use moorline_core::{
    Millis, Text,
    op::{Format, Mail, MailId},
};
use moorline_moonlight::{
    DecodeError, Decoder, Packet,
    codec::{Connect, Credentials, Side},
    encode,
};

/// When tests begin.
pub(crate) const START: Millis = Millis(1_000_000);
pub(crate) const MAIL: MailId = MailId(0x018f_4d1f_2a55_7f0e_b4ea_5f7c_3e6f_a001);
pub(crate) const SECRET: &[u8; 36] = b"FOS-0123456789abcdefghijklmnopqrstuv";

pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

pub(crate) fn credentials() -> Credentials {
    Credentials { fleet: *b"FLEET001", device: *b"DEVICE0001", secret: *SECRET }
}

pub(crate) fn connect() -> Connect {
    Connect { keep_alive: true, version: 1, format: Format::Json, credentials: credentials() }
}

pub(crate) fn mail(name: &str, payload: &'static [u8]) -> Mail {
    let payload = Bytes::from_static(payload);
    Mail { id: MAIL, name: Text::from(name), format: Format::Json, payload }
}

pub(crate) fn bytes_of(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode(packet, &mut bytes).unwrap();
    bytes
}

/// The packets that come out if bytes come in parts of `step`, and how it ends.
pub(crate) fn decode(from: Side, bytes: &[u8], step: usize) -> (Vec<Packet>, Option<DecodeError>) {
    let (mut input, mut packets) = (BytesMut::new(), Vec::new());
    for part in bytes.chunks(step.max(1)) {
        input.extend_from_slice(part);
        loop {
            match Decoder::of(from).decode(&mut input) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
    }
    (packets, None)
}
