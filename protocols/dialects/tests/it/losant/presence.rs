//! Connections, as they are kept, logged and told.

use moorline_dialects::losant::presence::{Change, Reason, said};
use serde_json::json;

use super::NOW;

fn gone() -> Change {
    Change {
        connected: false,
        at_ms: NOW,
        connected_at_ms: Some(NOW - 1_000),
        reason: Some(Reason::Lost.text().to_owned()),
        from_device: 3,
        to_device: 4,
        said: false,
    }
}

#[test]
fn what_is_kept_is_read_as_the_same_and_shown_in_each_form() {
    let gone = gone();
    assert_eq!(Change::read(&gone.kept()), Some(gone.clone()));
    assert_eq!(Change::read(&json!({ "x": 1 })), None);
    assert_eq!(
        gone.entry(),
        json!({
            "connected": false, "time": "2026-01-02T03:04:05.678Z", "disconnectReason": "Connection Lost",
            "messagesFromClient": 3, "messagesToClient": 4, "connectedAt": "2026-01-02T03:04:04.678Z",
        })
    );
    let event = gone.event("app", "dev");
    assert_eq!((&event["messagesFromDevice"], &event["deviceId"]), (&json!(3), &json!("dev")));
    assert_eq!(gone.info(), json!({ "time": "2026-01-02T03:04:05.678Z", "connected": 0 }));
    let came = Change { connected: true, ..gone };
    assert_eq!(came.entry(), json!({ "connected": true, "time": "2026-01-02T03:04:05.678Z" }));
    assert_eq!(came.info()["connected"], 1);
}

#[test]
fn somebody_says_how_a_device_is() {
    let read = |text: &str| said(text.as_bytes(), NOW);
    let came = read(r#"{"status":"connected","connectedAt":{"$date":"2026-01-02T03:04:04.678Z"}}"#);
    let came = came.unwrap();
    assert_eq!((came.connected, came.at_ms, came.said), (true, NOW - 1_000, true));
    let went = read(
        r#"{"status":"disconnected","disconnectReason":"asleep","messagesFromClient":3,"messagesToClient":4,"connectedAt":-1000}"#,
    );
    let went = went.unwrap();
    assert_eq!((went.at_ms, went.connected_at_ms, went.from_device), (NOW, Some(NOW - 1_000), 3));
    assert_eq!(went.reason.as_deref(), Some("asleep"));
    for wrong in [
        "{}",
        r#"{"status":"asleep"}"#,
        r#"{"status":"connected","x":1}"#,
        r#"{"status":"connected","messagesToClient":-1}"#,
        "[]",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    let long = format!(r#"{{"status":"disconnected","disconnectReason":"{}"}}"#, "r".repeat(256));
    assert!(read(&long).is_err());
}

#[test]
fn every_end_has_words_of_its_own() {
    use Reason::{
        Client, Elsewhere, Limited, Lost, Misused, Refused, Revoked, Silent, Stopping, TooLarge,
        Topic,
    };
    #[rustfmt::skip]
    let all = [
        Client, Elsewhere, Limited, Lost, Misused, Refused, Revoked, Silent, Stopping, TooLarge, Topic,
    ];
    assert_eq!(Silent.text(), "Keep Alive Timeout");
    let mut words: Vec<_> = all.iter().map(|reason| reason.text()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), all.len());
}
