//! Events as CloudEvents 1.0 in JSON, one line each: as the API streams them and webhooks bring them.
//!
//! | attribute | what |
//! |---|---|
//! | `id` | shard and offset: `3-17`; unique in the cluster and tenant |
//! | `source` | `/tenants/acme/devices/pump-1` |
//! | `type` | `moorline.datapoint`, …; of what the cluster says itself `moorline.presence.offline`, `moorline.mail.acked`, … |
//! | `subject` | the channel, if the event has one |
//! | `time` | the shard's log time |
//! | `device`, `protocol` | extensions: whose it is, and by which protocol it came |
//! | `data`, `data_base64` | the body: JSON as it came, or bytes |

use std::fmt::Write;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::{ShardId, calendar::rfc3339};
use moorline_machine::{
    events::{Event, EventKind, NEWS, NewEvent},
    mail::MailNews,
    presence::PresenceNews,
};
use serde::de::IgnoredAny;
use serde_json::json;

use super::door::By;

/// How a body is to be read, as of mail: there is none.
pub const NOTHING: u8 = 0;
/// JSON.
pub const JSON: u8 = 1;

/// Appends an event to `out`: no line break is in it.
///
/// # Panics
///
/// Never: a string takes everything.
pub fn write(out: &mut String, tenant: &str, shard: ShardId, event: &Event) {
    let device = event.device.as_str();
    let what = &event.event;
    write!(out, r#"{{"specversion":"1.0","id":"{}","#, id(shard, event.offset.0)).expect(STRING);
    write!(out, r#""source":"/tenants/{}/devices/{}","#, encoded(tenant), encoded(device))
        .expect(STRING);
    let kind = what.kind.name();
    if what.content_type == NEWS {
        // What the cluster itself says: its kind says what happened.
        write!(out, r#""type":"moorline.{kind}.{}","#, what.channel).expect(STRING);
    } else {
        write!(out, r#""type":"moorline.{kind}","#).expect(STRING);
        if !what.channel.is_empty() {
            write!(out, r#""subject":{},"#, quoted(what.channel.as_str())).expect(STRING);
        }
    }
    let (time, protocol) = (rfc3339(event.at), By::name(what.by));
    write!(out, r#""time":"{time}","device":{},"protocol":"{protocol}""#, quoted(device))
        .expect(STRING);
    if let Some(data) = news(what) {
        write!(out, r#","datacontenttype":"application/json","data":{data}}}"#).expect(STRING);
        return;
    }
    let json = what.content_type == JSON;
    match std::str::from_utf8(&what.body).ok().filter(|text| json && is_json(text)) {
        Some(text) => {
            out.push_str(r#","datacontenttype":"application/json","data":"#);
            // A line break in JSON stands between its parts: in a string it is escaped.
            out.extend(text.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
        }
        None if what.content_type == NOTHING && what.body.is_empty() => {}
        None => {
            out.push_str(r#","datacontenttype":"application/octet-stream","data_base64":""#);
            STANDARD.encode_string(&what.body, out);
            out.push('"');
        }
    }
    out.push('}');
}

/// What the cluster has to say about presence or mail.
fn news(event: &NewEvent) -> Option<serde_json::Value> {
    if event.content_type != NEWS {
        return None;
    }
    let body = event.body.clone();
    match event.kind {
        EventKind::Presence => {
            let news = PresenceNews::decode(body).ok()?;
            Some(json!({
                "node": news.node.0,
                "connected": news.connected.map(rfc3339),
                "disconnected": news.disconnected.map(rfc3339),
                "heard": rfc3339(news.heard),
            }))
        }
        EventKind::Mail => {
            let MailNews { id, name, requeues, detail } = MailNews::decode(body).ok()?;
            let id = uuid::Uuid::from_u128(id);
            let detail = (!detail.is_empty()).then(|| detail.to_string());
            Some(json!({
                "mail": id, "name": name.as_str(), "requeues": requeues, "detail": detail,
            }))
        }
        EventKind::Datapoint | EventKind::Message | EventKind::System | EventKind::State => None,
    }
}

const STRING: &str = "a string takes everything";

/// An event's id.
#[must_use]
pub fn id(shard: ShardId, offset: u64) -> String {
    format!("{shard}-{offset}")
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any text can be a JSON string")
}

/// As the path of a URI wants it.
fn encoded(part: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect(STRING);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::{Offset, UnixMillis};
    use moorline_machine::events::{EventKind, NewEvent};
    use serde_json::{Value, json};

    use super::*;

    fn written(channel: &str, content_type: u8, body: &'static [u8]) -> Value {
        let event = Event {
            offset: Offset(17),
            at: UnixMillis(1_795_284_000_123),
            device: "a/ü 1".into(),
            born: Some(5),
            event: NewEvent {
                kind: EventKind::Datapoint,
                channel: channel.into(),
                content_type,
                body: Bytes::from_static(body),
                by: 1,
            },
        };
        let mut out = String::new();
        write(&mut out, "acme", ShardId(3), &event);
        assert!(!out.contains(['\n', '\r']), "{out}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    #[test]
    fn an_event_has_what_cloud_events_ask_for() {
        assert_eq!(
            written("env", 1, b"{\"t\":\r\n21.50,\"s\":\"a\\nb\"}"),
            json!({
                "specversion": "1.0", "id": "3-17", "source": "/tenants/acme/devices/a%2F%C3%BC%201",
                "type": "moorline.datapoint", "subject": "env", "time": "2026-11-21T18:00:00.123Z",
                "device": "a/ü 1", "protocol": "mqtt",
                "datacontenttype": "application/json", "data": { "t": 21.5, "s": "a\nb" },
            })
        );
        let bytes = written("", 2, b"\xff\x00");
        assert_eq!((&bytes["data_base64"], bytes.get("subject")), (&json!("/wA="), None));
        assert_eq!(bytes["datacontenttype"], "application/octet-stream");
        assert_eq!(written("", 1, b"no json")["data_base64"], "bm8ganNvbg==");
        let nothing = written("door \"1\"", 0, b"");
        assert_eq!((&nothing["subject"], nothing.get("data")), (&json!("door \"1\""), None));
    }
}
