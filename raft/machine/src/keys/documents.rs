//! Where the rows of documents are: in the bucket of their space, those of one space together and in the order of their ids.
//!
//! A tenant's own spaces have no birth: 0, which no device has, since births are places in a log that begins behind it.

use bytes::Bytes;
use moorline_core::{TenantId, Text, shard::bucket_of};
use moorline_storage::{
    StorageError,
    key::{Key, Kind},
};

use super::{Keys, Place, Suffix};
use crate::{
    documents::{Space, SpaceOwner},
    rows::corrupt,
};

/// Names have no zero byte, so one ends them.
const END: u8 = 0;
/// What comes behind all keys of a space.
const BEHIND: u8 = END + 1;

impl Keys {
    fn in_space(self, space: &Space, id_bytes: usize) -> Key {
        let bucket = bucket_of(space.tenant, space.routed_by().as_bytes());
        let born = match space.owner {
            SpaceOwner::Tenant => 0,
            SpaceOwner::Device { born, .. } => born,
        };
        let key = self.key(bucket, Kind::Document, 4 + 8 + space.name.len() + 1 + id_bytes);
        key.u32(space.tenant.0).u64(born).bytes(space.name.as_bytes())
    }

    pub(crate) fn document(self, space: &Space, id: &Text) -> Bytes {
        self.in_space(space, id.len()).u8(END).bytes(id.as_bytes()).done()
    }

    /// From and to of a space's documents, those behind an id.
    pub(crate) fn documents(self, space: &Space, after: Option<&Text>) -> (Bytes, Bytes) {
        let to = self.in_space(space, 0).u8(BEHIND).done();
        let from = self.in_space(space, after.map_or(0, |id| id.len() + 1)).u8(END);
        let from = match after {
            // The least key behind it.
            Some(id) => from.bytes(id.as_bytes()).u8(0).done(),
            None => from.done(),
        };
        (from, to)
    }

    /// From and to of all documents of a device.
    pub(crate) fn documents_of(self, tenant: TenantId, of: Place) -> (Bytes, Bytes) {
        let edge = |born| self.key(of.bucket, Kind::Document, 12).u32(tenant.0).u64(born).done();
        (edge(of.born), edge(of.born + 1))
    }

    /// How much there is in a space of a tenant's own.
    pub(crate) fn space(self, tenant: TenantId, name: &Text) -> Bytes {
        let bucket = bucket_of(tenant, name.as_bytes());
        self.key(bucket, Kind::Space, 4 + name.len()).u32(tenant.0).bytes(name.as_bytes()).done()
    }

    /// How much there is of a device.
    pub(crate) fn device_documents(self, of: Place) -> Bytes {
        self.key(of.bucket, Kind::DeviceDocuments, 8).u64(of.born).done()
    }
}

impl Suffix<'_> {
    /// The id in the key of a document.
    pub(crate) fn document(mut self) -> Result<Text, StorageError> {
        self.u32()?;
        self.u64()?;
        let end = self.rest.iter().position(|&byte| byte == END);
        let end = end.ok_or_else(|| corrupt("key", &"it is no document's"))?;
        Self { rest: &self.rest[end + 1..] }.text()
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_of_documents_keep_their_bytes() {
        // Frozen: disks hold these.
        let (keys, tenant) = (Keys::new(ShardId(2)), TenantId(5));
        let (own, name) = (Space::of_tenant(tenant, "s"), Text::from("s"));
        let of_device = Space::of_device(tenant, &Text::from("d"), 4, "s");
        let bucket = |name: &[u8]| format!("{:04x}", bucket_of(tenant, name));
        let (b, d, id) = (bucket(b"s"), bucket(b"d"), Text::from("i"));
        let place = Place { bucket: 3, born: 4 };
        #[rustfmt::skip]
        let table = [
            (keys.space(tenant, &name),        format!("0002 {b} 64 00000005 73")),
            (keys.device_documents(place),     "0002 0003 65 0000000000000004".to_owned()),
            (keys.document(&own, &id),         format!("0002 {b} 66 00000005 0000000000000000 73 00 69")),
            (keys.document(&of_device, &id),   format!("0002 {d} 66 00000005 0000000000000004 73 00 69")),
            (keys.documents(&own, None).0,     format!("0002 {b} 66 00000005 0000000000000000 73 00")),
            (keys.documents(&own, Some(&id)).0, format!("0002 {b} 66 00000005 0000000000000000 73 00 69 00")),
            (keys.documents(&own, None).1,     format!("0002 {b} 66 00000005 0000000000000000 73 01")),
            (keys.documents_of(tenant, place).0, "0002 0003 66 00000005 0000000000000004".to_owned()),
        ];
        for (key, expected) in table {
            assert_eq!(hex(&key), expected.replace(' ', ""));
        }
    }

    #[test]
    fn a_space_has_its_own_documents_in_order_and_no_others() {
        let (keys, tenant) = (Keys::new(ShardId(2)), TenantId(5));
        // All spaces of a device are in one bucket, so they could meet.
        let space = |name| Space::of_device(tenant, &Text::from("d"), 4, name);
        let ids = ["\u{1}", "1", "10", "2", "a", "a\u{1}", "b"].map(Text::from);
        let (from, to) = keys.documents(&space("s"), None);
        for pair in ids.windows(2) {
            assert!(keys.document(&space("s"), &pair[0]) < keys.document(&space("s"), &pair[1]));
            let (behind, _) = keys.documents(&space("s"), Some(&pair[0]));
            assert!(keys.document(&space("s"), &pair[0]) < behind);
            assert!(behind <= keys.document(&space("s"), &pair[1]));
        }
        let place = Place { bucket: bucket_of(tenant, b"d"), born: 4 };
        let (all_from, all_to) = keys.documents_of(tenant, place);
        for id in &ids {
            let key = keys.document(&space("s"), id);
            assert!(from <= key && key < to);
            assert_eq!(&Suffix::of(&key).unwrap().document().unwrap(), id);
            for other in ["s\u{1}", "s\u{1}s", "sa", "r", "\u{1}", "\u{10FFFF}"] {
                let other = keys.document(&space(other), id);
                assert!(other < from || to <= other);
                assert!(all_from <= other && other < all_to);
            }
            for born in [3, 5] {
                let other =
                    keys.document(&Space::of_device(tenant, &Text::from("d"), born, "s"), id);
                assert!(other < all_from || all_to <= other);
            }
        }
    }
}
