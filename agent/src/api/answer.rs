//! What became of a request, as the SDKs expect to hear it.
//!
//! A refusal's text begins with a code and a colon where the vendor's has one: the SDKs hand the whole text to their users.

use bytes::Bytes;
use moorline_core::op::Declined;
use moorline_dialects::fostrom::words;
use moorline_moonlight::{
    client::Failure,
    codec::{Next, PulseError},
};
use serde_json::json;

use crate::question::{Question, Unanswered, Why};

use super::response::Response;

/// `GET /`. `down`: why the uplink is down, if somebody knows, and the milliseconds until it is tried again.
pub(crate) fn status(connected: bool, down: Option<(&Why, u64)>) -> Response {
    match down {
        Some((why, wait_ms)) if !connected => Response::ok(&json!({
            "connected": false,
            "error": why.code,
            "msg": why.text,
            "reconnecting_in": wait_ms,
        })),
        _ => Response::ok(&json!({ "connected": connected })),
    }
}

/// `DELETE /stop-agent`, and a pulse that was accepted.
pub(crate) fn done() -> Response {
    Response::ok(&json!({ "ok": true }))
}

/// A mail op that was done. `more`: whether to fetch the next mail at once.
pub(crate) fn settled(more: bool) -> Response {
    Response::ok(&json!({ "ok": true, "mail_available": more })).with("X-Mail-Available", more)
}

/// The front mail. Its payload may be left out, or be none: `null` is none, as in [`done`]'s direction.
pub(crate) fn shown(next: Next) -> Response {
    match next {
        Next::Failed { .. } | Next::Empty => {
            Response::empty().with("X-Mailbox-Size", 0).with("X-Mailbox-Empty", true)
        }
        Next::Mail { size, id, name, payload } => {
            let payload = if payload == b"null"[..] { Bytes::new() } else { payload };
            let mut response = Response::empty()
                .with("X-Mailbox-Size", size)
                .with("X-Mailbox-Empty", false)
                .with("X-Mail-ID", id)
                .with("X-Mail-Name", name)
                .with("X-Mail-Has-Payload", !payload.is_empty());
            response.body = payload;
            response
        }
    }
}

/// What was asked was not done, or nobody knows whether it was.
pub(crate) fn not_done(question: &Question, unanswered: &Unanswered) -> Response {
    let failed = match question {
        Question::Settle { .. } => "mail_ack_failed",
        Question::Pulse { .. } | Question::Next { .. } => "failed",
    };
    let text = match unanswered {
        Unanswered::Failed(Failure::TimedOut) => {
            return Response::error(408, "Operation timed out");
        }
        Unanswered::NotConnected(why) => {
            let why = why.as_ref().map_or("the agent is not connected", |why| &why.text);
            format!("not_connected: {why}")
        }
        Unanswered::Busy => format!("{failed}: too many requests are under way"),
        Unanswered::Pending => format!("{failed}: the mail is being settled already"),
        Unanswered::Unspeakable => format!("{failed}: it has no form in Moonlight"),
        Unanswered::Failed(Failure::Lost) => {
            "txn_failed: the connection was lost before the answer came: it may have been done"
                .to_owned()
        }
        Unanswered::Failed(Failure::Refused) => match question {
            Question::Settle { .. } => "mail_ack_failed: the mail is not the next one".to_owned(),
            Question::Pulse { .. } | Question::Next { .. } => {
                "failed: the server refused it".to_owned()
            }
        },
        Unanswered::Failed(Failure::Pulse(error)) => match error {
            PulseError::Unknown => "failed: the server refused it".to_owned(),
            PulseError::DeserializationFailed => {
                "deserialization_failed: the server can't read the payload".to_owned()
            }
            PulseError::SchemaNotFound => words::declined(&Declined::UnknownSchema),
            PulseError::SchemaTypeMismatch => {
                "packet_schema_type_mismatch: the payload is not as its packet schema says"
                    .to_owned()
            }
        },
    };
    Response::error(403, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorline_core::{
        Text,
        op::{MailId, Settlement},
    };
    use moorline_moonlight::codec::PulseKind;

    const ID: MailId = MailId(0x018f_4d1f_2a55_7f0e_b4ea_5f7c_3e6f_a001);

    fn lines(response: &Response) -> String {
        let headers = response.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        let body = std::str::from_utf8(&response.body).unwrap().to_owned();
        let status = response.status.to_string();
        std::iter::once(status).chain(headers).chain([body]).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_status_says_why_if_somebody_knows() {
        let why = Why { code: "unauthorized", text: "the secret is wrong".to_owned() };
        #[rustfmt::skip]
        let table = [
            (true,  None,                r#"{"connected":true}"#),
            (true,  Some((&why, 1)),     r#"{"connected":true}"#),
            (false, None,                r#"{"connected":false}"#),
            (false, Some((&why, 300_000)),
                r#"{"connected":false,"error":"unauthorized","msg":"the secret is wrong","reconnecting_in":300000}"#),
        ];
        for (connected, down, expected) in table {
            assert_eq!(lines(&status(connected, down)), format!("200\n{expected}"));
        }
    }

    #[test]
    fn mail_is_shown_in_headers_and_body() {
        let mail = |payload| Next::Mail {
            size: 3,
            id: ID,
            name: Text::from("open-gate"),
            payload: Bytes::from_static(payload),
        };
        let shows = |has, body| {
            format!(
                "200\nX-Mailbox-Size: 3\nX-Mailbox-Empty: false\n\
                 X-Mail-ID: 018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001\nX-Mail-Name: open-gate\n\
                 X-Mail-Has-Payload: {has}\n{body}"
            )
        };
        let table = [
            (Next::Empty, "200\nX-Mailbox-Size: 0\nX-Mailbox-Empty: true\n".to_owned()),
            (mail(b""), shows(false, "")),
            (mail(b"null"), shows(false, "")),
            (mail(b"{\"gate\":1}"), shows(true, "{\"gate\":1}")),
        ];
        for (next, expected) in table {
            assert_eq!(lines(&shown(next)), expected);
        }
    }

    #[test]
    fn a_settlement_says_whether_to_go_on() {
        for more in [true, false] {
            let body = format!(r#"{{"mail_available":{more},"ok":true}}"#);
            assert_eq!(lines(&settled(more)), format!("200\nX-Mail-Available: {more}\n{body}"));
        }
        assert_eq!(lines(&done()), "200\n{\"ok\":true}");
    }

    #[test]
    fn every_refusal_has_its_status_and_code() {
        let pulse = Question::Pulse {
            kind: PulseKind::Datapoint,
            name: Text::from("env"),
            payload: Bytes::new(),
        };
        let next = Question::Next { header_only: false };
        let settle = Question::Settle { id: ID, settlement: Settlement::Ack };
        let why = Why { code: "unauthorized", text: "banned".to_owned() };
        let pulse_error = |error| Unanswered::Failed(Failure::Pulse(error));
        #[rustfmt::skip]
        let table = [
            (&pulse,  Unanswered::NotConnected(None),              403, "not_connected: the agent is not connected"),
            (&next,   Unanswered::NotConnected(Some(why)),         403, "not_connected: banned"),
            (&pulse,  Unanswered::Failed(Failure::TimedOut),       408, "Operation timed out"),
            (&settle, Unanswered::Failed(Failure::TimedOut),       408, "Operation timed out"),
            (&pulse,  Unanswered::Failed(Failure::Lost),           403, "txn_failed: "),
            (&settle, Unanswered::Failed(Failure::Lost),           403, "txn_failed: "),
            (&pulse,  Unanswered::Busy,                            403, "failed: "),
            (&settle, Unanswered::Busy,                            403, "mail_ack_failed: "),
            (&settle, Unanswered::Pending,                         403, "mail_ack_failed: "),
            (&settle, Unanswered::Failed(Failure::Refused),        403, "mail_ack_failed: "),
            (&next,   Unanswered::Failed(Failure::Refused),        403, "failed: "),
            (&pulse,  Unanswered::Unspeakable,                     403, "failed: "),
            (&pulse,  pulse_error(PulseError::Unknown),            403, "failed: "),
            (&pulse,  pulse_error(PulseError::DeserializationFailed), 403, "deserialization_failed: "),
            (&pulse,  pulse_error(PulseError::SchemaNotFound),     403, "packet_schema_not_found: "),
            (&pulse,  pulse_error(PulseError::SchemaTypeMismatch), 403, "packet_schema_type_mismatch: "),
        ];
        for (question, unanswered, status, error) in table {
            let response = not_done(question, &unanswered);
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            let said = body["error"].as_str().unwrap();
            assert_eq!(response.status, status, "{said}");
            assert!(said.starts_with(error), "{said}");
        }
    }
}
