//! Packages as they are kept: what is said of each is a document of the tenant, its bytes are documents of a space of their own.
//!
//! ```text
//!   space "thingsboard/package"               id ─► what is said, and which upload brought its bytes
//!   space "thingsboard/package/ID/UPLOAD"     00000000, 00000001, … ─► 64 KiB each
//! ```
//!
//! # Invariants
//!
//! - **Nobody sees a part of a package**: it has bytes when all of them are there and their checksum is right, and from then on they do
//!   not change.
//! - **Two uploads at once do not mix**: each has a space of its own, and the one that was noted last counts.
//! - **Pieces that belong to nothing go** with the next upload, or the package; a node that died in between leaves them until then.
//!
//! Checked by the cluster tests (`thingsboard_packages.rs`).

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::{
    ota::{Package, PackageKind},
    rest::packages::PackageInfo,
};
use moorline_machine::documents::{Document, Expect, Space};
use moorline_service::registry::{
    RegistryError,
    door::Guest,
    settings::{self, DeviceSettings},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{door::Door, files::Pieces, marks};

/// Where packages are.
const SPACE: &str = "thingsboard/package";
/// Packages of a tenant: all are read for a list.
pub(crate) const PACKAGES_MAX: usize = 1_000;
/// Packages that are read at once.
const PAGE: u16 = 200;

/// A package as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: Uuid,
    pub(crate) info: PackageInfo,
    /// Which upload brought its bytes, or is about to.
    pub(crate) upload: Option<String>,
    /// Its document's; 0 for one that is new.
    pub(crate) version: u64,
}

/// The bytes of a document.
#[derive(Serialize, Deserialize)]
struct Kept {
    info: PackageInfo,
    upload: Option<String>,
}

fn space(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, SPACE)
}

fn read(document: &Document) -> Option<Held> {
    let id = document.id.as_str().parse().ok()?;
    let Kept { info, upload } = serde_json::from_slice(&document.body).ok()?;
    Some(Held { id, info, upload, version: document.version })
}

impl Held {
    /// As devices are told of it; `None` as long as it has no bytes.
    pub(crate) fn package(&self) -> Option<Package> {
        self.info.package()
    }

    /// Where its bytes are, if they are here.
    pub(crate) fn pieces(&self, tenant: TenantId) -> Option<Pieces> {
        let upload = self.upload.as_ref().filter(|_| self.info.data.is_some())?;
        Some(Pieces::of(tenant, self.id, upload))
    }

    /// What its file is called.
    pub(crate) fn file_name(&self) -> &str {
        self.info.data.as_ref().map_or(&*self.info.title, |data| &data.file_name)
    }
}

impl Door {
    /// A package by its id.
    pub(crate) async fn package(
        &self,
        tenant: TenantId,
        id: Uuid,
    ) -> Result<Option<Held>, RegistryError> {
        let found = self.registry.document(&space(tenant), &Text::from(id.to_string())).await?;
        Ok(found.as_ref().and_then(read))
    }

    /// All packages of a tenant.
    pub(crate) async fn all_packages(&self, tenant: TenantId) -> Result<Vec<Held>, RegistryError> {
        let (space, mut all, mut after) = (space(tenant), Vec::new(), None);
        loop {
            let page = self.registry.documents(&space, after.as_ref(), PAGE).await?;
            all.extend(page.documents.iter().filter_map(read));
            after = page.documents.last().map(|last| last.id.clone());
            if !page.more || after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Writes what is said of a package in the place of what was read: its version from now on.
    pub(crate) async fn put_package(
        &self,
        tenant: TenantId,
        held: &Held,
    ) -> Result<u64, RegistryError> {
        let kept = Kept { info: held.info.clone(), upload: held.upload.clone() };
        let body = Bytes::from(serde_json::to_vec(&kept).expect("maps have text for keys"));
        let expect = match held.version {
            0 => Expect::Absent,
            version => Expect::Version(version),
        };
        let id = Text::from(held.id.to_string());
        self.registry.put_document(&space(tenant), &id, body, expect).await
    }

    /// Deletes what is said of a package, if it is what was read.
    pub(crate) async fn delete_package(
        &self,
        tenant: TenantId,
        held: &Held,
    ) -> Result<bool, RegistryError> {
        let (id, expect) = (Text::from(held.id.to_string()), Expect::Version(held.version));
        self.registry.delete_document(&space(tenant), &id, expect).await
    }

    /// The package that a device is to have: its own, else its profile's.
    pub(crate) async fn assigned_to(
        &self,
        guest: &Guest,
        kind: PackageKind,
    ) -> Result<Option<Held>, RegistryError> {
        let record = self.registry.device(guest.tenant, &guest.device).await?;
        let Some(record) = record.filter(|record| record.born == guest.born) else {
            return Ok(None);
        };
        let settings: DeviceSettings = settings::read(&record.settings);
        self.assigned_by(guest.tenant, &settings, kind).await
    }

    /// The same, by what is said of the device.
    pub(crate) async fn assigned_by(
        &self,
        tenant: TenantId,
        settings: &DeviceSettings,
        kind: PackageKind,
    ) -> Result<Option<Held>, RegistryError> {
        let own = marks::package(settings, kind);
        let id = match own {
            Some(id) => Some(id),
            None => self.profile_now(tenant, marks::kind(settings)).await?.profile.package(kind),
        };
        match id {
            Some(id) => self.package(tenant, id).await,
            None => Ok(None),
        }
    }
}
