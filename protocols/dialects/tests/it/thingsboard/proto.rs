//! The fixed messages of protobuf: golden bytes, both ways, and what is refused.

use moorline_dialects::thingsboard::{
    attributes::{Changed, Found, Scope, Wanted},
    calls::{DeviceCall, ServerCall},
    claim::Claim,
    credentials::Credentials,
    gateway::{AttributesRequest, DeviceTelemetry, Request},
    json::Json,
    proto::{fixed, messages as m},
    provision,
    topics::GatewayPublish,
    values::{Sample, Value},
};
use proptest::prelude::*;
use prost::Message;

use super::support::{NOW_MS, basic, entries, json, text, token};

#[test]
fn a_device_asks_claims_and_calls() {
    let read = fixed::attributes_request;
    let named = Wanted::Named { client: vec!["a".into(), "b".into()], shared: vec!["c".into()] };
    assert_eq!(read(b"\x0a\x03a,b\x12\x01c"), Ok(named));
    assert_eq!(read(b""), Ok(Wanted::All));
    let claim = Claim { secret_key: "s".to_owned(), duration_ms: Some(300) };
    assert_eq!(fixed::claim(b"\x0a\x01s\x10\xac\x02"), Ok(claim));
    assert_eq!(fixed::claim(b""), Ok(Claim::default()));
    let call = |params| Ok(DeviceCall { method: "m".to_owned(), params });
    assert_eq!(fixed::device_call(b"\x0a\x01m\x12\x02{}"), call(Json::Object(vec![])));
    assert_eq!(fixed::device_call(b"\x0a\x01m\x12\x02on"), call(Json::from("on")));
    assert!(fixed::device_call(b"").is_err());
    for wrong in [&b"\x0a"[..], b"\x0a\x01\xff", b"{}"] {
        assert!(read(wrong).is_err() && fixed::claim(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn attributes_are_sent_by_their_numbers() {
    let client = entries(&[("a", Value::Long(1))]);
    let found = fixed::found(7, &Found { client, shared: vec![] });
    // requestId 7; in field 2 a TsKv, in its field 2 key "a", type LONG, 1; field 4 true.
    assert_eq!(&found[..], b"\x08\x07\x12\x09\x12\x07\x0a\x01a\x10\x01\x20\x01\x20\x01");
    let updated = entries(&[
        ("b", Value::Bool(true)),
        ("d", Value::Double(0.5)),
        ("s", text("x")),
        ("j", Value::Json(json("[1]"))),
    ]);
    let changed = Changed { updated, deleted: vec!["k".to_owned()] };
    let read = m::AttributeUpdateNotification::decode(fixed::changed(&changed)).unwrap();
    let kinds: Vec<_> = read.shared_updated.iter().map(|ts_kv| ts_kv.kv.clone().unwrap()).collect();
    assert!(kinds[0].value_type() == m::KeyValueType::Boolean && kinds[0].bool_v);
    assert!(kinds[1].value_type() == m::KeyValueType::Double && kinds[1].double_v == 0.5);
    assert!(kinds[2].value_type() == m::KeyValueType::String && kinds[2].string_v == "x");
    assert!(kinds[3].value_type() == m::KeyValueType::Json && kinds[3].json_v == "[1]");
    assert_eq!(read.shared_deleted, ["k"]);
}

fn kv(key: &str, kind: m::KeyValueType) -> m::KeyValue {
    let (key, value_type) = (key.to_owned(), kind.into());
    m::KeyValue { key, value_type, long_v: 5, json_v: "{\"a\":1}".to_owned(), ..Default::default() }
}

fn telemetry(device: &str, ts: i64, kv: Vec<m::KeyValue>) -> m::GatewayTelemetry {
    let msg = m::PostTelemetry { ts_kv_list: vec![m::TsKvList { ts, kv }] };
    let msg = m::Telemetry { device_name: device.to_owned(), msg: Some(msg) };
    m::GatewayTelemetry { msg: vec![msg] }
}

#[test]
fn a_gateway_speaks_for_its_devices() {
    let read = |publish, bytes: &[u8]| fixed::gateway(publish, bytes, NOW_MS);
    let device = || "D".to_owned();
    let connect = Request::Connect { device: device(), device_type: "default".to_owned() };
    assert_eq!(read(GatewayPublish::Connect, b"\x0a\x01D"), Ok(connect));
    let disconnect = Request::Disconnect { device: device() };
    assert_eq!(read(GatewayPublish::Disconnect, b"\x0a\x01D"), Ok(disconnect));
    let reply = Request::CallReply { device: device(), id: 3, data: "{}".to_owned() };
    assert_eq!(read(GatewayPublish::CallReply, b"\x0a\x01D\x10\x03\x1a\x02{}"), Ok(reply));
    for (keys, several) in [(&["k"][..], false), (&["k", "l"], true)] {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let message = m::GatewayAttributesRequest {
            id: 1,
            device_name: device(),
            client: true,
            keys: keys.clone(),
        };
        let scope = Scope::Client;
        let expected = AttributesRequest { id: 1, device: device(), scope, keys, several };
        let read = read(GatewayPublish::AttributesRequest, &message.encode_to_vec());
        assert_eq!(read, Ok(Request::AttributesRequest(expected)));
    }
    let claim = b"\x0a\x08\x0a\x01D\x12\x03\x0a\x01s";
    let claimed = Claim { secret_key: "s".to_owned(), duration_ms: None };
    let expected = Request::Claim(vec![(device(), claimed)]);
    assert_eq!(read(GatewayPublish::Claim, claim), Ok(expected));
    let attributes = b"\x0a\x0c\x0a\x01D\x12\x07\x0a\x05\x0a\x01k\x10\x00";
    let expected = Request::Attributes(vec![(device(), entries(&[("k", Value::Bool(false))]))]);
    assert_eq!(read(GatewayPublish::Attributes, attributes), Ok(expected));
}

#[test]
fn telemetry_of_a_gateway_is_in_field_three() {
    let values = vec![kv("l", m::KeyValueType::Long), kv("j", m::KeyValueType::Json)];
    let expected = entries(&[("l", Value::Long(5)), ("j", Value::Json(json(r#"{"a":1}"#)))]);
    for (ts, ts_ms) in [(7, 7), (0, NOW_MS)] {
        let bytes = telemetry("D", ts, values.clone()).encode_to_vec();
        let samples = vec![Sample { ts_ms, values: expected.clone() }];
        let device = DeviceTelemetry { device: "D".to_owned(), samples, latencies: vec![] };
        let read = fixed::gateway(GatewayPublish::Telemetry, &bytes, NOW_MS);
        assert_eq!(read, Ok(Request::Telemetry(vec![device])));
    }
    let golden = b"\x0a\x10\x0a\x01D\x1a\x0b\x0a\x09\x12\x07\x0a\x01t\x10\x01\x20\x02";
    let read = fixed::gateway(GatewayPublish::Telemetry, golden, NOW_MS).unwrap();
    let Request::Telemetry(read) = read else { panic!("{read:?}") };
    assert_eq!(read[0].samples[0].values, entries(&[("t", Value::Long(2))]));
}

#[test]
fn gateways_are_refused_what_json_would_be() {
    let bad_json = m::KeyValue { json_v: "{".to_owned(), ..kv("j", m::KeyValueType::Json) };
    let odd = m::KeyValue { double_v: f64::NAN, ..kv("d", m::KeyValueType::Double) };
    #[rustfmt::skip]
    let table = [
        telemetry("", 1, vec![]), telemetry("D", 1, vec![kv("", m::KeyValueType::Long)]), telemetry("D", 1, vec![bad_json]),
        telemetry("D", 1, vec![odd]), m::GatewayTelemetry::default(),
    ];
    for message in table {
        let read = fixed::gateway(GatewayPublish::Telemetry, &message.encode_to_vec(), NOW_MS);
        assert!(read.is_err(), "{message:?}");
    }
    use GatewayPublish::{Attributes, AttributesRequest, CallReply, Claim, Connect, Disconnect};
    for publish in [Attributes, AttributesRequest, CallReply, Claim, Connect, Disconnect] {
        for bytes in [&b""[..], b"\x0a", b"\x0a\x02\x0a\x00"] {
            // A name is any bytes that are UTF-8: only the empty ones are refused for all.
            let named = bytes.len() == 4 && matches!(publish, CallReply | Connect | Disconnect);
            assert!(
                named || fixed::gateway(publish, bytes, NOW_MS).is_err(),
                "{publish:?} {bytes:?}"
            );
        }
    }
}

#[test]
fn a_gateway_is_sent_what_its_devices_get() {
    let request = AttributesRequest {
        id: 1,
        device: "D".to_owned(),
        scope: Scope::Shared,
        keys: vec!["k".to_owned()],
        several: true,
    };
    let shared = entries(&[("k", Value::Long(1))]);
    let sent = fixed::gateway_found(&request, &Found { client: vec![], shared });
    let read = m::GatewayAttributeResponse::decode(sent).unwrap();
    let response = read.response_msg.unwrap();
    assert!(read.device_name == "D" && response.is_multiple_attributes_request);
    assert_eq!(response.shared_attribute_list.len(), 1);
    let deleted = Changed { updated: vec![], deleted: vec!["k".to_owned()] };
    assert_eq!(&fixed::gateway_changed("D", &deleted)[..], b"\x0a\x01D\x12\x03\x12\x01k");
    let call = ServerCall { id: 3, method: "m".to_owned(), params: json("{}") };
    let sent = fixed::gateway_call("D", &call);
    assert_eq!(&sent[..], b"\x0a\x01D\x12\x09\x08\x03\x12\x01m\x1a\x02{}");
    assert_eq!(&fixed::device_call_answer(3, "{}")[..], b"\x08\x03\x12\x02{}");
}

#[test]
fn credentials_are_asked_for_and_answered() {
    let profile = m::ProvisionDeviceCredentials {
        provision_device_key: "k".to_owned(),
        provision_device_secret: "s".to_owned(),
    };
    let data = m::CredentialsData {
        token: Some(m::DeviceToken { token: "t".to_owned() }),
        certificate: Some(m::DeviceCertificate { hash: "AQID".to_owned() }),
        basic: Some(m::BasicMqttCredentials { client_id: "c".to_owned(), ..Default::default() }),
    };
    let x509 = Credentials::X509Certificate("AQID".to_owned());
    let mqtt = Credentials::MqttBasic(basic(Some("c"), None, None));
    for (kind, expected) in [
        (None, None),
        (Some(m::CredentialsType::AccessToken), Some(token("t"))),
        (Some(m::CredentialsType::X509Certificate), Some(x509)),
        (Some(m::CredentialsType::MqttBasic), Some(mqtt)),
    ] {
        let message = m::ProvisionDeviceRequest {
            device_name: "D".to_owned(),
            credentials_type: kind.map(Into::into),
            provision_device_credentials: Some(profile.clone()),
            credentials_data: Some(data.clone()),
            gateway: true,
        };
        let read = fixed::provision_request(&message.encode_to_vec()).unwrap();
        assert_eq!((read.credentials, read.gateway), (expected, true));
    }
    assert!(fixed::provision_request(b"").is_err());
    #[rustfmt::skip]
    let table: [(provision::Answer, &[u8]); 4] = [
        (provision::Answer::Success(token("t")),                       b"\x08\x01\x1a\x01t"),
        (provision::Answer::Success(Credentials::MqttBasic(basic(Some("c"), None, None))), b"\x08\x01\x10\x02\x1a\x10{\"clientId\":\"c\"}"),
        (provision::Answer::NotFound,                                  b"\x08\x02"),
        (provision::Answer::Failure,                                   b"\x08\x03"),
    ];
    for (answer, expected) in table {
        assert_eq!(&fixed::provision_answer(&answer)[..], expected, "{answer:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        use GatewayPublish::{Attributes, AttributesRequest, CallReply, Claim, Connect, Telemetry};
        for publish in [Attributes, AttributesRequest, CallReply, Claim, Connect, Telemetry] {
            drop(fixed::gateway(publish, &bytes, NOW_MS));
        }
        drop(fixed::provision_request(&bytes));
        drop(fixed::attributes_request(&bytes));
    }
}
