//! Reading the fields of one packet whose bytes are all there.

use bytes::Bytes;
use moorline_core::Text;

use super::{DecodeError, PacketId, fixed};

/// Reads fields off the front of a packet's body. What it hands out shares the body's buffer.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(whole: &'a Bytes) -> Self {
        Self { whole, rest: whole }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// A part of the body as a shared buffer.
    pub(super) fn share(&self, part: &[u8]) -> Bytes {
        self.whole.slice_ref(part)
    }

    /// A reader of the next `len` bytes, which this one skips.
    pub(super) fn part(&mut self, len: usize) -> Result<Self, DecodeError> {
        Ok(Self { whole: self.whole, rest: self.raw(len)? })
    }

    pub(super) fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (raw, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Malformed("a field runs past its end"))?;
        self.rest = rest;
        Ok(raw)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.raw(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        let raw = self.raw(2)?;
        Ok(u16::from_be_bytes([raw[0], raw[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        let raw = self.raw(4)?;
        Ok(u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]))
    }

    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = fixed::varint(self.rest)?
            .ok_or(DecodeError::Malformed("a variable byte integer runs past its end"))?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::Protocol("packet identifier 0"))
    }

    /// Bytes with their two-byte length in front.
    pub(super) fn field(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.raw(usize::from(len))
    }

    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let field = self.field()?;
        Ok(self.share(field))
    }

    /// A UTF-8 string (1.5.4), as bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], DecodeError> {
        let field = self.field()?;
        if std::str::from_utf8(field).is_err() {
            return Err(DecodeError::Malformed("a string is not UTF-8"));
        }
        no_nul(field)?;
        Ok(field)
    }

    /// A UTF-8 string that names something (client, user, topic, filter), as bytes; stricter than other text.
    pub(super) fn name(&mut self) -> Result<&'a [u8], DecodeError> {
        let field = self.field()?;
        check_name(field)?;
        Ok(field)
    }

    /// The same as shared text.
    pub(super) fn name_text(&mut self) -> Result<Text, DecodeError> {
        let name = self.name()?;
        self.share_text(name)
    }

    pub(super) fn share_text(&self, part: &[u8]) -> Result<Text, DecodeError> {
        Text::from_utf8(self.share(part))
            .map_err(|_| DecodeError::Malformed("a string is not UTF-8"))
    }

    /// # Errors
    ///
    /// If bytes are left over.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("bytes after the last field"))
        }
    }
}

fn no_nul(field: &[u8]) -> Result<(), DecodeError> {
    if field.contains(&0) {
        return Err(DecodeError::Malformed("a string contains U+0000"));
    }
    Ok(())
}

/// Names must not hold control characters or non-characters. The standard lets a receiver take them as malformed
/// (1.5.4), and in a topic or a client id they are accidents or attacks on somebody's terminal.
fn check_name(name: &[u8]) -> Result<(), DecodeError> {
    // Nearly all names are printable ASCII. The fold, unlike `all`, is vectorised.
    if name.iter().fold(true, |plain, &byte| plain & (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    let name =
        std::str::from_utf8(name).map_err(|_| DecodeError::Malformed("a string is not UTF-8"))?;
    let forbidden = |c: char| {
        c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
    };
    if name.chars().any(forbidden) {
        return Err(DecodeError::Malformed("a name contains a control or non-character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stricter_than_text() {
        #[rustfmt::skip]
        let table: [(&[u8], bool, bool); 11] = [
            (b"", true, true),                       (b"plain/topic", true, true),
            ("été/\u{1f600}".as_bytes(), true, true), (b"\xef\xbb\xbfbom", true, true),
            (b"line\nfeed", true, false),            (b"a\x7f", true, false),
            ("\u{9f}".as_bytes(), true, false),      ("\u{ffff}".as_bytes(), true, false),
            (b"a\0", false, false),                  (b"\xed\xa0\x80", false, false),
            (b"\xc0\x80", false, false),
        ];
        for (bytes, text, name) in table {
            let mut body = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
            body.extend_from_slice(bytes);
            let body = Bytes::from(body);
            assert_eq!(Reader::new(&body).string().is_ok(), text, "{bytes:02x?}");
            assert_eq!(Reader::new(&body).name_text().is_ok(), name, "{bytes:02x?}");
        }
    }
}
