//! Schemas of profiles: what is read, and messages of theirs to and from JSON.

use moorline_dialects::thingsboard::proto::schema::{
    NotASchema, RPC_REQUEST_DEFAULT, RPC_RESPONSE_DEFAULT, SCHEMA_BYTES_MAX, Schema,
};
use proptest::prelude::*;

use super::support::json;

const READING: &str = r#"
    syntax = "proto3";
    package readings;
    enum Mode { OFF = 0; ON = 1; }
    message Inner { optional double x = 1; repeated int32 list = 2; }
    message Reading {
        double temperature = 1;
        optional bool ok = 2;
        int64 big = 3;
        uint64 huge = 4;
        string name = 5;
        bytes raw = 6;
        Mode mode = 7;
        Inner inner = 8;
        map<string, int32> counts = 9;
        repeated Inner several = 10;
        float small = 11;
        oneof choice { int32 left = 12; string right_hand = 13; }
        map<int32, Inner> parts = 14;
    }"#;

fn schema(text: &str) -> Schema {
    Schema::read(text).unwrap_or_else(|error| panic!("{error}"))
}

/// JSON through a message and back.
fn through(schema: &Schema, written: &str) -> Result<String, String> {
    let bytes = schema.from_json(&json(written)).map_err(|error| error.to_string())?;
    Ok(schema.to_json(&bytes).map_err(|error| error.to_string())?.to_string())
}

#[test]
fn the_last_message_counts_and_zeros_are_readings() {
    let reading = schema(READING);
    let zeros =
        r#"{"temperature":0.0,"big":0,"huge":0,"name":"","raw":"","mode":"OFF","small":0.0}"#;
    assert_eq!(reading.to_json(b"").unwrap().to_string(), zeros);
    // Field 1, a double of 25.5; field 2, true.
    let bytes = b"\x09\x00\x00\x00\x00\x00\x80\x39\x40\x10\x01";
    let expected = zeros.replace(r#""temperature":0.0,"#, r#""temperature":25.5,"ok":true,"#);
    assert_eq!(reading.to_json(bytes).unwrap().to_string(), expected);
    // A field that the schema does not have.
    assert_eq!(reading.to_json(b"\xa0\x06\x01").unwrap().to_string(), zeros);
}

#[test]
fn every_kind_of_field_has_its_json() {
    let written = r#"{"temperature":25.5,"ok":false,"big":-9223372036854775808,"huge":18446744073709551615,
        "name":"a","raw":"AQID","mode":"ON","inner":{"x":1,"list":[1,-2]},"counts":{"b":2,"a":1},
        "several":[{},{"list":[]}],"small":0.1,"rightHand":"r","parts":{"10":{},"9":{"x":2}}}"#;
    let expected = r#"{"temperature":25.5,"ok":false,"big":-9223372036854775808,"huge":18446744073709551615,"name":"a","raw":"AQID","mode":"ON","inner":{"x":1.0,"list":[1,-2]},"counts":{"a":1,"b":2},"several":[{},{}],"small":0.1,"right_hand":"r","parts":{"10":{},"9":{"x":2.0}}}"#;
    let reading = schema(READING);
    assert_eq!(through(&reading, written).as_deref(), Ok(expected));
    assert_eq!(through(&reading, expected).as_deref(), Ok(expected));
    let lenient =
        r#"{"temperature":"25.5","big":1e3,"mode":1,"name":{"a":1},"unknown":1,"ok":null}"#;
    let read = through(&reading, lenient).unwrap();
    let expected = r#"{"temperature":25.5,"big":1000,"huge":0,"name":"{\"a\":1}","raw":"","mode":"ON","small":0.0}"#;
    assert_eq!(read, expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    let reading = schema(READING);
    #[rustfmt::skip]
    let table = [
        "1", "[]", r#"{"temperature":"x"}"#, r#"{"temperature":true}"#, r#"{"ok":1}"#, r#"{"big":1.5}"#,
        r#"{"big":9223372036854775808}"#, r#"{"huge":-1}"#, r#"{"raw":"*"}"#, r#"{"mode":"BROKEN"}"#, r#"{"inner":1}"#,
        r#"{"inner":{"list":1}}"#, r#"{"inner":{"list":[2147483648]}}"#, r#"{"counts":[]}"#, r#"{"counts":{"a":"x"}}"#,
        r#"{"parts":{"x":{}}}"#, r#"{"temperature":1e999}"#, r#"{"small":1e99}"#,
    ];
    for written in table {
        assert!(through(&reading, written).is_err(), "{written}");
    }
    for bytes in
        [&b"\x09"[..], b"\x2a\x02\xff\xfe", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
    {
        assert!(reading.to_json(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn telemetry_may_bring_its_time() {
    let schema = schema(
        r#"syntax = "proto3";
        message SensorReading {
            int64 ts = 1;
            Values values = 2;
            message Values { optional double t = 3; }
        }"#,
    );
    let written = r#"{"ts":1451649600512,"values":{"t":2.5}}"#;
    assert_eq!(through(&schema, written).as_deref(), Ok(written));
}

#[test]
fn the_schemas_of_calls_have_defaults() {
    let call = schema(RPC_REQUEST_DEFAULT);
    let written = r#"{"method":"m","requestId":3,"params":{"pin":7}}"#;
    let expected = r#"{"method":"m","requestId":3,"params":"{\"pin\":7}"}"#;
    assert_eq!(through(&call, written).as_deref(), Ok(expected));
    let bytes = call.from_json(&json(r#"{"method":"m","requestId":3,"params":"on"}"#)).unwrap();
    assert_eq!(bytes, b"\x0a\x01m\x10\x03\x1a\x02on");
    let reply = schema(RPC_RESPONSE_DEFAULT);
    let read = reply.to_json(b"\x0a\x04{\"a\"").unwrap().to_string();
    assert_eq!(read, r#"{"payload":"{\"a\""}"#);
}

#[test]
fn what_is_no_schema_says_why() {
    let long = " ".repeat(SCHEMA_BYTES_MAX + 1);
    let nested = "message A {".repeat(2_000);
    let text = |text: &str| Schema::read(text).unwrap_err();
    assert_eq!(text(&long), NotASchema::TooLong);
    assert_eq!(text(""), NotASchema::Syntax);
    assert_eq!(text("syntax = \"proto3\";"), NotASchema::Empty);
    assert_eq!(text("syntax = \"proto2\"; message A {}"), NotASchema::Syntax);
    for wrong in [
        "syntax = \"proto3\"; message A { Missing m = 1; }",
        "syntax = \"proto3\"; message A { int32 a = 1; int32 b = 1; }",
        "syntax = \"proto3\"; import \"/etc/passwd\"; message A {}",
        "syntax = \"proto3\"; import \"schema.proto\"; message A {}",
        "syntax = \"proto3\"; message A {",
        "message",
        &format!("syntax = \"proto3\"; {nested}"),
    ] {
        assert!(matches!(text(wrong), NotASchema::Text(_)), "{wrong:.80}");
    }
    let imports = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\";\
        message A { google.protobuf.Timestamp at = 1; }";
    let read = through(&schema(imports), r#"{"at":{"seconds":5}}"#);
    assert_eq!(read.as_deref(), Ok(r#"{"at":{"seconds":5,"nanos":0}}"#));
}

#[test]
fn hostile_schemas_are_errors_and_no_overflow_of_the_stack() {
    const DEEP: usize = 15_000;
    let many = |part: &str| part.repeat(DEEP.min((SCHEMA_BYTES_MAX - 100) / part.len()));
    #[rustfmt::skip]
    let table = [
        format!("option (x) = {{ {}", many("a{")),
        format!("option (x) = {{ a: {}", many("[")),
        format!("option (x) = {{ a: {}", many("[{a:")),
        format!("option (x) = {}1", many("-")),
        format!("option {} = 1;", many("(a).")),
        format!("message A {{ oneof o {{ {}", many("group G = 1 {")),
        format!("message A {{ map<{}", many("map<string,")),
        format!("message A {{ {}", many("message A {")),
        format!("message A {{ reserved {}", many("1,")),
        format!("message A {{ int32 a = 1 [{}", many("(a) = {")),
        format!("message A {{ {}a b = 1; }}", many("a.")),
        many("/*"),
        many(";"),
        many("\""),
    ];
    for text in table {
        drop(Schema::read(&format!("syntax = \"proto3\"; {text}")));
        drop(Schema::read(&text));
    }
}

#[test]
fn messages_in_messages_have_an_end() {
    let chain = schema("syntax = \"proto3\"; message Chain { Chain next = 1; }");
    let nested = |levels: usize| r#"{"next":"#.repeat(levels) + "{}" + &"}".repeat(levels);
    assert!(through(&chain, &nested(63)).is_ok());
    // Each level is a key and a length before the rest.
    let mut bytes = Vec::new();
    for _ in 0..90 {
        let mut outer = vec![0x0a];
        let mut length = bytes.len();
        while length > 0x7f {
            outer.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap());
        outer.extend(&bytes);
        bytes = outer;
    }
    assert!(chain.to_json(&bytes).is_err());
}

#[test]
fn zeros_are_counted_before_they_fill_the_memory() {
    let fields: String = (1..=1000).map(|n| format!("int32 f{n} = {n};")).collect();
    let text = format!(
        "syntax = \"proto3\"; message Part {{ {fields} }} message All {{ repeated Part parts = 1; }}"
    );
    let schema = schema(&text);
    assert!(schema.to_json(&b"\x0a\x00".repeat(100)).is_ok());
    assert!(schema.to_json(&b"\x0a\x00".repeat(30_000)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        drop(schema(READING).to_json(&bytes));
    }

    #[test]
    fn no_text_makes_it_panic(text in r#"(syntax = "proto3";)?[a-z{}=;0-9" <>,.]{0,60}"#) {
        drop(Schema::read(&text));
    }
}
