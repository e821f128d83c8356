//! Commands, answers and refusals about calls in bytes: each is what follows its kind.

use bytes::{BufMut, BytesMut};
use moorline_core::CallState;

use super::{Malformed, Reader, put_bytes, put_option, put_text, read_bytes};
use crate::calls::{
    CallAnswer, CallCommand, CallLimits, CallNote, CallRefused, Deadline, DeleteCall, MakeCall,
    NewCall, NoteCall,
};

/// Frozen: logs hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod kind {
    pub(super) const MAKE: u8 = 100;
    pub(super) const NOTE: u8 = 101;
    pub(super) const DELETE: u8 = 102;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod answer {
    pub(super) const MADE: u8 = 100;
    pub(super) const NOTED: u8 = 101;
    pub(super) const DELETED: u8 = 102;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod refused {
    pub(super) const DEVICE_GONE: u8 = 100;
    pub(super) const FULL: u8 = 101;
    pub(super) const TOO_LARGE: u8 = 102;
    pub(super) const EXPIRED: u8 = 103;
    pub(super) const NO_SUCH_CALL: u8 = 104;
    pub(super) const TOO_MANY_CALLS: u8 = 105;
}

/// Frozen: logs hold these numbers.
mod note {
    pub(super) const SENT: u8 = 1;
    pub(super) const DELIVERED: u8 = 2;
    pub(super) const UNACKNOWLEDGED: u8 = 3;
    pub(super) const ANSWERED: u8 = 4;
    /// The same of a device that could not.
    pub(super) const COULD_NOT: u8 = 5;
}

/// Frozen: logs hold these numbers.
mod deadline {
    pub(super) const AT: u8 = 1;
    pub(super) const AFTER: u8 = 2;
}

/// The first number of commands, answers and refusals about calls.
pub(super) const FIRST_KIND: u8 = 100;
/// The last one.
pub(super) const LAST_KIND: u8 = 109;

/// How a call stands.
pub(crate) fn read_call_state(reader: &mut Reader) -> Result<CallState, Malformed> {
    CallState::from_number(reader.u8()?).ok_or_else(|| reader.malformed())
}

/// The number of a call: above 0.
pub(crate) fn read_call_number(reader: &mut Reader) -> Result<i32, Malformed> {
    let number = i32::try_from(reader.u32()?).ok().filter(|number| *number > 0);
    number.ok_or_else(|| reader.malformed())
}

/// Writes a command, its kind included.
pub(super) fn put_command(out: &mut BytesMut, command: &CallCommand) {
    match command {
        CallCommand::Make(MakeCall { tenant, device, born, call, limits }) => {
            out.put_u8(kind::MAKE);
            out.put_u32(tenant.0);
            put_text(out, device);
            put_option(out, *born, BufMut::put_u64);
            out.put_u128(call.id);
            put_text(out, &call.method);
            put_bytes(out, &call.params);
            out.put_u8(u8::from(call.one_way));
            put_bytes(out, &call.info);
            out.put_u32(call.resends_max);
            put_deadline(out, call.deadline);
            out.put_u64(call.keep_ms);
            out.put_u32(limits.calls);
            out.put_u64(limits.bytes);
        }
        CallCommand::Note(NoteCall { tenant, device, born, number, what }) => {
            out.put_u8(kind::NOTE);
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u64(*born);
            out.put_i32(*number);
            put_note(out, what);
        }
        CallCommand::Delete(DeleteCall { tenant, device, id }) => {
            out.put_u8(kind::DELETE);
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u128(*id);
        }
    }
}

fn put_deadline(out: &mut BytesMut, deadline: Deadline) {
    match deadline {
        Deadline::At(at) => {
            out.put_u8(deadline::AT);
            out.put_u64(at.0);
        }
        Deadline::After(ms) => {
            out.put_u8(deadline::AFTER);
            out.put_u64(ms);
        }
    }
}

fn read_deadline(reader: &mut Reader) -> Result<Deadline, Malformed> {
    Ok(match reader.u8()? {
        deadline::AT => Deadline::At(reader.millis()?),
        deadline::AFTER => Deadline::After(reader.u64()?),
        _ => return Err(reader.malformed()),
    })
}

fn put_note(out: &mut BytesMut, what: &CallNote) {
    match what {
        CallNote::Sent => out.put_u8(note::SENT),
        CallNote::Delivered => out.put_u8(note::DELIVERED),
        CallNote::Unacknowledged => out.put_u8(note::UNACKNOWLEDGED),
        CallNote::Answered { failed, answer } => {
            out.put_u8(if *failed { note::COULD_NOT } else { note::ANSWERED });
            put_bytes(out, answer);
        }
    }
}

fn read_note(reader: &mut Reader) -> Result<CallNote, Malformed> {
    Ok(match reader.u8()? {
        note::SENT => CallNote::Sent,
        note::DELIVERED => CallNote::Delivered,
        note::UNACKNOWLEDGED => CallNote::Unacknowledged,
        kind @ (note::ANSWERED | note::COULD_NOT) => {
            CallNote::Answered { failed: kind == note::COULD_NOT, answer: read_bytes(reader)? }
        }
        _ => return Err(reader.malformed()),
    })
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_command(kind: u8, reader: &mut Reader) -> Result<CallCommand, Malformed> {
    let (tenant, device) = (reader.tenant()?, reader.text()?);
    Ok(match kind {
        kind::MAKE => CallCommand::Make(MakeCall {
            tenant,
            device,
            born: reader.option(Reader::u64)?,
            call: NewCall {
                id: reader.u128()?,
                method: reader.text()?,
                params: read_bytes(reader)?,
                one_way: reader.bool()?,
                info: read_bytes(reader)?,
                resends_max: reader.u32()?,
                deadline: read_deadline(reader)?,
                keep_ms: reader.u64()?,
            },
            limits: CallLimits { calls: reader.u32()?, bytes: reader.u64()? },
        }),
        kind::NOTE => {
            let (born, number) = (reader.u64()?, read_call_number(reader)?);
            CallCommand::Note(NoteCall { tenant, device, born, number, what: read_note(reader)? })
        }
        kind::DELETE => CallCommand::Delete(DeleteCall { tenant, device, id: reader.u128()? }),
        _ => return Err(Malformed { what: "command kind" }),
    })
}

/// Writes an answer, its kind included.
pub(super) fn put_answer(out: &mut BytesMut, answer: CallAnswer) {
    match answer {
        CallAnswer::Made { born, number, at, state, repeat } => {
            out.put_u8(answer::MADE);
            out.put_u64(born);
            out.put_i32(number);
            out.put_u64(at.0);
            out.put_u8(state as u8);
            out.put_u8(u8::from(repeat));
        }
        CallAnswer::Noted { state, changed } => {
            out.put_u8(answer::NOTED);
            out.put_u8(state as u8);
            out.put_u8(u8::from(changed));
        }
        CallAnswer::Deleted { state } => {
            out.put_u8(answer::DELETED);
            out.put_u8(state as u8);
        }
    }
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_answer(kind: u8, reader: &mut Reader) -> Result<CallAnswer, Malformed> {
    Ok(match kind {
        answer::MADE => CallAnswer::Made {
            born: reader.u64()?,
            number: read_call_number(reader)?,
            at: reader.millis()?,
            state: read_call_state(reader)?,
            repeat: reader.bool()?,
        },
        answer::NOTED => {
            CallAnswer::Noted { state: read_call_state(reader)?, changed: reader.bool()? }
        }
        answer::DELETED => CallAnswer::Deleted { state: read_call_state(reader)? },
        _ => return Err(Malformed { what: "answer kind" }),
    })
}

/// Writes a refusal, its number included.
pub(super) fn put_refused(out: &mut BytesMut, why: CallRefused) {
    out.put_u8(match why {
        CallRefused::DeviceGone => refused::DEVICE_GONE,
        CallRefused::Full => refused::FULL,
        CallRefused::TooLarge => refused::TOO_LARGE,
        CallRefused::Expired => refused::EXPIRED,
        CallRefused::NoSuchCall => refused::NO_SUCH_CALL,
        CallRefused::TooManyCalls => refused::TOO_MANY_CALLS,
    });
}

/// Reads a number between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_refused(code: u8) -> Result<CallRefused, Malformed> {
    Ok(match code {
        refused::DEVICE_GONE => CallRefused::DeviceGone,
        refused::FULL => CallRefused::Full,
        refused::TOO_LARGE => CallRefused::TooLarge,
        refused::EXPIRED => CallRefused::Expired,
        refused::NO_SUCH_CALL => CallRefused::NoSuchCall,
        refused::TOO_MANY_CALLS => CallRefused::TooManyCalls,
        _ => return Err(Malformed { what: "refusal" }),
    })
}

/// Every command about calls, with its frame but for the length in front: for the tests of all commands.
#[cfg(test)]
pub(super) fn every_command() -> Vec<(crate::Command, &'static str)> {
    use bytes::Bytes;
    use moorline_core::{TenantId, Text, UnixMillis};

    let (tenant, device) = (TenantId(7), || Text::from("d"));
    let call = |one_way, deadline| NewCall {
        id: 1,
        method: "m".into(),
        params: Bytes::from_static(b"[]"),
        one_way,
        info: Bytes::from_static(b"i"),
        resends_max: 2,
        deadline,
        keep_ms: 4,
    };
    let limits = CallLimits { calls: 5, bytes: 6 };
    let make = |born, one_way, deadline| {
        let call = call(one_way, deadline);
        CallCommand::Make(MakeCall { tenant, device: device(), born, call, limits })
    };
    let note =
        |what| CallCommand::Note(NoteCall { tenant, device: device(), born: 9, number: 8, what });
    let answered = |failed| CallNote::Answered { failed, answer: Bytes::from_static(b"{}") };
    #[rustfmt::skip]
    let all = [
        (make(None, false, Deadline::At(UnixMillis(3))),
            "64 00000007 00000001 64 00 00000000000000000000000000000001 00000001 6d 00000002 5b5d 00 00000001 69 \
             00000002 01 0000000000000003 0000000000000004 00000005 0000000000000006"),
        (make(Some(9), true, Deadline::After(3)),
            "64 00000007 00000001 64 01 0000000000000009 00000000000000000000000000000001 00000001 6d 00000002 5b5d 01 \
             00000001 69 00000002 02 0000000000000003 0000000000000004 00000005 0000000000000006"),
        (note(CallNote::Sent),           "65 00000007 00000001 64 0000000000000009 00000008 01"),
        (note(CallNote::Delivered),      "65 00000007 00000001 64 0000000000000009 00000008 02"),
        (note(CallNote::Unacknowledged), "65 00000007 00000001 64 0000000000000009 00000008 03"),
        (note(answered(false)),          "65 00000007 00000001 64 0000000000000009 00000008 04 00000002 7b7d"),
        (note(answered(true)),           "65 00000007 00000001 64 0000000000000009 00000008 05 00000002 7b7d"),
        (CallCommand::Delete(DeleteCall { tenant, device: device(), id: 1 }),
            "66 00000007 00000001 64 00000000000000000000000000000001"),
    ];
    all.map(|(command, bytes)| (crate::Command::Calls(command), bytes)).into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::UnixMillis;

    use super::{super::answer::tests::check, *};
    use crate::{Answer, Refused};

    #[test]
    fn answers_about_calls_keep_their_bytes() {
        // Frozen: producer rows hold these.
        let refused = |why| Answer::Refused(Refused::Calls(why));
        let (at, state) = (UnixMillis(3), CallState::Timeout);
        let made = CallAnswer::Made { born: 1, number: 2, at, state, repeat: true };
        #[rustfmt::skip]
        let table = [
            (Answer::Calls(made),                                          "64 0000000000000001 00000002 0000000000000003 05 01"),
            (Answer::Calls(CallAnswer::Noted { state, changed: false }),   "65 05 00"),
            (Answer::Calls(CallAnswer::Deleted { state }),                 "66 05"),
            (refused(CallRefused::DeviceGone),                             "08 64"),
            (refused(CallRefused::Full),                                   "08 65"),
            (refused(CallRefused::TooLarge),                               "08 66"),
            (refused(CallRefused::Expired),                                "08 67"),
            (refused(CallRefused::NoSuchCall),                             "08 68"),
            (refused(CallRefused::TooManyCalls),                           "08 69"),
        ];
        for (answer, expected) in table {
            check(&answer, expected);
        }
        // No such answer, no such refusal, no such state, and a number that is none.
        for unknown in [&[103][..], &[109], &[8, 106], &[8, 109], &[102, 0], &[102, 9]] {
            assert!(Answer::decode(&mut Bytes::copy_from_slice(unknown)).is_err(), "{unknown:?}");
        }
        for number in [0_u32, 1 << 31] {
            let mut bytes = BytesMut::new();
            bytes.put_u32(number);
            assert!(read_call_number(&mut Reader::new(bytes.freeze(), "call")).is_err());
        }
    }
}
