//! ThingsBoard's device profiles, and devices that ask them for credentials: on whichever node, over MQTT and HTTP.

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        cluster::Shape,
        http,
        mqtt::{Client, Heard},
        packet::{Connect, Version},
        scenarios,
        wait::SOON,
    },
    thingsboard::{device, json_of, latest, register, set},
    thingsboard_rest::{User, refused},
};

const REQUEST: &str = "/provision/request";
const RESPONSE: &str = "/provision/response";

#[test]
fn devices_have_profiles() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    let tenant = json!({
        "name": "plant", "aliases": ["thingsboard:plant"],
        "settings": { "chosen-passwords": true, "plaintext": true },
    });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("profiles are made, changed, found and deleted", profiles),
            ("a device's profile is the one of its type", types),
            ("a profile has topics and payloads of its own", own_topics),
            ("devices are made that show a key", created),
            ("a device that was made in advance gets its credentials once", pre_provisioned),
            ("who shows wrong keys is not heard for long", wrong_keys),
            ("a connection that asks does nothing else", nothing_else),
        ],
    );
}

/// A profile: what was shown of it.
#[track_caller]
fn profile(user: &User, api: &Api, profile: &Value) -> Value {
    let made = user.ask(api, 1, "POST", "/api/deviceProfile", profile);
    assert_eq!(made.status, 200, "{}", made.body);
    made.json()
}

fn path_of(profile: &Value) -> String {
    format!("/api/deviceProfile/{}", profile["id"]["id"].as_str().unwrap())
}

fn profiles(api: &mut Api) {
    let user = User::new(api, "profiles", "operator");
    let made = profile(&user, api, &json!({ "name": "pump", "description": "wet" }));
    assert_eq!(user.get(api, 2, &path_of(&made)), made);
    assert_eq!((&made["provisionType"], &made["default"]), (&json!("DISABLED"), &json!(false)));
    let again = user.ask(api, 3, "POST", "/api/deviceProfile", &json!({ "name": "pump" }));
    refused(&again, 400, 31);

    let mut changed = made.clone();
    changed["description"] = json!("dry");
    let after = user.ask(api, 3, "POST", "/api/deviceProfile", &changed);
    assert_eq!(
        (after.status, &after.json()["description"]),
        (200, &json!("dry")),
        "{}",
        after.body
    );
    refused(&user.ask(api, 1, "POST", "/api/deviceProfile", &changed), 409, 35);
    let mut renamed = after.json();
    renamed["name"] = json!("well");
    refused(&user.ask(api, 1, "POST", "/api/deviceProfile", &renamed), 400, 31);
    let wrong = json!({ "name": "p", "profileData": { "transportConfiguration": {
        "type": "MQTT", "deviceTelemetryTopic": "a/#/b",
    } } });
    refused(&user.ask(api, 1, "POST", "/api/deviceProfile", &wrong), 400, 30);

    // There is always a default one, which can't go.
    let info = user.get(api, 2, "/api/deviceProfileInfo/default");
    assert_eq!(info["name"], "default");
    let default = format!("/api/deviceProfile/{}", info["id"]["id"].as_str().unwrap());
    refused(&user.ask(api, 1, "DELETE", &default, &Value::Null), 400, 31);
    let names = |path: &str| {
        let page = user.get(api, 3, path);
        let data = page["data"].as_array().unwrap().iter();
        data.map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/api/deviceProfiles?pageSize=10&page=0"), ["default", "pump"]);
    assert_eq!(names("/api/deviceProfileInfos?pageSize=1&page=1"), ["pump"]);
    assert_eq!(names("/api/deviceProfiles?pageSize=10&page=0&textSearch=PU"), ["pump"]);

    // Who may only look neither writes them nor sees what lets devices in.
    let keyed = json!({ "name": "keyed", "provisionType": "ALLOW_CREATE_NEW_DEVICES" });
    let keyed = profile(&user, api, &keyed);
    assert_eq!(keyed["provisionDeviceKey"].as_str().unwrap().len(), 20);
    let eyes = User::new(api, "profiles-eyes", "read-only");
    let seen = eyes.get(api, 2, &path_of(&keyed));
    let secret =
        |of: &Value| of["profileData"]["provisionConfiguration"]["provisionDeviceSecret"].clone();
    assert_eq!((&seen["provisionDeviceKey"], secret(&seen)), (&Value::Null, Value::Null));
    assert_eq!(secret(&keyed).as_str().unwrap().len(), 20);
    refused(&eyes.ask(api, 1, "POST", "/api/deviceProfile", &json!({ "name": "x" })), 403, 20);
    // A key is one profile's.
    let thief = json!({
        "name": "thief", "provisionType": "ALLOW_CREATE_NEW_DEVICES",
        "provisionDeviceKey": keyed["provisionDeviceKey"],
    });
    refused(&user.ask(api, 1, "POST", "/api/deviceProfile", &thief), 400, 31);
    for gone in [&keyed, &made] {
        assert_eq!(user.ask(api, 1, "DELETE", &path_of(gone), &Value::Null).status, 200);
        refused(&user.ask(api, 2, "GET", &path_of(gone), &Value::Null), 404, 32);
    }
}

fn types(api: &mut Api) {
    let user = User::new(api, "types", "operator");
    let fan = profile(&user, api, &json!({ "name": "fan" }));
    let new = json!({ "name": "fan1", "deviceProfileId": fan["id"] });
    let made = user.ask(api, 2, "POST", "/api/device", &new).json();
    assert_eq!((&made["type"], &made["deviceProfileId"]), (&json!("fan"), &fan["id"]));
    refused(&user.ask(api, 1, "DELETE", &path_of(&fan), &Value::Null), 400, 31);
    // A type that nobody has made a profile for has one from then on.
    let new = json!({ "name": "saw1", "type": "saw" });
    let made = user.ask(api, 3, "POST", "/api/device", &new).json();
    let saw = user.get(api, 1, &path_of(&json!({ "id": made["deviceProfileId"] })));
    assert_eq!(saw["name"], "saw");
    let nobodys =
        json!({ "entityType": "DEVICE_PROFILE", "id": "784f394c-42b6-435a-983c-b7beff2784f9" });
    let new = json!({ "name": "lost", "deviceProfileId": nobodys });
    refused(&user.ask(api, 1, "POST", "/api/device", &new), 400, 31);
    // Devices that say nothing have the default one, which may be another.
    let default = user.ask(api, 1, "POST", &format!("{}/default", path_of(&fan)), &Value::Null);
    assert_eq!((default.status, &default.json()["default"]), (200, &json!(true)));
    let made = user.ask(api, 2, "POST", "/api/device", &json!({ "name": "fan2" })).json();
    assert_eq!(made["type"], "fan");
    let default = user.get(api, 3, "/api/deviceProfileInfo/default");
    assert_eq!(default["name"], "fan");
    let back = json!({ "id": { "id": user.get(api, 1, "/api/deviceProfiles?pageSize=1&page=0")["data"][0]["id"]["id"] } });
    assert_eq!(
        user.ask(api, 1, "POST", &format!("{}/default", path_of(&back)), &Value::Null).status,
        200
    );
}

fn own_topics(api: &mut Api) {
    let user = User::new(api, "own", "operator");
    let mut made = profile(
        &user,
        api,
        &json!({
            "name": "own", "transportType": "MQTT",
            "profileData": { "transportConfiguration": {
                "type": "MQTT", "deviceTelemetryTopic": "sensors/+/data",
                "deviceAttributesTopic": "sensors/+/attr",
                "deviceAttributesSubscribeTopic": "sensors/down",
            } },
        }),
    );
    let new = json!({ "name": "own1", "type": "own" });
    let id = user.ask(api, 1, "POST", "/api/device", &new).json()["id"]["id"].clone();
    let id = id.as_str().unwrap();
    let shown = user.get(api, 1, &format!("/api/device/{id}/credentials"));
    let token = shown["credentialsId"].as_str().unwrap();
    let (mut client, _) = device(Version::V5, token).to(api.cluster.node(2).mqtt);
    client.publish_acked("sensors/a/data", br#"{"t":5}"#);
    client.publish_acked("v1/devices/me/telemetry", br#"{"u":6}"#);
    client.publish_acked("sensors/a/attr", br#"{"fw":"a"}"#);
    let shown = latest(api, 3, "own1");
    assert_eq!((&shown["t"]["value"], &shown["u"]["value"]), (&json!(5), &json!(6)));
    client.subscribe_1("sensors/down");
    set(api, 1, "own1", &json!({ "interval": 10 }));
    let heard = client.message();
    client.ack(&heard);
    assert_eq!(
        (heard.topic.as_str(), json_of(&heard)),
        ("sensors/down", json!({ "interval": 10 }))
    );

    // Protobuf, from the next connection on wherever the profile is not taken for what it was.
    made["profileData"]["transportConfiguration"]["transportPayloadTypeConfiguration"] = json!({
        "transportPayloadType": "PROTOBUF",
        "deviceTelemetryProtoSchema": "syntax = \"proto3\"; message T { optional double t = 1; }",
        "deviceAttributesProtoSchema": "syntax = \"proto3\"; message A { optional string a = 1; }",
        "enableCompatibilityWithJsonPayloadFormat": true,
    });
    profile(&user, api, &made);
    let (mut client, _) = device(Version::V5, token).to(api.cluster.node(1).mqtt);
    let said = [&[0x09][..], &21.5_f64.to_le_bytes()].concat();
    client.publish_acked("v2/t", &said);
    client.publish_acked("v2/t", br#"{"json":1}"#);
    let shown = latest(api, 2, "own1");
    assert_eq!((&shown["t"]["value"], &shown["json"]["value"]), (&json!(21.5), &json!(1)));
    // One that is not for MQTT lets nobody in: "server unavailable". At this node it is known at once.
    made = user.get(api, 1, &path_of(&made));
    made["transportType"] = json!("COAP");
    profile(&user, api, &made);
    for (version, no) in [(Version::V5, 0x88), (Version::V4, 3)] {
        assert_eq!(device(version, token).reason(api.cluster.node(1).mqtt), no);
    }
}

/// A profile that gives credentials: its key and secret.
#[track_caller]
fn keyed(user: &User, api: &Api, name: &str, strategy: &str) -> (String, String) {
    let (key, secret) = (format!("{name}-key"), format!("{name}-secret"));
    let config = json!({ "type": strategy, "provisionDeviceSecret": secret });
    profile(
        user,
        api,
        &json!({
            "name": name, "provisionType": strategy, "provisionDeviceKey": key,
            "profileData": { "provisionConfiguration": config },
        }),
    );
    (key, secret)
}

fn asker() -> Connect {
    let login = Some(("provision".to_owned(), String::new()));
    Connect { login, ..Connect::clean(Version::V4, "anything") }
}

/// What a device is answered over MQTT.
#[track_caller]
fn ask_mqtt(api: &Api, node: u64, request: &Value) -> Value {
    let (mut client, _) = asker().to(api.cluster.node(node).mqtt);
    client.subscribe_1(RESPONSE);
    answer(&mut client, request)
}

#[track_caller]
fn answer(client: &mut Client, request: &Value) -> Value {
    client.publish_acked(REQUEST, request.to_string().as_bytes());
    let heard = client.message();
    client.ack(&heard);
    assert_eq!(heard.topic, RESPONSE);
    json_of(&heard)
}

#[track_caller]
fn ask_http(api: &Api, node: u64, request: &Value) -> Value {
    let to = api.at(node, "http");
    let answer = http::api("POST", to, "/api/v1/provision", &[], &request.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn created(api: &mut Api) {
    let user = User::new(api, "created", "operator");
    let (key, secret) = keyed(&user, api, "new-lamp", "ALLOW_CREATE_NEW_DEVICES");
    let request = |name: &str, more: Value| {
        let mut request = json!({
            "deviceName": name, "provisionDeviceKey": key, "provisionDeviceSecret": secret,
        });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for (name, answer) in [
        ("new1", ask_mqtt(api, 2, &request("new1", json!({})))),
        ("new2", ask_http(api, 3, &request("new2", json!({})))),
    ] {
        assert_eq!(
            (&answer["status"], &answer["credentialsType"]),
            (&json!("SUCCESS"), &json!("ACCESS_TOKEN"))
        );
        let token = answer["credentialsValue"].as_str().unwrap();
        let (mut client, _) = device(Version::V4, token).to(api.cluster.node(1).mqtt);
        client.publish_acked("v1/devices/me/telemetry", br#"{"t":1}"#);
        let shown = user.get(api, 1, &format!("/api/tenant/device?deviceName={name}"));
        assert_eq!(shown["type"], "new-lamp");
    }
    let failure = json!({ "errorMsg": "Failed to provision device!", "status": "FAILURE" });
    assert_eq!(ask_http(api, 1, &request("new1", json!({}))), failure);
    // What it has chosen itself.
    let token = "ChosenTokenOf20Chars";
    let chosen = request(
        "new3",
        json!({ "credentialsType": "ACCESS_TOKEN", "token": token, "gateway": true }),
    );
    assert_eq!(ask_mqtt(api, 1, &chosen)["credentialsValue"], token);
    let _in = device(Version::V5, token).to(api.cluster.node(2).mqtt);
    let shown = user.get(api, 1, "/api/tenant/device?deviceName=new3");
    assert_eq!(shown["additionalInfo"]["gateway"], true);
    let basic = json!({ "credentialsType": "MQTT_BASIC", "clientId": "c", "username": "u", "password": "pass" });
    let answer = ask_http(api, 2, &request("new4", basic));
    let expected = json!({ "clientId": "c", "userName": "u", "password": "pass" });
    assert_eq!(answer["credentialsValue"], expected, "{answer}");
    // One without a name gets one.
    let mut unnamed = request("x", json!({}));
    unnamed.as_object_mut().unwrap().remove("deviceName");
    assert_eq!(ask_http(api, 1, &unnamed)["status"], "SUCCESS");
}

fn pre_provisioned(api: &mut Api) {
    let user = User::new(api, "advance", "operator");
    let (key, secret) = keyed(&user, api, "batch", "CHECK_PRE_PROVISIONED_DEVICES");
    let request = |name: &str| json!({ "deviceName": name, "provisionDeviceKey": key, "provisionDeviceSecret": secret });
    let made =
        user.ask(api, 1, "POST", "/api/device", &json!({ "name": "batch1", "type": "batch" }));
    let id = made.json()["id"]["id"].as_str().unwrap().to_owned();
    let shown = user.get(api, 2, &format!("/api/device/{id}/credentials"));
    let answer = ask_mqtt(api, 3, &request("batch1"));
    assert_eq!(answer["credentialsValue"], shown["credentialsId"]);
    let state = format!(
        "/api/plugins/telemetry/DEVICE/{id}/values/attributes/SERVER_SCOPE?keys=provisionState"
    );
    assert_eq!(user.get(api, 1, &state)[0]["value"], "provisioned");
    assert_eq!(ask_http(api, 1, &request("batch1"))["status"], "FAILURE");
    assert_eq!(ask_http(api, 1, &request("nobody"))["status"], "FAILURE");
    // One whose token can't be shown again gets another one beside it.
    let old = register(api, "batch2");
    let row = user.get(api, 1, "/api/tenant/device?deviceName=batch2");
    let mut typed = row.clone();
    typed["deviceProfileId"] = Value::Null;
    typed["type"] = json!("batch");
    assert_eq!(user.ask(api, 1, "POST", "/api/device", &typed).status, 200);
    let answer = ask_http(api, 2, &request("batch2"));
    let new = answer["credentialsValue"].as_str().unwrap();
    for token in [new, old.as_str()] {
        let _in = device(Version::V4, token).to(api.cluster.node(1).mqtt);
    }
}

fn wrong_keys(api: &mut Api) {
    let user = User::new(api, "wrong", "operator");
    let (key, secret) = keyed(&user, api, "shut", "ALLOW_CREATE_NEW_DEVICES");
    let not_found = json!({ "errorMsg": "Provision data was not found!", "status": "NOT_FOUND" });
    let request = |secret: &str| json!({ "deviceName": "shut1", "provisionDeviceKey": key, "provisionDeviceSecret": secret });
    // Six failures from one address: the sixth is not judged any more, and so is what is right.
    for _ in 0..6 {
        assert_eq!(ask_http(api, 1, &request("wrong")), not_found);
    }
    assert_eq!(ask_http(api, 1, &request(&secret)), not_found);
    // Another node counts for itself.
    assert_eq!(ask_http(api, 2, &request(&secret))["status"], "SUCCESS");
    let (key, secret) = keyed(&user, api, "closed", "ALLOW_CREATE_NEW_DEVICES");
    let request = json!({ "deviceName": "closed1", "provisionDeviceKey": key, "provisionDeviceSecret": secret });
    let mut closed =
        user.get(api, 1, "/api/deviceProfiles?pageSize=1&page=0&textSearch=closed")["data"][0]
            .clone();
    closed["provisionType"] = json!("DISABLED");
    profile(&user, api, &closed);
    assert_eq!(ask_mqtt(api, 3, &request), not_found);
}

fn nothing_else(api: &mut Api) {
    let (mut client, _) = asker().to(api.cluster.node(1).mqtt);
    assert_eq!(client.subscribe(&[("v1/devices/me/attributes", 1), (RESPONSE, 1)]), [0x80, 1]);
    client.publish_unchecked("v1/devices/me/telemetry", br#"{"t":1}"#);
    assert_eq!(client.hear(SOON), Heard::Closed);
    // By its client id, too; without a name nothing is anybody's.
    let (mut client, _) = Connect::clean(Version::V5, "provision").to(api.cluster.node(2).mqtt);
    let request = json!({ "provisionDeviceKey": "nobodys", "provisionDeviceSecret": "s" });
    assert_eq!(answer(&mut client, &request)["status"], "NOT_FOUND");
}
