//! Rows of the meta group: nodes, who votes where, the cluster, and routes.

use bytes::{BufMut, BytesMut};
use moorline_core::{NodeId, Text, UnixMillis, level::Program};

use super::Row;
use crate::{
    codec::{
        Malformed, PROGRAM_BYTES, Reader, put_list, put_node, put_program, put_text, read_node,
        read_program,
    },
    command::{MemberState, NodeRecord},
};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    pub(crate) record: NodeRecord,
    pub(crate) gone: bool,
}

impl Row for NodeRow {
    const WHAT: &'static str = "node row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        put_node(out, &self.record);
        out.put_u8(u8::from(self.gone));
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { record: read_node(reader)?, gone: reader.bool()? })
    }
}

/// The voters of a group, in order of preference as its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacementRow(pub(crate) Vec<NodeId>);

impl Row for PlacementRow {
    const WHAT: &'static str = "placement row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        put_list(out, &self.0, |out, node| out.put_u64(node.0));
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        reader.list(8, |reader| reader.u64().map(NodeId)).map(Self)
    }
}

/// Who is to vote in a group, in order of preference as its leader, and whether they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetRow {
    pub(crate) voters: Vec<NodeId>,
    pub(crate) reached: bool,
}

impl Row for TargetRow {
    const WHAT: &'static str = "target row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(self.reached));
        put_list(out, &self.voters, |out, node| out.put_u64(node.0));
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let reached = reader.bool()?;
        let voters = reader.list(8, |reader| reader.u64().map(NodeId))?;
        Ok(Self { voters, reached })
    }
}

/// How a node stands. A node without this row is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberRow(pub(crate) MemberState);

impl Row for MemberRow {
    const WHAT: &'static str = "member row";
    const BYTES: usize = 2;

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.0 as u8);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "member state" };
        MemberState::from_number(reader.u8()?).ok_or(malformed).map(Self)
    }
}

/// The cluster itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClusterRow {
    pub(crate) cluster: u128,
    pub(crate) shards: u16,
    pub(crate) replicas: u8,
}

impl Row for ClusterRow {
    const WHAT: &'static str = "cluster row";
    const BYTES: usize = 20;

    fn write(&self, out: &mut BytesMut) {
        out.put_u128(self.cluster);
        out.put_u16(self.shards);
        out.put_u8(self.replicas);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { cluster: reader.u128()?, shards: reader.u16()?, replicas: reader.u8()? })
    }
}

/// The cluster's level, and what its nodes said last of their programs, ascending by node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LevelRow {
    pub(crate) level: u16,
    pub(crate) programs: Vec<(NodeId, Program)>,
}

impl Row for LevelRow {
    const WHAT: &'static str = "level row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        out.put_u16(self.level);
        put_list(out, &self.programs, put_program);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let level = reader.u16()?;
        Ok(Self { level, programs: reader.list(PROGRAM_BYTES, read_program)? })
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantRow(pub(crate) Text);

impl Row for TenantRow {
    const WHAT: &'static str = "tenant row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        put_text(out, &self.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        reader.text().map(Self)
    }
}

/// A route, or for a while what is known of one that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteRow {
    pub(crate) version: u64,
    pub(crate) present: bool,
    /// The meta log index at which it became so.
    pub(crate) index: u64,
    /// The log time at which it became so.
    pub(crate) at: UnixMillis,
}

impl Row for RouteRow {
    const WHAT: &'static str = "route row";
    const BYTES: usize = 26;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.version);
        out.put_u8(u8::from(self.present));
        out.put_u64(self.index);
        out.put_u64(self.at.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            version: reader.u64()?,
            present: reader.bool()?,
            index: reader.u64()?,
            at: reader.millis()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::{Incarnation, level::Levels};

    use super::{super::golden::check, *};

    #[test]
    fn rows_of_membership_keep_their_bytes() {
        // Frozen: disks hold these.
        check(&MemberRow(MemberState::Leaving), "01 02");
        let target = TargetRow { voters: vec![NodeId(2), NodeId(4)], reached: true };
        check(&target, "01 01 00000002 0000000000000002 0000000000000004");
        let program = Program { levels: Levels { min: 1, max: 2 }, version: [0, 3, 4] };
        let row = LevelRow { level: 2, programs: vec![(NodeId(5), program)] };
        check(&row, "01 0002 00000001 0000000000000005 0001 0002 0000 0003 0004");
    }

    #[test]
    fn rows_of_the_meta_group_keep_their_bytes() {
        // Frozen: disks hold these.
        let record = NodeRecord {
            node: NodeId(1),
            store: 2,
            incarnation: Incarnation(3),
            address: "a".into(),
        };
        check(
            &NodeRow { record, gone: true },
            "01 0000000000000001 00000000000000000000000000000002 0000000000000003 00000001 61 01",
        );
        check(&PlacementRow(vec![NodeId(1)]), "01 00000001 0000000000000001");
        check(
            &ClusterRow { cluster: 1, shards: 2, replicas: 3 },
            "01 00000000000000000000000000000001 0002 03",
        );
        check(&TenantRow("n".into()), "01 00000001 6e");
        check(
            &RouteRow { version: 1, present: true, index: 2, at: UnixMillis(3) },
            "01 0000000000000001 01 0000000000000002 0000000000000003",
        );
    }
}
