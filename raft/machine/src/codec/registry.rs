//! Commands and answers of the registry in bytes, and what its rows share with them.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Malformed, Reader, put_list, put_option, put_text};
use crate::{
    answer::Answer,
    command::Command,
    registry::{
        Credential, DeleteDevice, DeleteLookup, DeleteTenant, LookupHash, Owner, PutDevice,
        PutLookup, PutTenant,
    },
};

/// Frozen: logs hold these numbers.
pub(super) mod kind {
    pub(in super::super) const PUT_TENANT: u8 = 42;
    pub(super) const DELETE_TENANT: u8 = 43;
    pub(super) const PUT_DEVICE: u8 = 44;
    pub(super) const DELETE_DEVICE: u8 = 45;
    pub(super) const PUT_LOOKUP: u8 = 46;
    pub(in super::super) const DELETE_LOOKUP: u8 = 47;
}

/// Frozen: producer rows hold these numbers.
mod answer {
    pub(super) const TENANT: u8 = 40;
    pub(super) const DEVICE: u8 = 41;
    pub(super) const TAKEN: u8 = 42;
}

/// The least bytes of a credential: lets a count be checked before anything is allocated for it.
const CREDENTIAL_BYTES_MIN: usize = 24;

#[expect(clippy::wildcard_enum_match_arm, reason = "the match that calls this names every command")]
pub(super) fn encode(command: &Command, out: &mut BytesMut) {
    match command {
        Command::PutTenant(put) => {
            out.put_u8(kind::PUT_TENANT);
            out.put_u32(put.tenant.0);
            put_text(out, &put.name);
            put_list(out, &put.aliases, put_text);
            out.put_u8(u8::from(put.enabled));
            put_bytes(out, &put.settings);
            put_option(out, put.if_version, BufMut::put_u64);
        }
        Command::DeleteTenant(delete) => {
            out.put_u8(kind::DELETE_TENANT);
            out.put_u32(delete.tenant.0);
            put_option(out, delete.if_version, BufMut::put_u64);
        }
        Command::PutDevice(put) => {
            out.put_u8(kind::PUT_DEVICE);
            out.put_u32(put.tenant.0);
            put_text(out, &put.device);
            out.put_u8(u8::from(put.enabled));
            put_credentials(out, &put.credentials);
            put_bytes(out, &put.settings);
            put_option(out, put.if_version, BufMut::put_u64);
            out.put_u32(put.devices_max);
        }
        Command::DeleteDevice(delete) => {
            out.put_u8(kind::DELETE_DEVICE);
            out.put_u32(delete.tenant.0);
            put_text(out, &delete.device);
            put_option(out, delete.if_version, BufMut::put_u64);
        }
        Command::PutLookup(put) => {
            out.put_u8(kind::PUT_LOOKUP);
            out.put_slice(&put.hash.0);
            put_owner(out, &put.owner);
            put_option(out, put.takes.as_ref(), put_owner);
        }
        Command::DeleteLookup(delete) => {
            out.put_u8(kind::DELETE_LOOKUP);
            out.put_slice(&delete.hash.0);
            put_owner(out, &delete.owner);
        }
        other => unreachable!("encode_body writes {other:?} itself"),
    }
}

pub(super) fn decode(kind: u8, reader: &mut Reader) -> Result<Command, Malformed> {
    Ok(match kind {
        kind::PUT_TENANT => Command::PutTenant(PutTenant {
            tenant: reader.tenant()?,
            name: reader.text()?,
            aliases: reader.list(4, Reader::text)?,
            enabled: reader.bool()?,
            settings: read_bytes(reader)?,
            if_version: reader.option(Reader::u64)?,
        }),
        kind::DELETE_TENANT => {
            let (tenant, if_version) = (reader.tenant()?, reader.option(Reader::u64)?);
            Command::DeleteTenant(DeleteTenant { tenant, if_version })
        }
        kind::PUT_DEVICE => Command::PutDevice(PutDevice {
            tenant: reader.tenant()?,
            device: reader.text()?,
            enabled: reader.bool()?,
            credentials: read_credentials(reader)?,
            settings: read_bytes(reader)?,
            if_version: reader.option(Reader::u64)?,
            devices_max: reader.u32()?,
        }),
        kind::DELETE_DEVICE => Command::DeleteDevice(DeleteDevice {
            tenant: reader.tenant()?,
            device: reader.text()?,
            if_version: reader.option(Reader::u64)?,
        }),
        kind::PUT_LOOKUP => Command::PutLookup(PutLookup {
            hash: read_hash(reader)?,
            owner: read_owner(reader)?,
            takes: reader.option(read_owner)?,
        }),
        kind::DELETE_LOOKUP => {
            let (hash, owner) = (read_hash(reader)?, read_owner(reader)?);
            Command::DeleteLookup(DeleteLookup { hash, owner })
        }
        _ => return Err(Malformed { what: "command kind" }),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the match that calls this names every answer")]
pub(super) fn encode_answer(answer: &Answer, out: &mut BytesMut) {
    match answer {
        Answer::Tenant { tenant, version } => {
            out.put_u8(answer::TENANT);
            out.put_u32(tenant.0);
            out.put_u64(*version);
        }
        Answer::Device { born, version, new } => {
            out.put_u8(answer::DEVICE);
            out.put_u64(*born);
            out.put_u64(*version);
            out.put_u8(u8::from(*new));
        }
        Answer::Taken(by) => {
            out.put_u8(answer::TAKEN);
            put_owner(out, by);
        }
        other => unreachable!("Answer::encode writes {other:?} itself"),
    }
}

pub(super) fn read_answer(kind: u8, reader: &mut Reader) -> Result<Answer, Malformed> {
    Ok(match kind {
        answer::TENANT => Answer::Tenant { tenant: reader.tenant()?, version: reader.u64()? },
        answer::DEVICE => {
            let (born, version) = (reader.u64()?, reader.u64()?);
            Answer::Device { born, version, new: reader.bool()? }
        }
        answer::TAKEN => Answer::Taken(read_owner(reader)?),
        _ => return Err(Malformed { what: "answer kind" }),
    })
}

/// `len u32 | bytes`
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    out.put_u32(u32::try_from(bytes.len()).expect("no value of 4 GiB passed any edge"));
    out.put_slice(bytes);
}

pub(crate) fn read_bytes(reader: &mut Reader) -> Result<Bytes, Malformed> {
    let len = reader.u32()? as usize;
    reader.slice(len)
}

fn read_hash(reader: &mut Reader) -> Result<LookupHash, Malformed> {
    let bytes = reader.slice(size_of::<LookupHash>())?;
    let bytes = <[u8; 32]>::try_from(&bytes[..]).map_err(|_| reader.malformed())?;
    Ok(LookupHash(bytes))
}

/// `tenant u32 | device | born u64`
pub(crate) fn put_owner(out: &mut BytesMut, owner: &Owner) {
    out.put_u32(owner.tenant.0);
    put_text(out, &owner.device);
    out.put_u64(owner.born);
}

pub(crate) fn read_owner(reader: &mut Reader) -> Result<Owner, Malformed> {
    Ok(Owner { tenant: reader.tenant()?, device: reader.text()?, born: reader.u64()? })
}

pub(crate) fn put_credentials(out: &mut BytesMut, credentials: &[Credential]) {
    put_list(out, credentials, |out, credential| {
        out.put_u64(credential.id);
        out.put_u8(credential.kind);
        put_option(out, credential.lookup, |out, hash| out.put_slice(&hash.0));
        put_bytes(out, &credential.verifier);
        put_option(out, credential.not_before, |out, at| out.put_u64(at.0));
        put_option(out, credential.not_after, |out, at| out.put_u64(at.0));
        out.put_u64(credential.created.0);
    });
}

pub(crate) fn read_credentials(reader: &mut Reader) -> Result<Vec<Credential>, Malformed> {
    reader.list(CREDENTIAL_BYTES_MIN, |reader| {
        Ok(Credential {
            id: reader.u64()?,
            kind: reader.u8()?,
            lookup: reader.option(read_hash)?,
            verifier: read_bytes(reader)?,
            not_before: reader.option(Reader::millis)?,
            not_after: reader.option(Reader::millis)?,
            created: reader.millis()?,
        })
    })
}

/// Commands of the registry with their frames, without the length in front.
#[cfg(test)]
pub(super) fn every_command() -> Vec<(Command, &'static str)> {
    use moorline_core::{TenantId, UnixMillis};

    let (tenant, hash) = (TenantId(7), LookupHash([0xAB; 32]));
    let settings = Bytes::from_static(b"{}");
    let owner = Owner { tenant, device: "d".into(), born: 9 };
    let (owned, name) = (owner.clone(), || "d".into());
    let bare = Credential {
        id: 1,
        kind: 2,
        lookup: None,
        verifier: Bytes::new(),
        not_before: None,
        not_after: None,
        created: UnixMillis(0),
    };
    let full = Credential {
        lookup: Some(hash),
        verifier: Bytes::from_static(b"v"),
        not_before: Some(UnixMillis(3)),
        not_after: Some(UnixMillis(4)),
        created: UnixMillis(5),
        ..bare.clone()
    };
    #[rustfmt::skip]
    let all = vec![
        (Command::PutTenant(PutTenant { tenant, name: "n".into(), aliases: vec!["p:x".into()], enabled: true, settings: settings.clone(), if_version: Some(8) }),
            "2a 00000007 00000001 6e 00000001 00000003 703a78 01 00000002 7b7d 01 0000000000000008"),
        (Command::DeleteTenant(DeleteTenant { tenant, if_version: None }), "2b 00000007 00"),
        (Command::PutDevice(PutDevice { tenant, device: name(), enabled: false, credentials: vec![bare, full], settings, if_version: Some(0), devices_max: 6 }),
            "2c 00000007 00000001 64 00 00000002 \
             0000000000000001 02 00 00000000 00 00 0000000000000000 \
             0000000000000001 02 01 abababababababababababababababababababababababababababababababab \
             00000001 76 01 0000000000000003 01 0000000000000004 0000000000000005 \
             00000002 7b7d 01 0000000000000000 00000006"),
        (Command::DeleteDevice(DeleteDevice { tenant, device: name(), if_version: Some(8) }),
            "2d 00000007 00000001 64 01 0000000000000008"),
        (Command::PutLookup(PutLookup { hash, owner: owner.clone(), takes: Some(Owner { born: 8, ..owner }) }),
            "2e abababababababababababababababababababababababababababababababab \
             00000007 00000001 64 0000000000000009 01 00000007 00000001 64 0000000000000008"),
        (Command::DeleteLookup(DeleteLookup { hash, owner: owned }),
            "2f abababababababababababababababababababababababababababababababab \
             00000007 00000001 64 0000000000000009"),
    ];
    all
}

#[cfg(test)]
mod tests {
    use moorline_core::TenantId;

    use super::{super::answer::tests::check, *};
    use crate::answer::Refused;

    #[test]
    fn answers_of_the_registry_keep_their_bytes() {
        // Frozen: producer rows hold these.
        let tenant = TenantId(7);
        let by = Owner { tenant, device: "d".into(), born: 8 };
        #[rustfmt::skip]
        let table = [
            (Answer::Tenant { tenant, version: 8 },              "28 00000007 0000000000000008"),
            (Answer::Device { born: 8, version: 9, new: true },  "29 0000000000000008 0000000000000009 01"),
            (Answer::Taken(by),                                  "2a 00000007 00000001 64 0000000000000008"),
            (Answer::Refused(Refused::Exists),                         "08 28"),
            (Answer::Refused(Refused::VersionMismatch { version: 8 }), "08 29 0000000000000008"),
            (Answer::Refused(Refused::NotFound),                       "08 2a"),
            (Answer::Refused(Refused::TooMany),                        "08 2b"),
            (Answer::Refused(Refused::TooLarge),                       "08 2c"),
        ];
        for (answer, expected) in table {
            check(&answer, expected);
        }
    }
}
