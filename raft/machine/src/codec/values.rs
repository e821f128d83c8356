//! Commands, answers and refusals about values in bytes: each is what follows its kind. And values themselves, as commands,
//! rows and answers to questions have them.

use bytes::{BufMut, BytesMut};
use moorline_core::{AttributeScope, Double, Text, Value};

use super::{
    Malformed, Reader, put_event, put_list, put_option, put_retention, put_text, read_event,
    read_retention,
};
use crate::values::{
    DeleteSeries, NewPoint, Record, RecordRules, TellAttributes, ValueAnswer, ValueCommand,
    ValueRefused, WithEvent, WriteAttributes,
};

/// Frozen: logs hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod kind {
    pub(super) const WRITE_ATTRIBUTES: u8 = 90;
    pub(super) const RECORD: u8 = 91;
    pub(super) const TELL: u8 = 92;
    pub(super) const DELETE: u8 = 93;
    /// `Record` by [`RecordRules::Second`](crate::values::RecordRules::Second).
    pub(super) const RECORD_BY_SECOND: u8 = 94;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod answer {
    pub(super) const WRITTEN: u8 = 90;
    pub(super) const DELETED: u8 = 91;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod refused {
    pub(super) const DEVICE_GONE: u8 = 90;
    pub(super) const KEY: u8 = 91;
    pub(super) const TOO_LARGE: u8 = 92;
    pub(super) const TOO_MANY_AT_ONCE: u8 = 93;
    pub(super) const TOO_MANY_KEYS: u8 = 94;
    pub(super) const FULL: u8 = 95;
    pub(super) const TOO_MANY_HISTORIES: u8 = 96;
}

/// Frozen: logs and rows hold these numbers.
mod tag {
    pub(super) const FALSE: u8 = 0;
    pub(super) const TRUE: u8 = 1;
    pub(super) const LONG: u8 = 2;
    pub(super) const DOUBLE: u8 = 3;
    pub(super) const TEXT: u8 = 4;
    pub(super) const JSON: u8 = 5;
}

/// The first number of commands, answers and refusals about values.
pub(super) const FIRST_KIND: u8 = 90;
/// The last one.
pub(super) const LAST_KIND: u8 = 99;
/// The least bytes of a key with or without a value, and of a point: let counts be checked before anything is allocated for them.
const PAIR_BYTES_MIN: usize = 5;
/// The same of a key alone.
const KEY_BYTES_MIN: usize = 4;

/// A value: a byte that says which sort it is, and what it holds.
pub(crate) fn put_value(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Bool(value) => out.put_u8(if *value { tag::TRUE } else { tag::FALSE }),
        Value::Long(value) => {
            out.put_u8(tag::LONG);
            out.put_i64(*value);
        }
        Value::Double(value) => {
            out.put_u8(tag::DOUBLE);
            out.put_u64(value.get().to_bits());
        }
        Value::Text(text) => {
            out.put_u8(tag::TEXT);
            put_text(out, text);
        }
        Value::Json(text) => {
            out.put_u8(tag::JSON);
            put_text(out, text);
        }
    }
}

/// See [`put_value`].
pub(crate) fn read_value(reader: &mut Reader) -> Result<Value, Malformed> {
    Ok(match reader.u8()? {
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        tag::LONG => Value::Long(reader.i64()?),
        tag::DOUBLE => {
            let double = Double::new(f64::from_bits(reader.u64()?));
            Value::Double(double.ok_or(reader.malformed())?)
        }
        tag::TEXT => Value::Text(reader.text()?),
        tag::JSON => Value::Json(reader.text()?),
        _ => return Err(reader.malformed()),
    })
}

/// Keys with their values.
pub(crate) fn put_values(out: &mut BytesMut, values: &[(Text, Value)]) {
    put_list(out, values, |out, (key, value)| {
        put_text(out, key);
        put_value(out, value);
    });
}

/// See [`put_values`].
pub(crate) fn read_values(reader: &mut Reader) -> Result<Vec<(Text, Value)>, Malformed> {
    reader.list(PAIR_BYTES_MIN, |reader| Ok((reader.text()?, read_value(reader)?)))
}

/// The scope of attributes.
pub(crate) fn read_scope(reader: &mut Reader) -> Result<AttributeScope, Malformed> {
    AttributeScope::from_number(reader.u8()?).ok_or_else(|| reader.malformed())
}

fn put_with_event(out: &mut BytesMut, event: Option<&WithEvent>) {
    put_option(out, event, |out, WithEvent { event, retention }| {
        put_event(out, event);
        put_retention(out, *retention);
    });
}

fn read_with_event(reader: &mut Reader) -> Result<Option<WithEvent>, Malformed> {
    reader.option(|reader| {
        Ok(WithEvent { event: read_event(reader)?, retention: read_retention(reader)? })
    })
}

/// Writes a command, its kind included.
pub(super) fn put_command(out: &mut BytesMut, command: &ValueCommand) {
    match command {
        ValueCommand::WriteAttributes(write) => {
            let WriteAttributes { tenant, device, born, scope, changes, event } = write;
            out.put_u8(kind::WRITE_ATTRIBUTES);
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u64(*born);
            out.put_u8(*scope as u8);
            put_list(out, changes, |out, (key, value)| {
                put_text(out, key);
                put_option(out, value.as_ref(), put_value);
            });
            put_with_event(out, event.as_ref());
        }
        ValueCommand::Record(Record { tenant, device, born, rules, points, history, event }) => {
            out.put_u8(match rules {
                RecordRules::First => kind::RECORD,
                RecordRules::Second => kind::RECORD_BY_SECOND,
            });
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u64(*born);
            put_list(out, points, |out, NewPoint { ts_ms, values }| {
                put_option(out, *ts_ms, BufMut::put_i64);
                put_values(out, values);
            });
            put_option(out, *history, put_retention);
            put_with_event(out, event.as_ref());
        }
        ValueCommand::Tell(TellAttributes { tenant, device, born, version }) => {
            out.put_u8(kind::TELL);
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u64(*born);
            out.put_u64(*version);
        }
        ValueCommand::Delete(delete) => {
            let DeleteSeries { tenant, device, born, keys, from_ms, to_ms, latest } = delete;
            out.put_u8(kind::DELETE);
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u64(*born);
            put_list(out, keys, put_text);
            out.put_i64(*from_ms);
            out.put_i64(*to_ms);
            out.put_u8(u8::from(*latest));
        }
    }
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_command(kind: u8, reader: &mut Reader) -> Result<ValueCommand, Malformed> {
    let (tenant, device, born) = (reader.tenant()?, reader.text()?, reader.u64()?);
    Ok(match kind {
        kind::WRITE_ATTRIBUTES => ValueCommand::WriteAttributes(WriteAttributes {
            tenant,
            device,
            born,
            scope: read_scope(reader)?,
            changes: reader
                .list(PAIR_BYTES_MIN, |reader| Ok((reader.text()?, reader.option(read_value)?)))?,
            event: read_with_event(reader)?,
        }),
        kind::RECORD | kind::RECORD_BY_SECOND => ValueCommand::Record(Record {
            tenant,
            device,
            born,
            rules: match kind {
                kind::RECORD => RecordRules::First,
                _ => RecordRules::Second,
            },
            points: reader.list(PAIR_BYTES_MIN, |reader| {
                Ok(NewPoint { ts_ms: reader.option(Reader::i64)?, values: read_values(reader)? })
            })?,
            history: reader.option(read_retention)?,
            event: read_with_event(reader)?,
        }),
        kind::TELL => {
            let version = reader.u64()?;
            ValueCommand::Tell(TellAttributes { tenant, device, born, version })
        }
        kind::DELETE => ValueCommand::Delete(DeleteSeries {
            tenant,
            device,
            born,
            keys: reader.list(KEY_BYTES_MIN, Reader::text)?,
            from_ms: reader.i64()?,
            to_ms: reader.i64()?,
            latest: reader.bool()?,
        }),
        _ => return Err(Malformed { what: "command kind" }),
    })
}

/// Writes an answer, its kind included.
pub(super) fn put_answer(out: &mut BytesMut, answer: ValueAnswer) {
    match answer {
        ValueAnswer::Written { at, version, event } => {
            out.put_u8(answer::WRITTEN);
            out.put_u64(at.0);
            out.put_u64(version);
            put_option(out, event, |out, offset| out.put_u64(offset.0));
        }
        ValueAnswer::Deleted { at, next } => {
            out.put_u8(answer::DELETED);
            out.put_u64(at.0);
            put_option(out, next, BufMut::put_i64);
        }
    }
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_answer(kind: u8, reader: &mut Reader) -> Result<ValueAnswer, Malformed> {
    Ok(match kind {
        answer::WRITTEN => ValueAnswer::Written {
            at: reader.millis()?,
            version: reader.u64()?,
            event: reader.option(Reader::offset)?,
        },
        answer::DELETED => {
            ValueAnswer::Deleted { at: reader.millis()?, next: reader.option(Reader::i64)? }
        }
        _ => return Err(Malformed { what: "answer kind" }),
    })
}

/// Writes a refusal, its number included.
pub(super) fn put_refused(out: &mut BytesMut, why: ValueRefused) {
    out.put_u8(match why {
        ValueRefused::DeviceGone => refused::DEVICE_GONE,
        ValueRefused::Key => refused::KEY,
        ValueRefused::TooLarge => refused::TOO_LARGE,
        ValueRefused::TooManyAtOnce => refused::TOO_MANY_AT_ONCE,
        ValueRefused::TooManyKeys => refused::TOO_MANY_KEYS,
        ValueRefused::Full => refused::FULL,
        ValueRefused::TooManyHistories => refused::TOO_MANY_HISTORIES,
    });
}

/// Reads a number between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_refused(code: u8) -> Result<ValueRefused, Malformed> {
    Ok(match code {
        refused::DEVICE_GONE => ValueRefused::DeviceGone,
        refused::KEY => ValueRefused::Key,
        refused::TOO_LARGE => ValueRefused::TooLarge,
        refused::TOO_MANY_AT_ONCE => ValueRefused::TooManyAtOnce,
        refused::TOO_MANY_KEYS => ValueRefused::TooManyKeys,
        refused::FULL => ValueRefused::Full,
        refused::TOO_MANY_HISTORIES => ValueRefused::TooManyHistories,
        _ => return Err(Malformed { what: "refusal" }),
    })
}

/// Every command about values, with its frame but for the length in front: for the tests of all commands.
#[cfg(test)]
pub(super) fn every_command() -> Vec<(crate::Command, &'static str)> {
    use bytes::Bytes;
    use moorline_core::TenantId;

    use crate::events::{EventKind, NewEvent, Retention};

    let (tenant, device, born) = (TenantId(7), || Text::from("d"), 9);
    let retention = Retention { keep_s: 4, bytes_max: 5 };
    let event = NewEvent {
        kind: EventKind::Datapoint,
        channel: "c".into(),
        content_type: 1,
        body: Bytes::from_static(b"{}"),
        by: 3,
    };
    let key = |key: &str| Text::from(key);
    let changes = vec![
        (key("a"), Some(Value::Bool(true))),
        (key("b"), Some(Value::Long(-1))),
        (key("c"), Some(Value::Double(Double::nearest(1.0)))),
        (key("d"), Some(Value::Text("t".into()))),
        (key("e"), Some(Value::Json("{}".into()))),
        (key("f"), None),
    ];
    let write = |scope, changes, event| {
        let device = device();
        WriteAttributes { tenant, device, born, scope, changes, event }
    };
    let timed = NewPoint { ts_ms: Some(-2), values: vec![(key("a"), Value::Bool(false))] };
    let untimed = NewPoint { ts_ms: None, values: vec![(key("b"), Value::Long(1))] };
    let later = untimed.clone();
    let record = |points, history, event| {
        let (device, rules) = (device(), RecordRules::First);
        Record { tenant, device, born, rules, points, history, event }
    };
    let with = || Some(WithEvent { event: event.clone(), retention });
    let (keys, latest) = (vec![key("a"), key("b")], true);
    let delete =
        DeleteSeries { tenant, device: device(), born, keys, from_ms: -1, to_ms: 2, latest };
    #[rustfmt::skip]
    let all = [
        (ValueCommand::WriteAttributes(write(AttributeScope::Shared, changes, None)),
            "5a 00000007 00000001 64 0000000000000009 02 00000006 \
             00000001 61 01 01 \
             00000001 62 01 02 ffffffffffffffff \
             00000001 63 01 03 3ff0000000000000 \
             00000001 64 01 04 00000001 74 \
             00000001 65 01 05 00000002 7b7d \
             00000001 66 00 00"),
        (ValueCommand::WriteAttributes(write(AttributeScope::Client, Vec::new(), with())),
            "5a 00000007 00000001 64 0000000000000009 01 00000000 \
             01 01 00000001 63 01 03 00000002 7b7d 00000004 0000000000000005"),
        (ValueCommand::WriteAttributes(write(AttributeScope::Server, Vec::new(), None)),
            "5a 00000007 00000001 64 0000000000000009 03 00000000 00"),
        (ValueCommand::Record(record(vec![timed, untimed], Some(retention), None)),
            "5b 00000007 00000001 64 0000000000000009 00000002 \
             01 fffffffffffffffe 00000001 00000001 61 00 \
             00 00000001 00000001 62 02 0000000000000001 \
             01 00000004 0000000000000005 00"),
        (ValueCommand::Record(record(Vec::new(), None, with())),
            "5b 00000007 00000001 64 0000000000000009 00000000 00 \
             01 01 00000001 63 01 03 00000002 7b7d 00000004 0000000000000005"),
        (ValueCommand::Record(Record { rules: RecordRules::Second, ..record(vec![later], None, None) }),
            "5e 00000007 00000001 64 0000000000000009 00000001 \
             00 00000001 00000001 62 02 0000000000000001 00 00"),
        (ValueCommand::Tell(TellAttributes { tenant, device: device(), born, version: 10 }),
            "5c 00000007 00000001 64 0000000000000009 000000000000000a"),
        (ValueCommand::Delete(delete),
            "5d 00000007 00000001 64 0000000000000009 00000002 00000001 61 00000001 62 \
             ffffffffffffffff 0000000000000002 01"),
    ];
    all.map(|(command, bytes)| (crate::Command::Values(command), bytes)).into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::{Offset, UnixMillis};

    use super::{super::answer::tests::check, *};
    use crate::{Answer, Refused};

    #[test]
    fn answers_about_values_keep_their_bytes() {
        // Frozen: producer rows hold these.
        let refused = |why| Answer::Refused(Refused::Values(why));
        let written =
            |event| Answer::Values(ValueAnswer::Written { at: UnixMillis(1), version: 2, event });
        let deleted = |next| Answer::Values(ValueAnswer::Deleted { at: UnixMillis(1), next });
        #[rustfmt::skip]
        let table = [
            (deleted(None),                           "5b 0000000000000001 00"),
            (deleted(Some(-1)),                       "5b 0000000000000001 01 ffffffffffffffff"),
            (written(None),                           "5a 0000000000000001 0000000000000002 00"),
            (written(Some(Offset(3))),                "5a 0000000000000001 0000000000000002 01 0000000000000003"),
            (refused(ValueRefused::DeviceGone),       "08 5a"),
            (refused(ValueRefused::Key),              "08 5b"),
            (refused(ValueRefused::TooLarge),         "08 5c"),
            (refused(ValueRefused::TooManyAtOnce),    "08 5d"),
            (refused(ValueRefused::TooManyKeys),      "08 5e"),
            (refused(ValueRefused::Full),             "08 5f"),
            (refused(ValueRefused::TooManyHistories), "08 60"),
        ];
        for (answer, expected) in table {
            check(&answer, expected);
        }
        for unknown in [&[92][..], &[99], &[8, 97], &[8, 99]] {
            assert!(Answer::decode(&mut Bytes::copy_from_slice(unknown)).is_err());
        }
    }

    #[test]
    fn a_value_that_is_no_number_is_refused() {
        for wrong in [f64::NAN, f64::INFINITY] {
            let mut bytes = BytesMut::from(&[tag::DOUBLE][..]);
            bytes.put_f64(wrong);
            assert!(read_value(&mut Reader::new(bytes.freeze(), "value")).is_err());
        }
        assert!(read_value(&mut Reader::new(Bytes::from_static(&[6]), "value")).is_err());
    }
}
