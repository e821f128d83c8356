//! What devices hear of what became of it.

use moorline_core::QoS;
use moorline_dialects::drogue::outcome::{Answer, Outcome, Refusal};
use serde_json::{Value, json};

#[test]
fn every_outcome_has_its_answer() {
    #[rustfmt::skip]
    let table = [
        (Outcome::Accepted, 0x00, None),
        (Outcome::NotAllowed, 0x87, Some(403)),
        (Outcome::Full, 0x97, Some(503)),
        (Outcome::Topic, 0x90, Some(400)),
        (Outcome::Rejected, 0x80, Some(406)),
        (Outcome::Payload, 0x99, Some(406)),
        (Outcome::Unsupported, 0x83, Some(400)),
        (Outcome::Failed, 0x80, Some(503)),
        (Outcome::Misconfigured, 0x80, Some(500)),
    ];
    assert_eq!(table.map(|(outcome, ..)| outcome), Outcome::ALL);
    for (outcome, reason, status) in table {
        let accepted = outcome == Outcome::Accepted;
        let v5 = if accepted { Answer::Acknowledged } else { Answer::Reason(reason) };
        assert_eq!(outcome.mqtt(true, QoS::AtLeastOnce), v5);
        assert_eq!(outcome.mqtt(true, QoS::ExactlyOnce), v5);
        let silent = if accepted { Answer::Acknowledged } else { Answer::Dropped };
        assert_eq!(outcome.mqtt(true, QoS::AtMostOnce), silent);
        let closed = if accepted { Answer::Acknowledged } else { Answer::Closed };
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            assert_eq!(outcome.mqtt(false, qos), closed, "MQTT 3.1.1 can't be told");
        }
        let refused = outcome.http("why").map(|refusal| refusal.status());
        assert_eq!((outcome.reason(), refused), (reason, status), "{}", outcome.name());
    }
}

#[test]
fn refusals_say_what_the_vendors_say() {
    let said = |refusal: Refusal| serde_json::from_slice::<Value>(&refusal.body()).unwrap();
    let expected = json!({
        "code": 403, "error": "AuthenticationError", "message": "Authentication failed",
    });
    assert_eq!(said(Refusal::Authentication), expected);
    #[rustfmt::skip]
    let table = [
        (Refusal::Format(String::new()), 400, "InvalidFormat"),
        (Refusal::Request(String::new()), 400, "InvalidRequest"),
        (Refusal::Unavailable, 503, "AuthenticationServiceError"),
        (Refusal::Configuration, 500, "ConfigurationError"),
        (Refusal::Rejected(String::new()), 406, "Rejected"),
        (Refusal::Full, 503, "QueueFull"),
        (Refusal::TooLarge, 413, "PayloadTooLarge"),
        (Refusal::Conflict(String::new()), 409, "Conflict"),
        (Refusal::NotFound, 404, "NotFound"),
        (Refusal::Method, 405, "MethodNotAllowed"),
        (Refusal::NotServed(""), 501, "NotImplemented"),
    ];
    for (refusal, status, name) in table {
        assert_eq!(refusal.status(), status);
        let said = said(refusal);
        assert_eq!((&said["code"], &said["error"]), (&json!(status), &json!(name)));
    }
}
