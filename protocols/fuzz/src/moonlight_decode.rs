//! Any bytes: the decoder does not panic, does not care how they are cut, and what it accepts can be encoded and comes
//! back equal. The server machine takes the same bytes without a panic.
//!
//! Input: one byte for the side, one for the cuts, then what the peer sends.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use moorline_core::{Millis, op::Answer};
use moorline_moonlight::{
    DecodeError, Decoder, Packet,
    codec::Side,
    encode,
    server::{Action, Server},
};

/// The packets that come out if at most `step` bytes come in at a time, and how it ends.
fn decode(from: Side, bytes: &[u8], step: usize) -> (Vec<Packet>, Option<DecodeError>) {
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

fn serve(bytes: &[u8], step: usize) {
    let now = Millis(0);
    let (mut server, mut input, mut output) = (Server::new(now), BytesMut::new(), BytesMut::new());
    for part in bytes.chunks(step.max(1)) {
        input.extend_from_slice(part);
        server.receive(now, &mut input);
        while let Some(action) = server.poll_action() {
            match action {
                Action::Authenticate(_) => server.authenticated(now, Ok(true)),
                Action::Ask { token, .. } => server.answered(now, token, Ok(Answer::Done)),
                Action::Close(_) => assert!(server.is_closed()),
            }
            server.receive(now, &mut input);
        }
        server.poll_transmit(now, &mut output);
        output.clear();
        server.poll_transmit(now, &mut output);
    }
}

fuzz_target!(|data: &[u8]| {
    let [side, step, bytes @ ..] = data else { return };
    let side = if side & 1 == 0 { Side::Client } else { Side::Server };
    let whole = decode(side, bytes, usize::MAX);
    assert_eq!(decode(side, bytes, usize::from(*step)), whole);
    for packet in &whole.0 {
        let mut bytes = BytesMut::new();
        encode(packet, &mut bytes).expect("it came from the wire");
        let again = Decoder::of(side).decode(&mut bytes).expect("it was accepted before");
        assert_eq!((again.as_ref(), bytes.is_empty()), (Some(packet), true));
    }
    serve(bytes, usize::from(*step));
});
