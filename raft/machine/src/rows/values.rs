//! Rows of values: sheets, points, and which points came together.
//!
//! A sheet and a point have keys in order, each with whatever belongs to it behind it, so that a write copies what stays
//! without reading it:
//!
//! ```text
//!   entry   key length u16 | rest length u32 | key | rest
//!   rest    of an attribute: at u64 | version u64 | value, or nothing if it was deleted
//!           of a latest value: time u64 | value
//!           of a point: value
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{Text, UnixMillis, Value};
use moorline_storage::StorageError;

use super::{Row, VERSION, corrupt};
use crate::{
    codec::{Malformed, Reader, put_list, put_value, read_value},
    keys::Place,
};

/// The lengths in front of an entry.
const ENTRY_HEADER_BYTES: usize = 6;
/// What a value has in front of what it holds, at most.
const VALUE_HEADER_BYTES: usize = 5;
/// What a sheet has in front of its entries, its version included.
const SHEET_HEADER_BYTES: usize = 21;
/// What a point has in front of its entries: its version and its part.
const POINT_HEADER_BYTES: usize = 9;
/// What an attribute's rest has in front of its value.
pub(crate) const STAMP_BYTES: usize = 16;

/// A key with what belongs to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) rest: &'a [u8],
}

/// Takes entries off the front.
#[derive(Debug)]
pub(crate) struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    pub(crate) fn of(entries: &'a [u8]) -> Self {
        Self(entries)
    }

    fn first(&self) -> Option<(Entry<'a>, &'a [u8])> {
        let (key_len, rest) = self.0.split_first_chunk::<2>()?;
        let (rest_len, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_len)))?;
        let (rest, after) = rest.split_at_checked(u32::from_be_bytes(*rest_len) as usize)?;
        Some((Entry { key, rest }, after))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((entry, after)) = self.first() else {
            self.0 = &[];
            return Some(Err(corrupt("values", &"an entry ends early")));
        };
        self.0 = after;
        Some(Ok(entry))
    }
}

/// What is to become of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// It stays as it is.
    Keep,
    /// It has what was just written.
    Put,
    /// It is not there.
    Drop,
}

/// Writes entries with some of them changed; `changes` are in order, each key once. `decide` is told what a key has had, and
/// writes what it is to have. How many entries more, or less, there are.
pub(crate) fn merge<'a, C>(
    out: &mut BytesMut,
    before: &[u8],
    changes: impl Iterator<Item = (&'a [u8], C)>,
    mut decide: impl FnMut(&mut BytesMut, Option<&[u8]>, C) -> Merge,
) -> Result<i64, StorageError> {
    let (mut copied, mut rest, mut more) = (0, before, 0);
    for (key, change) in changes {
        let mut known = None;
        while let Some((entry, after)) = Entries(rest).first() {
            if entry.key > key {
                break;
            }
            let at = before.len() - rest.len();
            rest = after;
            if entry.key == key {
                out.put_slice(&before[copied..at]);
                copied = before.len() - rest.len();
                known = Some((entry.rest, &before[at..copied]));
                break;
            }
        }
        if known.is_none() {
            if !rest.is_empty() && Entries(rest).first().is_none() {
                return Err(corrupt("values", &"an entry ends early"));
            }
            let at = before.len() - rest.len();
            out.put_slice(&before[copied..at]);
            copied = at;
        }
        let start = begin_entry(out, key);
        let decided = decide(out, known.map(|(rest, _)| rest), change);
        match decided {
            Merge::Put => end_entry(out, start, key),
            Merge::Keep | Merge::Drop => out.truncate(start),
        }
        let kept = known.filter(|_| decided == Merge::Keep);
        kept.inspect(|(_, entry)| out.put_slice(entry));
        let is_there = decided == Merge::Put || kept.is_some();
        more += i64::from(is_there) - i64::from(known.is_some());
    }
    out.put_slice(&before[copied..]);
    Ok(more)
}

fn begin_entry(out: &mut BytesMut, key: &[u8]) -> usize {
    let start = out.len();
    out.put_u16(u16::try_from(key.len()).expect("VALUE_KEY_BYTES_MAX fits"));
    out.put_u32(0);
    out.put_slice(key);
    start
}

fn end_entry(out: &mut BytesMut, start: usize, key: &[u8]) {
    let rest = out.len() - start - ENTRY_HEADER_BYTES - key.len();
    let rest = u32::try_from(rest).expect("LONG_VALUE_BYTES_MAX fits").to_be_bytes();
    out[start + 2..start + ENTRY_HEADER_BYTES].copy_from_slice(&rest);
}

/// A copy, which does not keep the row alive.
pub(crate) fn key_text(key: &[u8]) -> Result<Text, StorageError> {
    Text::from_utf8(Bytes::copy_from_slice(key)).map_err(|error| corrupt("key of a value", &error))
}

/// The value that is all of `bytes`.
pub(crate) fn value_of(bytes: &[u8]) -> Result<Value, StorageError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes), "value");
    let value = read_value(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| corrupt("value", &error))
}

/// When an attribute was written, and by which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at: UnixMillis,
    pub(crate) version: u64,
}

impl Stamp {
    pub(crate) fn put(self, out: &mut BytesMut) {
        out.put_u64(self.at.0);
        out.put_u64(self.version);
    }

    /// The stamp of an attribute, and its value if it has one.
    pub(crate) fn split(rest: &[u8]) -> Result<(Self, Option<&[u8]>), StorageError> {
        let (at, rest) = number(rest)?;
        let (version, rest) = number(rest)?;
        let stamp = Self { at: UnixMillis(at), version };
        Ok((stamp, (!rest.is_empty()).then_some(rest)))
    }
}

/// The number in front of a rest.
pub(crate) fn number(rest: &[u8]) -> Result<(u64, &[u8]), StorageError> {
    let split = rest.split_first_chunk::<8>();
    let (number, rest) = split.ok_or_else(|| corrupt("values", &"an entry is too short"))?;
    Ok((u64::from_be_bytes(*number), rest))
}

/// Attributes of one scope of a device, or its latest values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SheetRow {
    /// Of attributes: the version of the last change. Of latest values: the newest time of all points there ever were.
    pub(crate) mark: u64,
    /// Deleted attributes up to this version may be forgotten.
    pub(crate) forgotten: u64,
    /// How many entries there are.
    pub(crate) len: u32,
    pub(crate) entries: Bytes,
}

impl SheetRow {
    /// Its bytes while they are being written: the entries go behind them.
    pub(crate) fn begin(capacity: usize) -> BytesMut {
        let mut out = BytesMut::with_capacity(SHEET_HEADER_BYTES + capacity);
        out.put_u8(VERSION);
        out.put_bytes(0, SHEET_HEADER_BYTES - 1);
        out
    }

    /// The entries that were written.
    pub(crate) fn written(out: &BytesMut) -> &[u8] {
        &out[SHEET_HEADER_BYTES..]
    }

    /// What was begun, with what stands in front of the entries.
    pub(crate) fn finish(mut out: BytesMut, mark: u64, forgotten: u64, len: u32) -> Bytes {
        let mut header = &mut out[1..SHEET_HEADER_BYTES];
        header.put_u64(mark);
        header.put_u64(forgotten);
        header.put_u32(len);
        out.freeze()
    }
}

impl Row for SheetRow {
    const WHAT: &'static str = "sheet row";
    const BYTES: usize = 256;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.mark);
        out.put_u64(self.forgotten);
        out.put_u32(self.len);
        out.put_slice(&self.entries);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            mark: reader.u64()?,
            forgotten: reader.u64()?,
            len: reader.u32()?,
            entries: reader.take_rest(),
        })
    }
}

/// What a device said at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PointRow {
    /// The part of the history that names it: the last one that did.
    pub(crate) part: u64,
    pub(crate) entries: Bytes,
}

impl PointRow {
    /// Bytes of the entries of values, at most.
    pub(crate) fn size(values: &[(&Text, &Value)]) -> usize {
        let size = |(key, value): &(&Text, &Value)| {
            ENTRY_HEADER_BYTES + key.len() + VALUE_HEADER_BYTES + value.len_bytes()
        };
        values.iter().map(size).sum()
    }

    /// Its bytes, with those of `before` that are not among `values`; these are in order, each key once.
    pub(crate) fn merged(
        part: u64,
        before: &[u8],
        values: &[(&Text, &Value)],
    ) -> Result<Bytes, StorageError> {
        let capacity = before.len() + Self::size(values);
        let mut out = BytesMut::with_capacity(POINT_HEADER_BYTES + capacity);
        out.put_u8(VERSION);
        out.put_u64(part);
        let changes = values.iter().map(|(key, value)| (key.as_bytes(), *value));
        merge(&mut out, before, changes, |out, _, value| {
            put_value(out, value);
            Merge::Put
        })?;
        Ok(out.freeze())
    }

    /// Its bytes without values of `keys`, which are in order, each once. `None` if it has none of them; nothing inside if it has
    /// no others.
    pub(crate) fn without(&self, keys: &[&[u8]]) -> Result<Option<Option<Bytes>>, StorageError> {
        let mut out = BytesMut::with_capacity(POINT_HEADER_BYTES + self.entries.len());
        out.put_u8(VERSION);
        out.put_u64(self.part);
        let keys = keys.iter().map(|key| (*key, ()));
        let more = merge(&mut out, &self.entries, keys, |_, _, ()| Merge::Drop)?;
        if more == 0 {
            return Ok(None);
        }
        Ok(Some((out.len() > POINT_HEADER_BYTES).then(|| out.freeze())))
    }
}

impl Row for PointRow {
    const WHAT: &'static str = "point row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.part);
        out.put_slice(&self.entries);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { part: reader.u64()?, entries: reader.take_rest() })
    }
}

/// Points that came together. They go together, but for those that a later part names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryPartRow {
    /// When, in log time.
    pub(crate) at: UnixMillis,
    pub(crate) points: Vec<(Place, i64)>,
}

impl Row for HistoryPartRow {
    const WHAT: &'static str = "history part row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.at.0);
        put_list(out, &self.points, |out, (of, ts_ms)| {
            out.put_u16(of.bucket);
            out.put_u64(of.born);
            out.put_i64(*ts_ms);
        });
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            at: reader.millis()?,
            points: reader.list(18, |reader| {
                let of = Place { bucket: reader.u16()?, born: reader.u64()? };
                Ok((of, reader.i64()?))
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{
        super::golden::{check, check_open},
        *,
    };

    #[test]
    fn rows_of_values_keep_their_bytes() {
        // Frozen: disks hold these.
        let mut out = SheetRow::begin(0);
        let stamp = Stamp { at: UnixMillis(1), version: 2 };
        let changes = [("a", Some(Value::Long(7))), ("b", None)];
        let changes = changes.iter().map(|(key, value)| (key.as_bytes(), value));
        let more = merge(&mut out, &[], changes, |out, _, value| {
            stamp.put(out);
            value.iter().for_each(|value| put_value(out, value));
            Merge::Put
        });
        assert_eq!(more.unwrap(), 2);
        let bytes = SheetRow::finish(out, 2, 1, 2);
        let sheet = SheetRow::from_bytes(&bytes).unwrap();
        assert_eq!((sheet.mark, sheet.forgotten, sheet.len), (2, 1, 2));
        let stamped = "0000000000000001 0000000000000002";
        check_open(
            &sheet,
            sheet.entries.len(),
            &format!(
                "01 0000000000000002 0000000000000001 00000002 \
                 0001 00000019 61 {stamped} 02 0000000000000007 0001 00000010 62 {stamped}"
            ),
        );
        let (key, value) = (Text::from("a"), Value::Bool(true));
        let bytes = PointRow::merged(3, &[], &[(&key, &value)]).unwrap();
        let point = PointRow::from_bytes(&bytes).unwrap();
        check_open(&point, point.entries.len(), "01 0000000000000003 0001 00000001 61 01");
        let points = vec![(Place { bucket: 3, born: 4 }, -1)];
        check(
            &HistoryPartRow { at: UnixMillis(1), points },
            "01 0000000000000001 00000001 0003 0000000000000004 ffffffffffffffff",
        );
    }

    #[test]
    fn a_point_without_some_of_its_keys_keeps_the_others_and_its_part() {
        let (keys, value) = (["a", "b", "c"].map(Text::from), Value::Bool(true));
        let row = |keys: &[Text]| {
            let values: Vec<_> = keys.iter().map(|key| (key, &value)).collect();
            PointRow::merged(3, &[], &values).unwrap()
        };
        let whole = PointRow::from_bytes(&row(&keys)).unwrap();
        let without = |gone: &[&str]| {
            let gone: Vec<_> = gone.iter().map(|key| key.as_bytes()).collect();
            whole.without(&gone).unwrap()
        };
        assert_eq!(without(&["b", "x"]), Some(Some(row(&[keys[0].clone(), keys[2].clone()]))));
        assert_eq!(without(&["", "a", "b", "c"]), Some(None));
        assert_eq!(without(&["x"]), None);
        assert_eq!(without(&[]), None);
    }

    #[test]
    fn entries_that_end_early_are_an_error() {
        let value = Value::Text("t".into());
        let whole = PointRow::merged(0, &[], &[(&"key".into(), &value)]).unwrap();
        let entries = PointRow::from_bytes(&whole).unwrap().entries;
        for cut in 1..entries.len() {
            let cut = entries.slice(..cut);
            assert!(Entries::of(&cut).any(|entry| entry.is_err()), "{cut:?}");
            let merged = PointRow::merged(0, &cut, &[(&"z".into(), &value)]);
            assert!(merged.is_err(), "{cut:?}");
        }
        assert!(Stamp::split(&[0; STAMP_BYTES - 1]).is_err());
        assert!(value_of(&[2, 0]).is_err() && value_of(&[1, 1]).is_err());
        assert!(key_text(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn merging_entries_is_merging_maps(
            writes in prop::collection::vec(
                prop::collection::btree_map("[a-e]{0,2}", prop::option::of(any::<u8>()), 0..6), 0..6),
        ) {
            let (mut entries, mut model, mut len) = (Bytes::new(), BTreeMap::new(), 0);
            for write in writes {
                let mut out = BytesMut::new();
                let changes = write.iter().map(|(key, value)| (key.as_bytes(), *value));
                let more = merge(&mut out, &entries, changes, |out, known, value| match value {
                    // Ends with 0: only if it is new. Ends with 1: it stays.
                    Some(value) if value % 4 == 1 => if known.is_some() { Merge::Keep } else { Merge::Drop },
                    Some(value) => { out.put_u8(value); Merge::Put }
                    None => Merge::Drop,
                });
                len += more.unwrap();
                for (key, value) in write {
                    match value {
                        Some(value) if value % 4 == 1 => {}
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
                entries = out.freeze();
                let read = Entries::of(&entries).map(|entry| {
                    let entry = entry.unwrap();
                    (key_text(entry.key).unwrap().to_string(), entry.rest[0])
                });
                prop_assert_eq!(read.collect::<Vec<_>>(), model.clone().into_iter().collect::<Vec<_>>());
                prop_assert_eq!(len, model.len() as i64);
            }
        }
    }
}
