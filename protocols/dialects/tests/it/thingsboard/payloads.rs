//! Payloads by profile and address: which encoding counts, and each kind in both.

use moorline_dialects::thingsboard::{
    attributes::{Changed, Found, Wanted},
    calls::{DeviceCall, ServerCall},
    claim::Claim,
    gateway::Request,
    payloads::{
        Encoding, Payloads, ProvisionEncoding, Schemas, provision_answer, provision_request,
    },
    proto::schema::{RPC_REQUEST_DEFAULT, RPC_RESPONSE_DEFAULT, Schema},
    provision::Answer,
    topics::{Form, GatewayPublish},
    values::{Sample, Value},
};

use super::support::{NOW_MS, RULES, entries, json};

pub(crate) fn schemas(json_too: bool, json_down_v1: bool) -> Payloads {
    let telemetry = "syntax = \"proto3\"; message T { optional double t = 1; }";
    Payloads::Protobuf(Box::new(Schemas {
        telemetry: Schema::read(telemetry).unwrap(),
        attributes: Schema::read("syntax = \"proto3\"; message A { string a = 1; }").unwrap(),
        call: Schema::read(RPC_REQUEST_DEFAULT).unwrap(),
        call_reply: Schema::read(RPC_RESPONSE_DEFAULT).unwrap(),
        json_too,
        json_down_v1,
    }))
}

#[test]
fn the_address_decides_before_the_profile() {
    let protobuf = schemas(false, false);
    let json_down = schemas(false, true);
    let kind = |encoding: Encoding<'_>| match encoding {
        Encoding::Json => 'j',
        Encoding::Protobuf(_) => 'p',
        Encoding::FixedProtobuf => 'f',
    };
    #[rustfmt::skip]
    let table = [
        // up and down, by the profile: JSON, protobuf, protobuf with JSON for v1
        (Form::V1,         "jj", "pp", "pj"),
        (Form::V2,         "jj", "pp", "pp"),
        (Form::V2Json,     "jj", "jj", "jj"),
        (Form::V2Protobuf, "ff", "pp", "pp"),
    ];
    for (form, by_json, by_protobuf, by_json_down) in table {
        for (payloads, expected) in
            [(&Payloads::Json, by_json), (&protobuf, by_protobuf), (&json_down, by_json_down)]
        {
            let kinds: String =
                [payloads.up(form), payloads.down(form)].map(kind).into_iter().collect();
            assert_eq!(kinds, expected, "{form:?}");
        }
    }
}

#[test]
fn telemetry_and_attributes_go_by_the_schema_or_as_json() {
    let payloads = schemas(false, false);
    let both = schemas(true, false);
    let strict = payloads.up(Form::V1);
    let lenient = both.up(Form::V1);
    let half = vec![Sample { ts_ms: NOW_MS, values: entries(&[("t", Value::Double(0.5))]) }];
    let bytes = b"\x09\x00\x00\x00\x00\x00\x00\xe0\x3f";
    let written = br#"{"t":0.5}"#;
    assert_eq!(strict.telemetry(bytes, NOW_MS, &RULES), Ok(half.clone()));
    assert_eq!(lenient.telemetry(bytes, NOW_MS, &RULES), Ok(half.clone()));
    assert_eq!(lenient.telemetry(written, NOW_MS, &RULES), Ok(half.clone()));
    assert_eq!(Encoding::Json.telemetry(written, NOW_MS, &RULES), Ok(half));
    assert!(strict.telemetry(written, NOW_MS, &RULES).is_err());
    assert!(Encoding::FixedProtobuf.telemetry(bytes, NOW_MS, &RULES).is_err());
    let named = Ok(entries(&[("a", Value::Text("x".to_owned()))]));
    assert_eq!(strict.attributes(b"\x0a\x01x", &RULES), named);
    assert_eq!(Encoding::Json.attributes(br#"{"a":"x"}"#, &RULES), named);
    for encoding in [strict, lenient, Encoding::Json, Encoding::FixedProtobuf] {
        assert!(encoding.telemetry(b"", NOW_MS, &RULES).is_err(), "{encoding:?}");
        assert!(encoding.attributes(b"", &RULES).is_err(), "{encoding:?}");
    }
}

#[test]
fn requests_calls_and_claims_are_read_in_both() {
    let payloads = schemas(false, false);
    let protobuf = payloads.up(Form::V1);
    let named = Wanted::Named { client: vec!["a".to_owned()], shared: vec![] };
    assert_eq!(protobuf.attributes_request(b"\x0a\x01a"), Ok(named.clone()));
    assert_eq!(Encoding::FixedProtobuf.attributes_request(b"\x0a\x01a"), Ok(named.clone()));
    assert_eq!(Encoding::Json.attributes_request(br#"{"clientKeys":"a"}"#), Ok(named));
    assert!(Encoding::Json.attributes_request(b"").is_err());
    assert_eq!(protobuf.call_reply(b"\x0a\x01x").as_deref(), Ok(r#"{"payload":"x"}"#));
    assert_eq!(Encoding::Json.call_reply(b"").as_deref(), Ok(""));
    let call = DeviceCall { method: "m".to_owned(), params: json("1") };
    assert_eq!(protobuf.device_call(b"\x0a\x01m\x12\x011"), Ok(call.clone()));
    assert_eq!(Encoding::Json.device_call(br#"{"method":"m","params":1}"#), Ok(call));
    let claim = Claim { secret_key: "s".to_owned(), duration_ms: None };
    assert_eq!(protobuf.claim(b"\x0a\x01s"), Ok(claim.clone()));
    assert_eq!(Encoding::Json.claim(br#"{"secretKey":"s"}"#), Ok(claim));
    for encoding in [protobuf, Encoding::Json] {
        assert_eq!(encoding.claim(b""), Ok(Claim::default()));
    }
    let gateway = |encoding: Encoding<'_>, bytes: &[u8]| {
        encoding.gateway(GatewayPublish::Disconnect, bytes, NOW_MS, &RULES)
    };
    let gone = Ok(Request::Disconnect { device: "D".to_owned() });
    assert_eq!(gateway(protobuf, b"\x0a\x01D"), gone);
    assert_eq!(gateway(Encoding::Json, br#"{"device":"D"}"#), gone);
    assert!(gateway(Encoding::Json, b"").is_err());
}

#[test]
fn what_goes_down_is_written_in_both() {
    let payloads = schemas(false, false);
    let protobuf = payloads.down(Form::V2);
    let call = ServerCall { id: 3, method: "m".to_owned(), params: json("{}") };
    let written = protobuf.write_call(&call).unwrap();
    assert_eq!(&written[..], b"\x0a\x01m\x10\x03\x1a\x02{}");
    let written = Encoding::Json.write_call(&call).unwrap();
    assert_eq!(&written[..], br#"{"method":"m","params":{}}"#);
    assert!(Encoding::FixedProtobuf.write_call(&call).is_err());
    let found = Found { client: entries(&[("a", Value::Long(1))]), shared: vec![] };
    assert_eq!(&Encoding::Json.write_found(7, &found)[..], br#"{"client":{"a":1}}"#);
    assert_eq!(protobuf.write_found(7, &found)[..2], *b"\x08\x07");
    let changed = Changed { updated: vec![], deleted: vec!["k".to_owned()] };
    assert_eq!(&Encoding::Json.write_changed(&changed)[..], br#"{"deleted":["k"]}"#);
    assert_eq!(&protobuf.write_changed(&changed)[..], b"\x12\x01k");
    assert_eq!(&Encoding::Json.write_call_answer(3, "1")[..], b"1");
    assert_eq!(&protobuf.write_call_answer(3, "1")[..], b"\x08\x03\x12\x011");
    let gateway = Encoding::Json.write_gateway_changed("D", &changed);
    assert_eq!(&gateway[..], br#"{"device":"D","data":{"deleted":["k"]}}"#);
    assert_eq!(protobuf.write_gateway_changed("D", &changed)[..3], *b"\x0a\x01D");
    let gateway = Encoding::Json.write_gateway_call("D", &call);
    assert_eq!(&gateway[..], br#"{"device":"D","data":{"id":3,"method":"m","params":{}}}"#);
}

#[test]
fn who_asks_for_credentials_is_answered_in_kind() {
    let written = br#"{"provisionDeviceKey":"k","provisionDeviceSecret":"s"}"#;
    let (request, encoding) = provision_request(written).unwrap();
    assert_eq!((request.key.as_str(), encoding), ("k", ProvisionEncoding::Json));
    assert_eq!(provision_answer(encoding, &Answer::Failure)[..2], *b"{\"");
    let (request, encoding) = provision_request(b"\x1a\x06\x0a\x01k\x12\x01s").unwrap();
    assert_eq!((request.key.as_str(), encoding), ("k", ProvisionEncoding::Protobuf));
    assert_eq!(&provision_answer(encoding, &Answer::Failure)[..], b"\x08\x03");
    for wrong in [&b""[..], b"{}", b"{", b"\x1a"] {
        assert!(provision_request(wrong).is_err(), "{wrong:?}");
    }
}
