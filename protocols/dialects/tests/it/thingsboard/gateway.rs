//! Gateways: what they say for their devices, and what they are sent.

use moorline_dialects::thingsboard::{
    attributes::{Changed, Scope},
    calls::ServerCall,
    claim::Claim,
    gateway::{
        self, AttributesRequest, DISCONNECT_RATE_LIMITED, DeviceTelemetry, Latency, Request,
    },
    topics::GatewayPublish,
    values::{Sample, Value},
};

use super::support::{NOW_MS, RULES, entries, json};

fn read(publish: GatewayPublish, written: &str) -> Result<Request, String> {
    Request::read(publish, &json(written), NOW_MS, &RULES).map_err(|error| error.to_string())
}

fn sample(ts_ms: i64, values: &[(&str, Value)]) -> Sample {
    Sample { ts_ms, values: entries(values) }
}

fn request(keys: &[&str], several: bool) -> AttributesRequest {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    AttributesRequest { id: 1, device: "Dev A".to_owned(), scope: Scope::Shared, keys, several }
}

#[test]
fn devices_come_and_go() {
    let connect = |device_type: &str| {
        Ok(Request::Connect { device: "Dev A".to_owned(), device_type: device_type.to_owned() })
    };
    let disconnect = Ok(Request::Disconnect { device: "Dev A".to_owned() });
    use GatewayPublish::{Connect, Disconnect};
    #[rustfmt::skip]
    let table = [
        (Connect,    r#"{"device":"Dev A","type":"thermometer"}"#, connect("thermometer")),
        (Connect,    r#"{"device":"Dev A"}"#,                      connect("default")),
        (Connect,    r#"{"device":" Dev A ","type":""}"#,          connect("default")),
        (Connect,    r#"{"device":"Dev A","type":null}"#,          connect("default")),
        (Disconnect, r#"{"device":"Dev A"}"#,                      disconnect.clone()),
        (Disconnect, r#"{"device":"Dev A","reason":1}"#,           disconnect),
    ];
    for (publish, written, expected) in table {
        assert_eq!(read(publish, written), expected, "{written}");
    }
    let long = format!("{{\"device\":\"{}\"}}", "d".repeat(gateway::NAME_BYTES_MAX + 1));
    for publish in [Connect, Disconnect] {
        for written in
            ["{}", "[]", "1", r#"{"device":1}"#, r#"{"device":""}"#, r#"{"device":" "}"#, &long]
        {
            assert!(read(publish, written).is_err(), "{written}");
        }
    }
}

#[test]
fn telemetry_is_an_array_by_device() {
    let device = |device: &str, samples| DeviceTelemetry {
        device: device.to_owned(),
        samples,
        latencies: vec![],
    };
    let expected = Request::Telemetry(vec![
        device(
            "Dev A",
            vec![sample(1, &[("t", Value::Long(2))]), sample(NOW_MS, &[("x", Value::Long(1))])],
        ),
        device("Dev B", vec![]),
    ]);
    let written = r#"{"Dev A":[{"ts":1,"values":{"t":2}},{"x":1}],"Dev B":[]}"#;
    assert_eq!(expected.devices(), ["Dev A", "Dev B"]);
    assert_eq!(read(GatewayPublish::Telemetry, written), Ok(expected));
    #[rustfmt::skip]
    let table = [
        "{}", "[]", "1", r#"{"Dev A":{"x":1}}"#, r#"{"Dev A":1}"#, r#"{"Dev A":[1]}"#, r#"{"Dev A":[[]]}"#,
        r#"{"":[{"x":1}]}"#, r#"{"Dev A":[{"x":1}],"Dev B":1}"#, r#"{"Dev A":[{"ts":"x","values":{}}]}"#,
    ];
    for written in table {
        assert!(read(GatewayPublish::Telemetry, written).is_err(), "{written}");
    }
}

#[test]
fn latencies_are_told_apart_from_values() {
    let written = r#"{"D":[
        {"ts":1,"values":{"t":2},"metadata":{"connector":"c","receivedTs":3,"publishedTs":4.5}},
        {"x":1,"metadata":{"connector":"c","receivedTs":5,"publishedTs":6}},
        {"metadata":{"a":1}}]}"#;
    let latency = |received_ms, published_ms| Latency {
        connector: "c".to_owned(),
        received_ms,
        published_ms,
    };
    let expected = DeviceTelemetry {
        device: "D".to_owned(),
        samples: vec![
            sample(1, &[("t", Value::Long(2))]),
            sample(NOW_MS, &[("x", Value::Long(1))]),
            sample(NOW_MS, &[("metadata", Value::Json(json(r#"{"a":1}"#)))]),
        ],
        latencies: vec![latency(3, 4), latency(5, 6)],
    };
    assert_eq!(read(GatewayPublish::Telemetry, written), Ok(Request::Telemetry(vec![expected])));
}

#[test]
fn attributes_and_claims_are_by_device() {
    let written = r#"{"Dev A":{"k":1},"Dev B":{}}"#;
    let expected =
        vec![("Dev A".to_owned(), entries(&[("k", Value::Long(1))])), ("Dev B".to_owned(), vec![])];
    assert_eq!(read(GatewayPublish::Attributes, written), Ok(Request::Attributes(expected)));
    let written = r#"{"Dev A":{"secretKey":"s","durationMs":60000},"Dev B":{}}"#;
    let claim = Claim { secret_key: "s".to_owned(), duration_ms: Some(60_000) };
    let expected = vec![("Dev A".to_owned(), claim), ("Dev B".to_owned(), Claim::default())];
    assert_eq!(read(GatewayPublish::Claim, written), Ok(Request::Claim(expected)));
    for publish in [GatewayPublish::Attributes, GatewayPublish::Claim] {
        for written in ["{}", "[]", "1", r#"{"Dev A":[]}"#, r#"{"Dev A":1}"#, r#"{"":{}}"#] {
            assert!(read(publish, written).is_err(), "{written}");
        }
    }
}

#[test]
fn a_request_for_attributes_is_answered_in_its_form() {
    #[rustfmt::skip]
    let table = [
        (r#"{"id":1,"device":"Dev A","client":false,"key":"k"}"#,         request(&["k"], false)),
        (r#"{"id":"1","device":"Dev A","key":"k"}"#,                      request(&["k"], false)),
        (r#"{"id":1,"device":"Dev A","keys":["k1","k2"]}"#,               request(&["k1", "k2"], true)),
        (r#"{"id":1,"device":"Dev A","keys":["k"]}"#,                     request(&["k"], true)),
        (r#"{"id":1,"device":"Dev A","client":true,"key":"k"}"#,
            AttributesRequest { scope: Scope::Client, ..request(&["k"], false) }),
    ];
    for (written, expected) in table {
        let expected = Ok(Request::AttributesRequest(expected));
        assert_eq!(read(GatewayPublish::AttributesRequest, written), expected, "{written}");
    }
    #[rustfmt::skip]
    let table = [
        "{}", r#"{"id":1,"device":"D"}"#, r#"{"id":1,"device":"D","keys":[]}"#, r#"{"id":1,"device":"D","keys":[1]}"#,
        r#"{"id":1,"device":"D","keys":"k"}"#, r#"{"id":1,"device":"D","key":1}"#, r#"{"device":"D","key":"k"}"#,
        r#"{"id":2147483648,"device":"D","key":"k"}"#, r#"{"id":1,"key":"k"}"#,
    ];
    for written in table {
        assert!(read(GatewayPublish::AttributesRequest, written).is_err(), "{written}");
    }
    let five = entries(&[("k", Value::Long(5))]);
    let two = entries(&[("k1", Value::Long(5)), ("k2", Value::Bool(true))]);
    #[rustfmt::skip]
    let table = [
        (request(&["k"], false),         five.clone(), r#"{"id":1,"device":"Dev A","value":5}"#),
        (request(&["k"], false),         vec![],       r#"{"id":1,"device":"Dev A"}"#),
        (request(&["k1", "k2"], true),   two,          r#"{"id":1,"device":"Dev A","values":{"k1":5,"k2":true}}"#),
        (request(&["k", "k2"], true),    five,         r#"{"id":1,"device":"Dev A","values":{"k":5}}"#),
        (request(&["k", "k2"], true),    vec![],       r#"{"id":1,"device":"Dev A","values":{}}"#),
    ];
    for (request, found, expected) in table {
        assert_eq!(gateway::attributes_response(&request, &found).to_string(), expected);
    }
}

#[test]
fn an_answer_to_a_call_has_device_id_and_data() {
    let reply = |data: &str| {
        Ok(Request::CallReply { device: "Dev A".to_owned(), id: 3, data: data.to_owned() })
    };
    #[rustfmt::skip]
    let table = [
        (r#"{"device":"Dev A","id":3,"data":{"ok":true}}"#, reply(r#"{"ok":true}"#)),
        (r#"{"device":"Dev A","id":3,"data":"x"}"#,         reply(r#""x""#)),
        (r#"{"device":"Dev A","id":3.0,"data":null}"#,      reply("null")),
    ];
    for (written, expected) in table {
        assert_eq!(read(GatewayPublish::CallReply, written), expected, "{written}");
    }
    let table = [r#"{"device":"D","id":3}"#, r#"{"device":"D","data":1}"#, r#"{"id":3,"data":1}"#];
    for written in table {
        assert!(read(GatewayPublish::CallReply, written).is_err(), "{written}");
    }
}

#[test]
fn what_a_gateway_is_sent_names_the_device() {
    let updated = entries(&[("k", Value::Long(1))]);
    let deleted = Changed { updated: vec![], deleted: vec!["k".to_owned()] };
    let call = ServerCall { id: 3, method: "m".to_owned(), params: json("{}") };
    #[rustfmt::skip]
    let table = [
        (gateway::attributes_changed("Dev A", &Changed { updated, deleted: vec![] }), r#"{"device":"Dev A","data":{"k":1}}"#),
        (gateway::attributes_changed("Dev A", &deleted),                    r#"{"device":"Dev A","data":{"deleted":["k"]}}"#),
        (gateway::call("Dev A", &call),                                     r#"{"device":"Dev A","data":{"id":3,"method":"m","params":{}}}"#),
        (gateway::disconnected("Dev A", DISCONNECT_RATE_LIMITED),           r#"{"device":"Dev A","reason":150}"#),
        (gateway::renamed(4, "Dev A", "Dev B").to_json(),                   r#"{"method":"gateway_device_renamed","params":{"Dev A":"Dev B"}}"#),
        (gateway::deleted(4, "Dev A").to_json(),                            r#"{"method":"gateway_device_deleted","params":"Dev A"}"#),
    ];
    for (json, expected) in table {
        assert_eq!(json.to_string(), expected);
    }
}
