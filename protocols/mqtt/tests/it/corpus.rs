//! The packets of `data/mqtt-packets.tsv`, each answered as the file says, whole and cut at every byte.

use crate::support::{Rig, connect, unhex};
use bytes::BytesMut;
use moorline_mqtt::{
    Packet, Reason, Version,
    codec::{DecodeError, Decoder, Limits, encode},
    server::{Config, Event},
};

struct Row {
    version: Version,
    must: &'static str,
    bytes: Vec<u8>,
    name: &'static str,
}

fn rows() -> Vec<Row> {
    let rows: Vec<_> = include_str!("../data/mqtt-packets.tsv")
        .lines()
        .skip(1)
        .map(|line| {
            let [version, must, hex, name] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let version = if version == "5" { Version::V5 } else { Version::V311 };
            Row { version, must, bytes: unhex(hex), name }
        })
        .collect();
    assert_eq!(rows.len(), 132);
    rows
}

/// A megabyte, as the rows presume.
fn limits() -> Limits {
    Limits { packet_bytes: 1 << 20, ..Limits::default() }
}

fn decoder(row: &Row) -> Decoder {
    if row.bytes[0] >> 4 == 1 {
        Decoder::server(limits())
    } else {
        Decoder::server_after_connect(row.version, limits())
    }
}

fn decode(row: &Row, cut: usize) -> Result<Option<Packet>, DecodeError> {
    let mut decoder = decoder(row);
    let mut input = BytesMut::from(&row.bytes[..cut]);
    let early = decoder.decode(&mut input)?;
    if cut < row.bytes.len() && early.is_none() {
        input.extend_from_slice(&row.bytes[cut..]);
        return decoder.decode(&mut input);
    }
    Ok(early)
}

#[test]
fn every_packet_of_the_corpus_is_judged_as_it_says() {
    let mut wrong = Vec::new();
    for row in rows() {
        let judged = match decode(&row, row.bytes.len()) {
            Ok(Some(_)) => "accept",
            // More bytes would not help: its own header says that it is complete.
            Ok(None) => "incomplete",
            Err(_) => "reject",
        };
        if row.must != "any" && judged != row.must {
            wrong.push(format!("{:?} {}: {judged}, must {}", row.version, row.name, row.must));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn where_a_packet_is_cut_changes_nothing() {
    for row in rows() {
        let whole = decode(&row, row.bytes.len());
        for cut in 0..row.bytes.len() {
            assert_eq!(decode(&row, cut), whole, "{} cut at {cut}", row.name);
        }
    }
}

#[test]
fn what_is_accepted_can_be_encoded_and_comes_back_equal() {
    for row in rows() {
        let Ok(Some(packet)) = decode(&row, row.bytes.len()) else { continue };
        let version = match &packet {
            Packet::Connect(connect) => connect.version,
            _ => row.version,
        };
        let mut bytes = BytesMut::new();
        encode(&packet, version, &mut bytes).unwrap();
        let again = decoder(&row).decode(&mut bytes).unwrap().unwrap();
        assert_eq!(again, packet, "{}", row.name);
    }
}

/// What the session makes of the packets that are well-formed: only these end it.
#[rustfmt::skip]
const ENDINGS: [(&str, Option<u8>); 5] = [
    ("PUBLISH alias, empty topic",           Some(0x82)),
    ("AUTH empty (reason 0)",                Some(0x82)),
    ("AUTH 0x18 + method + data",            Some(0x82)),
    ("DISCONNECT reason only (0x04)",        None),
    ("DISCONNECT session expiry",            Some(0x82)),
];

fn session(row: &Row) -> Rig {
    let mut config = Config { packet_bytes_max: 1 << 20, topic_alias_max: 9, ..Config::default() };
    config.capabilities.wills = true;
    config.capabilities.retain = true;
    if row.bytes[0] >> 4 == 1 {
        return Rig::new(config, row.version);
    }
    Rig::open_with(config, connect(row.version))
}

#[test]
fn a_session_ends_on_every_packet_that_must_be_rejected() {
    for row in rows().iter().filter(|row| row.must != "accept") {
        let mut rig = session(row);
        rig.bytes(&row.bytes);
        let (reason, code) = rig.ended();
        let code = code.map(Reason::code);
        let is_connect = row.bytes[0] >> 4 == 1;
        let may = match (is_connect, row.version) {
            (false, Version::V5) => matches!(code, Some(0x81 | 0x82 | 0x94 | 0x95)),
            // A broken CONNECT is answered only if its version could be read.
            (true, Version::V5) => matches!(code, None | Some(0x81 | 0x82)),
            (true, _) if row.name == "CONNECT level 6" => code == Some(0x84),
            (_, Version::V31 | Version::V311) => code.is_none(),
        };
        assert!(may, "{:?} {}: {reason:?} {code:02x?}", row.version, row.name);
    }
}

#[test]
fn a_session_goes_on_after_every_packet_that_must_be_accepted() {
    for row in rows().iter().filter(|row| row.must == "accept") {
        let mut rig = session(row);
        rig.bytes(&row.bytes);
        if let Some((_, expected)) = ENDINGS.iter().find(|(name, _)| *name == row.name) {
            let (_, code) = rig.ended();
            assert_eq!(code.map(Reason::code), *expected, "{}", row.name);
            continue;
        }
        assert!(!rig.connection.is_closed(), "{:?} {}", row.version, row.name);
        match (row.bytes[0] >> 4, rig.connection.poll_event()) {
            (1, Some(Event::Connect(_)))
            | (3, Some(Event::Publish { .. }))
            | (8, Some(Event::Subscribe { .. })) => {}
            (4..=7, None) => {}
            (_, other) => panic!("{}: {other:?}", row.name),
        }
    }
}
