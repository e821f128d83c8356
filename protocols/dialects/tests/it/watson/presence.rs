//! Presence messages and notices: exact texts, and what stays.

use moorline_core::UnixMillis;
use moorline_dialects::watson::{
    close::Close,
    connect::Version,
    notice::{self, Request},
    presence::{Action, News, Protocol, Traffic, payload, published, topic},
};

use super::{client, device};

const MQTT: Protocol = Protocol::Mqtt { version: Version::V311, websocket: false };

#[test]
fn presence_has_its_form() {
    let (device, app) = (client("d:abc123:t1:d1"), client("a:abc123:app"));
    let at = UnixMillis(1_767_323_100_000);
    let gone = News {
        action: Action::Disconnect,
        at,
        client: &device,
        address: "192.0.2.7",
        port: 8883,
        secure: true,
        protocol: MQTT,
        user: "use-token-auth",
        certificate: "",
        connected: Some(UnixMillis(at.0 - 300_000)),
        close: Close::KeepAlive,
        traffic: Traffic {
            read_bytes: 512,
            read_messages: 4,
            written_bytes: 12,
            written_messages: 0,
        },
    };
    let came = News { action: Action::Connect, close: Close::Normal, ..gone };
    let socket = Protocol::Mqtt { version: Version::V5, websocket: true };
    let full = News {
        client: &app,
        user: "a-abc123-0123456789",
        certificate: "x",
        protocol: socket,
        ..came
    };
    let failed = News {
        action: Action::FailedConnect,
        close: Close::NotAuthorised,
        connected: None,
        ..gone
    };
    let bare = News {
        action: Action::Active,
        address: "",
        protocol: Protocol::Http,
        connected: None,
        ..came
    };
    #[rustfmt::skip]
    let table = [
        (gone, r#"{"Action":"Disconnect","Time":"2026-01-02T03:05:00.000Z","ClientAddr":"192.0.2.7","ClientID":"d:abc123:t1:d1","Port":8883,"Secure":true,"Protocol":"mqtt4","ConnectTime":"2026-01-02T03:00:00.000Z","CloseCode":160,"Reason":"Keep alive time-out","ReadBytes":512,"ReadMsg":4,"WriteBytes":12,"WriteMsg":0}"#),
        (came, r#"{"Action":"Connect","Time":"2026-01-02T03:05:00.000Z","ClientAddr":"192.0.2.7","ClientID":"d:abc123:t1:d1","Port":8883,"Secure":true,"Protocol":"mqtt4","ConnectTime":"2026-01-02T03:00:00.000Z"}"#),
        (full, r#"{"Action":"Connect","Time":"2026-01-02T03:05:00.000Z","ClientAddr":"192.0.2.7","ClientID":"a:abc123:app","Port":8883,"Secure":true,"Protocol":"mqtt5-ws","User":"a-abc123-0123456789","CertName":"x","ConnectTime":"2026-01-02T03:00:00.000Z"}"#),
        (failed, r#"{"Action":"FailedConnect","Time":"2026-01-02T03:05:00.000Z","ClientAddr":"192.0.2.7","ClientID":"d:abc123:t1:d1","Port":8883,"Secure":true,"Protocol":"mqtt4","CloseCode":180,"Reason":"Not authorized"}"#),
        (bare, r#"{"Action":"Active","Time":"2026-01-02T03:05:00.000Z","ClientID":"d:abc123:t1:d1","Port":8883,"Secure":true,"Protocol":"http"}"#),
    ];
    for (news, expected) in table {
        assert_eq!(payload(&news), expected);
    }
    assert_eq!(topic(&device).as_str(), "iot-2/type/t1/id/d1/mon");
    assert_eq!(topic(&client("g:abc123:gw:g1")).as_str(), "iot-2/type/gw/id/g1/mon");
    assert_eq!(topic(&app).as_str(), "iot-2/app/app/mon");
    assert_eq!(topic(&client("A:abc123:app:1")).as_str(), "iot-2/app/app/mon");
}

#[test]
fn what_stays_is_by_the_table() {
    use Action::{Active, Connect, Disconnect, FailedConnect};
    let (device, gateway) = (client("d:abc123:t1:d1"), client("g:abc123:gw:g1"));
    let (app, shared) = (client("a:abc123:app"), client("A:abc123:app"));
    let (stranger, looker) = (client("d:quickstart:t1:d1"), client("a:quickstart:app"));
    let http = Protocol::Http;
    #[rustfmt::skip]
    let table = [
        // whether it is retained, and whether a clearing message follows
        (&device,  Connect,       MQTT, Close::Normal,         true,  false),
        (&gateway, Connect,       MQTT, Close::Normal,         true,  false),
        (&app,     Connect,       MQTT, Close::Normal,         true,  false),
        (&device,  Connect,       http, Close::Normal,         false, false),
        (&device,  Disconnect,    MQTT, Close::Normal,         true,  false),
        (&device,  Disconnect,    MQTT, Close::KeepAlive,      true,  false),
        (&gateway, Disconnect,    MQTT, Close::ByClient,       true,  false),
        (&device,  Disconnect,    http, Close::Normal,         false, false),
        (&device,  Disconnect,    MQTT, Close::ClientIdReused, false, false),
        (&app,     Disconnect,    MQTT, Close::Normal,         false, true),
        (&shared,  Disconnect,    MQTT, Close::KeepAlive,      false, true),
        (&app,     Disconnect,    MQTT, Close::ClientIdReused, false, false),
        (&app,     Disconnect,    http, Close::Normal,         false, false),
        (&device,  FailedConnect, MQTT, Close::NotAuthorised,  false, false),
        (&app,     FailedConnect, MQTT, Close::NotAuthorised,  false, false),
        (&device,  Active,        http, Close::Normal,         false, false),
        (&stranger, Connect,      MQTT, Close::Normal,         false, false),
        (&stranger, Disconnect,   MQTT, Close::Normal,         false, false),
        (&looker,  Connect,       MQTT, Close::Normal,         false, false),
        (&looker,  Disconnect,    MQTT, Close::Normal,         false, false),
    ];
    for (client, action, protocol, close, retained, clears) in table {
        let news = News {
            action,
            at: UnixMillis(0),
            client,
            address: "::1",
            port: 1883,
            secure: false,
            protocol,
            user: "",
            certificate: "",
            connected: None,
            close,
            traffic: Traffic::default(),
        };
        let all = published(&news);
        assert_eq!((all[0].retained, all.len()), (retained, 1 + usize::from(clears)), "{news:?}");
        if let Some(clear) = all.get(1) {
            assert_eq!((clear.payload.as_str(), clear.retained), ("", true));
            assert_eq!(clear.topic, all[0].topic);
        }
    }
}

#[test]
fn notices_have_their_form() {
    let gateway = client("g:abc123:gw:g1");
    let now = UnixMillis(1_767_323_045_678);
    let refused = "iot-2/type/t9/id/d9/evt/e/fmt/json";
    let named = notice::named(refused);
    assert_eq!(named, Some(device("t9", "d9")));
    let said = |request, topic: &str, device: Option<_>, why| {
        notice::payload(&gateway, request, topic, device, why, now)
    };
    #[rustfmt::skip]
    let table = [
        (said(Request::Publish, refused, named.as_ref(), Close::NotAuthorised),
            r#"{"Request":"Publish","Time":"2026-01-02T03:04:05.678Z","Topic":"iot-2/type/t9/id/d9/evt/e/fmt/json","Type":"t9","Id":"d9","Client":"g:abc123:gw:g1","RC":180,"Message":"Not authorized"}"#),
        (said(Request::Subscribe, "a\"b/#", None, Close::BadTopic),
            r##"{"Request":"Subscribe","Time":"2026-01-02T03:04:05.678Z","Topic":"a\"b/#","Client":"g:abc123:gw:g1","RC":276,"Message":"The topic is not valid"}"##),
    ];
    for (said, expected) in table {
        assert_eq!(said, expected);
    }
    assert_eq!(notice::topic(&device("gw", "g1")).as_str(), "iot-2/type/gw/id/g1/notify");
    for topic in [
        "",
        "iot-2/type",
        "iot-2/type/t/id",
        "iot-2/type/t/x/d",
        "iot-2/type/+/id/+/mon",
        "x/type//id/d",
    ] {
        assert_eq!(notice::named(topic), None, "{topic}");
    }
}
