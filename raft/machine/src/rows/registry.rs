//! Rows of the registry: tenants, devices, lookups, and how many of them there are.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_storage::StorageError;

use super::{Row, VERSION, corrupt};
use crate::{
    codec::{
        Malformed, Reader, put_bytes, put_credentials, put_list, put_owner, put_text, read_bytes,
        read_credentials, read_owner,
    },
    registry::{DeviceRecord, Owner, TenantRecord},
};

/// `version u8 | name | aliases | enabled u8 | version u64 | created u64 | updated u64 | settings`
impl Row for TenantRecord {
    const WHAT: &'static str = "tenant row";
    const BYTES: usize = 512;

    fn write(&self, out: &mut BytesMut) {
        put_text(out, &self.name);
        put_list(out, &self.aliases, put_text);
        out.put_u8(u8::from(self.enabled));
        out.put_u64(self.version);
        out.put_u64(self.created.0);
        out.put_u64(self.updated.0);
        put_bytes(out, &self.settings);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: reader.text()?,
            aliases: reader.list(4, Reader::text)?,
            enabled: reader.bool()?,
            version: reader.u64()?,
            created: reader.millis()?,
            updated: reader.millis()?,
            settings: read_bytes(reader)?,
        })
    }
}

/// `version u8 | born u64 | version u64 | enabled u8 | created u64 | updated u64 | credentials | settings`
impl Row for DeviceRecord {
    const WHAT: &'static str = "device row";
    const BYTES: usize = 256;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.born);
        out.put_u64(self.version);
        out.put_u8(u8::from(self.enabled));
        out.put_u64(self.created.0);
        out.put_u64(self.updated.0);
        put_credentials(out, &self.credentials);
        put_bytes(out, &self.settings);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            born: reader.u64()?,
            version: reader.u64()?,
            enabled: reader.bool()?,
            created: reader.millis()?,
            updated: reader.millis()?,
            credentials: read_credentials(reader)?,
            settings: read_bytes(reader)?,
        })
    }
}

impl DeviceRecord {
    /// The birth alone, which is all that most commands about a device want of its row.
    pub(crate) fn born_of(row: &Bytes) -> Result<u64, StorageError> {
        let born = row.split_first().filter(|(version, _)| **version == VERSION);
        let born = born.and_then(|(_, rest)| rest.first_chunk());
        let born = born.map(|born| u64::from_be_bytes(*born));
        born.ok_or_else(|| corrupt(Self::WHAT, &"it begins with no birth"))
    }
}

/// A lookup: `version u8 | tenant u32 | device | born u64`
impl Row for Owner {
    const WHAT: &'static str = "lookup row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        put_owner(out, self);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        read_owner(reader)
    }
}

/// What a tenant has of the registry in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RegistryCountsRow {
    pub(crate) devices: u64,
    /// Their names and rows.
    pub(crate) device_bytes: u64,
    /// Lookups in this shard that lead to devices of the tenant, wherever those are.
    pub(crate) lookups: u64,
}

impl Row for RegistryCountsRow {
    const WHAT: &'static str = "row of registry counts";
    const BYTES: usize = 25;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.devices);
        out.put_u64(self.device_bytes);
        out.put_u64(self.lookups);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { devices: reader.u64()?, device_bytes: reader.u64()?, lookups: reader.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::{TenantId, UnixMillis};

    use super::{super::golden::check, *};
    use crate::registry::{Credential, LookupHash};

    #[test]
    fn rows_of_the_registry_keep_their_bytes() {
        // Frozen: disks hold these.
        let settings = Bytes::from_static(b"{}");
        let tenant = TenantRecord {
            name: "n".into(),
            aliases: vec!["p:x".into()],
            enabled: true,
            version: 2,
            created: UnixMillis(3),
            updated: UnixMillis(4),
            settings: settings.clone(),
        };
        check(
            &tenant,
            "01 00000001 6e 00000001 00000003 703a78 01 0000000000000002 0000000000000003 \
             0000000000000004 00000002 7b7d",
        );
        let credential = Credential {
            id: 5,
            kind: 6,
            lookup: Some(LookupHash([0xAB; 32])),
            verifier: Bytes::from_static(b"v"),
            not_before: None,
            not_after: Some(UnixMillis(7)),
            created: UnixMillis(8),
        };
        let device = DeviceRecord {
            born: 1,
            version: 2,
            enabled: false,
            created: UnixMillis(3),
            updated: UnixMillis(4),
            credentials: vec![credential],
            settings,
        };
        check(
            &device,
            "01 0000000000000001 0000000000000002 00 0000000000000003 0000000000000004 00000001 \
             0000000000000005 06 01 abababababababababababababababababababababababababababababababab \
             00000001 76 00 01 0000000000000007 0000000000000008 00000002 7b7d",
        );
        assert_eq!(DeviceRecord::born_of(&device.to_bytes()).unwrap(), 1);
        assert!(DeviceRecord::born_of(&Bytes::from_static(b"\x02\0\0\0\0\0\0\0\x01")).is_err());
        assert!(DeviceRecord::born_of(&device.to_bytes().slice(..8)).is_err());
        check(
            &Owner { tenant: TenantId(7), device: "d".into(), born: 9 },
            "01 00000007 00000001 64 0000000000000009",
        );
        check(
            &RegistryCountsRow { devices: 1, device_bytes: 2, lookups: 3 },
            "01 0000000000000001 0000000000000002 0000000000000003",
        );
    }
}
