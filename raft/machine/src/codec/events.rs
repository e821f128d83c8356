//! Commands, answers and refusals about events in bytes: each is what follows its kind.

use bytes::{BufMut, BytesMut};

use super::{Malformed, Reader, put_bytes, put_option, put_text, read_bytes};
use crate::events::{
    AppendEvent, CommitEvents, DeleteConsumer, EventAnswer, EventCommand, EventKind, EventRefused,
    NewEvent, Retention,
};

/// Frozen: logs hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod kind {
    pub(super) const APPEND: u8 = 60;
    pub(super) const COMMIT: u8 = 61;
    pub(super) const DELETE_CONSUMER: u8 = 62;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod answer {
    pub(super) const APPENDED: u8 = 60;
    pub(super) const COMMITTED: u8 = 61;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod refused {
    pub(super) const TOO_LARGE: u8 = 60;
    pub(super) const DEVICE_GONE: u8 = 61;
    pub(super) const TOO_MANY_STREAMS: u8 = 62;
    pub(super) const BEYOND_TAIL: u8 = 63;
    pub(super) const TOO_MANY_CONSUMERS: u8 = 64;
    pub(super) const NO_SUCH_CONSUMER: u8 = 65;
}

/// The first number of commands, answers and refusals about events.
pub(super) const FIRST_KIND: u8 = 60;
/// The last one.
pub(super) const LAST_KIND: u8 = 69;

/// Writes a command, its kind included.
pub(super) fn put_command(out: &mut BytesMut, command: &EventCommand) {
    match command {
        EventCommand::Append(AppendEvent { tenant, device, born, event, retention }) => {
            out.put_u8(kind::APPEND);
            out.put_u32(tenant.0);
            put_text(out, device);
            put_option(out, *born, BufMut::put_u64);
            put_event(out, event);
            out.put_u32(retention.keep_s);
            out.put_u64(retention.bytes_max);
        }
        EventCommand::Commit(CommitEvents { tenant, consumer, offset }) => {
            out.put_u8(kind::COMMIT);
            out.put_u32(tenant.0);
            put_text(out, consumer);
            out.put_u64(offset.0);
        }
        EventCommand::DeleteConsumer(DeleteConsumer { tenant, consumer }) => {
            out.put_u8(kind::DELETE_CONSUMER);
            out.put_u32(tenant.0);
            put_text(out, consumer);
        }
    }
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_command(kind: u8, reader: &mut Reader) -> Result<EventCommand, Malformed> {
    let tenant = reader.tenant()?;
    Ok(match kind {
        kind::APPEND => EventCommand::Append(AppendEvent {
            tenant,
            device: reader.text()?,
            born: reader.option(Reader::u64)?,
            event: read_event(reader)?,
            retention: Retention { keep_s: reader.u32()?, bytes_max: reader.u64()? },
        }),
        kind::COMMIT => {
            let (consumer, offset) = (reader.text()?, reader.offset()?);
            EventCommand::Commit(CommitEvents { tenant, consumer, offset })
        }
        kind::DELETE_CONSUMER => {
            EventCommand::DeleteConsumer(DeleteConsumer { tenant, consumer: reader.text()? })
        }
        _ => return Err(Malformed { what: "command kind" }),
    })
}

/// `kind u8 | channel | content type u8 | by u8 | body`: in commands, rows and answers to questions alike.
pub(crate) fn put_event(out: &mut BytesMut, event: &NewEvent) {
    let NewEvent { kind, channel, content_type, body, by } = event;
    out.put_u8(*kind as u8);
    put_text(out, channel);
    out.put_u8(*content_type);
    out.put_u8(*by);
    put_bytes(out, body);
}

/// See [`put_event`].
pub(crate) fn read_event(reader: &mut Reader) -> Result<NewEvent, Malformed> {
    let kind = EventKind::from_number(reader.u8()?).ok_or(reader.malformed())?;
    Ok(NewEvent {
        kind,
        channel: reader.text()?,
        content_type: reader.u8()?,
        by: reader.u8()?,
        body: read_bytes(reader)?,
    })
}

/// Writes an answer, its kind included.
pub(super) fn put_answer(out: &mut BytesMut, answer: EventAnswer) {
    match answer {
        EventAnswer::Appended { offset, at } => {
            out.put_u8(answer::APPENDED);
            out.put_u64(offset.0);
            out.put_u64(at.0);
        }
        EventAnswer::Committed { offset } => {
            out.put_u8(answer::COMMITTED);
            out.put_u64(offset.0);
        }
    }
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_answer(kind: u8, reader: &mut Reader) -> Result<EventAnswer, Malformed> {
    Ok(match kind {
        answer::APPENDED => {
            EventAnswer::Appended { offset: reader.offset()?, at: reader.millis()? }
        }
        answer::COMMITTED => EventAnswer::Committed { offset: reader.offset()? },
        _ => return Err(Malformed { what: "answer kind" }),
    })
}

/// Writes a refusal, its number included.
pub(super) fn put_refused(out: &mut BytesMut, why: EventRefused) {
    out.put_u8(match why {
        EventRefused::TooLarge => refused::TOO_LARGE,
        EventRefused::DeviceGone => refused::DEVICE_GONE,
        EventRefused::TooManyStreams => refused::TOO_MANY_STREAMS,
        EventRefused::BeyondTail { .. } => refused::BEYOND_TAIL,
        EventRefused::TooManyConsumers => refused::TOO_MANY_CONSUMERS,
        EventRefused::NoSuchConsumer => refused::NO_SUCH_CONSUMER,
    });
    if let EventRefused::BeyondTail { last } = why {
        out.put_u64(last.0);
    }
}

/// Reads what follows a number between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_refused(code: u8, reader: &mut Reader) -> Result<EventRefused, Malformed> {
    Ok(match code {
        refused::TOO_LARGE => EventRefused::TooLarge,
        refused::DEVICE_GONE => EventRefused::DeviceGone,
        refused::TOO_MANY_STREAMS => EventRefused::TooManyStreams,
        refused::BEYOND_TAIL => EventRefused::BeyondTail { last: reader.offset()? },
        refused::TOO_MANY_CONSUMERS => EventRefused::TooManyConsumers,
        refused::NO_SUCH_CONSUMER => EventRefused::NoSuchConsumer,
        _ => return Err(Malformed { what: "refusal" }),
    })
}

/// Every command about events, with its frame but for the length in front: for the tests of all commands.
#[cfg(test)]
pub(super) fn every_command() -> Vec<(crate::Command, &'static str)> {
    use bytes::Bytes;
    use moorline_core::{Offset, TenantId};

    let (tenant, consumer) = (TenantId(7), || "g".into());
    let append = |kind, born| {
        let event = NewEvent {
            kind,
            channel: "c".into(),
            content_type: 2,
            body: Bytes::from_static(b"xyz"),
            by: 3,
        };
        let retention = Retention { keep_s: 4, bytes_max: 5 };
        EventCommand::Append(AppendEvent { tenant, device: "d".into(), born, event, retention })
    };
    #[rustfmt::skip]
    let all = [
        (append(EventKind::Datapoint, None),
            "3c 00000007 00000001 64 00 01 00000001 63 02 03 00000003 78797a 00000004 0000000000000005"),
        (append(EventKind::Message, Some(9)),
            "3c 00000007 00000001 64 01 0000000000000009 02 00000001 63 02 03 00000003 78797a 00000004 0000000000000005"),
        (append(EventKind::System, None),
            "3c 00000007 00000001 64 00 03 00000001 63 02 03 00000003 78797a 00000004 0000000000000005"),
        (append(EventKind::Presence, None),
            "3c 00000007 00000001 64 00 04 00000001 63 02 03 00000003 78797a 00000004 0000000000000005"),
        (append(EventKind::Mail, None),
            "3c 00000007 00000001 64 00 05 00000001 63 02 03 00000003 78797a 00000004 0000000000000005"),
        (append(EventKind::State, None),
            "3c 00000007 00000001 64 00 06 00000001 63 02 03 00000003 78797a 00000004 0000000000000005"),
        (EventCommand::Commit(CommitEvents { tenant, consumer: consumer(), offset: Offset(8) }),
            "3d 00000007 00000001 67 0000000000000008"),
        (EventCommand::DeleteConsumer(DeleteConsumer { tenant, consumer: consumer() }),
            "3e 00000007 00000001 67"),
    ];
    all.map(|(command, bytes)| (crate::Command::Events(command), bytes)).into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::{Offset, UnixMillis};

    use super::{super::answer::tests::check, *};
    use crate::{Answer, Refused};

    #[test]
    fn answers_about_events_keep_their_bytes() {
        // Frozen: producer rows hold these.
        let refused = |why| Answer::Refused(Refused::Events(why));
        let (offset, at) = (Offset(1), UnixMillis(2));
        #[rustfmt::skip]
        let table = [
            (Answer::Events(EventAnswer::Appended { offset, at }), "3c 0000000000000001 0000000000000002"),
            (Answer::Events(EventAnswer::Committed { offset }),    "3d 0000000000000001"),
            (refused(EventRefused::TooLarge),                      "08 3c"),
            (refused(EventRefused::DeviceGone),                    "08 3d"),
            (refused(EventRefused::TooManyStreams),                "08 3e"),
            (refused(EventRefused::BeyondTail { last: offset }),   "08 3f 0000000000000001"),
            (refused(EventRefused::TooManyConsumers),              "08 40"),
            (refused(EventRefused::NoSuchConsumer),                "08 41"),
        ];
        for (answer, expected) in table {
            check(&answer, expected);
        }
        for unknown in [&[62][..], &[69], &[8, 66], &[8, 69]] {
            assert!(Answer::decode(&mut Bytes::copy_from_slice(unknown)).is_err());
        }
    }

    #[test]
    fn kinds_have_numbers_and_names_of_their_own() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_number(kind as u8), Some(kind));
            let same = EventKind::ALL.iter().filter(|other| other.name() == kind.name());
            assert_eq!(same.count(), 1);
        }
        assert_eq!((EventKind::from_number(0), EventKind::from_number(7)), (None, None));
    }
}
