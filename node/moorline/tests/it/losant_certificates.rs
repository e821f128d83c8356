//! Devices of Losant that show certificates: registered ones, and those of an authority of their application.

use std::io::{ErrorKind, Read as _};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    certificates::{Issuer, Shown, Stream, authority, between, common},
    cluster::Shape,
    http,
    packet::{Connect, Version},
    wait::{SOON, until_true},
};

const APP: &str = "5f0c9a1b2c3d4e5f60718293";

#[track_caller]
fn connect(api: &Api, shown: &Shown, device: &str) -> (Stream, u8) {
    shown.connect(api, 1, &Connect::clean(Version::V4, device))
}

#[track_caller]
fn reason(api: &Api, shown: &Shown, device: &str) -> u8 {
    connect(api, shown, device).1
}

/// Waits until a connection is closed.
#[track_caller]
fn closes(stream: &mut Stream) {
    let mut some = [0; 1_024];
    loop {
        match stream.read(&mut some) {
            Ok(1..) => {}
            Ok(0) => return,
            // Whether with or without a word of TLS, but not that nothing comes.
            Err(error) => {
                assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
                return;
            }
        }
    }
}

/// Two applications at a node, and the tokens of their integrators.
struct Yard {
    api: Api,
    tokens: Vec<(&'static str, String)>,
}

impl Yard {
    fn start() -> Self {
        let api = Api::start_as(&Shape::of(1), &["http", "mqtts"]);
        let mut tokens = Vec::new();
        for (name, application) in [("yard", APP), ("theirs", "0123456789abcdef01234567")] {
            let tenant = json!({ "name": name, "aliases": [format!("losant:{application}")] });
            let (status, made) = api.ask(1, "POST", "/tenants", &tenant);
            assert_eq!(status, 201, "{made}");
            let new = json!({ "name": "ci", "role": "operator" });
            let path = format!("/tokens?tenant={name}");
            tokens.push((application, text(&api.ask(1, "POST", &path, &new), 201, "token")));
        }
        Self { api, tokens }
    }

    fn ask(&self, whose: usize, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (application, token) = &self.tokens[whose];
        let bearer = format!("Bearer {token}");
        let path = format!("/applications/{application}{path}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("authorization", &*bearer)];
        let answer = http::api(method, self.api.at(1, "http"), &path, &headers, &body);
        (answer.status, answer.json())
    }

    fn rest(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask(0, method, path, body)
    }

    /// The id of something new, and how it is shown.
    #[track_caller]
    fn made(&self, path: &str, body: Value) -> (String, Value) {
        let (status, made) = self.rest("POST", path, body);
        assert_eq!(status, 201, "{path}: {made}");
        (made["id"].as_str().unwrap().to_owned(), made)
    }

    fn device(&self, name: &str) -> String {
        self.made("/devices", json!({ "name": name })).0
    }
}

/// What CONNACKs say to somebody whose certificate does not count.
const REFUSED: u8 = 4;

#[test]
fn certificates_count_as_long_as_their_authority_does() {
    let yard = Yard::start();
    let (one, two) = (yard.device("one"), yard.device("two"));
    let [ours, fleet, strangers] =
        ["ours", "fleet", "strangers"].map(|name| authority(common(name)));
    // The authority vouches for what is registered, and lets nobody in by itself.
    let bundle = json!({ "name": "ours", "caBundle": ours.pem() });
    let (ours_id, shown) = yard.made("/certificate-authorities", bundle.clone());
    assert_eq!(shown["caInfo"][0]["commonName"], "ours");
    let registered = Shown::issued(&ours, common("registered"));
    let body = json!({ "certificate": registered.pem, "deviceIds": [one] });
    let (_, shown) = yard.made("/certificates", body);
    assert_eq!(shown["certificateInfo"]["issuerName"], "CN=ours");
    let alone = Shown::self_signed(common("alone"));
    yard.made("/certificates", json!({ "certificate": alone.pem }));
    // And one that says whom it lets in.
    let lets_in = json!({ "name": "fleet", "caBundle": fleet.pem(), "deviceIds": [two] });
    let (fleet_id, _) = yard.made("/certificate-authorities", lets_in);
    let of_fleet = Shown::issued(&fleet, common("of the fleet")).with(&fleet);
    let unregistered = Shown::issued(&ours, common("other")).with(&ours);
    let copied = Shown::issued(&strangers, common("of the fleet")).with(&fleet);
    #[rustfmt::skip]
    let table = [
        (&registered,   &one, 0,       "registered, and of an authority"),
        (&registered,   &two, 5,       "for another device"),
        (&alone,        &two, 0,       "registered, and of nobody's"),
        (&unregistered, &one, REFUSED, "of the authority, and not registered"),
        (&of_fleet,     &two, 0,       "of an authority that lets it in"),
        (&of_fleet,     &one, 5,       "of one that does not let this device in"),
        (&copied,       &two, REFUSED, "beside a copied authority"),
    ];
    for (shown, device, expected, what) in table {
        assert_eq!(reason(&yard.api, shown, device), expected, "{what}");
    }
    // There is one of each; and what is none is said.
    let pem = |pem: &str| json!({ "name": "x", "caBundle": pem });
    for (whose, body) in [(0, bundle.clone()), (1, bundle), (0, pem("")), (0, pem("PEM"))] {
        let (status, said) = yard.ask(whose, "POST", "/certificate-authorities", body);
        assert_eq!((status, &said["type"]), (400, &json!("Validation")));
    }
    foreign(&yard, (&of_fleet, &two));
    too_large(&yard, (&fleet_id, &of_fleet, &two), &strangers);
    through_another(&yard, (&ours_id, &ours), &one);
    goes(&yard, (&ours_id, &registered, &one));
    goes(&yard, (&fleet_id, &of_fleet, &two));
    another_bundle(&yard, (&ours_id, &registered, &one), (&ours, &strangers));
    let listed = yard.rest("GET", "/certificate-authorities?filter=fl*", Value::Null).1;
    assert_eq!((&listed["totalCount"], &listed["items"][0]["id"]), (&json!(1), &json!(fleet_id)));
}

/// Somebody else registers what a device shows, and keeps it out by none of that.
fn foreign(yard: &Yard, (shown, device): (&Shown, &str)) {
    let theirs = json!({ "certificate": shown.pem });
    assert_eq!(yard.ask(1, "POST", "/certificates", theirs).0, 201);
    assert_eq!(reason(&yard.api, shown, device), 0);
    assert_eq!(reason(&yard.api, shown, &"0".repeat(24)), 2, "nobody's device");
}

/// What cannot be changed stays as it was, whole.
fn too_large(yard: &Yard, (id, shown, device): (&str, &Shown, &str), strangers: &Issuer) {
    // Six times as many bytes where it is kept.
    let bundle = format!("{}\n{}", "\u{1}".repeat(30_000), strangers.pem());
    let path = format!("/certificate-authorities/{id}");
    let (status, said) = yard.rest("PATCH", &path, json!({ "caBundle": bundle }));
    assert_eq!(status, 413, "{said}");
    assert_eq!(reason(&yard.api, shown, device), 0);
}

/// What is registered with those behind it depends on the authority that they lead to.
fn through_another(yard: &Yard, (id, ours): (&str, &Issuer), device: &str) {
    let middle = between(ours, common("middle"));
    let shown = Shown::issued(&middle, common("far")).with(&middle);
    let pem = format!("{}{}", shown.pem, middle.pem());
    let (_, made) = yard.made("/certificates", json!({ "certificate": pem }));
    assert_eq!(made["certificateInfo"]["issuerName"], "CN=middle");
    goes(yard, (id, &shown, device));
}

/// Whoever is in by an authority goes when it is no more.
fn goes(yard: &Yard, (authority, shown, device): (&str, &Shown, &str)) {
    let (mut stream, before) = connect(&yard.api, shown, device);
    assert_eq!(before, 0);
    let path = format!("/certificate-authorities/{authority}");
    assert_eq!(yard.rest("PATCH", &path, json!({ "status": "inactive" })).0, 200);
    closes(&mut stream);
    assert_eq!(reason(&yard.api, shown, device), REFUSED);
    assert_eq!(yard.rest("PATCH", &path, json!({ "status": "active" })).0, 200);
    until_true("it is taken again", SOON, || reason(&yard.api, shown, device) == 0);
}

/// An authority has other certificates, and what it issued counts no more.
fn another_bundle(
    yard: &Yard,
    (id, registered, device): (&str, &Shown, &str),
    (ours, strangers): (&Issuer, &Issuer),
) {
    let path = format!("/certificate-authorities/{id}");
    let both = format!("{}{}", strangers.pem(), ours.pem());
    let changed = yard.rest("PATCH", &path, json!({ "caBundle": both })).1;
    assert_eq!(changed["caInfo"].as_array().map(Vec::len), Some(2));
    assert_eq!(reason(&yard.api, registered, device), 0);
    let only = json!({ "caBundle": strangers.pem() });
    assert_eq!(yard.rest("PATCH", &path, only).0, 200);
    assert_eq!(reason(&yard.api, registered, device), REFUSED);
    assert_eq!(yard.rest("DELETE", &path, Value::Null).0, 200);
    assert_eq!(yard.rest("GET", &path, Value::Null).0, 404);
}
