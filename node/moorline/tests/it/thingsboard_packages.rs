//! ThingsBoard's packages and claims: brought to devices, loaded over MQTT and HTTP, on whichever node, while nodes die.

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        cluster::Shape,
        http::{self, Answer},
        mqtt::{Client, Heard},
        packet::Version,
        scenarios,
        wait::{SOON, until_true},
    },
    thingsboard::{device, json_of},
    thingsboard_rest::{User, refused},
};

const ATTRIBUTES: &str = "v1/devices/me/attributes";
/// Longer than two pieces, so that ranges cross them.
const PACKAGE_BYTES: usize = 150_000;

#[test]
fn devices_load_packages() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    let tenant = json!({ "name": "plant", "aliases": ["thingsboard:plant"] });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("packages are made, filled, found and deleted", packages),
            ("a device is told of its package and loads it over MQTT", over_mqtt),
            ("all devices of a profile are told of its package", of_a_profile),
            ("a device loads its package over HTTP, while its leader dies", over_http),
            ("a device is claimed once, by who knows its secret", claims),
        ],
    );
}

/// Bytes that say where they are.
fn file(bytes: usize) -> String {
    let numbers = (0..bytes / 8).map(|number| format!("{number:07}\n"));
    let mut file: String = numbers.collect();
    file.extend(std::iter::repeat_n('.', bytes - file.len()));
    file
}

/// A package of the default profile with bytes: what was shown of it.
#[track_caller]
fn package(user: &User, api: &Api, kind: &str, title: &str, file: &str) -> Value {
    let profile = user.get(api, 1, "/api/deviceProfileInfo/default")["id"].clone();
    let new = json!({ "type": kind, "title": title, "version": "1.0", "deviceProfileId": profile });
    let made = user.ask(api, 1, "POST", "/api/otaPackage", &new);
    assert_eq!(made.status, 200, "{}", made.body);
    let path = path_of(&made.json());
    let filled = user.upload(api, 2, &format!("{path}?checksumAlgorithm=CRC32"), file);
    assert_eq!(filled.status, 200, "{}", filled.body);
    filled.json()
}

fn path_of(package: &Value) -> String {
    format!("/api/otaPackage/{}", package["id"]["id"].as_str().unwrap())
}

fn packages(api: &mut Api) {
    let user = User::new(api, "packages", "operator");
    let profile = user.get(api, 1, "/api/deviceProfileInfo/default")["id"].clone();
    let new =
        json!({ "type": "FIRMWARE", "title": "fw", "version": "1.0", "deviceProfileId": profile });
    let made = user.ask(api, 1, "POST", "/api/otaPackage", &new).json();
    assert_eq!((&made["hasData"], &made["tag"]), (&json!(false), &json!("fw 1.0")));
    refused(&user.ask(api, 2, "POST", "/api/otaPackage", &new), 400, 31);
    let path = path_of(&made);
    refused(&user.ask(api, 1, "GET", &format!("{path}/download"), &Value::Null), 404, 32);
    // A wrong checksum leaves nothing, and it may be tried again.
    let wrong = format!("{path}?checksumAlgorithm=MD5&checksum=00");
    refused(&user.upload(api, 3, &wrong, "firmware"), 400, 31);
    let right = format!("{path}?checksumAlgorithm=MD5&checksum=74B5B5E9570EFC5C0553BB327CD41940");
    let filled = user.upload(api, 3, &right, "firmware");
    assert_eq!(filled.status, 200, "{}", filled.body);
    let filled = filled.json();
    assert_eq!((&filled["dataSize"], &filled["fileName"]), (&json!(8), &json!("f.bin")));
    assert_eq!(filled["checksum"], "74b5b5e9570efc5c0553bb327cd41940");
    refused(&user.upload(api, 1, &right, "firmware"), 400, 31);
    assert_eq!(user.get(api, 1, &path), filled);
    let download = user.ask(api, 2, "GET", &format!("{path}/download"), &Value::Null);
    assert_eq!((download.status, download.body.as_str()), (200, "firmware"));
    assert!(download.head.contains("x-filename: f.bin"), "{}", download.head);

    let large = file(PACKAGE_BYTES);
    let other = package(&user, api, "SOFTWARE", "sw", &large);
    let download = user.ask(api, 3, "GET", &format!("{}/download", path_of(&other)), &Value::Null);
    assert!(download.body == large, "it comes back as it went");
    let titles = |path: &str| {
        let page = user.get(api, 1, path);
        let data = page["data"].as_array().unwrap().iter();
        data.map(|one| one["title"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let sorted = "pageSize=10&page=0&sortProperty=title";
    assert_eq!(titles(&format!("/api/otaPackages?{sorted}")), ["fw", "sw"]);
    let profile = profile["id"].as_str().unwrap();
    assert_eq!(titles(&format!("/api/otaPackages/{profile}/SOFTWARE?{sorted}")), ["sw"]);
    for gone in [&made, &other] {
        assert_eq!(user.ask(api, 1, "DELETE", &path_of(gone), &Value::Null).status, 200);
        refused(&user.ask(api, 3, "GET", &path_of(gone), &Value::Null), 404, 32);
    }
    let eyes = User::new(api, "packages-eyes", "read-only");
    refused(&eyes.ask(api, 1, "POST", "/api/otaPackage", &new), 403, 20);
}

/// Sets which package a device is to have.
#[track_caller]
fn assign(user: &User, api: &Api, device: &str, package: &Value) -> Answer {
    let mut row = user.get(api, 2, &format!("/api/device/{device}"));
    row["firmwareId"] = package["id"].clone();
    user.ask(api, 2, "POST", "/api/device", &row)
}

/// Loads a package in parts of a size, until there is no more.
#[track_caller]
fn load(client: &mut Client, request: u32, size: usize) -> String {
    let mut loaded = String::new();
    for chunk in 0.. {
        let size = if chunk == 0 { size.to_string() } else { String::new() };
        client.publish_acked(&format!("v2/fw/request/{request}/chunk/{chunk}"), size.as_bytes());
        let part = client.message();
        client.ack(&part);
        assert_eq!(part.topic, format!("v2/fw/response/{request}/chunk/{chunk}"));
        if part.payload.is_empty() {
            return loaded;
        }
        loaded.push_str(std::str::from_utf8(&part.payload).unwrap());
    }
    loaded
}

fn latest(user: &User, api: &Api, device: &str, key: &str) -> Value {
    let path = format!("/api/plugins/telemetry/DEVICE/{device}/values/timeseries?keys={key}");
    user.get(api, 3, &path)[key][0]["value"].clone()
}

fn over_mqtt(api: &mut Api) {
    let user = User::new(api, "mqtt", "operator");
    let (id, token) = user.device(api, "loader");
    let file = file(PACKAGE_BYTES);
    let firmware = package(&user, api, "FIRMWARE", "mqtt-fw", &file);
    let (mut client, _) = device(Version::V4, &token).to(api.cluster.node(3).mqtt);
    client.subscribe_1(ATTRIBUTES);
    let assigned = assign(&user, api, &id, &firmware);
    assert_eq!(assigned.status, 200, "{}", assigned.body);
    assert_eq!(assigned.json()["firmwareId"], firmware["id"]);
    let heard = client.message();
    client.ack(&heard);
    let expected = json!({
        "fw_title": "mqtt-fw", "fw_version": "1.0", "fw_tag": "mqtt-fw 1.0", "fw_size": PACKAGE_BYTES,
        "fw_checksum_algorithm": "CRC32", "fw_checksum": firmware["checksum"],
    });
    assert_eq!(json_of(&heard), expected);
    assert_eq!(latest(&user, api, &id, "fw_state"), "INITIATED");
    assert_eq!(latest(&user, api, &id, "target_fw_title"), "mqtt-fw");
    for size in [50_000, 65_536, 10_000] {
        assert!(load(&mut client, 7, size) == file, "parts of {size}");
    }
    // What is assigned can't be deleted.
    refused(&user.ask(api, 1, "DELETE", &path_of(&firmware), &Value::Null), 400, 31);

    // All of it at once is more than a packet has room for.
    client.publish("v2/fw/request/8/chunk/0", b"");
    let heard = client.message();
    assert_eq!(
        (heard.topic.as_str(), heard.payload.as_slice()),
        ("v2/fw/error", &b"PAYLOAD_TOO_LARGE"[..])
    );
    assert_eq!(client.hear(SOON), Heard::Closed);

    // It is taken away again.
    let (mut client, _) = device(Version::V4, &token).to(api.cluster.node(1).mqtt);
    client.subscribe_1(ATTRIBUTES);
    assert_eq!(assign(&user, api, &id, &json!({ "id": null })).status, 200);
    let heard = client.message();
    client.ack(&heard);
    let mut gone: Vec<_> = json_of(&heard)["deleted"].as_array().unwrap().clone();
    gone.sort_by_key(ToString::to_string);
    assert_eq!((gone.len(), &gone[0]), (6, &json!("fw_checksum")));
    client.publish("v2/fw/request/9/chunk/0", b"1000");
    assert_eq!(client.message().payload, b"NOT_FOUND");
    assert_eq!(client.hear(SOON), Heard::Closed);
}

fn of_a_profile(api: &mut Api) {
    let user = User::new(api, "profile", "operator");
    let firmware = package(&user, api, "FIRMWARE", "all-fw", "all of them");
    let mut devices: Vec<_> =
        (0..5).map(|number| user.device(api, &format!("many{number}"))).collect();
    let (_, token) = &devices[0];
    let (mut client, _) = device(Version::V5, token).to(api.cluster.node(2).mqtt);
    client.subscribe_1(ATTRIBUTES);
    let default = user.get(api, 1, "/api/deviceProfiles?pageSize=1&page=0&textSearch=default");
    let mut default = default["data"][0].clone();
    default["firmwareId"] = firmware["id"].clone();
    let saved = user.ask(api, 3, "POST", "/api/deviceProfile", &default);
    assert_eq!(saved.status, 200, "{}", saved.body);
    let heard = client.message();
    client.ack(&heard);
    assert_eq!(json_of(&heard)["fw_title"], "all-fw");
    // One that is made afterwards hears of it, too.
    devices.push(user.device(api, "many5"));
    for (id, _) in &devices {
        until_true("it is told", SOON, || latest(&user, api, id, "fw_state") == "INITIATED");
    }
    assert_eq!(load(&mut client, 1, 4), "all of them");
    refused(&user.ask(api, 1, "DELETE", &path_of(&firmware), &Value::Null), 400, 31);
    let mut without = saved.json();
    without["firmwareId"] = Value::Null;
    assert_eq!(user.ask(api, 1, "POST", "/api/deviceProfile", &without).status, 200);
    let heard = client.message();
    assert_eq!(json_of(&heard)["deleted"].as_array().unwrap().len(), 6);
    for (id, _) in &devices {
        let path = format!("/api/plugins/telemetry/DEVICE/{id}/values/attributes/SHARED_SCOPE");
        until_true("it is taken away", SOON, || user.get(api, 1, &path) == json!([]));
    }
}

fn over_http(api: &mut Api) {
    let user = User::new(api, "http", "operator");
    let (id, token) = user.device(api, "http-loader");
    let file = file(4 * PACKAGE_BYTES);
    let get = |api: &Api, node: u64, query: &str| {
        let path = format!("/api/v1/{token}/firmware?{query}");
        http::api("GET", api.at(node, "http"), &path, &[], "")
    };
    assert_eq!(get(api, 1, "title=http-fw&version=1.0").status, 404);
    let firmware = package(&user, api, "FIRMWARE", "http-fw", &file);
    assert_eq!(assign(&user, api, &id, &firmware).status, 200);
    let named = "title=http-fw&version=1.0";
    let whole = get(api, 1, named);
    assert!(whole.body == file, "{}", whole.head);
    assert!(whole.head.contains(&format!("content-length: {}", file.len())), "{}", whole.head);
    assert!(whole.head.contains("content-disposition: attachment;filename=f.bin"));
    assert_eq!(get(api, 2, "title=other&version=1.0").status, 400);
    let beyond = get(api, 3, &format!("{named}&size=100000&chunk=100"));
    assert_eq!((beyond.status, beyond.body.as_str()), (200, ""));

    let leader = api.cluster.leader(1, 1);
    api.cluster.node_mut(leader).kill();
    let other = if leader == 2 { 3 } else { 2 };
    let mut loaded = String::new();
    for chunk in 0..file.len().div_ceil(70_000) {
        let mut part = String::new();
        until_true("the part comes", SOON, || {
            let answer = get(api, other, &format!("{named}&size=70000&chunk={chunk}"));
            part = answer.body;
            answer.status == 200
        });
        loaded.push_str(&part);
    }
    assert!(loaded == file, "in parts");
    api.cluster.node_mut(leader).start_ready();
}

fn claims(api: &mut Api) {
    let owner = User::new(api, "owner", "app");
    let maker = User::new(api, "maker", "operator");
    let (_, token) = maker.device(api, "free");
    let path = "/api/customer/device/free/claim";
    let wish =
        |user: &User, secret: &str| user.ask(api, 2, "POST", path, &json!({ "secretKey": secret }));
    let said = |answer: &Answer| (answer.status, answer.body.clone());
    assert_eq!(said(&wish(&owner, "s")), (400, "\"FAILURE\"".into()));
    let (mut client, _) = device(Version::V4, &token).to(api.cluster.node(3).mqtt);
    client.publish_acked("v1/devices/me/claim", br#"{"secretKey":"s","durationMs":60000}"#);
    assert_eq!(said(&wish(&owner, "wrong")), (400, "\"FAILURE\"".into()));
    let claimed = wish(&owner, "s");
    assert_eq!(claimed.status, 200, "{}", claimed.body);
    let claimed = claimed.json();
    assert_eq!(claimed["response"], "SUCCESS");
    assert_eq!(claimed["device"]["customerId"]["entityType"], "CUSTOMER");
    let shown = maker.get(api, 1, "/api/tenant/device?deviceName=free");
    assert_eq!(shown["customerId"], claimed["device"]["customerId"]);
    assert_eq!(said(&wish(&maker, "s")), (400, "\"CLAIMED\"".into()));
    // Another one may not let it go; its owner may, and then it says again that it may be claimed.
    let other = User::new(api, "no-owner", "app");
    refused(&other.ask(api, 1, "DELETE", path, &Value::Null), 403, 20);
    assert_eq!(owner.ask(api, 1, "DELETE", path, &Value::Null).status, 200);
    assert_eq!(said(&wish(&maker, "s")), (400, "\"FAILURE\"".into()));
    let by_http = format!("/api/v1/{token}/claim");
    assert_eq!(http::api("POST", api.at(1, "http"), &by_http, &[], "").status, 200);
    let claimed = maker.ask(api, 3, "POST", path, &Value::Null);
    assert_eq!(claimed.status, 200, "{}", claimed.body);
    // What was claimed and written back stays claimed.
    let row = claimed.json()["device"].clone();
    let saved = maker.ask(api, 1, "POST", "/api/device", &row);
    assert_eq!(saved.json()["customerId"], row["customerId"], "{}", saved.body);
    refused(&owner.ask(api, 1, "POST", "/api/customer/device/none/claim", &Value::Null), 404, 32);
}
