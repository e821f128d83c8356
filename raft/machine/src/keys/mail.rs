//! Where the rows of mail are: a mailbox by its device, all else by the mailbox's number.

use bytes::Bytes;
use moorline_core::{Offset, TenantId, Text, UnixMillis};
use moorline_storage::{StorageError, key::Kind};

use super::{Keys, Suffix};
use crate::command::SessionId;

impl Keys {
    pub(crate) fn mailbox(self, bucket: u16, tenant: TenantId, device: &Text) -> Bytes {
        let key = self.key(bucket, Kind::Mailbox, 4 + device.len());
        key.u32(tenant.0).bytes(device.as_bytes()).done()
    }

    pub(crate) fn mail(self, mailbox: SessionId, place: Offset) -> Bytes {
        self.key(mailbox.bucket, Kind::Mail, 16).u64(mailbox.number).u64(place.0).done()
    }

    pub(crate) fn mail_by_id(self, mailbox: SessionId, mail: u128) -> Bytes {
        let key = self.key(mailbox.bucket, Kind::MailById, 24).u64(mailbox.number);
        key.bytes(&mail.to_be_bytes()).done()
    }

    pub(crate) fn mail_ended(self, mailbox: SessionId, list: u8, slot: u16) -> Bytes {
        let key = self.key(mailbox.bucket, Kind::MailDone, 11).u64(mailbox.number);
        key.u8(list).u16(slot).done()
    }

    pub(crate) fn mail_expiry(self, mailbox: SessionId, at: UnixMillis, place: Offset) -> Bytes {
        let key = self.key(mailbox.bucket, Kind::MailExpiry, 24).u64(mailbox.number);
        key.u64(at.0).u64(place.0).done()
    }

    pub(crate) fn mail_garbage(self, mailbox: SessionId) -> Bytes {
        self.key(mailbox.bucket, Kind::MailGarbage, 8).u64(mailbox.number).done()
    }

    /// Whatever of a mailbox is of this kind: from the row whose key ends in `rest` on.
    pub(crate) fn mail_part(self, mailbox: SessionId, kind: Kind, rest: &[u8]) -> (Bytes, Bytes) {
        let of = |number, rest: &[u8]| {
            self.key(mailbox.bucket, kind, 8 + rest.len()).u64(number).bytes(rest).done()
        };
        (of(mailbox.number, rest), of(mailbox.number + 1, &[]))
    }
}

impl Suffix<'_> {
    pub(crate) fn byte(&mut self) -> Result<u8, StorageError> {
        self.take().map(|[byte]| byte)
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_of_mail_keep_their_bytes() {
        // Frozen: disks hold these.
        let keys = Keys::new(ShardId(2));
        let id = SessionId { bucket: 3, number: 4 };
        #[rustfmt::skip]
        let table = [
            (keys.mailbox(3, TenantId(5), &"d".into()), "0002 0003 1d 00000005 64"),
            (keys.mail(id, Offset(6)),                  "0002 0003 1e 0000000000000004 0000000000000006"),
            (keys.mail_by_id(id, 7),
                "0002 0003 1f 0000000000000004 00000000000000000000000000000007"),
            (keys.mail_ended(id, 1, 8),                 "0002 0003 32 0000000000000004 01 0008"),
            (keys.mail_expiry(id, UnixMillis(9), Offset(6)),
                "0002 0003 33 0000000000000004 0000000000000009 0000000000000006"),
            (keys.mail_garbage(id),                     "0002 0003 34 0000000000000004"),
        ];
        for (key, expected) in table {
            assert_eq!(hex(&key), expected.replace(' ', ""));
        }
        let (from, to) = keys.mail_part(id, Kind::Mail, &[]);
        let (first, last) = (keys.mail(id, Offset(0)), keys.mail(id, Offset(u64::MAX)));
        assert!(
            from <= first && last < to && to <= keys.mail(SessionId { number: 5, ..id }, Offset(0))
        );
    }
}
