//! Requests to what is asked of the agent.
//!
//! Paths are matched literally, so that a query makes an unknown route or a wrong name. The headers that say whose agent
//! this should be are looked at first: nobody learns from an answer what a stranger's agent could do.

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{MailId, Settlement},
};
use moorline_dialects::fostrom::is_name;
use moorline_moonlight::codec::PulseKind;
use serde::de::IgnoredAny;

use super::{
    reader::{Method, Request},
    response::Response,
};

/// The path of the event stream.
pub(crate) const EVENTS: &str = "/events";

/// Whose agent this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) fleet: String,
    pub(crate) device: String,
}

impl Identity {
    #[cfg(test)]
    pub(crate) fn new(fleet: &str, device: &str) -> Self {
        Self { fleet: fleet.to_owned(), device: device.to_owned() }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `GET /`: is the uplink up?
    Status,
    /// `HEAD /`: is the agent there?
    Ping,
    /// `DELETE /stop-agent`
    Stop,
    /// `GET /events`
    Events,
    /// `GET /mailbox/next`, and `HEAD`.
    Next {
        /// `HEAD`: the payload stays where it is.
        header_only: bool,
    },
    /// `PUT /mailbox/{ack,reject,requeue}/<uuid>`
    Settle {
        /// The mail.
        id: MailId,
        /// What became of it.
        settlement: Settlement,
    },
    /// `POST /pulse/{datapoint,msg,system}/<name>`
    Pulse {
        /// What kind.
        kind: PulseKind,
        /// Its schema.
        name: Text,
        /// JSON as it came, so that no digit of a number is lost; empty for none.
        payload: Bytes,
    },
}

/// What a request asks of the agent of this device.
///
/// # Errors
///
/// The answer.
pub(crate) fn route(request: Request, agent: &Identity) -> Result<Route, Response> {
    let Request { method, path, fleet, device, body } = request;
    match (method, path.as_str()) {
        (Method::Get, "/") => return Ok(Route::Status),
        (Method::Delete, "/stop-agent") => return Ok(Route::Stop),
        _ => {}
    }
    check(&fleet, &agent.fleet, "Fleet ID is missing", "Fleet ID mismatch")?;
    check(&device, &agent.device, "Device ID is missing", "Device ID mismatch")?;
    match (method, path.as_str()) {
        (Method::Head, "/") => Ok(Route::Ping),
        (Method::Get, EVENTS) => Ok(Route::Events),
        (Method::Get, "/mailbox/next") => Ok(Route::Next { header_only: false }),
        (Method::Head, "/mailbox/next") => Ok(Route::Next { header_only: true }),
        (Method::Put, path) => settle(path),
        (Method::Post, path) => pulse(path, body),
        (Method::Get | Method::Head | Method::Delete, _) => Err(not_found()),
    }
}

fn check(said: &[u8], own: &str, missing: &str, other: &str) -> Result<(), Response> {
    if said.is_empty() {
        return Err(Response::error(400, missing));
    }
    if said != own.as_bytes() {
        return Err(Response::error(401, other));
    }
    Ok(())
}

fn settle(path: &str) -> Result<Route, Response> {
    let rest = path.strip_prefix("/mailbox/").and_then(|rest| rest.split_once('/'));
    let (settlement, id) = match rest {
        Some(("ack", id)) => (Settlement::Ack, id),
        Some(("reject", id)) => (Settlement::Reject, id),
        Some(("requeue", id)) => (Settlement::Requeue, id),
        _ => return Err(not_found()),
    };
    let id = MailId::parse(id);
    let id = id.ok_or_else(|| Response::error(400, "invalid_pulse_id: not a mail's id"))?;
    Ok(Route::Settle { id, settlement })
}

fn pulse(path: &str, body: Bytes) -> Result<Route, Response> {
    let rest = path.strip_prefix("/pulse/").and_then(|rest| rest.split_once('/'));
    let (kind, name) = match rest {
        Some(("datapoint", name)) => (PulseKind::Datapoint, name),
        Some(("msg", name)) => (PulseKind::Message, name),
        Some(("system", name)) => (PulseKind::System, name),
        _ => return Err(not_found()),
    };
    if !is_name(name.as_bytes()) {
        return Err(Response::error(400, "Invalid Pulse Name"));
    }
    // Strings that are skipped are not looked at by the library.
    let json = body.is_empty()
        || std::str::from_utf8(&body)
            .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    if !json {
        return Err(Response::error(400, "invalid_json: the body is not JSON"));
    }
    Ok(Route::Pulse { kind, name: Text::from(name), payload: body })
}

fn not_found() -> Response {
    Response::error(404, "Not Found")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001";

    /// A method and a path, what is sent, and the status and the error that come back.
    type Row<'a> = (Method, &'a str, &'static [u8], (u16, &'static str));

    fn ask(method: Method, path: &str, body: &'static [u8]) -> Request {
        Request {
            method,
            path: path.to_owned(),
            fleet: Bytes::from_static(b"FLEET001"),
            device: Bytes::from_static(b"DEVICE0001"),
            body: Bytes::from_static(body),
        }
    }

    fn outcome(request: Request) -> Result<Route, (u16, String)> {
        let agent = Identity::new("FLEET001", "DEVICE0001");
        route(request, &agent).map_err(|response| {
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            (response.status, body["error"].as_str().unwrap().to_owned())
        })
    }

    #[test]
    fn routes_are_found() {
        use Method::{Delete, Get, Head, Post, Put};
        let id = MailId::parse(ID).unwrap();
        let settle = |settlement| Route::Settle { id, settlement };
        let pulse = |kind, name, payload| Route::Pulse {
            kind,
            name: Text::from(name),
            payload: Bytes::from_static(payload),
        };
        let (ack, upper) =
            (format!("/mailbox/ack/{ID}"), format!("/mailbox/ack/{}", ID.to_uppercase()));
        let (reject, requeue) = (format!("/mailbox/reject/{ID}"), format!("/mailbox/requeue/{ID}"));
        let long = "x".repeat(255);
        let long_path = format!("/pulse/msg/{long}");
        #[rustfmt::skip]
        let table: [(Method, &str, &'static [u8], Route); 15] = [
            (Get,    "/",                  b"",   Route::Status),
            (Head,   "/",                  b"",   Route::Ping),
            (Delete, "/stop-agent",        b"",   Route::Stop),
            (Get,    "/events",            b"",   Route::Events),
            (Get,    "/mailbox/next",      b"",   Route::Next { header_only: false }),
            (Head,   "/mailbox/next",      b"",   Route::Next { header_only: true }),
            (Put,    &ack,                 b"",   settle(Settlement::Ack)),
            (Put,    &upper,               b"{}", settle(Settlement::Ack)),
            (Put,    &reject,              b"",   settle(Settlement::Reject)),
            (Put,    &requeue,             b"",   settle(Settlement::Requeue)),
            (Post,   "/pulse/datapoint/a", b"{\"t\":21.50}", pulse(PulseKind::Datapoint, "a", b"{\"t\":21.50}")),
            (Post,   "/pulse/msg/A_-9",    b"null",          pulse(PulseKind::Message, "A_-9", b"null")),
            (Post,   "/pulse/msg/a",       b"",              pulse(PulseKind::Message, "a", b"")),
            (Post,   &long_path,           b"{}",            pulse(PulseKind::Message, &long, b"{}")),
            (Post,   "/pulse/system/a",    b" [1e400] ",     pulse(PulseKind::System, "a", b" [1e400] ")),
        ];
        for (method, path, body, expected) in table {
            assert_eq!(outcome(ask(method, path, body)), Ok(expected), "{method:?} {path}");
        }
    }

    #[test]
    fn what_is_no_route_is_refused() {
        use Method::{Delete, Get, Head, Post, Put};
        let not_found = (404, "Not Found");
        let id = (400, "invalid_pulse_id: not a mail's id");
        let name = (400, "Invalid Pulse Name");
        let json = (400, "invalid_json: the body is not JSON");
        let (query, version_4) = (format!("/mailbox/ack/{ID}?x"), ID.replace("-7f0e-", "-4f0e-"));
        let version_4 = format!("/mailbox/ack/{version_4}");
        let (got, long) = (format!("/mailbox/ack/{ID}"), format!("/pulse/msg/{}", "x".repeat(256)));
        #[rustfmt::skip]
        let table: [Row<'_>; 27] = [
            (Post,   "/",                    b"", not_found),
            (Get,    "/?x",                  b"", not_found),
            (Get,    "/events?x",            b"", not_found),
            (Get,    "/events/",             b"", not_found),
            (Head,   "/events",              b"", not_found),
            (Get,    "/mailbox",             b"", not_found),
            (Get,    "/mailbox/next?x",      b"", not_found),
            (Put,    "/mailbox/next",        b"", not_found),
            (Get,    &got,                   b"", not_found),
            (Put,    "/mailbox/ack",         b"", not_found),
            (Put,    "/mailbox/take/x",      b"", not_found),
            (Put,    "/mailbox/ack/",        b"", id),
            (Put,    "/mailbox/ack/x",       b"", id),
            (Put,    &query,                 b"", id),
            (Put,    &version_4,             b"", id),
            (Get,    "/pulse/msg/a",         b"", not_found),
            (Post,   "/pulse/msg",           b"", not_found),
            (Post,   "/pulse/other/a",       b"", not_found),
            (Post,   "/pulse/msg/",          b"", name),
            (Post,   "/pulse/msg/a?x",       b"", name),
            (Post,   "/pulse/msg/a/b",       b"", name),
            (Post,   "/pulse/msg/a%20b",     b"", name),
            (Post,   &long,                  b"", name),
            (Post,   "/pulse/datapoint/a",   b"{\"t\":}", json),
            (Post,   "/pulse/datapoint/a",   b"{} {}",    json),
            (Post,   "/pulse/datapoint/a",   b"\"\xff\"", json),
            (Delete, "/stop-agent/",         b"", not_found),
        ];
        for (method, path, body, (status, error)) in table {
            let expected = Err((status, error.to_owned()));
            assert_eq!(outcome(ask(method, path, body)), expected, "{method:?} {path}");
        }
    }

    #[test]
    fn only_two_routes_are_for_everybody() {
        use Method::{Delete, Get, Head, Post, Put};
        let good: (&'static [u8], &'static [u8]) = (b"FLEET001", b"DEVICE0001");
        let table: [(_, _, Option<(u16, &str)>); 8] = [
            (good.0, good.1, None),
            (b"", good.1, Some((400, "Fleet ID is missing"))),
            (good.0, b"", Some((400, "Device ID is missing"))),
            (b"", b"", Some((400, "Fleet ID is missing"))),
            (b"FLEET002", good.1, Some((401, "Fleet ID mismatch"))),
            (b"fleet001", good.1, Some((401, "Fleet ID mismatch"))),
            (good.0, b"DEVICE0002", Some((401, "Device ID mismatch"))),
            (good.0, b"\xff", Some((401, "Device ID mismatch"))),
        ];
        let closed = [
            (Head, "/"),
            (Get, EVENTS),
            (Get, "/mailbox/next"),
            (Head, "/mailbox/next"),
            (Put, "/mailbox/ack/x"),
            (Post, "/pulse/msg/a"),
            (Get, "/unknown"),
        ];
        for (fleet, device, expected) in table {
            let with = |method, path| Request {
                fleet: Bytes::from_static(fleet),
                device: Bytes::from_static(device),
                ..ask(method, path, b"")
            };
            assert_eq!(outcome(with(Get, "/")), Ok(Route::Status));
            assert_eq!(outcome(with(Delete, "/stop-agent")), Ok(Route::Stop));
            for (method, path) in closed {
                let seen = outcome(with(method, path)).err();
                if let Some((status, error)) = expected {
                    assert_eq!(seen, Some((status, error.to_owned())), "{method:?} {path}");
                } else {
                    assert_ne!(seen.map(|(status, _)| status), Some(401), "{method:?} {path}");
                }
            }
        }
    }
}
