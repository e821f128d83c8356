//! Commands, answers and refusals about mail in bytes: each is what follows its kind.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{TenantId, Text};

use super::{Malformed, Reader, put_option, put_retention, put_text, read_retention};
use crate::mail::{
    CancelMail, MailAnswer, MailCommand, MailLimits, MailOp, MailRefused, NewMail, NoteDelivered,
    PurgeMail, SendMail, SettleIf, SettleMail,
};

/// Frozen: logs hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod kind {
    pub(super) const SEND: u8 = 50;
    pub(super) const SETTLE: u8 = 51;
    pub(super) const NOTE_DELIVERED: u8 = 52;
    pub(super) const CANCEL: u8 = 53;
    pub(super) const PURGE: u8 = 54;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod answer {
    pub(super) const MAILED: u8 = 50;
    pub(super) const SETTLED: u8 = 51;
    pub(super) const PURGED: u8 = 52;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod refused {
    pub(super) const FULL: u8 = 50;
    pub(super) const TOO_LARGE: u8 = 51;
    pub(super) const NOT_NEXT: u8 = 52;
    pub(super) const NO_SUCH_MAIL: u8 = 53;
    pub(super) const TOO_MANY_MAILBOXES: u8 = 54;
    pub(super) const DEVICE_GONE: u8 = 55;
    pub(super) const DEVICE_CHANGED: u8 = 56;
}

/// Frozen, as those of `kind`: a command that came later, when other numbers lay behind them.
pub(super) const SEND_KNOWN: u8 = 76;
/// As [`SEND_KNOWN`].
pub(super) const SETTLE_IF: u8 = 83;

/// The first number of commands, answers and refusals about mail.
pub(super) const FIRST_KIND: u8 = 50;
/// The last one.
pub(super) const LAST_KIND: u8 = 59;

/// Writes a command, its kind included.
pub(super) fn put_command(out: &mut BytesMut, command: &MailCommand) {
    match command {
        MailCommand::Send(send) => {
            out.put_u8(kind::SEND);
            put_send(out, send);
        }
        MailCommand::SendKnown(send, events) => {
            out.put_u8(SEND_KNOWN);
            put_send(out, send);
            put_option(out, *events, put_retention);
        }
        MailCommand::Settle(settle) => {
            out.put_u8(kind::SETTLE);
            put_settle(out, settle);
        }
        MailCommand::SettleIf(settle, SettleIf { version, delivered }) => {
            out.put_u8(SETTLE_IF);
            put_settle(out, settle);
            put_option(out, *version, BufMut::put_u64);
            out.put_u8(u8::from(*delivered));
        }
        MailCommand::NoteDelivered(NoteDelivered { tenant, device, id, by, detail }) => {
            out.put_u8(kind::NOTE_DELIVERED);
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u128(*id);
            out.put_u8(*by);
            put_text(out, detail);
        }
        MailCommand::Cancel(CancelMail { tenant, device, id }) => {
            out.put_u8(kind::CANCEL);
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u128(*id);
        }
        MailCommand::Purge(PurgeMail { tenant, device, dead }) => {
            out.put_u8(kind::PURGE);
            out.put_u32(tenant.0);
            put_text(out, device);
            out.put_u8(u8::from(*dead));
        }
    }
}

fn put_send(out: &mut BytesMut, send: &SendMail) {
    let SendMail { tenant, device, mail, limits, born } = send;
    out.put_u32(tenant.0);
    put_text(out, device);
    out.put_u128(mail.id);
    put_text(out, &mail.name);
    out.put_u8(mail.content_type);
    put_bytes(out, &mail.payload);
    put_option(out, mail.ttl_ms, BufMut::put_u64);
    out.put_u16(mail.requeues_max);
    out.put_u32(limits.items);
    out.put_u64(limits.bytes);
    put_option(out, *born, BufMut::put_u64);
}

fn put_settle(out: &mut BytesMut, settle: &SettleMail) {
    let SettleMail { tenant, device, id, op, by, detail } = settle;
    out.put_u32(tenant.0);
    put_text(out, device);
    out.put_u128(*id);
    out.put_u8(*op as u8);
    out.put_u8(*by);
    put_text(out, detail);
}

fn read_settle(
    reader: &mut Reader,
    tenant: TenantId,
    device: Text,
) -> Result<SettleMail, Malformed> {
    let (id, op) = (reader.u128()?, reader.u8()?);
    let op = MailOp::from_number(op).ok_or(reader.malformed())?;
    let (by, detail) = (reader.u8()?, reader.text()?);
    Ok(SettleMail { tenant, device, id, op, by, detail })
}

fn read_send(reader: &mut Reader, tenant: TenantId, device: Text) -> Result<SendMail, Malformed> {
    Ok(SendMail {
        tenant,
        device,
        mail: NewMail {
            id: reader.u128()?,
            name: reader.text()?,
            content_type: reader.u8()?,
            payload: read_bytes(reader)?,
            ttl_ms: reader.option(Reader::u64)?,
            requeues_max: reader.u16()?,
        },
        limits: MailLimits { items: reader.u32()?, bytes: reader.u64()? },
        born: reader.option(Reader::u64)?,
    })
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`], or [`SEND_KNOWN`], or [`SETTLE_IF`].
pub(super) fn read_command(kind: u8, reader: &mut Reader) -> Result<MailCommand, Malformed> {
    let (tenant, device) = (reader.tenant()?, reader.text()?);
    Ok(match kind {
        kind::SEND => MailCommand::Send(read_send(reader, tenant, device)?),
        SEND_KNOWN => {
            let send = read_send(reader, tenant, device)?;
            MailCommand::SendKnown(send, reader.option(read_retention)?)
        }
        kind::SETTLE => MailCommand::Settle(read_settle(reader, tenant, device)?),
        SETTLE_IF => {
            let settle = read_settle(reader, tenant, device)?;
            let (version, delivered) = (reader.option(Reader::u64)?, reader.bool()?);
            MailCommand::SettleIf(settle, SettleIf { version, delivered })
        }
        kind::NOTE_DELIVERED => {
            let (id, by, detail) = (reader.u128()?, reader.u8()?, reader.text()?);
            MailCommand::NoteDelivered(NoteDelivered { tenant, device, id, by, detail })
        }
        kind::CANCEL => MailCommand::Cancel(CancelMail { tenant, device, id: reader.u128()? }),
        kind::PURGE => MailCommand::Purge(PurgeMail { tenant, device, dead: reader.bool()? }),
        _ => return Err(Malformed { what: "command kind" }),
    })
}

/// Writes an answer, its kind included.
pub(super) fn put_answer(out: &mut BytesMut, answer: MailAnswer) {
    match answer {
        MailAnswer::Mailed { size, front, repeat } => {
            out.put_u8(answer::MAILED);
            out.put_u32(size);
            out.put_u8(u8::from(front));
            out.put_u8(u8::from(repeat));
        }
        MailAnswer::Settled { size, next, repeat } => {
            out.put_u8(answer::SETTLED);
            out.put_u32(size);
            out.put_u8(u8::from(next));
            out.put_u8(u8::from(repeat));
        }
        MailAnswer::Purged { removed, more } => {
            out.put_u8(answer::PURGED);
            out.put_u32(removed);
            out.put_u8(u8::from(more));
        }
    }
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_answer(kind: u8, reader: &mut Reader) -> Result<MailAnswer, Malformed> {
    Ok(match kind {
        answer::MAILED => MailAnswer::Mailed {
            size: reader.u32()?,
            front: reader.bool()?,
            repeat: reader.bool()?,
        },
        answer::SETTLED => MailAnswer::Settled {
            size: reader.u32()?,
            next: reader.bool()?,
            repeat: reader.bool()?,
        },
        answer::PURGED => MailAnswer::Purged { removed: reader.u32()?, more: reader.bool()? },
        _ => return Err(Malformed { what: "answer kind" }),
    })
}

/// Writes a refusal, its number included.
pub(super) fn put_refused(out: &mut BytesMut, why: MailRefused) {
    out.put_u8(match why {
        MailRefused::Full => refused::FULL,
        MailRefused::TooLarge => refused::TOO_LARGE,
        MailRefused::NotNext { .. } => refused::NOT_NEXT,
        MailRefused::NoSuchMail => refused::NO_SUCH_MAIL,
        MailRefused::TooManyMailboxes => refused::TOO_MANY_MAILBOXES,
        MailRefused::DeviceGone => refused::DEVICE_GONE,
        MailRefused::DeviceChanged => refused::DEVICE_CHANGED,
    });
    if let MailRefused::NotNext { front } = why {
        put_option(out, front, BufMut::put_u128);
    }
}

/// Reads what follows a number between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_refused(code: u8, reader: &mut Reader) -> Result<MailRefused, Malformed> {
    Ok(match code {
        refused::FULL => MailRefused::Full,
        refused::TOO_LARGE => MailRefused::TooLarge,
        refused::NOT_NEXT => MailRefused::NotNext { front: reader.option(Reader::u128)? },
        refused::NO_SUCH_MAIL => MailRefused::NoSuchMail,
        refused::TOO_MANY_MAILBOXES => MailRefused::TooManyMailboxes,
        refused::DEVICE_GONE => MailRefused::DeviceGone,
        refused::DEVICE_CHANGED => MailRefused::DeviceChanged,
        _ => return Err(Malformed { what: "refusal" }),
    })
}

fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    out.put_u32(u32::try_from(bytes.len()).expect("COMMAND_BYTES_MAX fits"));
    out.put_slice(bytes);
}

fn read_bytes(reader: &mut Reader) -> Result<Bytes, Malformed> {
    let len = reader.u32()? as usize;
    reader.slice(len)
}

/// Every command about mail, with its frame but for the length in front: for the tests of all commands.
#[cfg(test)]
pub(super) fn every_command() -> Vec<(crate::Command, &'static str)> {
    let tenant = TenantId(7);
    let device = || "d".into();
    let mail = NewMail {
        id: 1,
        name: "n".into(),
        content_type: 2,
        payload: Bytes::from_static(b"xyz"),
        ttl_ms: Some(3),
        requeues_max: 4,
    };
    let limits = MailLimits { items: 5, bytes: 6 };
    let send = SendMail { tenant, device: device(), mail, limits, born: None };
    let mut known = send.clone();
    known.born = Some(9);
    known.mail.ttl_ms = None;
    let mail = |op, detail| SettleMail { tenant, device: device(), id: 1, op, by: 8, detail };
    let settle = |op, detail| MailCommand::Settle(mail(op, detail));
    let settle_if = |version, delivered| {
        MailCommand::SettleIf(mail(MailOp::Ack, "".into()), SettleIf { version, delivered })
    };
    #[rustfmt::skip]
    let all = [
        (MailCommand::Send(send),
            "32 00000007 00000001 64 00000000000000000000000000000001 00000001 6e 02 00000003 78797a \
             01 0000000000000003 0004 00000005 0000000000000006 00"),
        (MailCommand::Send(known.clone()),
            "32 00000007 00000001 64 00000000000000000000000000000001 00000001 6e 02 00000003 78797a \
             00 0004 00000005 0000000000000006 01 0000000000000009"),
        (MailCommand::SendKnown(known, Some(crate::events::Retention { keep_s: 1, bytes_max: 2 })),
            "4c 00000007 00000001 64 00000000000000000000000000000001 00000001 6e 02 00000003 78797a \
             00 0004 00000005 0000000000000006 01 0000000000000009 01 00000001 0000000000000002"),
        (settle(MailOp::Ack, "".into()),
            "33 00000007 00000001 64 00000000000000000000000000000001 01 08 00000000"),
        (settle(MailOp::Reject, "w".into()),
            "33 00000007 00000001 64 00000000000000000000000000000001 02 08 00000001 77"),
        (settle(MailOp::Requeue, "".into()),
            "33 00000007 00000001 64 00000000000000000000000000000001 03 08 00000000"),
        (settle_if(Some(9), false),
            "53 00000007 00000001 64 00000000000000000000000000000001 01 08 00000000 01 0000000000000009 00"),
        (settle_if(None, true),
            "53 00000007 00000001 64 00000000000000000000000000000001 01 08 00000000 00 01"),
        (MailCommand::NoteDelivered(NoteDelivered { tenant, device: device(), id: 1, by: 8, detail: "w".into() }),
            "34 00000007 00000001 64 00000000000000000000000000000001 08 00000001 77"),
        (MailCommand::Cancel(CancelMail { tenant, device: device(), id: 1 }),
            "35 00000007 00000001 64 00000000000000000000000000000001"),
        (MailCommand::Purge(PurgeMail { tenant, device: device(), dead: true }),
            "36 00000007 00000001 64 01"),
    ];
    all.map(|(command, bytes)| (crate::Command::Mail(command), bytes)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Refused};

    #[test]
    fn answers_about_mail_keep_their_bytes() {
        // Frozen: producer rows hold these.
        let refused = |why| Answer::Refused(Refused::Mail(why));
        #[rustfmt::skip]
        let table = [
            (Answer::Mail(MailAnswer::Mailed { size: 1, front: true, repeat: false }), "32 00000001 01 00"),
            (Answer::Mail(MailAnswer::Settled { size: 1, next: true, repeat: false }), "33 00000001 01 00"),
            (Answer::Mail(MailAnswer::Purged { removed: 2, more: true }), "34 00000002 01"),
            (refused(MailRefused::Full),                        "08 32"),
            (refused(MailRefused::TooLarge),                    "08 33"),
            (refused(MailRefused::NotNext { front: None }),     "08 34 00"),
            (refused(MailRefused::NotNext { front: Some(1) }),  "08 34 01 00000000000000000000000000000001"),
            (refused(MailRefused::NoSuchMail),                  "08 35"),
            (refused(MailRefused::TooManyMailboxes),            "08 36"),
            (refused(MailRefused::DeviceGone),                  "08 37"),
            (refused(MailRefused::DeviceChanged),               "08 38"),
        ];
        for (answer, expected) in table {
            let mut out = BytesMut::new();
            answer.encode(&mut out);
            let bytes = out.freeze();
            assert_eq!(crate::codec::hex(&bytes), expected.replace(' ', ""), "{answer:?}");
            for len in 0..bytes.len() {
                assert!(Answer::decode(&mut bytes.slice(..len)).is_err(), "{answer:?} at {len}");
            }
            assert_eq!(Answer::decode(&mut bytes.clone()).unwrap(), answer);
        }
        for unknown in [&[53][..], &[59], &[8, 57], &[8, 59]] {
            assert!(Answer::decode(&mut Bytes::copy_from_slice(unknown)).is_err());
        }
    }
}
