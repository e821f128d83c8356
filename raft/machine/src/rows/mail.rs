//! Rows of mail: mailboxes, what their mails say, what is known of each, those that ended, what is left of forgotten ones.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{Offset, Text, UnixMillis};

use super::Row;
use crate::{
    codec::{Malformed, Reader, put_list, put_option, put_text},
    mail::{MailNote, MailOp, Noted},
};

/// A mailbox: all that has to be known of it to serve the mail at its front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MailboxRow {
    /// Its row id within the bucket, under which its mail is.
    pub(crate) number: u64,
    /// Which device of that name it is for: the log index that made it, 0 if nobody said.
    pub(crate) born: u64,
    /// Grows with each change.
    pub(crate) version: u64,
    /// The place that the next mail gets.
    pub(crate) next: Offset,
    /// Mails queued.
    pub(crate) size: u32,
    /// Bytes of their names and payloads.
    pub(crate) bytes: u64,
    /// The first of them: its place and id.
    pub(crate) front: Option<(Offset, u128)>,
    /// When the first of them that expires does.
    pub(crate) expires_at: Option<UnixMillis>,
    /// Mails on the dead list.
    pub(crate) dead: u32,
    /// Mails that ever died.
    pub(crate) died: u64,
    /// Mails that ever ended another way.
    pub(crate) finished: u64,
    /// What was settled last, for its repeat.
    pub(crate) last: Option<(u128, MailOp)>,
}

impl MailboxRow {
    pub(crate) fn new(number: u64, born: u64) -> Self {
        Self {
            number,
            born,
            version: 0,
            next: Offset(1),
            size: 0,
            bytes: 0,
            front: None,
            expires_at: None,
            dead: 0,
            died: 0,
            finished: 0,
            last: None,
        }
    }
}

impl Row for MailboxRow {
    const WHAT: &'static str = "mailbox row";
    const BYTES: usize = 112;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.number);
        out.put_u64(self.born);
        out.put_u64(self.version);
        out.put_u64(self.next.0);
        out.put_u32(self.size);
        out.put_u64(self.bytes);
        put_option(out, self.front, |out, (place, id)| {
            out.put_u64(place.0);
            out.put_u128(id);
        });
        put_option(out, self.expires_at, |out, at| out.put_u64(at.0));
        out.put_u32(self.dead);
        out.put_u64(self.died);
        out.put_u64(self.finished);
        put_option(out, self.last, |out, (id, op)| {
            out.put_u128(id);
            out.put_u8(op as u8);
        });
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            number: reader.u64()?,
            born: reader.u64()?,
            version: reader.u64()?,
            next: reader.offset()?,
            size: reader.u32()?,
            bytes: reader.u64()?,
            front: reader.option(|reader| Ok((reader.offset()?, reader.u128()?)))?,
            expires_at: reader.option(Reader::millis)?,
            dead: reader.u32()?,
            died: reader.u64()?,
            finished: reader.u64()?,
            last: reader.option(|reader| {
                let (id, op) = (reader.u128()?, reader.u8()?);
                Ok((id, MailOp::from_number(op).ok_or(reader.malformed())?))
            })?,
        })
    }
}

/// A mail in its place: its id, and what it says. Never rewritten, however long its history grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MailRow {
    pub(crate) id: u128,
    pub(crate) payload: Bytes,
}

impl Row for MailRow {
    const WHAT: &'static str = "mail row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        out.put_u128(self.id);
        out.put_slice(&self.payload);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { id: reader.u128()?, payload: reader.take_rest() })
    }
}

/// All that is known of a mail but what it says, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MailCard {
    /// Queued, dead, or how it ended.
    pub(crate) state: Noted,
    /// Its place in the queue; for others their number among those that died, or ended.
    pub(crate) place: u64,
    pub(crate) name: Text,
    pub(crate) content_type: u8,
    pub(crate) payload_bytes: u32,
    pub(crate) created: UnixMillis,
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) requeues: u16,
    pub(crate) requeues_max: u16,
    pub(crate) notes_dropped: u32,
    pub(crate) notes: Vec<MailNote>,
}

/// The least bytes of a note: lets a count be checked before anything is allocated for it.
const NOTE_BYTES_MIN: usize = 14;

impl Row for MailCard {
    const WHAT: &'static str = "mail card row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.state as u8);
        out.put_u64(self.place);
        put_text(out, &self.name);
        out.put_u8(self.content_type);
        out.put_u32(self.payload_bytes);
        out.put_u64(self.created.0);
        put_option(out, self.expires_at, |out, at| out.put_u64(at.0));
        out.put_u16(self.requeues);
        out.put_u16(self.requeues_max);
        out.put_u32(self.notes_dropped);
        put_list(out, &self.notes, |out, note| {
            out.put_u64(note.at.0);
            out.put_u8(note.what as u8);
            out.put_u8(note.by);
            put_text(out, &note.detail);
        });
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let state = noted(reader)?;
        if matches!(state, Noted::Delivered | Noted::Requeued) {
            // Nothing stays so.
            return Err(reader.malformed());
        }
        Ok(Self {
            state,
            place: reader.u64()?,
            name: reader.text()?,
            content_type: reader.u8()?,
            payload_bytes: reader.u32()?,
            created: reader.millis()?,
            expires_at: reader.option(Reader::millis)?,
            requeues: reader.u16()?,
            requeues_max: reader.u16()?,
            notes_dropped: reader.u32()?,
            notes: reader.list(NOTE_BYTES_MIN, |reader| {
                Ok(MailNote {
                    at: reader.millis()?,
                    what: noted(reader)?,
                    by: reader.u8()?,
                    detail: reader.text()?,
                })
            })?,
        })
    }
}

fn noted(reader: &mut Reader) -> Result<Noted, Malformed> {
    Noted::from_number(reader.u8()?).ok_or(reader.malformed())
}

/// A mail that ended or died, in its slot: the next but so many takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MailEndedRow {
    /// Which it was of those that did.
    pub(crate) number: u64,
    pub(crate) id: u128,
    /// Of the dead only.
    pub(crate) payload: Bytes,
}

impl Row for MailEndedRow {
    const WHAT: &'static str = "ended mail row";
    const BYTES: usize = 25;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.number);
        out.put_u128(self.id);
        out.put_slice(&self.payload);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { number: reader.u64()?, id: reader.u128()?, payload: reader.take_rest() })
    }
}

/// Which mail expires then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MailExpiryRow(pub(crate) u128);

impl Row for MailExpiryRow {
    const WHAT: &'static str = "mail expiry row";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u128(self.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        reader.u128().map(Self)
    }
}

/// What is left to remove of a mailbox that was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MailGarbageRow {
    /// Kinds of rows that are removed already.
    pub(crate) parts: u8,
    /// In the next one: the end of the key to go on from.
    pub(crate) rest: Bytes,
}

impl Row for MailGarbageRow {
    const WHAT: &'static str = "mail garbage row";
    const BYTES: usize = 26;

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.parts);
        out.put_slice(&self.rest);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { parts: reader.u8()?, rest: reader.take_rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::golden::{check, check_open},
        *,
    };

    #[test]
    fn rows_of_mailboxes_keep_their_bytes() {
        // Frozen: disks hold these.
        let row = MailboxRow::new(1, 2);
        check(
            &row,
            "01 0000000000000001 0000000000000002 0000000000000000 0000000000000001 00000000 \
             0000000000000000 00 00 00000000 0000000000000000 0000000000000000 00",
        );
        let row = MailboxRow {
            version: 3,
            next: Offset(4),
            size: 5,
            bytes: 6,
            front: Some((Offset(7), 8)),
            expires_at: Some(UnixMillis(9)),
            dead: 10,
            died: 11,
            finished: 12,
            last: Some((13, MailOp::Requeue)),
            ..row
        };
        check(
            &row,
            "01 0000000000000001 0000000000000002 0000000000000003 0000000000000004 00000005 \
             0000000000000006 01 0000000000000007 00000000000000000000000000000008 \
             01 0000000000000009 0000000a 000000000000000b 000000000000000c \
             01 0000000000000000000000000000000d 03",
        );
    }

    #[test]
    fn rows_of_mail_keep_their_bytes() {
        // Frozen: disks hold these.
        let payload = Bytes::from_static(b"xy");
        let id = "00000000000000000000000000000001";
        check_open(&MailRow { id: 1, payload: payload.clone() }, 2, &format!("01 {id} 7879"));
        check_open(
            &MailEndedRow { number: 2, id: 1, payload },
            2,
            &format!("01 0000000000000002 {id} 7879"),
        );
        check(&MailExpiryRow(1), &format!("01 {id}"));
        check_open(&MailGarbageRow { parts: 1, rest: Bytes::from_static(b"k") }, 1, "01 01 6b");
        let note = MailNote { at: UnixMillis(5), what: Noted::Acked, by: 6, detail: "d".into() };
        let card = MailCard {
            state: Noted::Acked,
            place: 2,
            name: "n".into(),
            content_type: 1,
            payload_bytes: 3,
            created: UnixMillis(4),
            expires_at: None,
            requeues: 7,
            requeues_max: 8,
            notes_dropped: 9,
            notes: vec![note],
        };
        let rest = "0007 0008 00000009 00000001 0000000000000005 04 06 00000001 64";
        let head = "01 04 0000000000000002 00000001 6e 01 00000003 0000000000000004";
        check(&card, &format!("{head} 00 {rest}"));
        let expiring = MailCard { expires_at: Some(UnixMillis(9)), ..card.clone() };
        check(&expiring, &format!("{head} 01 0000000000000009 {rest}"));
        let nowhere = MailCard { state: Noted::Delivered, ..card };
        assert!(MailCard::from_bytes(&nowhere.to_bytes()).is_err());
    }
}
