//! Those properties of MQTT 5 messages that mean something here, out of their wire form and into it.
//!
//! They were checked by the codec; what can't be read all the same is not there.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

const PAYLOAD_FORMAT: u8 = 0x01;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;

/// What properties say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// The content type.
    pub content_type: Option<String>,
    /// User properties, in their order.
    pub user: Vec<(String, String)>,
}

/// Reads them, without the length before them.
#[must_use]
pub fn read(properties: &[u8]) -> Said {
    let mut said = Said::default();
    let mut rest = properties;
    while let Some((id, after)) = rest.split_first() {
        rest = after;
        let known = match *id {
            PAYLOAD_FORMAT => rest.split_first().map(|(_, after)| rest = after),
            CONTENT_TYPE => text(&mut rest).map(|text| said.content_type = Some(text)),
            RESPONSE_TOPIC => text(&mut rest).map(drop),
            CORRELATION_DATA => field(&mut rest).map(drop),
            USER_PROPERTY => {
                let pair = text(&mut rest).and_then(|name| Some((name, text(&mut rest)?)));
                pair.map(|pair| said.user.push(pair))
            }
            _ => None,
        };
        if known.is_none() {
            break;
        }
    }
    said
}

/// Writes a content type and user properties; `utf8`: whether the payload is said to be text.
#[must_use]
pub fn write(content_type: Option<&str>, user: &[(&str, &str)], utf8: bool) -> Bytes {
    let mut out = BytesMut::new();
    if utf8 {
        out.put_slice(&[PAYLOAD_FORMAT, 1]);
    }
    if let Some(content_type) = content_type {
        out.put_u8(CONTENT_TYPE);
        put(&mut out, content_type);
    }
    for (name, value) in user {
        out.put_u8(USER_PROPERTY);
        put(&mut out, name);
        put(&mut out, value);
    }
    out.freeze()
}

/// A text of MQTT has at most 65,535 bytes: what is longer is cut, at a character. U+0000 can't stand in one, and would end the connection
/// of who hears it.
fn put(out: &mut BytesMut, text: &str) {
    let said = match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{FFFD}")),
        false => Cow::Borrowed(text),
    };
    let text = &*said;
    let most = usize::from(u16::MAX);
    let end = (0..=text.len().min(most)).rev().find(|at| text.is_char_boundary(*at));
    let text = &text[..end.unwrap_or(0)];
    out.put_u16(u16::try_from(text.len()).expect("it was cut"));
    out.put_slice(text.as_bytes());
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    let (field, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = after;
    Some(field)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    field(rest).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}
