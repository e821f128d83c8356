//! MQTT: what a publish asks, and what each outcome is in either version.

use moorline_dialects::thingsboard::{
    attributes::Wanted,
    calls::DeviceCall,
    claim::Claim,
    gateway,
    json::Json,
    mqtt::{self, Ack, Outcome, Unreadable, Version, ack, subscribe_refused},
    ota::{ChunkError, PackageKind},
    payloads::{Payloads, ProvisionEncoding},
    requests::{PackageRequest, Request},
    topics::{OwnTopics, SessionKind, publish},
    values::{Sample, Value},
};

use super::support::{NOW_MS, RULES, entries};

#[test]
fn each_outcome_has_its_acknowledgement() {
    let stays = |reason| Ack { puback: Some(reason), disconnect: None };
    let ends = |reason| Ack { puback: None, disconnect: Some(reason) };
    let both = |reason| Ack { puback: Some(reason), disconnect: Some(reason) };
    #[rustfmt::skip]
    let table = [
        // outcome               MQTT 3        MQTT 3, the profile acknowledges   MQTT 5
        (Outcome::Done,           stays(0),     stays(0),     stays(0)),
        (Outcome::UnknownTopic,   stays(0),     stays(0),     stays(0x90)),
        (Outcome::NotGateway,     stays(0),     stays(0),     stays(0)),
        (Outcome::Invalid,        ends(0x99),   stays(0x99),  stays(0x99)),
        (Outcome::TooEarly,       stays(0),     stays(0),     stays(0x99)),
        (Outcome::RateLimited,    ends(0x97),   ends(0x97),   ends(0x97)),
        (Outcome::GatewayLimited, ends(0x97),   ends(0x97),   both(0x97)),
        (Outcome::ChildLimited,   ends(0x97),   ends(0x97),   stays(0x97)),
        (Outcome::Failed,         ends(0x83),   ends(0x83),   ends(0x83)),
    ];
    for (outcome, v3, v3_acknowledged, v5) in table {
        assert_eq!(ack(outcome, Version::V3, false), v3, "{outcome:?}");
        assert_eq!(ack(outcome, Version::V3, true), v3_acknowledged, "{outcome:?}");
        assert_eq!(ack(outcome, Version::V5, false), v5, "{outcome:?}");
        assert_eq!(ack(outcome, Version::V5, true), v5, "{outcome:?}");
    }
    assert_eq!((subscribe_refused(Version::V3), subscribe_refused(Version::V5)), (0x80, 0x8f));
}

fn request(topic: &str, body: &str, earlier_size: Option<u64>) -> Result<Request, Unreadable> {
    let session = match topic.starts_with("/provision") {
        true => SessionKind::Provisioning,
        false => SessionKind::Gateway,
    };
    let publish = publish(topic.as_bytes(), session, OwnTopics::default()).unwrap();
    let (payloads, body) = (Payloads::Json, body.as_bytes());
    mqtt::request(&publish, &payloads, body, earlier_size, NOW_MS, &RULES)
}

#[test]
fn a_publish_asks_what_its_topic_and_payload_say() {
    let package = |size, chunk| {
        let (title, version) = (None, None);
        Request::Package(PackageRequest {
            kind: PackageKind::Firmware,
            title,
            version,
            size,
            chunk,
        })
    };
    let values = entries(&[("t", Value::Long(1))]);
    let sample = Sample { ts_ms: NOW_MS, values: values.clone() };
    let call = DeviceCall { method: "m".to_owned(), params: Json::Null };
    let gone = gateway::Request::Disconnect { device: "D".to_owned() };
    let reply = Request::CallReply { id: 7, data: "x".to_owned() };
    #[rustfmt::skip]
    let table = [
        ("v1/devices/me/telemetry",            r#"{"t":1}"#,         None,      Request::Telemetry(vec![sample])),
        ("v2/a/j",                             r#"{"t":1}"#,         None,      Request::Attributes(values)),
        ("v1/devices/me/attributes/request/1", "{}",                 None,      Request::ReadAttributes(Wanted::All)),
        ("v2/r/res/7",                         "x",                  None,      reply),
        ("v2/r/req/7",                         r#"{"method":"m"}"#,  None,      Request::Call(call)),
        ("v1/devices/me/claim",                "",                   None,      Request::Claim(Claim::default())),
        ("v1/gateway/disconnect",              r#"{"device":"D"}"#,  None,      Request::Gateway(gone)),
        ("v2/fw/request/1/chunk/3",            "512",                None,      package(512, 3)),
        ("v2/fw/request/1/chunk/3",            "",                   Some(256), package(256, 3)),
        ("v2/fw/request/1/chunk/0",            "",                   None,      package(0, 0)),
    ];
    for (topic, body, earlier_size, expected) in table {
        assert_eq!(request(topic, body, earlier_size), Ok(expected), "{topic} {body}");
    }
    let provision = r#"{"provisionDeviceKey":"k","provisionDeviceSecret":"s"}"#;
    let asked = request("/provision/request", provision, None);
    assert!(matches!(asked, Ok(Request::Provision { encoding: ProvisionEncoding::Json, .. })));
}

#[test]
fn a_payload_that_can_not_be_read_asks_nothing() {
    let chunk = request("v2/fw/request/1/chunk/3", "x", None);
    assert_eq!(chunk, Err(Unreadable::Chunk(ChunkError::Malformed)));
    #[rustfmt::skip]
    let table = [
        ("v1/devices/me/telemetry", "["), ("v2/a", ""), ("v2/a/req/1", "[]"), ("v2/r/req/1", "{}"), ("v2/t/p", "{}"),
        ("v1/devices/me/claim", "x"), ("v1/gateway/telemetry", "{}"), ("/provision/request", ""),
    ];
    for (topic, body) in table {
        let refused = request(topic, body, None);
        assert!(matches!(refused, Err(Unreadable::Invalid(_))), "{topic} {body}: {refused:?}");
    }
}
