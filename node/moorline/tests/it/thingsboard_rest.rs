//! ThingsBoard's REST API: integrators log in on whichever node, make devices, call them, and read what they said, while nodes die.

use std::thread;

use serde_json::{Value, json};

use crate::{
    harness::{
        api::{Api, text},
        cluster::Shape,
        http::{self, Answer},
        packet::Version,
        scenarios,
        wait::{SOON, until_true},
    },
    thingsboard::{device, json_of},
};

const CALLS: &str = "v1/devices/me/rpc/request/+";

/// A user, as its program asks.
pub(crate) struct User {
    pub(crate) token: String,
}

/// A token of the API, which is a user's password.
#[track_caller]
pub(crate) fn password(api: &Api, name: &str, role: &str) -> String {
    let new = json!({ "name": name, "role": role });
    text(&api.ask(1, "POST", "/tokens?tenant=plant", &new), 201, "token")
}

#[track_caller]
fn log_in(api: &Api, node: u64, password: &str) -> Answer {
    let body = json!({ "username": "tenant@example.com", "password": password }).to_string();
    http::api("POST", api.at(node, "http"), "/api/auth/login", &[], &body)
}

impl User {
    #[track_caller]
    pub(crate) fn new(api: &Api, name: &str, role: &str) -> Self {
        let answer = log_in(api, 1, &password(api, name, role));
        assert_eq!(answer.status, 200, "{}", answer.body);
        Self { token: answer.json()["token"].as_str().unwrap().to_owned() }
    }

    #[track_caller]
    pub(crate) fn ask(
        &self,
        api: &Api,
        node: u64,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::api(method, api.at(node, "http"), path, &[("X-Authorization", &bearer)], &body)
    }

    #[track_caller]
    pub(crate) fn get(&self, api: &Api, node: u64, path: &str) -> Value {
        let answer = self.ask(api, node, "GET", path, &Value::Null);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Sends a file as a form.
    #[track_caller]
    pub(crate) fn upload(&self, api: &Api, node: u64, path: &str, file: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let body = format!(
            "--edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f.bin\"\r\n\r\n{file}\r\n--edge--\r\n"
        );
        let form = ("content-type", "multipart/form-data; boundary=edge");
        let headers = [form, ("X-Authorization", &*bearer)];
        http::api("POST", api.at(node, "http"), path, &headers, &body)
    }

    /// Makes a device: its id and its token.
    #[track_caller]
    pub(crate) fn device(&self, api: &Api, name: &str) -> (String, String) {
        let made = self.ask(api, 1, "POST", "/api/device", &json!({ "name": name }));
        assert_eq!(made.status, 200, "{}", made.body);
        let id = made.json()["id"]["id"].as_str().unwrap().to_owned();
        let shown = self.get(api, 2, &format!("/api/device/{id}/credentials"));
        assert_eq!(shown["credentialsType"], "ACCESS_TOKEN");
        (id, shown["credentialsId"].as_str().unwrap().to_owned())
    }
}

#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, code: u8) {
    let said = answer.json();
    assert_eq!((answer.status, &said["errorCode"]), (status, &json!(code)), "{}", answer.body);
    assert_eq!(said["status"], json!(status));
}

#[test]
fn integrators_move_in() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    for name in ["plant", "other"] {
        let alias = format!("thingsboard:{name}");
        let tenant = json!({ "name": name, "aliases": [alias] });
        assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    }
    scenarios(
        &mut api,
        &[
            ("who logs in on one node is known on all", users),
            ("devices are made, changed, found and deleted", devices),
            ("credentials are shown and replaced", credentials),
            ("what a device said is read", telemetry),
            ("attributes are written", attributes),
            ("a device is called and answers", calls),
            ("a call that is kept survives its leader", kept),
        ],
    );
}

fn users(api: &mut Api) {
    let secret = password(api, "admin", "operator");
    let logged_in = log_in(api, 1, &secret).json();
    let user = User { token: logged_in["token"].as_str().unwrap().to_owned() };
    for node in 1..=3 {
        let shown = user.get(api, node, "/api/auth/user");
        assert_eq!(
            (&shown["email"], &shown["authority"]),
            (&json!("tenant@example.com"), &json!("TENANT_ADMIN"))
        );
    }
    let refresh = json!({ "refreshToken": logged_in["refreshToken"] }).to_string();
    let again = http::api("POST", api.at(3, "http"), "/api/auth/token", &[], &refresh);
    assert_eq!(again.status, 200, "{}", again.body);
    let renewed = User { token: again.json()["token"].as_str().unwrap().to_owned() };
    renewed.get(api, 2, "/api/auth/user");

    // By the key itself.
    let key = format!("ApiKey {secret}");
    let by_key = |node, key: &str| {
        http::api("GET", api.at(node, "http"), "/api/auth/user", &[("X-Authorization", key)], "")
    };
    assert_eq!(by_key(2, &key).status, 200);

    refused(&by_key(1, "ApiKey mlt_9_nobody_x"), 401, 10);
    refused(&log_in(api, 2, "wrong"), 401, 10);
    refused(&user.ask(api, 1, "GET", "/api/alarms", &Value::Null), 404, 32);
    let nobody = http::api("GET", api.at(1, "http"), "/api/auth/user", &[], "");
    refused(&nobody, 401, 10);
    let refreshing = User { token: logged_in["refreshToken"].as_str().unwrap().to_owned() };
    refused(&refreshing.ask(api, 1, "GET", "/api/auth/user", &Value::Null), 401, 10);

    // Who may only look, and whose token is gone.
    let looks = User::new(api, "eyes", "read-only");
    refused(&looks.ask(api, 1, "POST", "/api/device", &json!({ "name": "x" })), 403, 20);
    looks.get(api, 1, "/api/tenant/devices?pageSize=10&page=0");
    let app = User::new(api, "app", "app");
    refused(&app.ask(api, 1, "POST", "/api/device", &json!({ "name": "x" })), 403, 20);
    assert_eq!(api.ask(2, "DELETE", "/tokens/admin?tenant=plant", &Value::Null).0, 204);
    refused(&user.ask(api, 3, "GET", "/api/auth/user", &Value::Null), 401, 10);
    refused(&by_key(1, &key), 401, 10);
}

fn devices(api: &mut Api) {
    let user = User::new(api, "devices", "operator");
    let new = json!({
        "name": "Dev A", "type": "pump", "label": "roof",
        "additionalInfo": { "gateway": false, "description": "by the door" },
    });
    let made = user.ask(api, 1, "POST", "/api/device", &new).json();
    let id = made["id"]["id"].as_str().unwrap().to_owned();
    assert_eq!(made["id"]["entityType"], "DEVICE");
    let shown = user.get(api, 2, &format!("/api/device/{id}"));
    assert_eq!(shown, made);
    assert_eq!((&shown["type"], &shown["label"]), (&json!("pump"), &json!("roof")));
    assert_eq!(shown["additionalInfo"]["description"], "by the door");
    refused(&user.ask(api, 3, "POST", "/api/device", &new), 400, 31);

    let mut changed = shown.clone();
    changed["label"] = json!("cellar");
    let after = user.ask(api, 3, "POST", "/api/device", &changed);
    assert_eq!((after.status, &after.json()["label"]), (200, &json!("cellar")), "{}", after.body);
    refused(&user.ask(api, 1, "POST", "/api/device", &changed), 409, 35);
    changed["name"] = json!("Dev B");
    refused(&user.ask(api, 1, "POST", "/api/device", &changed), 400, 31);

    for name in ["lamp1", "lamp2", "lamp3"] {
        user.device(api, name);
    }
    let names = |query: &str| {
        let page = user.get(api, 1, &format!("/api/tenant/devices?{query}"));
        let data = page["data"].as_array().unwrap().iter();
        let names: Vec<_> = data.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        (names, page["totalElements"].as_u64().unwrap(), page["hasNext"].as_bool().unwrap())
    };
    let sorted = "sortProperty=name&sortOrder=DESC&textSearch=LAMP";
    assert_eq!(
        names(&format!("pageSize=2&page=0&{sorted}")),
        (vec!["lamp3".into(), "lamp2".into()], 3, true)
    );
    assert_eq!(names(&format!("pageSize=2&page=1&{sorted}")), (vec!["lamp1".into()], 3, false));
    assert_eq!(names("pageSize=10&page=0&type=pump"), (vec!["Dev A".into()], 1, false));
    assert_eq!(user.get(api, 1, "/api/tenant/device?deviceName=Dev%20A")["id"]["id"], json!(id));
    assert_eq!(user.get(api, 1, &format!("/api/devices?deviceIds={id}"))[0]["name"], "Dev A");
    let types = user.get(api, 1, "/api/device/types");
    let types: Vec<_> = types.as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(types, [json!("default"), json!("pump")]);
    assert_eq!(user.get(api, 3, &format!("/api/device/info/{id}"))["active"], false);

    // Another tenant's user sees none of it.
    let token = json!({ "name": "other", "role": "admin" });
    let secret = text(&api.ask(1, "POST", "/tokens?tenant=other", &token), 201, "token");
    let other =
        User { token: log_in(api, 1, &secret).json()["token"].as_str().unwrap().to_owned() };
    refused(&other.ask(api, 1, "GET", &format!("/api/device/{id}"), &Value::Null), 404, 32);

    assert_eq!(user.ask(api, 2, "DELETE", &format!("/api/device/{id}"), &Value::Null).status, 200);
    refused(&user.ask(api, 1, "GET", &format!("/api/device/{id}"), &Value::Null), 404, 32);
    // One of the same name is another one.
    let again = user.ask(api, 1, "POST", "/api/device", &new).json();
    assert_ne!(again["id"]["id"], json!(id));
}

fn credentials(api: &mut Api) {
    let user = User::new(api, "credentials", "operator");
    let (id, token) = user.device(api, "locked");
    let (mut client, _) = device(Version::V4, &token).to(api.cluster.node(2).mqtt);
    client.publish_acked("v1/devices/me/telemetry", br#"{"t":1}"#);

    let path = format!("/api/device/{id}/credentials");
    let mut shown = user.get(api, 3, &path);
    // What was read changes nothing when it is written.
    let written = user.ask(api, 1, "POST", "/api/device/credentials", &shown);
    assert_eq!(written.json()["credentialsId"], json!(token));
    let new = "B7k2Q9xLw2RtY7uPb5Zk3";
    shown["credentialsId"] = json!(new);
    let written = user.ask(api, 2, "POST", "/api/device/credentials", &shown);
    assert_eq!((written.status, written.json()["credentialsId"].clone()), (200, json!(new)));
    let _renewed = device(Version::V4, new).to(api.cluster.node(1).mqtt);
    assert_ne!(device(Version::V4, &token).reason(api.cluster.node(3).mqtt), 0);

    // Another device can't have it, and who only calls devices may not see it.
    let taken = user.ask(
        api,
        1,
        "POST",
        &format!("/api/device?accessToken={new}"),
        &json!({ "name": "thief" }),
    );
    refused(&taken, 400, 31);
    let app = User::new(api, "credentials-app", "app");
    refused(&app.ask(api, 1, "GET", &path, &Value::Null), 403, 20);
    // Nor does the audit, nor the disk, have the token in clear: `canaries.rs` looks at all of them.
}

fn telemetry(api: &mut Api) {
    let user = User::new(api, "telemetry", "app");
    let maker = User::new(api, "telemetry-maker", "operator");
    let (id, token) = maker.device(api, "meter");
    let (mut client, _) = device(Version::V4, &token).to(api.cluster.node(3).mqtt);
    for (ts, value) in [(1_000, 10), (2_000, 20), (11_000, 30)] {
        let said = json!({ "ts": ts, "values": { "t": value, "on": true } }).to_string();
        client.publish_acked("v1/devices/me/telemetry", said.as_bytes());
    }
    let of = |what: &str| format!("/api/plugins/telemetry/DEVICE/{id}/{what}");
    assert_eq!(user.get(api, 1, &of("keys/timeseries")), json!(["on", "t"]));
    let latest = user.get(api, 2, &of("values/timeseries?keys=t"));
    assert_eq!(latest, json!({ "t": [{ "ts": 11_000, "value": "30" }] }));
    let strict = user.get(api, 2, &of("values/timeseries?keys=t,on&useStrictDataTypes=true"));
    assert_eq!((&strict["t"][0]["value"], &strict["on"][0]["value"]), (&json!(30), &json!(true)));

    let range = "startTs=0&endTs=20000";
    let history = user.get(api, 3, &of(&format!("values/timeseries?keys=t&{range}&limit=2")));
    let newest = json!([{ "ts": 11_000, "value": "30" }, { "ts": 2_000, "value": "20" }]);
    assert_eq!(history["t"], newest);
    let sums =
        of(&format!("values/timeseries/history?keys=t&{range}&agg=SUM&interval=10000&orderBy=ASC"));
    let sums = user.get(api, 1, &sums);
    assert_eq!(sums["t"], json!([{ "ts": 5_000, "value": "30" }, { "ts": 15_000, "value": "30" }]));

    let said = user.ask(api, 1, "POST", &of("timeseries/ANY"), &json!({ "by_hand": 7 }));
    assert_eq!((said.status, said.body.as_str()), (200, ""));
    assert_eq!(user.get(api, 3, &of("values/timeseries?keys=by_hand"))["by_hand"][0]["value"], "7");
    refused(
        &user.ask(
            api,
            1,
            "GET",
            &of(&format!("values/timeseries?keys=t&{range}&agg=MEDIAN")),
            &Value::Null,
        ),
        400,
        31,
    );
    refused(&user.ask(api, 1, "POST", &of("timeseries/ANY"), &json!("x")), 400, 30);
}

fn attributes(api: &mut Api) {
    let user = User::new(api, "attributes", "operator");
    let (id, token) = user.device(api, "valve");
    let (mut client, _) = device(Version::V4, &token).to(api.cluster.node(1).mqtt);
    client.subscribe_1("v1/devices/me/attributes");
    let of = |what: &str| format!("/api/plugins/telemetry/DEVICE/{id}/{what}");
    let said = user.ask(api, 2, "POST", &of("attributes/SHARED_SCOPE"), &json!({ "interval": 10 }));
    assert_eq!((said.status, said.body.as_str()), (200, ""));
    assert_eq!(json_of(&client.message()), json!({ "interval": 10 }));
    let short = format!("/api/plugins/telemetry/{id}/SERVER_SCOPE");
    assert_eq!(user.ask(api, 3, "POST", &short, &json!({ "site": "north" })).status, 200);
    let all = user.get(api, 1, &of("values/attributes?keys=interval,site"));
    let values: Vec<_> =
        all.as_array().unwrap().iter().map(|one| (&one["key"], &one["value"])).collect();
    assert_eq!(values, [(&json!("interval"), &json!(10)), (&json!("site"), &json!("north"))]);
    assert!(all[0]["lastUpdateTs"].as_i64().unwrap() > 0);
    assert_eq!(user.get(api, 1, &of("keys/attributes/SHARED_SCOPE")), json!(["interval"]));
    until_true("it is said that the device is there", SOON, || {
        let shown = user.get(api, 3, &of("values/attributes/SERVER_SCOPE?keys=active"));
        shown[0]["value"] == true
    });
    assert_eq!(user.ask(api, 2, "DELETE", &of("SERVER_SCOPE?keys=site"), &Value::Null).status, 200);
    assert_eq!(user.get(api, 3, &of("values/attributes/SERVER_SCOPE?keys=site")), json!([]));
    // One that has gone is active for as long as somebody says it may be silent.
    drop(client);
    let said = |timeout_ms: u64, expected: bool| {
        let body = json!({ "inactivityTimeout": timeout_ms });
        assert_eq!(user.ask(api, 1, "POST", &short, &body).status, 200);
        until_true("it is active, or not", SOON, || {
            let info = user.get(api, 2, &format!("/api/device/info/{id}"));
            let keys = "keys=active,inactivityAlarmTime";
            let shown = user.get(api, 3, &of(&format!("values/attributes/SERVER_SCOPE?{keys}")));
            let alarms = shown.as_array().unwrap().len() - 1;
            info["active"] == expected
                && shown[0]["value"] == expected
                && alarms == usize::from(!expected)
        });
    };
    said(1, false);
    said(3_600_000, true);
    refused(&user.ask(api, 1, "POST", &of("attributes/CLIENT_SCOPE"), &json!({ "a": 1 })), 400, 31);
}

fn calls(api: &mut Api) {
    let user = User::new(api, "calls", "operator");
    let (id, token) = user.device(api, "robot");
    let path = format!("/api/rpc/twoway/{id}");
    let call = json!({ "method": "setGpio", "params": { "pin": 7 }, "timeout": 30_000 });
    let answers = thread::scope(|scope| {
        let asked = scope.spawn(|| user.ask(api, 2, "POST", &path, &call));
        let (mut client, _) = device(Version::V4, &token).to(api.cluster.node(3).mqtt);
        client.subscribe_1(CALLS);
        let heard = client.message();
        assert_eq!(json_of(&heard), json!({ "method": "setGpio", "params": { "pin": 7 } }));
        client.ack(&heard);
        let number = heard.topic.rsplit('/').next().unwrap().to_owned();
        client.publish_acked(
            &format!("v1/devices/me/rpc/response/{number}"),
            br#"{"pin":7,"ok":true}"#,
        );
        let two_way = asked.join().unwrap();
        let one_way = user.ask(api, 1, "POST", &format!("/api/plugins/rpc/oneway/{id}"), &call);
        (two_way, one_way)
    });
    assert_eq!((answers.0.status, answers.0.json()), (200, json!({ "pin": 7, "ok": true })));
    assert_eq!((answers.1.status, answers.1.body.as_str()), (200, ""));
    refused(&user.ask(api, 1, "POST", &path, &json!({ "params": 1 })), 400, 30);

    // Nobody is there: the first version says that otherwise than the second.
    let (id, _) = user.device(api, "absent");
    let call = json!({ "method": "m", "timeout": 5_000 });
    let statuses = thread::scope(|scope| {
        let second = scope
            .spawn(|| user.ask(api, 1, "POST", &format!("/api/rpc/twoway/{id}"), &call).status);
        let first = scope.spawn(|| {
            user.ask(api, 2, "POST", &format!("/api/plugins/rpc/twoway/{id}"), &call).status
        });
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_eq!(statuses, (409, 504));
}

fn kept(api: &mut Api) {
    let user = User::new(api, "kept", "operator");
    let (id, token) = user.device(api, "sleeper");
    let call = json!({
        "method": "update", "params": [1], "persistent": true, "retries": 3,
        "expirationTime": 4_102_444_800_000_i64, "additionalInfo": { "by": "me" },
    });
    let made = user.ask(api, 1, "POST", &format!("/api/rpc/twoway/{id}"), &call);
    assert_eq!(made.status, 200, "{}", made.body);
    let rpc = made.json()["rpcId"].as_str().unwrap().to_owned();
    let path = format!("/api/rpc/persistent/{rpc}");
    let shown = user.get(api, 2, &path);
    assert_eq!((&shown["status"], &shown["id"]["id"]), (&json!("QUEUED"), &json!(rpc)));
    assert_eq!(
        (&shown["request"]["method"], &shown["additionalInfo"]),
        (&json!("update"), &json!({ "by": "me" }))
    );

    let leader = api.cluster.leader(1, 1);
    api.cluster.node_mut(leader).kill();
    let other = if leader == 2 { 3 } else { 2 };
    let (mut client, _) = device(Version::V4, &token).to_patiently(api.cluster.node(other).mqtt);
    client.subscribe_1(CALLS);
    let heard = client.message();
    client.ack(&heard);
    let number = heard.topic.rsplit('/').next().unwrap().to_owned();
    client.publish_acked(&format!("v1/devices/me/rpc/response/{number}"), br#"{"done":true}"#);
    until_true("it is answered", SOON, || {
        let answer = user.ask(api, other, "GET", &path, &Value::Null);
        answer.status == 200 && answer.json()["status"] == "SUCCESSFUL"
    });
    assert_eq!(user.get(api, other, &path)["response"], json!({ "done": true }));
    api.cluster.node_mut(leader).start_ready();

    let list = format!("/api/rpc/persistent/device/{id}?pageSize=10&page=0");
    let listed = user.get(api, leader, &format!("{list}&rpcStatus=SUCCESSFUL"));
    assert_eq!(
        (&listed["totalElements"], &listed["data"][0]["id"]["id"]),
        (&json!(1), &json!(rpc))
    );
    assert_eq!(user.get(api, 1, &format!("{list}&rpcStatus=QUEUED"))["totalElements"], 0);
    assert_eq!(user.ask(api, 3, "DELETE", &path, &Value::Null).status, 200);
    refused(&user.ask(api, 1, "GET", &path, &Value::Null), 404, 32);
}
