//! Documents: bytes with a name, which the core keeps and does not understand. The types that commands, answers and reads share.
//!
//! ```text
//!   tenant ──► space "x/type" ──► id ──► document: version, when it was written, bytes
//!   device ──► space "x/state" ─► id ──► document                  gone with its device
//! ```
//!
//! A space is a list of documents in the order of their ids, all in one bucket. A space that nobody has put anything in is empty.
//!
//! # Invariants
//!
//! - **A version is never given twice** in a group: who puts with [`Expect::Version`] changes what it has read, or nothing. Checked
//!   by `tests/rules/documents.rs`.
//!
//! # Deliberately absent
//!
//! What becomes of them (`shard::documents`), their bytes (`codec::documents`, `rows::documents`), and what they say (whoever puts
//! them).

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis};

/// Bytes of one document: a quarter of the largest command.
pub const DOCUMENT_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a document's id.
pub const DOCUMENT_ID_BYTES_MAX: usize = 256;
/// Bytes of a space's name.
pub const SPACE_NAME_BYTES_MAX: usize = 128;
/// Documents of one space of a tenant.
pub const SPACE_DOCUMENTS_MAX: u32 = 10_000;
/// Bytes of the ids and documents of one space of a tenant.
pub const SPACE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Spaces of a tenant in one shard that are not empty: their sums are in memory, about 150 bytes each.
pub const SPACES_PER_TENANT_MAX: usize = 10_000;
/// Bytes of all spaces of a tenant in one shard.
pub const SPACES_BYTES_PER_TENANT_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Documents of one device, in all its spaces: they go with it at once.
pub const DEVICE_DOCUMENTS_MAX: u32 = 64;
/// Bytes of their ids and of them.
pub const DEVICE_DOCUMENTS_BYTES_MAX: u64 = 1024 * 1024;
/// Documents that one command deletes.
pub const DOCUMENTS_PER_DELETE_MAX: usize = 256;
/// About the most bytes of them: they are read for it, while other commands wait.
pub const DOCUMENTS_DELETE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Documents of one page.
pub const DOCUMENTS_PER_PAGE_MAX: usize = 1_000;
/// About the most bytes of one page; it has one document in any case.
pub const DOCUMENTS_PAGE_BYTES_MAX: usize = 256 * 1024;

/// What a leader proposes about documents. Variants are added, never renumbered: old logs hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentCommand {
    /// Writes a document.
    Put(PutDocument),
    /// Deletes one.
    Delete(DeleteDocument),
    /// Deletes some of a space, from the first on: [`DOCUMENTS_PER_DELETE_MAX`], or about [`DOCUMENTS_DELETE_BYTES_MAX`]. Whoever wants it
    /// empty asks until nothing is left.
    DeleteSome(Space),
}

/// Whose a space is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpaceOwner {
    /// The tenant's.
    Tenant,
    /// A device's.
    Device {
        /// Which.
        device: Text,
        /// The version it was made with. Another device of the name has spaces of its own.
        born: u64,
    },
}

/// Where documents lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Whose.
    pub tenant: TenantId,
    /// The tenant's own, or a device's.
    pub owner: SpaceOwner,
    /// Its name: 1 to [`SPACE_NAME_BYTES_MAX`] bytes without a zero.
    pub name: Text,
}

impl Space {
    /// A space of a tenant's own.
    #[must_use]
    pub fn of_tenant(tenant: TenantId, name: &str) -> Self {
        Self { tenant, owner: SpaceOwner::Tenant, name: Text::from(name) }
    }

    /// A space of a device.
    #[must_use]
    pub fn of_device(tenant: TenantId, device: &Text, born: u64, name: &str) -> Self {
        let owner = SpaceOwner::Device { device: device.clone(), born };
        Self { tenant, owner, name: Text::from(name) }
    }

    /// What decides in which bucket and shard it lies: the device's name, or its own.
    #[must_use]
    pub fn routed_by(&self) -> &Text {
        match &self.owner {
            SpaceOwner::Tenant => &self.name,
            SpaceOwner::Device { device, .. } => device,
        }
    }
}

/// What has to be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Whatever there is.
    Any,
    /// Nothing.
    Absent,
    /// The document of this version.
    Version(u64),
}

impl Expect {
    pub(crate) fn holds(self, version: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => version.is_none(),
            Self::Version(expected) => version == Some(expected),
        }
    }
}

/// Writes a document. Answered with [`DocumentAnswer::Put`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutDocument {
    /// Where.
    pub space: Space,
    /// Its name there: 1 to [`DOCUMENT_ID_BYTES_MAX`] bytes without a zero.
    pub id: Text,
    /// At most [`DOCUMENT_BYTES_MAX`].
    pub body: Bytes,
    /// In the place of what.
    pub expect: Expect,
}

/// Deletes a document. Answered with [`DocumentAnswer::Deleted`], also if there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteDocument {
    /// Where.
    pub space: Space,
    /// Its name there.
    pub id: Text,
    /// Only this.
    pub expect: Expect,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentAnswer {
    /// It is written.
    Put {
        /// Its version from now on.
        version: u64,
    },
    /// What was meant is gone.
    Deleted {
        /// How many there were.
        documents: u32,
        /// Whether the space has others; only after [`DocumentCommand::DeleteSome`].
        more: bool,
    },
}

/// Why nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentRefused {
    /// Something else is there than was expected.
    Conflict {
        /// The version that is there.
        version: Option<u64>,
    },
    /// The device is gone, or another one has its name.
    DeviceGone,
    /// The space, its device or its tenant has as much as it may.
    Full,
    /// The document has too many bytes.
    TooLarge,
    /// The id or the name of the space can't be one.
    BadName,
}

/// A document as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name in its space.
    pub id: Text,
    /// Which one it is: it changes with each write.
    pub version: u64,
    /// When it was written, in log time.
    pub changed: UnixMillis,
    /// What it says.
    pub body: Bytes,
}

/// A page of a space, in the order of ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentsPage {
    /// The documents.
    pub documents: Vec<Document>,
    /// Whether there are others behind the last one.
    pub more: bool,
}

/// What is asked of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentsQuery {
    /// One document.
    One {
        /// Where.
        space: Space,
        /// Its name there.
        id: Text,
    },
    /// A page of a space.
    Page {
        /// Where.
        space: Space,
        /// Only those behind this id.
        after: Option<Text>,
        /// At most so many; [`DOCUMENTS_PER_PAGE_MAX`] in any case.
        documents_max: u16,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentsFound {
    /// To [`DocumentsQuery::One`].
    One(Option<Document>),
    /// To [`DocumentsQuery::Page`].
    Page(DocumentsPage),
}

/// How many documents there are in a shard, of all tenants; those of devices are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DocumentTotals {
    /// Spaces that are not empty.
    pub spaces: u64,
    /// Documents in them.
    pub documents: u64,
    /// Bytes of their ids and of them.
    pub bytes: u64,
}
