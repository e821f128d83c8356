//! Payloads: both formats, their limits, and one turned into the other.

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{Declined, Event, EventKind, Format},
    port::Refusal,
};
use moorline_dialects::fostrom::payload::{self, DEPTH_MAX, PAYLOAD_BYTES_MAX};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{mail, msgpack, text};

#[test]
fn both_formats_are_read() {
    let table = [
        "null",
        "true",
        "-1",
        "255",
        "65536",
        "-2147483649",
        "21.5",
        "\"été\"",
        "[]",
        "{}",
        "{\"a\":[1,{\"b\":null}],\"c\":\"\"}",
    ];
    for json in table {
        let expected: Value = serde_json::from_str(json).unwrap();
        assert_eq!(payload::read(Format::Json, json.as_bytes()), Ok(expected.clone()));
        assert_eq!(payload::read(Format::MsgPack, &msgpack(json)), Ok(expected.clone()));
        assert_eq!(payload::write(Format::MsgPack, expected.clone()), msgpack(json));
        assert_eq!(text(&payload::write(Format::Json, expected)), json);
    }
    for format in [Format::Json, Format::MsgPack] {
        assert_eq!(payload::read(format, b""), Ok(Value::Null));
    }
}

#[test]
fn what_has_no_form_in_json_is_refused() {
    #[rustfmt::skip]
    let table: [(Format, &[u8], Option<Value>); 18] = [
        (Format::MsgPack, b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", Some(json!(u64::MAX))),
        (Format::MsgPack, b"\xd4\x00\x00",                  Some(Value::Null)), // undefined
        (Format::MsgPack, b"\xca\x41\xac\x00\x00",          Some(json!(21.5))),
        (Format::MsgPack, b"\xd4\x01\x00",                  None), // another extension
        (Format::MsgPack, b"\xc4\x01\x00",                  None), // binary
        (Format::MsgPack, b"\xcb\x7f\xf8\0\0\0\0\0\0",      None), // NaN
        (Format::MsgPack, b"\xca\x7f\x80\0\0",              None), // infinity
        (Format::MsgPack, b"\x81\x01\x01",                  None), // a number as key
        (Format::MsgPack, b"\xa2\xc3\x28",                  None), // not UTF-8
        (Format::MsgPack, b"\xc0\xc0",                      None), // two values
        (Format::MsgPack, b"\xc1",                          Some(Value::Null)), // reserved: the library reads nil
        (Format::MsgPack, b"\xdd\xff\xff\xff\xff",          None), // announces much
        (Format::MsgPack, b"\xc6\xff\xff\xff\xff",          None),
        (Format::Json,    b"{\"a\":1} x",                   None),
        (Format::Json,    b"{\"a\":NaN}",                   None),
        (Format::Json,    b"\"\xc3\x28\"",                  None),
        (Format::Json,    b"{",                             None),
        (Format::Json,    b" ",                             None),
    ];
    for (format, bytes, expected) in table {
        match (payload::read(format, bytes), expected) {
            (Ok(value), Some(expected)) => assert_eq!(value, expected),
            (Err(Declined::Unreadable(_)), None) => {}
            (other, _) => panic!("{bytes:?}: {other:?}"),
        }
    }
}

#[test]
fn depth_and_size_are_limited() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let maps = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    for (levels, fits) in [(DEPTH_MAX, true), (DEPTH_MAX + 1, false), (120, false)] {
        for json in [nested(levels), maps(levels)] {
            assert_eq!(payload::read(Format::Json, json.as_bytes()).is_ok(), fits, "{levels}");
            assert_eq!(payload::read(Format::MsgPack, &msgpack(&json)).is_ok(), fits, "{levels}");
        }
    }
    assert!(payload::read(Format::Json, "[".repeat(60_000).as_bytes()).is_err());
    assert!(payload::read(Format::MsgPack, &[0x91; 60_000]).is_err());

    let string = |chars: usize| format!("\"{}\"", "x".repeat(chars));
    let fits = payload::read(Format::Json, string(PAYLOAD_BYTES_MAX - 2).as_bytes());
    assert!(fits.is_ok());
    for format in [Format::Json, Format::MsgPack] {
        let large = payload::read(format, string(PAYLOAD_BYTES_MAX - 1).as_bytes());
        assert_eq!(large, Err(Declined::Refused(Refusal::TooLarge)));
    }
    // 10,005 bytes of MessagePack that are 70,000 of JSON.
    let mut grows = b"\x81\xa1a\xdc\x27\x10".to_vec();
    grows.resize(grows.len() + 10_000, 0xc2);
    let grows = event(EventKind::Datapoint, Format::MsgPack, Bytes::from(grows));
    assert!(payload::event(grows).is_ok());
    let mut grows = b"\x81\xa1a\xdc\x4e\x20".to_vec();
    grows.resize(grows.len() + 20_000, 0xc2);
    let grows = event(EventKind::Datapoint, Format::MsgPack, Bytes::from(grows));
    assert_eq!(payload::event(grows), Err(Declined::Refused(Refusal::TooLarge)));
}

fn event(kind: EventKind, format: Format, body: Bytes) -> Event {
    Event { kind, channel: Text::from("env"), format, body }
}

#[test]
fn events_have_json_bodies_or_none() {
    use EventKind::{Datapoint, Message, System};
    #[rustfmt::skip]
    let table = [
        (Datapoint, "{\"t\":21.5}", Some("{\"t\":21.5}")),
        (Datapoint, "{}",           None),
        (Datapoint, "null",         None),
        (Datapoint, "[1]",          None),
        (Datapoint, "7",            None),
        (Message,   "{\"t\":1}",    Some("{\"t\":1}")),
        (Message,   "{}",           Some("{}")),
        (Message,   "null",         Some("")),
        (Message,   "\"text\"",     None),
        (Message,   "[]",           None),
        (System,    "{\"v\":[1]}",  Some("{\"v\":[1]}")),
        (System,    "[1]",          Some("[1]")),
        (System,    "null",         Some("")),
    ];
    for (kind, body, expected) in table {
        for format in [Format::Json, Format::MsgPack] {
            let bytes = match format {
                Format::Json => Bytes::from_static(body.as_bytes()),
                Format::MsgPack => msgpack(body),
            };
            let read = payload::event(event(kind, format, bytes)).ok();
            assert!(read.iter().all(|event| event.format == Format::Json));
            let read = read.map(|event| event.body);
            assert_eq!(read.as_ref().map(text), expected, "{kind:?} {body} {format:?}");
        }
    }
    let empty = |kind| payload::event(event(kind, Format::Json, Bytes::new()));
    assert_eq!(empty(Message).unwrap().body, "");
    assert!(empty(Datapoint).is_err() && empty(System).is_ok());
    // What came as JSON goes on as it came: spaces, order, and digits that no float has.
    let exact = Bytes::from_static(b"{ \"z\": 0.10000000000000000001, \"a\": 1 }");
    let read = payload::event(event(Datapoint, Format::Json, exact.clone())).unwrap();
    assert_eq!(read.body, exact);
    let nameless = Event { channel: Text::from("a b"), ..event(System, Format::Json, exact) };
    assert_eq!(payload::event(nameless), Err(Declined::UnknownSchema));
}

#[test]
fn mail_is_written_as_the_connection_wants_it() {
    let json = mail("{\"gate\":1}");
    assert_eq!(payload::mail(Format::Json, json.clone()), json);
    let packed = payload::mail(Format::MsgPack, json.clone());
    assert_eq!(packed.payload, msgpack("{\"gate\":1}"));
    assert_eq!(payload::mail(Format::Json, packed), json);
    assert_eq!(payload::mail(Format::MsgPack, mail("")).payload, "");
    assert_eq!(payload::mail(Format::MsgPack, mail("{broken")).payload, "", "not a dead end");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn msgpack_loses_nothing_of_json(value in value()) {
        let packed = payload::write(Format::MsgPack, value.clone());
        prop_assert_eq!(payload::read(Format::MsgPack, &packed), Ok(value));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Json, Format::MsgPack] {
            if let Ok(value) = payload::read(format, &bytes) {
                let again = payload::read(format, &payload::write(format, value.clone()));
                prop_assert_eq!(again, Ok(value));
            }
        }
    }
}
