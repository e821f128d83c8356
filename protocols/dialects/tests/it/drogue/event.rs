//! CloudEvents: what is said of an event, and what is read of one.

use bytes::Bytes;
use moorline_core::UnixMillis;
use moorline_dialects::drogue::event::{Change, CloudEvent, Names, NotJson, Publish, content_type};
use serde_json::{Value, json};

/// 2026-11-21T01:02:03.456Z
const AT: UnixMillis = UnixMillis(1_795_222_923_456);

pub(crate) const NAMES: Names<'static> =
    Names { application: ("plant", "7"), device: ("gate-7", "7-1"), sender: ("gw", "7-2") };

pub(crate) fn said(channel: &str, content_type: Option<&str>, data: &'static [u8]) -> CloudEvent {
    let publish = Publish {
        channel,
        content_type,
        data_schema: None,
        extensions: &[],
        data: &Bytes::from_static(data),
    };
    CloudEvent::said("id", AT, &NAMES, &publish).unwrap()
}

#[test]
fn content_types_are_as_said_or_found_out() {
    #[rustfmt::skip]
    let table = [
        (None, &b"{\"t\":1}"[..], Ok("application/json")),
        (None, b"21.5", Ok("application/json")),
        (None, b"t=1", Ok("application/octet-stream")),
        (None, b"", Ok("application/octet-stream")),
        (None, b"\"\xff\"", Ok("application/octet-stream")),
        (Some(""), b"t=1", Ok("application/octet-stream")),
        (Some("text/plain"), b"{}", Ok("text/plain")),
        (Some("application/cbor"), b"\xa0", Ok("application/cbor")),
        (Some("application/json"), b"{}", Ok("application/json")),
        (Some("application/json; charset=utf-8"), b"{}", Ok("application/json")),
        (Some("Text/JSON"), b"[]", Ok("application/json")),
        (Some("application/senml+json"), b"[]", Ok("application/json")),
        (Some("application/json"), b"t=1", Err(NotJson)),
        (Some("application/json"), b"", Err(NotJson)),
        (Some("application/senml+json"), b"{", Err(NotJson)),
        (Some("application/json"), br#""\ud800""#, Err(NotJson)),
        (Some("application/json"), br#"{"t":1e999}"#, Err(NotJson)),
        (Some("application/json"), b"1,2", Err(NotJson)),
        (Some("application/json"), b"1] [2", Err(NotJson)),
        (None, br#""\ud800""#, Ok("application/octet-stream")),
        (None, br#"{"t":1e999}"#, Ok("application/octet-stream")),
        (None, b"1,2", Ok("application/octet-stream")),
    ];
    for (declared, data, expected) in table {
        let expected = expected.map(str::to_owned);
        assert_eq!(content_type(declared, data), expected, "{declared:?} {data:?}");
    }
}

#[test]
fn an_event_has_all_that_applications_look_for() {
    let data = Bytes::from_static(b" {\"temp\": 21.50} ");
    let publish = Publish {
        channel: "telemetry",
        content_type: None,
        data_schema: Some("urn:x"),
        extensions: &[("lorawanport", "5"), ("Not Allowed", "x"), ("id", "x")],
        data: &data,
    };
    let event = CloudEvent::said("5b0f", AT, &NAMES, &publish).unwrap();
    let expected = json!({
        "specversion": "1.0", "id": "5b0f", "type": "io.drogue.event.v1",
        "source": "drogue://plant/gate%2D7", "subject": "telemetry",
        "time": "2026-11-21T01:02:03.456Z", "datacontenttype": "application/json",
        "dataschema": "urn:x", "instance": "drogue", "application": "plant", "applicationuid": "7",
        "device": "gate-7", "deviceuid": "7-1", "sender": "gw", "senderuid": "7-2",
        "partitionkey": "plant/gw", "lorawanport": "5", "data": { "temp": 21.5 },
    });
    let structured = event.structured();
    assert_eq!(serde_json::from_slice::<Value>(&structured).unwrap(), expected);
    let text = std::str::from_utf8(&structured).unwrap();
    assert!(text.ends_with(r#""data":{"temp": 21.50}}"#), "as it was written: {text}");
}

#[test]
fn what_is_no_json_is_base64() {
    let event = said("raw", None, b"\x00\xff");
    let structured: Value = serde_json::from_slice(&event.structured()).unwrap();
    assert_eq!(structured["data_base64"], "AP8=");
    assert_eq!(structured["datacontenttype"], "application/octet-stream");
    assert!(structured.get("data").is_none());
}

#[test]
fn what_is_written_is_read_as_the_same() {
    for (content_type, data) in [
        (None, &b"{\"t\":1}"[..]),
        (None, b"\x00\xff"),
        (Some("text/plain"), b"hello"),
        (None, b""),
        (None, b"null"),
    ] {
        let event = said("c", content_type, data);
        assert_eq!(CloudEvent::read(&event.structured()), Some(event), "{data:?}");
    }
    // What one reader takes and another one does not is no JSON.
    let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
    let odd = [r#""\ud800""#, r#""\ud83d\ude00""#, r#"{"t":1e999}"#, r#"{"t":1e308}"#];
    for data in odd.map(str::to_owned).into_iter().chain((120..140).map(deep)) {
        let data = Bytes::from(data);
        let publish = Publish {
            channel: "c",
            content_type: None,
            data_schema: None,
            extensions: &[],
            data: &data,
        };
        let event = CloudEvent::said("id", AT, &NAMES, &publish).unwrap();
        let read = CloudEvent::read(&event.structured());
        assert!(read.is_some(), "it would be skipped: {data:?}");
        let is_json = event.get("datacontenttype") == Some("application/json");
        let declared = content_type(Some("application/json"), &data);
        assert_eq!(declared.is_ok(), is_json, "one judgement: {data:?}");
        if !is_json {
            assert_eq!(read.unwrap().data(), &data);
        }
    }
    let connection = CloudEvent::connection("id", AT, &NAMES, false);
    let said: Value = serde_json::from_slice(&connection.structured()).unwrap();
    assert_eq!(said["type"], "io.drogue.connection.v1");
    assert_eq!(
        (&said["subject"], &said["data"]),
        (&json!("connection"), &json!({"connected": false}))
    );
    for (change, name) in
        [(Change::Created, "created"), (Change::Changed, "changed"), (Change::Deleted, "deleted")]
    {
        let registry = CloudEvent::registry("id", AT, &NAMES, change);
        let said: Value = serde_json::from_slice(&registry.structured()).unwrap();
        assert_eq!(
            (&said["type"], &said["subject"]),
            (&json!("io.drogue.registry.v1"), &json!("devices"))
        );
        assert_eq!(said["data"], json!({ "change": name }));
    }
    let whole =
        |more: &str| format!(r#"{{"specversion":"1.0","id":"1","type":"t","source":"s",{more}}}"#);
    let typed = CloudEvent::read(whole(r#""sampledrate":7,"hot":true,"n":null"#).as_bytes());
    let typed = typed.unwrap();
    assert_eq!((typed.get("sampledrate"), typed.get("hot")), (Some("7"), Some("true")));
    assert_eq!(typed.get("n"), None);
    for wrong in [r#""subject":1"#, r#""datacontenttype":1"#, r#""data_base64":1"#] {
        assert_eq!(CloudEvent::read(whole(wrong).as_bytes()), None, "{wrong}");
    }
    for wrong in [
        "",
        "[]",
        "{}",
        r#"{"specversion":"1.0","id":"1","type":"t"}"#,
        r#"{"specversion":"1.0","id":"1","type":"t","source":"s","x":{}}"#,
        r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data_base64":"!"}"#,
    ] {
        assert_eq!(CloudEvent::read(wrong.as_bytes()), None, "{wrong}");
    }
}
