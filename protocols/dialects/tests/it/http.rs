//! HTTP: every route, every status, and what is refused.

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{Answer, Declined, Denial, EventKind, Op, Settlement},
    port::Refusal,
};
use moorline_dialects::fostrom::http::{
    Head, Response, Route, declined, denied, op, respond, route,
};

use crate::support::{MAIL, MAIL_TEXT, SECRET, event, mail, text};

const AUTH: [(&str, &[u8]); 4] = [
    ("X-Fleet-ID", b"FLEET001"),
    ("x-device-id", b"DEVICE0001"),
    ("X-DEVICE-SECRET", SECRET),
    ("Content-Type", b"application/json; charset=utf-8"),
];

fn head<'a>(method: &'a str, path: &'a str) -> Head<'a> {
    Head { method, path, headers: &AUTH }
}

/// What a request asks: its op, or the status it gets at once.
fn asked(method: &str, path: &str, body: &str) -> Result<Option<Op>, u16> {
    let head = head(method, path);
    let routed = route(&head).map_err(|response| response.status)?;
    assert_eq!(routed.credentials.is_none(), routed.route == Route::Root);
    op(&routed.route, &head, Bytes::from(body.to_owned())).map_err(|response| response.status)
}

#[test]
fn routes_become_ops() {
    let datapoint = event(EventKind::Datapoint, "env", "{\"t\":1}");
    let ring = |body| event(EventKind::Message, "ring", body);
    let settle = |settlement| Op::SettleMail { id: MAIL, settlement };
    let path = |verb: &str| format!("/v1/mailbox/{verb}/{MAIL_TEXT}");
    #[rustfmt::skip]
    let table: [(&str, &str, &str, Result<Option<Op>, u16>); 31] = [
        ("GET",  "/",                     "",          Ok(None)),
        ("GET",  "/v1",                   "",          Ok(None)),
        ("GET",  "/v1/events",            "",          Ok(None)),
        ("POST", "/v1/heartbeat",         "",          Ok(Some(Op::Heartbeat))),
        ("POST", "/v1/datapoint/env",     "{\"t\":1}", Ok(Some(datapoint))),
        ("POST", "/v1/msg/ring",          "{\"n\":1}", Ok(Some(ring("{\"n\":1}")))),
        ("POST", "/v1/msg/ring",          "null",      Ok(Some(ring("")))),
        ("POST", "/v1/msg/ring",          "",          Ok(Some(ring("")))),
        ("GET",  "/v1/mailbox/size",      "",          Ok(Some(Op::CountMail))),
        ("GET",  "/v1/mailbox/next",      "",          Ok(Some(Op::FetchMail { header_only: false }))),
        ("PUT",  &path("ack"),            "",          Ok(Some(settle(Settlement::Ack)))),
        ("PUT",  &path("reject"),         "",          Ok(Some(settle(Settlement::Reject)))),
        ("PUT",  &path("requeue"),        "",          Ok(Some(settle(Settlement::Requeue)))),
        ("POST", "/",                     "",          Err(404)),
        ("GET",  "",                      "",          Err(404)),
        ("GET",  "/v1/",                  "",          Err(404)),
        ("GET",  "/v2",                   "",          Err(404)),
        ("GET",  "/v1/heartbeat",         "",          Err(404)),
        ("POST", "/v1/heartbeat/x",       "",          Err(404)),
        ("POST", "/v1/datapoint",         "{\"t\":1}", Err(404)),
        ("POST", "/v1/datapoint/env/x",   "{\"t\":1}", Err(404)),
        ("PUT",  "/v1/mailbox/drop/x",    "",          Err(404)),
        ("GET",  &path("ack"),            "",          Err(404)),
        ("PUT",  &format!("{}/x", path("ack")), "",    Err(404)),
        ("PUT",  "/v1/mailbox/ack/x",     "",          Err(400)),
        ("POST", "/v1/datapoint/env",     "",          Err(400)),
        ("POST", "/v1/datapoint/env",     "{}",        Err(400)),
        ("POST", "/v1/datapoint/env",     "{",         Err(400)),
        ("POST", "/v1/msg/ring",          "[]",        Err(400)),
        ("POST", "/v1/datapoint/",        "{\"t\":1}", Err(422)),
        ("POST", "/v1/datapoint/a%20b",   "{\"t\":1}", Err(422)),
    ];
    for (method, path, body, expected) in table {
        assert_eq!(asked(method, path, body), expected, "{method} {path} {body}");
    }
    assert_eq!(asked("POST", "/v1/msg/ring", &" ".repeat(65_537)), Err(413));
}

#[test]
fn credentials_are_in_the_headers_once() {
    let get = |headers: &[(&str, &[u8])]| {
        route(&Head { method: "GET", path: "/v1", headers })
            .map_err(|response| (response.status, text(&response.body).to_owned()))
    };
    let identity = get(&AUTH).unwrap().credentials.unwrap().identity;
    assert_eq!(identity.device, Text::from("DEVICE0001"));
    #[rustfmt::skip]
    let table: [(&[(&str, &[u8])], &str); 5] = [
        (&[],                                                    "Fleet ID is missing"),
        (&AUTH[..1],                                             "Device ID is missing"),
        (&AUTH[..2],                                             "Device Secret is missing"),
        (&[("x-fleet-id", b"FLEET1"), AUTH[1], AUTH[2]],         "Fleet ID is invalid"),
        (&[AUTH[0], ("x-fleet-id", b"FLEET002"), AUTH[1], AUTH[2]], "Fleet ID is missing"),
    ];
    for (headers, error) in table {
        assert_eq!(get(headers), Err((400, format!("{{\"error\":\"{error}\"}}"))));
    }
}

#[test]
fn bodies_are_json() {
    for (content_type, expected) in [
        (&b"application/json"[..], None),
        (b"Application/JSON;charset=utf-8", None),
        (b"application/x-www-form-urlencoded", Some(415)),
        (b"text/plain", Some(415)),
        (b"", Some(415)),
    ] {
        let headers = [AUTH[0], AUTH[1], AUTH[2], ("content-type", content_type)];
        let head = Head { method: "POST", path: "/v1/msg/ring", headers: &headers };
        let route = Route::Message(Text::from("ring"));
        let refused = op(&route, &head, Bytes::from_static(b"{}")).err();
        assert_eq!(refused.map(|response| response.status), expected, "{content_type:?}");
        assert!(op(&route, &head, Bytes::new()).is_ok(), "no body needs no type");
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
}

#[test]
fn successes_are_written_as_documented() {
    let ok = "{\"ok\":true}";
    let next =
        format!("{{\"id\":\"{MAIL_TEXT}\",\"name\":\"open-gate\",\"payload\":{{\"gate\":1}}}}");
    let describe = "{\"device\":{\"device_id\":\"DEVICE0001\",\"fleet_id\":\"FLEET001\"},\
        \"endpoint\":\"device\",\"endpoint_version\":1,\"fostrom\":true}";
    let root = "{\"endpoint\":\"device\",\"fostrom\":true,\"latest_endpoint_version\":1}";
    let name = Text::from("env");
    let one = Answer::Mail { size: 1, mail: Some(mail("{\"gate\":1}")) };
    let empty = Answer::Mail { size: 0, mail: None };
    let settle = Route::Settle(Settlement::Ack, Text::from(MAIL_TEXT));
    #[rustfmt::skip]
    let table = [
        (Route::Root,              Answer::Done,               200, root),
        (Route::Describe,          Answer::Done,               200, describe),
        (Route::Heartbeat,         Answer::Done,               201, ok),
        (Route::Datapoint(name.clone()), Answer::Done,         201, ok),
        (Route::Message(name),     Answer::Done,               201, ok),
        (Route::MailboxSize,       Answer::MailboxSize(3),     200, "{\"size\":3}"),
        (Route::NextMail,          one,                        200, &next),
        (Route::NextMail,          empty,                      204, ""),
        (settle,                   Answer::Settled { size: 0 }, 200, ok),
        (Route::Heartbeat,         Answer::MailboxSize(1),     500, "{\"error\":\"failed: the service gave a strange answer\"}"),
    ];
    let identity = route(&head("GET", "/v1")).unwrap().credentials.unwrap().identity;
    for (route, answer, status, body) in table {
        for available in [None, Some(true), Some(false)] {
            let said = respond(&route, Some(&identity), Ok(answer.clone()), available);
            assert_eq!((said.status, text(&said.body)), (status, body), "{route:?}");
            assert_eq!(header(&said, "cache-control"), Some("no-store"));
            assert_eq!(header(&said, "connection"), Some("keep-alive"));
            let json = (status != 204).then_some("application/json");
            assert_eq!(header(&said, "content-type"), json);
            let available = available.map(|available| available.to_string());
            assert_eq!(header(&said, "x-messages-available"), available.as_deref());
        }
    }
    let stream = respond(&Route::Events, Some(&identity), Ok(Answer::Done), None);
    assert_eq!(header(&stream, "content-type"), Some("text/event-stream; charset=utf-8"));
}

#[test]
fn refusals_have_their_status() {
    #[rustfmt::skip]
    let denials = [
        (Denial::Malformed, 400, None),      (Denial::UnknownTenant, 401, None),
        (Denial::UnknownDevice, 401, None),  (Denial::WrongSecret, 401, None),
        (Denial::Disabled, 403, None),       (Denial::Banned { retry_after_s: 900 }, 403, Some("900")),
        (Denial::Stopping, 503, Some("1")),  (Denial::Unavailable, 503, Some("1")),
        (Denial::TooOften, 429, Some("1")),  (Denial::Plaintext, 403, None),
    ];
    for (denial, status, retry_after) in denials {
        for response in [denied(denial), declined(&Declined::Denied(denial))] {
            assert_eq!((response.status, header(&response, "retry-after")), (status, retry_after));
        }
    }
    #[rustfmt::skip]
    let table: [(Declined, u16, &str); 11] = [
        (Declined::Unreadable("x"),       400, "deserialization_failed: x"),
        (Declined::InvalidMailId,         400, "invalid_pulse_id: not a mail's id"),
        (Declined::UnknownMail,           404, "mail_not_found: the mailbox has no such mail"),
        (Declined::NotNextMail,           409, "not_next_mail: the mail is not the next one"),
        (Declined::UnknownSchema,         422, "packet_schema_not_found: the fleet has no such packet schema"),
        (Refusal::TooLarge.into(),        413, "too_large: too large"),
        (Refusal::NotAuthorised.into(),   403, "not_authorised: not authorised"),
        (Refusal::Quota.into(),           429, "quota_exceeded: a quota is used up"),
        (Refusal::Busy.into(),            503, "busy: the cluster is busy"),
        (Refusal::Unavailable.into(),     503, "unavailable: the shard did not answer in time"),
        (Refusal::DiskFull.into(),        503, "disk_full: the cluster is out of disk space"),
    ];
    for (why, status, error) in table {
        let response = respond(&Route::Heartbeat, None, Err(why), Some(true));
        let body = format!("{{\"error\":\"{error}\"}}");
        assert_eq!((response.status, text(&response.body)), (status, body.as_str()));
        assert_eq!(header(&response, "x-messages-available"), Some("true"));
        assert_eq!(header(&response, "retry-after").is_some(), status == 503 || status == 429);
    }
}
