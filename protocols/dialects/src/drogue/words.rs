//! Percent signs, and parameters of a query.

use std::fmt::Write;

/// Undoes `%xx`; a sign that stands for nothing stays. [`None`] for what is no UTF-8 then.
pub(super) fn unescaped(text: &str) -> Option<String> {
    unescaped_if(text, |_| true)
}

/// Undoes `%xx` for bytes for which that is so, and leaves others as they are written.
pub(super) fn unescaped_if(text: &str, is_special: impl Fn(u8) -> bool) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *byte == b'%').and_then(hex);
        let digits = digits.filter(|byte| is_special(*byte));
        let (byte, after) = digits.map_or((*byte, after), |byte| (byte, &after[2..]));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

/// Writes each byte for which that is so as `%XX`.
pub(super) fn escaped(text: &str, is_special: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_special(byte) || !byte.is_ascii() {
            write!(out, "%{byte:02X}").expect("a string takes it");
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

/// As names stand in sources and partition keys: all but letters and digits is escaped.
pub(super) fn name_escaped(text: &str) -> String {
    escaped(text, |byte| !byte.is_ascii_alphanumeric())
}

/// A parameter of a query. Of one that stands twice, the first counts; one that is there and empty says nothing.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut all = form_urlencoded::parse(query.as_bytes());
    let found = all.find(|(other, _)| other == name);
    found.map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}
