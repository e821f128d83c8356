//! Audited commands in bytes: who asked, and then the command's own frame.

use bytes::{BufMut, BytesMut};
use moorline_core::NodeId;

use super::{Malformed, Reader, put_text};
use crate::{
    audit::{Audited, AuditedBy},
    command::Command,
};

/// Frozen: logs hold this number.
pub(super) const AUDITED: u8 = 77;

/// Writes a command, its kind included. One that is too large is cut here, and refused by its length.
pub(super) fn put_command(out: &mut BytesMut, audited: &Audited) {
    let Audited { by, command } = audited;
    out.put_u8(AUDITED);
    put_audited_by(out, by);
    command.encode_framed(out);
}

/// Reads what follows [`AUDITED`].
pub(super) fn read_command(mut reader: Reader) -> Result<Audited, Malformed> {
    let by = read_audited_by(&mut reader)?;
    let command = Command::decode(&reader.tail())?;
    if matches!(command, Command::Audited(_)) {
        return Err(Malformed { what: "audited command" });
    }
    Ok(Audited { by, command })
}

pub(crate) fn put_audited_by(out: &mut BytesMut, by: &AuditedBy) {
    let AuditedBy { actor, request, request_id, address, node } = by;
    put_text(out, actor);
    put_text(out, request);
    out.put_u128(*request_id);
    put_text(out, address);
    out.put_u64(node.0);
}

pub(crate) fn read_audited_by(reader: &mut Reader) -> Result<AuditedBy, Malformed> {
    Ok(AuditedBy {
        actor: reader.text()?,
        request: reader.text()?,
        request_id: reader.u128()?,
        address: reader.text()?,
        node: NodeId(reader.u64()?),
    })
}

/// A command with its frame but for the length in front: for the tests of all commands.
#[cfg(test)]
pub(super) fn every_command() -> Vec<(Command, &'static str)> {
    let by = AuditedBy {
        actor: "a".into(),
        request: "r".into(),
        request_id: 3,
        address: "x".into(),
        node: NodeId(4),
    };
    let command = Command::Tick;
    #[rustfmt::skip]
    let all = [
        (Command::Audited(Box::new(Audited { by, command })),
            "4d 00000001 61 00000001 72 00000000000000000000000000000003 00000001 78 0000000000000004 \
             00000001 08"),
    ];
    all.into()
}
