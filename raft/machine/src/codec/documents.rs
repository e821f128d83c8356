//! Commands, answers and refusals about documents in bytes: each is what follows its kind. Where a space lies, for questions too.

use bytes::{BufMut, BytesMut};

use super::{Malformed, Reader, put_bytes, put_option, put_text, read_bytes};
use crate::documents::{
    DeleteDocument, DocumentAnswer, DocumentCommand, DocumentRefused, Expect, PutDocument, Space,
    SpaceOwner,
};

/// Frozen: logs hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod kind {
    pub(super) const PUT: u8 = 110;
    pub(super) const DELETE: u8 = 111;
    pub(super) const DELETE_SOME: u8 = 112;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod answer {
    pub(super) const PUT: u8 = 110;
    pub(super) const DELETED: u8 = 111;
}

/// Frozen: producer rows hold these numbers, all between [`FIRST_KIND`] and [`LAST_KIND`].
mod refused {
    pub(super) const CONFLICT: u8 = 110;
    pub(super) const DEVICE_GONE: u8 = 111;
    pub(super) const FULL: u8 = 112;
    pub(super) const TOO_LARGE: u8 = 113;
    pub(super) const BAD_NAME: u8 = 114;
}

/// Frozen: logs hold these numbers.
mod expect {
    pub(super) const ANY: u8 = 0;
    pub(super) const ABSENT: u8 = 1;
    pub(super) const VERSION: u8 = 2;
}

/// Frozen: logs hold these numbers.
mod owner {
    pub(super) const TENANT: u8 = 0;
    pub(super) const DEVICE: u8 = 1;
}

/// The first number of commands, answers and refusals about documents.
pub(super) const FIRST_KIND: u8 = 110;
/// The last one.
pub(super) const LAST_KIND: u8 = 119;

pub(crate) fn put_space(out: &mut BytesMut, Space { tenant, owner, name }: &Space) {
    out.put_u32(tenant.0);
    match owner {
        SpaceOwner::Tenant => out.put_u8(owner::TENANT),
        SpaceOwner::Device { device, born } => {
            out.put_u8(owner::DEVICE);
            put_text(out, device);
            out.put_u64(*born);
        }
    }
    put_text(out, name);
}

pub(crate) fn read_space(reader: &mut Reader) -> Result<Space, Malformed> {
    let tenant = reader.tenant()?;
    let owner = match reader.u8()? {
        owner::TENANT => SpaceOwner::Tenant,
        owner::DEVICE => SpaceOwner::Device { device: reader.text()?, born: reader.u64()? },
        _ => return Err(reader.malformed()),
    };
    Ok(Space { tenant, owner, name: reader.text()? })
}

fn put_expect(out: &mut BytesMut, expect: Expect) {
    match expect {
        Expect::Any => out.put_u8(expect::ANY),
        Expect::Absent => out.put_u8(expect::ABSENT),
        Expect::Version(version) => {
            out.put_u8(expect::VERSION);
            out.put_u64(version);
        }
    }
}

fn read_expect(reader: &mut Reader) -> Result<Expect, Malformed> {
    Ok(match reader.u8()? {
        expect::ANY => Expect::Any,
        expect::ABSENT => Expect::Absent,
        expect::VERSION => Expect::Version(reader.u64()?),
        _ => return Err(reader.malformed()),
    })
}

/// Writes a command, its kind included.
pub(super) fn put_command(out: &mut BytesMut, command: &DocumentCommand) {
    match command {
        DocumentCommand::Put(PutDocument { space, id, body, expect }) => {
            out.put_u8(kind::PUT);
            put_space(out, space);
            put_text(out, id);
            put_expect(out, *expect);
            put_bytes(out, body);
        }
        DocumentCommand::Delete(DeleteDocument { space, id, expect }) => {
            out.put_u8(kind::DELETE);
            put_space(out, space);
            put_text(out, id);
            put_expect(out, *expect);
        }
        DocumentCommand::DeleteSome(space) => {
            out.put_u8(kind::DELETE_SOME);
            put_space(out, space);
        }
    }
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_command(kind: u8, reader: &mut Reader) -> Result<DocumentCommand, Malformed> {
    let space = read_space(reader)?;
    Ok(match kind {
        kind::PUT => {
            let (id, expect) = (reader.text()?, read_expect(reader)?);
            DocumentCommand::Put(PutDocument { space, id, expect, body: read_bytes(reader)? })
        }
        kind::DELETE => {
            let (id, expect) = (reader.text()?, read_expect(reader)?);
            DocumentCommand::Delete(DeleteDocument { space, id, expect })
        }
        kind::DELETE_SOME => DocumentCommand::DeleteSome(space),
        _ => return Err(Malformed { what: "command kind" }),
    })
}

/// Writes an answer, its kind included.
pub(super) fn put_answer(out: &mut BytesMut, answer: DocumentAnswer) {
    match answer {
        DocumentAnswer::Put { version } => {
            out.put_u8(answer::PUT);
            out.put_u64(version);
        }
        DocumentAnswer::Deleted { documents, more } => {
            out.put_u8(answer::DELETED);
            out.put_u32(documents);
            out.put_u8(u8::from(more));
        }
    }
}

/// Reads what follows a kind between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_answer(kind: u8, reader: &mut Reader) -> Result<DocumentAnswer, Malformed> {
    Ok(match kind {
        answer::PUT => DocumentAnswer::Put { version: reader.u64()? },
        answer::DELETED => {
            DocumentAnswer::Deleted { documents: reader.u32()?, more: reader.bool()? }
        }
        _ => return Err(Malformed { what: "answer kind" }),
    })
}

/// Writes a refusal, its number included.
pub(super) fn put_refused(out: &mut BytesMut, why: DocumentRefused) {
    match why {
        DocumentRefused::Conflict { version } => {
            out.put_u8(refused::CONFLICT);
            put_option(out, version, BufMut::put_u64);
        }
        DocumentRefused::DeviceGone => out.put_u8(refused::DEVICE_GONE),
        DocumentRefused::Full => out.put_u8(refused::FULL),
        DocumentRefused::TooLarge => out.put_u8(refused::TOO_LARGE),
        DocumentRefused::BadName => out.put_u8(refused::BAD_NAME),
    }
}

/// Reads what follows a number between [`FIRST_KIND`] and [`LAST_KIND`].
pub(super) fn read_refused(code: u8, reader: &mut Reader) -> Result<DocumentRefused, Malformed> {
    Ok(match code {
        refused::CONFLICT => DocumentRefused::Conflict { version: reader.option(Reader::u64)? },
        refused::DEVICE_GONE => DocumentRefused::DeviceGone,
        refused::FULL => DocumentRefused::Full,
        refused::TOO_LARGE => DocumentRefused::TooLarge,
        refused::BAD_NAME => DocumentRefused::BadName,
        _ => return Err(Malformed { what: "refusal" }),
    })
}

/// Every command about documents, with its frame but for the length in front: for the tests of all commands.
#[cfg(test)]
pub(super) fn every_command() -> Vec<(crate::Command, &'static str)> {
    use bytes::Bytes;
    use moorline_core::{TenantId, Text};

    let own = || Space::of_tenant(TenantId(7), "s");
    let of_device = || Space::of_device(TenantId(7), &Text::from("d"), 9, "s");
    let put = |space, expect| {
        let (id, body) = (Text::from("i"), Bytes::from_static(b"{}"));
        DocumentCommand::Put(PutDocument { space, id, body, expect })
    };
    let delete = |expect| {
        DocumentCommand::Delete(DeleteDocument { space: own(), id: Text::from("i"), expect })
    };
    #[rustfmt::skip]
    let all = [
        (put(own(), Expect::Any),           "6e 00000007 00 00000001 73 00000001 69 00 00000002 7b7d"),
        (put(of_device(), Expect::Absent),  "6e 00000007 01 00000001 64 0000000000000009 00000001 73 00000001 69 01 00000002 7b7d"),
        (put(own(), Expect::Version(3)),    "6e 00000007 00 00000001 73 00000001 69 02 0000000000000003 00000002 7b7d"),
        (delete(Expect::Any),               "6f 00000007 00 00000001 73 00000001 69 00"),
        (delete(Expect::Version(3)),        "6f 00000007 00 00000001 73 00000001 69 02 0000000000000003"),
        (DocumentCommand::DeleteSome(of_device()), "70 00000007 01 00000001 64 0000000000000009 00000001 73"),
    ];
    all.map(|(command, bytes)| (crate::Command::Documents(command), bytes)).into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{super::answer::tests::check, *};
    use crate::{Answer, Refused};

    #[test]
    fn answers_about_documents_keep_their_bytes() {
        // Frozen: producer rows hold these.
        let refused = |why| Answer::Refused(Refused::Documents(why));
        let conflict = |version| refused(DocumentRefused::Conflict { version });
        let deleted = DocumentAnswer::Deleted { documents: 2, more: true };
        #[rustfmt::skip]
        let table = [
            (Answer::Documents(DocumentAnswer::Put { version: 1 }), "6e 0000000000000001"),
            (Answer::Documents(deleted),                            "6f 00000002 01"),
            (conflict(None),                                        "08 6e 00"),
            (conflict(Some(3)),                                     "08 6e 01 0000000000000003"),
            (refused(DocumentRefused::DeviceGone),                  "08 6f"),
            (refused(DocumentRefused::Full),                        "08 70"),
            (refused(DocumentRefused::TooLarge),                    "08 71"),
            (refused(DocumentRefused::BadName),                     "08 72"),
        ];
        for (answer, expected) in table {
            check(&answer, expected);
        }
        for unknown in [&[112][..], &[119], &[8, 115], &[8, 119]] {
            assert!(Answer::decode(&mut Bytes::copy_from_slice(unknown)).is_err(), "{unknown:?}");
        }
    }
}
