//! Cases 39 and 40: web pages of others, and frames that RFC 6455 forbids.

use super::{Raw, Target, connect};
use crate::harness::{
    packet::{Version, frame},
    wait::until_true,
};

const MASK: [u8; 4] = [9, 8, 7, 6];
const REFUSED: &str = "moorline_websocket_handshakes_refused_total";
const VIOLATED: &str = "moorline_websocket_violations_total";

/// A handshake with more header lines.
fn request(more: &str) -> String {
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

fn shake(target: &Target, more: &str) -> (Raw, String) {
    let mut raw = Raw::to(target.ws);
    raw.say(request(more).as_bytes());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(raw.hear(1));
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().to_owned();
    (raw, status)
}

/// After the handshake.
fn upgraded(target: &Target) -> Raw {
    let (raw, status) = shake(target, SUBPROTOCOL);
    assert_eq!(status, "101");
    raw
}

/// A client's frame: first byte, payload, masked.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        small @ 0..=125 => out.push(0x80 | small as u8),
        large => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(large).unwrap().to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

#[test]
fn pages_of_others_and_other_subprotocols_stay_outside() {
    let mut target = Target::start("", "[ws]\norigins = [\"https://a.example\"]\n");
    target.abused("case 39", &format!("{REFUSED}{{reason=\"origin\"}}"), |target| {
        let with = |origin: &str| format!("{SUBPROTOCOL}Origin: {origin}\r\n");
        #[rustfmt::skip]
        let table = [
            (with("https://a.example"),              "101"),
            (with("https://evil.example"),           "403"),
            (with("https://a.example.evil.example"), "403"),
            (with("http://a.example"),               "403"),
            (with("null"),                           "403"),
            // No browser, no origin.
            (SUBPROTOCOL.to_owned(),                 "101"),
            (String::new(),                          "400"),
            ("Sec-WebSocket-Protocol: soap\r\n".to_owned(), "400"),
        ];
        for (more, expected) in table {
            assert_eq!(shake(target, &more).1, expected, "{more}");
        }
    });
    assert!(target.metric(&format!("{REFUSED}{{reason=\"subprotocol\"}}")) >= 2);
}

#[test]
fn frames_that_the_rfc_forbids_are_closed_with_their_code() {
    let mut target = Target::start("", "");
    target.abused("case 40", &format!("{VIOLATED}{{reason=\"too_large\"}}"), |target| {
        #[rustfmt::skip]
        let table: [(&str, Vec<u8>, u16); 9] = [
            ("unmasked",           b"\x82\x01x".to_vec(),           1002),
            ("fragmented control", masked(0x09, b"x"),              1002),
            ("large control",      masked(0x89, &[0; 126]),         1002),
            ("2^63 bytes",         b"\x82\xff\x80\0\0\0\0\0\0\0".iter().chain(&MASK).copied().collect(), 1009),
            ("2^63 - 1 bytes",     b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".iter().chain(&MASK).copied().collect(), 1009),
            ("text",               masked(0x81, b"x"),              1003),
            ("compressed",         masked(0xC2, b"x"),              1002),
            ("reserved opcode",    masked(0x83, b"x"),              1002),
            ("bad close reason",   masked(0x88, b"\x03\xe8\xff"),   1007),
        ];
        for (what, bytes, code) in table {
            let mut raw = upgraded(target);
            raw.say(&bytes);
            let mut expected = vec![0x88, 2];
            expected.extend(code.to_be_bytes());
            assert_eq!(raw.rest(), expected, "{what}");
        }
    });
    assert!(target.reached("packet_bytes_max") >= 2);
}

#[test]
fn frames_may_cut_packets_anywhere_and_pings_cost_one_answer() {
    let mut target = Target::start("", "");
    let counted = "moorline_connections_opened_total{listener=\"ws\"}";
    target.abused("case 40, allowed", counted, |target| {
        let said =
            [connect(Version::V4, 2, b"cut", b""), frame(0xC0, &[]), frame(0xC0, &[])].concat();
        let heard = b"\x20\x02\x00\x00\xd0\x00\xd0\x00";
        for step in [1, 3, said.len()] {
            let mut raw = upgraded(target);
            for part in said.chunks(step) {
                raw.say(&masked(0x82, part));
            }
            let mut payload = Vec::new();
            while payload.len() < heard.len() {
                let header = raw.hear(2);
                assert_eq!(header[0], 0x82, "binary and whole");
                payload.extend(raw.hear(header[1].into()));
            }
            assert_eq!(payload, heard, "{step}");
        }
        // Pings without end, from one that never listens: the node keeps one answer at most, and the deadline of its first packet.
        let mut raw = upgraded(target);
        for _ in 0..20 {
            raw.say(&masked(0x89, &[1; 125]).repeat(1_000));
        }
        until_true("its time is up", crate::harness::wait::SOON, || {
            target.reached("first_packet_ms") > 0
        });
        drop(raw);
    });
}
