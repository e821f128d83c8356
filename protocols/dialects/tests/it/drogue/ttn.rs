//! Uplinks of The Things Network.

use bytes::Bytes;
use moorline_dialects::drogue::{
    http::Ttn,
    ttn::{Uplink, read},
};
use serde_json::{Value, json};

use super::fields;

fn body(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn v3() -> Value {
    json!({
        "end_device_ids": { "device_id": "dev1", "dev_addr": "26011D5F" },
        "received_at": "2026-11-21T01:02:03Z",
        "uplink_message": { "f_port": 5, "frm_payload": "AQI=", "decoded_payload": { "t": 1 } },
    })
}

fn v2() -> Value {
    json!({
        "app_id": "app", "dev_id": "dev1", "hardware_serial": "0102", "port": 7, "counter": 1,
        "is_retry": true, "payload_raw": "AQI=", "payload_fields": { "t": 1 },
    })
}

fn extension(uplink: &Uplink, name: &str) -> Option<String> {
    uplink.extensions.iter().find(|(of, _)| *of == name).map(|(_, value)| value.clone())
}

#[test]
fn an_uplink_is_an_event_of_its_device_on_its_port() {
    for (version, said, port, retry, address) in [
        (Ttn::V3, v3(), "5", None, "26011D5F"),
        (Ttn::V2, v2(), "7", Some("true".to_owned()), "0102"),
    ] {
        let body = body(&said);
        let uplink = read(version, &body).unwrap();
        assert_eq!((uplink.device.as_str(), uplink.port.as_str()), ("dev1", port));
        assert_eq!(extension(&uplink, "lorawanport").as_deref(), Some(port));
        assert_eq!(extension(&uplink, "lorawanretry"), retry);
        assert_eq!(extension(&uplink, "hwaddr").as_deref(), Some(address));
        let payload = |spec| uplink.payload(&fields(spec));
        assert_eq!(payload(json!({})), (None, body.clone()));
        let raw = Bytes::from_static(b"\x01\x02");
        assert_eq!(
            payload(json!({ "ttn": { "payload": "raw" } })),
            (Some("application/octet-stream"), raw)
        );
        assert_eq!(
            payload(json!({ "ttn": { "payload": "fields" } })),
            (Some("application/json"), Bytes::from_static(br#"{"t":1}"#))
        );
        let ports = fields(json!({ "lorawan": { "ports": { port: { "data_schema": "mod" } } } }));
        assert_eq!(uplink.schema(&ports), Some("mod"));
        assert_eq!(uplink.schema(&fields(json!({}))), None);
    }
}

#[test]
fn what_is_no_uplink_is_refused() {
    let mut join = v3();
    join.as_object_mut().unwrap().remove("uplink_message");
    join["join_accept"] = json!({});
    let mut nameless = v3();
    nameless["end_device_ids"] = json!({});
    let mut garbled = v3();
    garbled["uplink_message"]["frm_payload"] = json!("!");
    for said in [join, nameless, garbled, json!([]), json!(null)] {
        assert_eq!(read(Ttn::V3, &body(&said)).unwrap_err().status(), 400, "{said}");
    }
    for said in [json!({ "dev_id": "a" }), v3(), json!(7)] {
        assert_eq!(read(Ttn::V2, &body(&said)).unwrap_err().status(), 400, "{said}");
    }
    assert_eq!(read(Ttn::V3, &Bytes::from_static(b"{")).unwrap_err().status(), 400);
}
