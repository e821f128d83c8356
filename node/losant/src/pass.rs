//! Access keys and certificates: what lets devices of an application in.
//!
//! ```text
//!   key ─────────┐                                        ┌─ the secret's hash (of a key), and a version
//!                ├─ hash ─► lookup ─► row `~pass:ID` ─────┤
//!   certificate ─┘                    of the application  └─► document ID of the space "passes": what it is for
//! ```
//!
//! A change of the document writes the row again: whoever is in by it hears of that, and is judged anew.
//!
//! # Invariants
//!
//! - **A secret is kept as a keyed hash alone**, as those of devices are.
//! - **What has no document, or an inactive one, lets nobody in**: the row comes last when it is made, and goes first. The document of
//!   a row that may be there is never taken away.

use std::sync::Arc;

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::losant::{
    access::{Access, Status},
    connect::Refused,
    device::About,
    id::{ID_BYTES, Id},
    rest::pass::Kept,
};
use moorline_machine::{
    documents::{Document, Expect, Space},
    registry::{Credential, DeleteDevice, DeviceRecord, LookupHash, PutDevice},
};
use moorline_service::registry::{
    RegistryError, Watch,
    credential::{certificate, prove::Chain},
    principal::kept_as,
    secrets::{SECRET, Style, generate},
    settings::{self, DeviceSettings},
};
use sha2::{Digest, Sha256};

use crate::door::Door;

/// What names of their rows begin with, behind the mark of principals. No token of the API has a colon in its name.
const ROW: &str = "pass:";
/// Where it is kept what they are for.
const SPACE: &str = "passes";
/// What lookups of keys are made of; and those of certificates.
const KEY: &str = "losant key";
/// See [`KEY`].
const CERTIFICATE: &str = "losant certificate";
/// Rows are no devices of the application: they don't count among them.
const ROWS_MAX: u32 = u32::MAX;

/// What let a client in.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    pub(crate) tenant: TenantId,
    /// The id of its application.
    pub(crate) application: Text,
    pub(crate) id: Id,
    /// The version of its row.
    pub(crate) version: u64,
    pub(crate) access: Access,
    /// Until when a certificate counts.
    pub(crate) until_ms: Option<u64>,
}

/// A device of an application, as its row says.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: Id,
    pub(crate) record: DeviceRecord,
    pub(crate) settings: DeviceSettings,
    pub(crate) about: About,
}

impl Known {
    pub(crate) fn new(id: &Id, record: DeviceRecord) -> Self {
        let settings: DeviceSettings = settings::read(&record.settings);
        let about = About::read(&settings.metadata);
        Self { id: id.clone(), record, settings, about }
    }
}

/// The row's name.
fn row(id: &Id) -> Text {
    kept_as(&format!("{ROW}{id}"))
}

fn of_row(name: &Text) -> Option<Id> {
    Id::parse(name.as_str().strip_prefix('~')?.strip_prefix(ROW)?.as_bytes())
}

fn space(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, SPACE)
}

/// The SHA-256 of a certificate.
pub(crate) fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

fn unavailable(_: RegistryError) -> Refused {
    Refused::Unavailable
}

/// What a new one is made of. Without a form to print: it has a secret.
pub(crate) enum New {
    /// A key with its secret.
    Key(String, String),
    /// The SHA-256 of a certificate.
    Certificate([u8; 32]),
}

/// A key and a secret that nobody has.
pub(crate) fn new_key() -> (String, String) {
    let digits = format!("{:032x}", rand::random::<u128>());
    let (a, b, c, d, e) =
        (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
    (format!("{a}-{b}-{c}-{d}-{e}"), generate(Style::Plain, &mut rand::random::<u8>))
}

impl Door {
    /// What a key with its secret lets in; [`None`] if no application has such a key.
    pub(crate) async fn by_key(&self, key: &str, secret: &[u8]) -> Result<Option<Pass>, Refused> {
        let hash = self.secrets.lookup(KEY, key.as_bytes());
        let Some((pass, record)) = self.found(hash).await? else { return Ok(None) };
        let (name, now) = (row(&pass.id), self.clock.wall().0);
        let holds = self.secrets.holds(pass.tenant, &name, &record, secret, now).is_some();
        self.counts(pass, &record, holds).await.map(Some)
    }

    /// What a certificate lets in whose key its client has; [`None`] if no application has it.
    pub(crate) async fn by_certificate(&self, chain: &Chain) -> Result<Option<Pass>, Refused> {
        let Some(first) = chain.first() else { return Ok(None) };
        let hash = self.secrets.lookup(CERTIFICATE, &fingerprint(first));
        let Some((pass, record)) = self.found(hash).await? else { return Ok(None) };
        let now = self.clock.wall();
        let valid =
            certificate::validity(first).filter(|(from, until)| *from <= now && now < *until);
        let pass = Pass { until_ms: valid.map(|(_, until)| until.0), ..pass };
        self.counts(pass, &record, valid.is_some()).await.map(Some)
    }

    async fn found(&self, hash: LookupHash) -> Result<Option<(Pass, DeviceRecord)>, Refused> {
        let found = self.registry.find(hash).await.map_err(unavailable)?;
        let Some(found) = found else { return Ok(None) };
        let (Some(id), Some(application)) = (of_row(&found.device), self.application(found.tenant))
        else {
            return Ok(None);
        };
        let (tenant, version) = (found.tenant, found.record.version);
        let access = Access::default();
        let pass = Pass { tenant, application, id, version, access, until_ms: None };
        Ok(Some((pass, found.record)))
    }

    /// What it is for, if it counts. That it does not is told from a wrong secret by nobody.
    async fn counts(
        &self,
        pass: Pass,
        record: &DeviceRecord,
        holds: bool,
    ) -> Result<Pass, Refused> {
        let kept = self.kept(pass.tenant, &pass.id).await.map_err(unavailable)?;
        let kept = kept.map(|(_, kept)| kept);
        let kept = kept.filter(|kept| kept.access.status == Status::Active);
        let access = kept.filter(|_| holds && record.enabled).map(|kept| kept.access);
        Ok(Pass { access: access.ok_or(Refused::Credentials)?, ..pass })
    }

    /// The same as it was when it let somebody in; [`None`] if it is not.
    pub(crate) async fn again(
        &self,
        tenant: TenantId,
        id: &Id,
        version: u64,
    ) -> Result<Option<Pass>, RegistryError> {
        let record = self.registry.device(tenant, &row(id)).await?;
        if record.is_none_or(|record| !record.enabled || record.version != version) {
            return Ok(None);
        }
        let (Some((_, kept)), Some(application)) =
            (self.kept(tenant, id).await?, self.application(tenant))
        else {
            return Ok(None);
        };
        let (id, access) = (id.clone(), kept.access);
        let active = access.status == Status::Active;
        let pass = Pass { tenant, application, id, version, access, until_ms: None };
        Ok(active.then_some(pass))
    }

    /// News of it, from now on.
    pub(crate) fn watch_pass(&self, pass: &Pass) -> Watch {
        self.registry.watch(pass.tenant, &row(&pass.id))
    }

    /// A device of an application that may have what this lets in.
    pub(crate) async fn device_for(&self, pass: &Pass, id: &Id) -> Result<Known, Refused> {
        let known = self.known(pass.tenant, id).await.map_err(unavailable)?;
        let known = known.ok_or(Refused::Device)?;
        let may = known.record.enabled && pass.access.is_for(id, &known.about.tags);
        if may { Ok(known) } else { Err(Refused::Forbidden) }
    }

    /// A device, as its row says.
    pub(crate) async fn known(
        &self,
        tenant: TenantId,
        id: &Id,
    ) -> Result<Option<Known>, RegistryError> {
        let record = self.registry.device(tenant, id.text()).await?;
        Ok(record.map(|record| Known::new(id, record)))
    }

    // ---- what integrators do with them

    /// What one is for, and the version of the document that says so.
    pub(crate) async fn kept(
        &self,
        tenant: TenantId,
        id: &Id,
    ) -> Result<Option<(u64, Kept)>, RegistryError> {
        let document = self.registry.document(&space(tenant), id.text()).await?;
        Ok(document.and_then(|document| read(&document)))
    }

    /// A page of all of them, behind `after`; and whether there are more.
    pub(crate) async fn all_kept(
        &self,
        tenant: TenantId,
        after: Option<&Text>,
    ) -> Result<(Vec<(Id, Kept)>, Option<Text>), RegistryError> {
        const PAGE: u16 = 100;
        let page = self.registry.documents(&space(tenant), after, PAGE).await?;
        let next = page.documents.last().filter(|_| page.more).map(|last| last.id.clone());
        let one = |document: &Document| {
            let id = Id::parse(document.id.as_bytes())?;
            read(document).map(|(_, kept)| (id, kept))
        };
        Ok((page.documents.iter().filter_map(one).collect(), next))
    }

    /// Makes one.
    pub(crate) async fn make_pass(
        &self,
        tenant: TenantId,
        new: &New,
        kept: &Kept,
    ) -> Result<Id, RegistryError> {
        let id = Id::of(rand::random::<[u8; ID_BYTES]>());
        let (name, number) = (row(&id), rand::random_range(1..=u64::MAX));
        let (lookup, verifier) = match new {
            New::Key(key, secret) => {
                let verifier = self.secrets.verifier(tenant, &name, number, secret.as_bytes());
                (self.secrets.lookup(KEY, key.as_bytes()), verifier)
            }
            // Nobody can show it as a secret: it is a hash of random bytes.
            New::Certificate(sha256) => {
                let nothing: [u8; 32] = rand::random();
                let verifier = self.secrets.verifier(tenant, &name, number, &nothing);
                (self.secrets.lookup(CERTIFICATE, sha256), verifier)
            }
        };
        let credential = Credential {
            id: number,
            kind: SECRET,
            lookup: Some(lookup),
            verifier: Bytes::copy_from_slice(&verifier),
            not_before: None,
            not_after: None,
            created: moorline_core::UnixMillis(0),
        };
        let body = Bytes::from(kept.written());
        self.registry.put_document(&space(tenant), id.text(), body, Expect::Absent).await?;
        let put = put(tenant, name, vec![credential], Some(0));
        if let Err(error) = self.registry.put_device(put).await {
            if may_be_written(&error) {
                // Then there is a row that needs it; if not, it is in the list to be deleted.
                return Err(error);
            }
            // Nobody would ever find it.
            drop(self.registry.delete_document(&space(tenant), id.text(), Expect::Any).await);
            return Err(error);
        }
        Ok(id)
    }

    /// Has one be for something else, in the place of a version; whoever is in by it is judged anew.
    pub(crate) async fn change_pass(
        &self,
        tenant: TenantId,
        id: &Id,
        version: u64,
        kept: &Kept,
    ) -> Result<(), RegistryError> {
        let (body, expect) = (Bytes::from(kept.written()), Expect::Version(version));
        self.registry.put_document(&space(tenant), id.text(), body, expect).await?;
        let name = row(id);
        if let Some(record) = self.registry.device(tenant, &name).await? {
            let put = put(tenant, name, record.credentials, Some(record.version));
            self.registry.put_device(put).await?;
        }
        Ok(())
    }

    /// Forgets one.
    pub(crate) async fn forget_pass(&self, tenant: TenantId, id: &Id) -> Result<(), RegistryError> {
        let name = row(id);
        if self.registry.device(tenant, &name).await?.is_some() {
            let delete = DeleteDevice { tenant, device: name, if_version: None };
            self.registry.delete_device(delete).await?;
        }
        self.registry.delete_document(&space(tenant), id.text(), Expect::Any).await.map(drop)
    }
}

/// Whether a write may have happened all the same.
fn may_be_written(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unavailable => true,
        RegistryError::Busy
        | RegistryError::Refused(_)
        | RegistryError::Taken(_)
        | RegistryError::Mail(_)
        | RegistryError::Events(_)
        | RegistryError::Values(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_)
        | RegistryError::TooManyReaders
        | RegistryError::DiskFull => false,
    }
}

fn read(document: &Document) -> Option<(u64, Kept)> {
    Kept::read(&document.body).map(|kept| (document.version, kept))
}

fn put(
    tenant: TenantId,
    device: Text,
    credentials: Vec<Credential>,
    if_version: Option<u64>,
) -> PutDevice {
    let settings = Bytes::from_static(b"{}");
    let devices_max = ROWS_MAX;
    PutDevice { tenant, device, enabled: true, credentials, settings, if_version, devices_max }
}

/// A chain as TLS proved it.
pub(crate) fn chain_of(proof: Option<&moorline_edge::Proof>) -> Option<Chain> {
    match proof {
        Some(moorline_edge::Proof::Certificates(chain)) => Some(Arc::clone(chain)),
        Some(moorline_edge::Proof::Psk(_)) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use moorline_machine::answer::Refused;

    use super::*;

    #[test]
    fn only_what_was_refused_for_sure_is_not_there() {
        #[rustfmt::skip]
        let table = [
            (RegistryError::Unavailable,              true),
            (RegistryError::Busy,                     false),
            (RegistryError::DiskFull,                 false),
            (RegistryError::Refused(Refused::Exists), false),
        ];
        for (error, expected) in table {
            assert_eq!(may_be_written(&error), expected, "{error:?}");
        }
    }
}
