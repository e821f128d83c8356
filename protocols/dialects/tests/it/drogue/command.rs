//! The command API.

use moorline_dialects::drogue::{
    command::{
        Asked, InvalidExternal, Outcome, external, external_body, is_path, is_taken, key, route,
    },
    http::Head,
    outcome::Refusal,
};
use serde_json::{Value, json};

use super::fields;

const PATH: &str = "/api/command/v1alpha1/apps/plant/devices/gate-7";

fn ask(method: &str, path: &str, query: &str) -> Result<Asked, Refusal> {
    route(&Head { method, path, query, headers: &[] })
}

#[test]
fn a_command_is_posted_to_its_device() {
    let asked = ask("POST", PATH, "command=open").unwrap();
    let expected = Asked {
        application: "plant".to_owned(),
        device: "gate-7".to_owned(),
        command: "open".to_owned(),
    };
    assert_eq!(asked, expected);
    let escaped = ask("POST", "/api/command/v1alpha1/apps/plant/devices/a%20b", "command=a%2Fb");
    assert_eq!(escaped.unwrap().command, "a/b");
    #[rustfmt::skip]
    let table = [
        ("GET", PATH, "command=open", 405),
        ("POST", PATH, "", 400),
        ("POST", PATH, "command=", 400),
        ("POST", PATH, "command=%23", 400),
        ("POST", "/api/command/v1alpha1/apps/plant", "command=open", 404),
        ("POST", "/api/command/v1alpha1/apps//devices/a", "command=open", 404),
        ("POST", "/api/command/v1alpha1/apps/plant/devices/a/b", "command=open", 404),
        ("POST", "/api/command/v1alpha1/apps/plant/things/a", "command=open", 404),
    ];
    for (method, path, query, status) in table {
        assert_eq!(
            ask(method, path, query).unwrap_err().status(),
            status,
            "{method} {path}?{query}"
        );
    }
    assert!(is_path(PATH) && !is_path("/api/registry/v1alpha1/apps"));
    let outcomes = [Outcome::Sent, Outcome::Nobody, Outcome::Unavailable, Outcome::Failed];
    assert_eq!(outcomes.map(Outcome::status), [202, 406, 503, 500]);
    assert_eq!(outcomes.map(Outcome::reason), [0x00, 0x87, 0x80, 0x80]);
}

#[test]
fn a_key_is_a_bearer_or_a_password() {
    let shown = |value: &str| {
        let headers = [("authorization", value.as_bytes())];
        let head = Head { method: "POST", path: PATH, query: "", headers: &headers };
        key(&head).map(|key| String::from_utf8(key.expose().to_vec()).unwrap())
    };
    assert_eq!(shown("Bearer mlt_1_a_b").as_deref(), Some("mlt_1_a_b"));
    assert_eq!(shown("bearer  mlt_1_a_b").as_deref(), Some("mlt_1_a_b"));
    assert_eq!(shown("Basic dXNlcjprZXk=").as_deref(), Some("key"));
    assert_eq!((shown("Token x"), shown("")), (None, None));
}

#[test]
fn an_external_endpoint_gets_json() {
    let spec = fields(json!({ "commands": { "commands": [
        { "external": { "type": "http", "url": "https://hook.example/cmd", "method": "PUT", "headers": { "X-A": "b" } } },
    ] } }));
    let endpoint = external(&spec).unwrap().unwrap();
    assert_eq!(
        (endpoint.url.as_str(), endpoint.method.as_str()),
        ("https://hook.example/cmd", "PUT")
    );
    assert_eq!(endpoint.headers["X-A"], "b");
    for none in [json!({}), json!({ "commands": {} }), json!({ "commands": { "commands": [{}] } })]
    {
        assert_eq!(external(&fields(none)), Ok(None));
    }
    for wrong in [json!({}), json!({ "url": 7 }), json!({ "type": "mqtt", "url": "http://a/" })] {
        let spec = json!({ "commands": { "commands": [{ "external": wrong }] } });
        assert_eq!(external(&fields(spec)), Err(InvalidExternal), "no command goes elsewhere");
    }
    assert_eq!(
        [199, 200, 202, 299, 300, 302, 404, 500].map(is_taken),
        [false, true, true, true, false, false, false, false]
    );
    let asked = ask("POST", PATH, "command=open").unwrap();
    let body: Value = serde_json::from_slice(&external_body(&asked, b"\x01")).unwrap();
    let expected =
        json!({ "application": "plant", "device": "gate-7", "command": "open", "payload": "AQ==" });
    assert_eq!(body, expected);
}
