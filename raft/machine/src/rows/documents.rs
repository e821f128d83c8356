//! Rows of documents: each document, and how much there is in a space or of a device.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::UnixMillis;

use super::Row;
use crate::codec::{Malformed, Reader};

/// What there is in a space of a tenant, or in all spaces of a device. Without documents there is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SpaceRow {
    pub(crate) documents: u32,
    /// Of ids and documents.
    pub(crate) bytes: u64,
}

impl Row for SpaceRow {
    const WHAT: &'static str = "space row";
    const BYTES: usize = 13;

    fn write(&self, out: &mut BytesMut) {
        out.put_u32(self.documents);
        out.put_u64(self.bytes);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { documents: reader.u32()?, bytes: reader.u64()? })
    }
}

/// A document; its id is in its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocumentRow {
    pub(crate) version: u64,
    pub(crate) changed: UnixMillis,
    pub(crate) body: Bytes,
}

impl Row for DocumentRow {
    const WHAT: &'static str = "document row";
    const BYTES: usize = 512;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.version);
        out.put_u64(self.changed.0);
        out.put_slice(&self.body);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let (version, changed) = (reader.u64()?, reader.millis()?);
        Ok(Self { version, changed, body: reader.take_rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::golden::{check, check_open},
        *,
    };

    #[test]
    fn rows_of_documents_keep_their_bytes() {
        // Frozen: disks hold these.
        check(&SpaceRow { documents: 1, bytes: 2 }, "01 00000001 0000000000000002");
        let changed = UnixMillis(3);
        let body = Bytes::from_static(b"{}");
        check_open(
            &DocumentRow { version: 4, changed, body },
            2,
            "01 0000000000000004 0000000000000003 7b7d",
        );
        let body = Bytes::new();
        check_open(
            &DocumentRow { version: 4, changed, body },
            0,
            "01 0000000000000004 0000000000000003",
        );
    }
}
