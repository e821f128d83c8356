//! What the tests share: one device, one mail, JSON and MessagePack in short.

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{Event, EventKind, Format, Mail, MailId, Op},
};

pub(crate) const SECRET: &[u8] = b"FOS-0123456789ABCDEFGHIJKLMNOPQRSTUV";
pub(crate) const MAIL: MailId = MailId(0x018f_4d1f_2a55_7f0e_b4ea_5f7c_3e6f_a001);
pub(crate) const MAIL_TEXT: &str = "018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001";

pub(crate) fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub(crate) fn mail(payload: &'static str) -> Mail {
    let payload = Bytes::from_static(payload.as_bytes());
    Mail { id: MAIL, name: Text::from("open-gate"), format: Format::Json, payload }
}

/// An event as the core has it.
pub(crate) fn event(kind: EventKind, channel: &str, body: &'static str) -> Op {
    let body = Bytes::from_static(body.as_bytes());
    Op::Event(Event { kind, channel: Text::from(channel), format: Format::Json, body })
}

/// JSON as MessagePack, by the library and not by us.
pub(crate) fn msgpack(json: &str) -> Bytes {
    fn convert(value: serde_json::Value) -> rmpv::Value {
        match value {
            serde_json::Value::Null => rmpv::Value::Nil,
            serde_json::Value::Bool(value) => value.into(),
            serde_json::Value::Number(n) if n.is_i64() => n.as_i64().unwrap().into(),
            serde_json::Value::Number(n) => n.as_f64().unwrap().into(),
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Array(items) => {
                items.into_iter().map(convert).collect::<Vec<_>>().into()
            }
            serde_json::Value::Object(map) => {
                rmpv::Value::Map(map.into_iter().map(|(k, v)| (k.into(), convert(v))).collect())
            }
        }
    }
    let mut bytes = Vec::new();
    let value = convert(serde_json::from_str(json).unwrap());
    rmpv::encode::write_value(&mut bytes, &value).unwrap();
    Bytes::from(bytes)
}
