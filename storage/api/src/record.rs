//! Versioned records: `version u8 | body`, numbers big-endian, bytes with a length in front.
//!
//! # Invariants
//!
//! - **Reading never panics and never believes a length**: what is short, long or of another version is
//!   [`StorageError::Corrupt`]. Checked by this file's tests.
//! - **Zero-copy.** Bytes that are read stay slices of the record.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use moorline_core::Text;

use crate::StorageError;

/// A record while it is being written.
#[derive(Debug)]
pub struct Writer(BytesMut);

impl Writer {
    /// Begins a record; `body_bytes` is how much will follow.
    #[must_use]
    pub fn new(version: u8, body_bytes: usize) -> Self {
        let mut record = BytesMut::with_capacity(1 + body_bytes);
        record.put_u8(version);
        Self(record)
    }

    /// Appends a number.
    pub fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    /// Appends a number.
    pub fn u16(&mut self, value: u16) {
        self.0.put_u16(value);
    }

    /// Appends a number.
    pub fn u32(&mut self, value: u32) {
        self.0.put_u32(value);
    }

    /// Appends a number.
    pub fn u64(&mut self, value: u64) {
        self.0.put_u64(value);
    }

    /// Appends a number.
    pub fn u128(&mut self, value: u128) {
        self.0.put_u128(value);
    }

    /// Appends bytes with their length in front.
    ///
    /// # Panics
    ///
    /// If they are 4 GiB or more: packets and commands are limited far below.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("limited far below 4 GiB"));
        self.rest(bytes);
    }

    /// Appends text with its length in front.
    pub fn text(&mut self, text: &Text) {
        self.blob(text.as_bytes());
    }

    /// Appends bytes without a length: only last.
    pub fn rest(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }

    /// The record.
    #[must_use]
    pub fn done(self) -> Bytes {
        self.0.freeze()
    }
}

/// Takes a record apart, from front to end.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
    what: &'static str,
}

impl Reader {
    /// Opens a record of the version that the caller can read. `what` names it in errors.
    ///
    /// # Errors
    ///
    /// When it is empty or of another version.
    pub fn new(record: Bytes, version: u8, what: &'static str) -> Result<Self, StorageError> {
        let mut reader = Self { rest: record, what };
        match reader.u8()? {
            found if found == version => Ok(reader),
            found => Err(reader.corrupt(format!("its version is {found}, not {version}"))),
        }
    }

    /// Whether everything was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is to be said of a record that cannot be what was written.
    #[must_use]
    pub fn corrupt(&self, why: String) -> StorageError {
        StorageError::Corrupt { what: self.what.to_owned(), why }
    }

    fn need(&self, bytes: usize) -> Result<(), StorageError> {
        match self.rest.len() {
            there if there < bytes => {
                Err(self.corrupt(format!("{bytes} bytes should follow, {there} do")))
            }
            _ => Ok(()),
        }
    }

    /// Takes a number.
    ///
    /// # Errors
    ///
    /// When the record ends before.
    pub fn u8(&mut self) -> Result<u8, StorageError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    /// Takes a number.
    ///
    /// # Errors
    ///
    /// When the record ends before.
    pub fn u16(&mut self) -> Result<u16, StorageError> {
        self.need(2)?;
        Ok(self.rest.get_u16())
    }

    /// Takes a number.
    ///
    /// # Errors
    ///
    /// When the record ends before.
    pub fn u32(&mut self) -> Result<u32, StorageError> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    /// Takes a number.
    ///
    /// # Errors
    ///
    /// When the record ends before.
    pub fn u64(&mut self) -> Result<u64, StorageError> {
        self.need(8)?;
        Ok(self.rest.get_u64())
    }

    /// Takes a number.
    ///
    /// # Errors
    ///
    /// When the record ends before.
    pub fn u128(&mut self) -> Result<u128, StorageError> {
        self.need(16)?;
        Ok(self.rest.get_u128())
    }

    /// Takes bytes that [`Writer::blob`] wrote.
    ///
    /// # Errors
    ///
    /// When the record ends before they do.
    pub fn blob(&mut self) -> Result<Bytes, StorageError> {
        let bytes = self.u32()? as usize;
        self.need(bytes)?;
        Ok(self.rest.split_to(bytes))
    }

    /// Takes text that [`Writer::text`] wrote.
    ///
    /// # Errors
    ///
    /// When the record ends before it does, or it is not UTF-8.
    pub fn text(&mut self) -> Result<Text, StorageError> {
        let bytes = self.blob()?;
        Text::from_utf8(bytes).map_err(|error| self.corrupt(error.to_string()))
    }

    /// Takes all that is left.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// Nothing may be left.
    ///
    /// # Errors
    ///
    /// When something is.
    pub fn end(self) -> Result<(), StorageError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(self.corrupt(format!("{left} bytes too many"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: u8 = 3;

    fn sample() -> Bytes {
        let mut writer = Writer::new(VERSION, 64);
        writer.u8(1);
        writer.u16(2);
        writer.u32(3);
        writer.u64(4);
        writer.u128(5);
        writer.blob(b"xy");
        writer.text(&Text::from("é"));
        writer.done()
    }

    fn read(record: Bytes) -> Result<Text, StorageError> {
        let mut reader = Reader::new(record, VERSION, "sample")?;
        assert_eq!((reader.u8()?, reader.u16()?, reader.u32()?), (1, 2, 3));
        assert_eq!((reader.u64()?, reader.u128()?), (4, 5));
        assert_eq!(reader.blob()?[..], *b"xy");
        let text = reader.text()?;
        reader.end()?;
        Ok(text)
    }

    #[test]
    fn records_keep_their_bytes() {
        let frozen = b"\x03\x01\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x04\
            \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0\x02xy\0\0\0\x02\xc3\xa9";
        assert_eq!(sample()[..], *frozen);
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(sample()).unwrap(), Text::from("é"));
    }

    #[test]
    fn every_cut_and_every_excess_is_noticed() {
        let record = sample();
        for cut in 0..record.len() {
            assert!(
                matches!(read(record.slice(..cut)), Err(StorageError::Corrupt { .. })),
                "{cut}"
            );
        }
        let longer = Bytes::from([&record[..], b"\0"].concat());
        assert!(matches!(read(longer), Err(StorageError::Corrupt { .. })));
    }

    #[test]
    fn another_version_a_false_length_and_bad_text_are_noticed() {
        let with = |at: usize, byte: u8| {
            let mut record = sample().to_vec();
            record[at] = byte;
            read(record.into())
        };
        for (at, byte) in [(0, 4), (32, 0xff), (42, 0xff)] {
            assert!(matches!(with(at, byte), Err(StorageError::Corrupt { .. })), "byte {at}");
        }
    }
}
