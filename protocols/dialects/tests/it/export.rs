//! Exports of platforms: each shape that their APIs answer, and what stays behind.

use moorline_dialects::export::{Carried, Export, READERS};
use serde_json::{Value, json};

fn read(platform: &str, values: &[Value]) -> Export {
    let (_, read) = READERS.iter().find(|(name, _)| *name == platform).unwrap();
    read(values)
}

fn lines(export: &Export) -> Vec<Value> {
    export.devices.iter().map(|device| device.to_line()).collect()
}

fn left(export: &Export) -> Vec<(&str, &str)> {
    export.left.iter().map(|left| (left.what.as_str(), left.why.as_str())).collect()
}

const ID: [&str; 4] = [
    "11111111-0000-11f0-8000-000000000001",
    "11111111-0000-11f0-8000-000000000002",
    "11111111-0000-11f0-8000-000000000003",
    "11111111-0000-11f0-8000-000000000004",
];

fn device(id: &str, name: &str, info: Value) -> Value {
    json!({
        "id": { "entityType": "DEVICE", "id": id }, "createdTime": 1_700_000_000_000_i64,
        "tenantId": null, "customerId": null, "name": name, "type": "thermostat", "label": "north",
        "deviceProfileId": null, "additionalInfo": info, "version": 1,
    })
}

fn credentials(id: &str, kind: &str, shown: &str, value: Value) -> Value {
    json!({
        "id": { "id": ID[0] }, "createdTime": 0, "deviceId": { "entityType": "DEVICE", "id": id },
        "credentialsType": kind, "credentialsId": shown, "credentialsValue": value,
    })
}

#[test]
fn devices_of_thingsboard_move_with_each_sort_of_credentials() {
    let page = json!({
        "data": [
            device(ID[0], "Dev A", json!({ "gateway": true })),
            device(ID[1], "Dev B", Value::Null),
            device(ID[2], "Dev C", json!({ "gateway": false, "floor": 3 })),
        ],
        "totalPages": 1, "totalElements": 3, "hasNext": false,
    });
    let basic = json!({ "clientId": "c", "userName": "u", "password": "p" }).to_string();
    let export = read(
        "thingsboard",
        &[
            credentials(ID[2], "X509_CERTIFICATE", "hash", json!("TUlJQg==")),
            page,
            credentials(ID[0], "ACCESS_TOKEN", "A1B2C3D4E5F6G7H8I9J0", Value::Null),
            credentials(ID[1], "MQTT_BASIC", "hash", json!(basic)),
        ],
    );
    assert!(export.left.is_empty(), "{:?}", export.left);
    let pem = "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n";
    let settings = |class| json!({ "type": "thermostat", "class": class, "labels": ["north"] });
    let mut last = settings("device");
    last["metadata"] = json!({ "floor": 3 });
    assert_eq!(
        lines(&export),
        [
            json!({ "name": "Dev A", "settings": settings("gateway"),
                    "credentials": [{ "token": "A1B2C3D4E5F6G7H8I9J0", "readable": true }] }),
            json!({ "name": "Dev B", "settings": settings("device"),
                    "credentials": [{ "client_id": "c", "user": "u", "password": "p" }] }),
            json!({ "name": "Dev C", "settings": last,
                    "credentials": [{ "certificate": pem, "pin": "certificate" }] }),
        ],
    );
    assert!(!format!("{export:?}").contains("A1B2"), "secrets are not printed");
}

#[test]
fn what_of_thingsboard_stays_behind_is_said() {
    let lwm2m = credentials(ID[1], "LWM2M_CREDENTIALS", "ep", json!("{}"));
    let mut inside = device(ID[3], "Dev D", Value::Null);
    inside["credentials"] = json!({ "credentialsType": "ACCESS_TOKEN", "credentialsId": "tok" });
    let export = read(
        "thingsboard",
        &[
            json!([device(ID[0], "Dev A", Value::Null), { "name": 7 }, inside]),
            device(ID[1], "Dev B", Value::Null),
            lwm2m,
            credentials(ID[2], "ACCESS_TOKEN", "t", Value::Null),
            device(ID[0], " ", Value::Null),
            json!({ "data": [{ "name": "pump", "profileData": { "configuration": {} } }] }),
        ],
    );
    let names: Vec<_> = export.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["Dev A", "Dev D", "Dev B"]);
    assert_eq!(export.devices[1].credentials, [Carried::Token("tok".to_owned())]);
    assert_eq!(
        left(&export),
        [
            ("value 1, item 2", "neither a device, nor credentials, nor a page of them"),
            ("value 5", "a device without a name"),
            (
                "pump",
                "a device profile: it moves by the REST API of the platform, as its devices' type"
            ),
            ("Dev A", "without credentials: it moves, and can't connect"),
            ("Dev B", "LWM2M_CREDENTIALS are not served yet"),
            ("Dev B", "without credentials: it moves, and can't connect"),
            (ID[2], "credentials of a device that is not in the export"),
        ],
    );
}

#[test]
fn devices_of_watson_move_with_their_tokens_and_classes() {
    let page = json!({
        "results": [
            { "clientId": "d:abc123:pump:p1", "typeId": "pump", "deviceId": "p1", "authToken": "Zk3vQ9xLw2RtY7uPb5",
              "deviceInfo": { "serialNumber": "1" }, "metadata": {}, "registration": {} },
            { "clientId": "g:abc123:gw:g1", "typeId": "gw", "deviceId": "g1", "authToken": "bT7yU2mWq8ZxC4vN1k" },
            { "typeId": "hub", "deviceId": "h1", "authToken": "cT7yU2mWq8ZxC4vN1k" },
            { "typeId": "pump", "deviceId": "p2" },
            { "typeId": "pump", "deviceId": "p/3" },
        ],
        "bookmark": "x", "meta": { "total_rows": 4 },
    });
    let types = json!({ "results": [{ "id": "hub", "classId": "Gateway" }, { "id": "pump", "classId": "Device" }] });
    let export = read("watson", &[page, types, json!("?")]);
    let device = |name: &str, kind: &str, class: &str, token: &[&str]| {
        let credentials: Vec<_> = token.iter().map(|token| json!({ "secret": token })).collect();
        let settings = json!({ "type": kind, "class": class, "labels": [] });
        json!({ "name": name, "settings": settings, "credentials": credentials })
    };
    let mut first = device("pump:p1", "pump", "device", &["Zk3vQ9xLw2RtY7uPb5"]);
    first["settings"]["metadata"] = json!({ "deviceInfo": { "serialNumber": "1" } });
    assert_eq!(
        lines(&export),
        [
            first,
            device("gw:g1", "gw", "gateway", &["bT7yU2mWq8ZxC4vN1k"]),
            device("hub:h1", "hub", "gateway", &["cT7yU2mWq8ZxC4vN1k"]),
            device("pump:p2", "pump", "device", &[]),
        ],
    );
    let what: Vec<_> = export.left.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(what, ["pump:p/3", "value 3", "gw:g1", "hub:h1", "pump:p2"]);
    assert!(export.left[2].why.contains("privileged"), "{:?}", export.left[2]);
}
