//! Access keys, certificates and authorities: what lets devices of an application in.
//!
//! ```text
//!   key ─────────┐                                        ┌─ the secret's hash (of a key), and a version
//!                ├─ hash ─► lookup ─► row `~pass:ID` ─────┤
//!   certificate ─┘                    of the application  └─► document ID of a space of the tenant: what it is for
//!   an authority of a certificate's chain: the same, and then whether the chain leads there
//! ```
//!
//! A change of the document writes the row again: whoever is in by it hears of that, and is judged anew.
//!
//! # Invariants
//!
//! - **A secret is kept as a keyed hash alone**, as those of devices are.
//! - **What has no document, or an inactive one, lets nobody in**: the row comes last when it is made, and goes first. The document of
//!   a row that may be there is never taken away.
//! - **Nobody keeps out another application's devices** by registering their certificates, or their authorities: what an application has
//!   that does not have the device is passed over. Whom one application refuses, no other pass of it lets in.
//! - **A certificate of an authority counts as long as the authority does**: a chain leads to it by signatures each time, and whoever
//!   is in by it hears when the authority changes.

use std::{iter, sync::Arc};

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::losant::{
    access::{Access, Status},
    connect::Refused,
    device::About,
    id::{ID_BYTES, Id},
    rest::{pass::Kept, route::PassKind},
};
use moorline_machine::{
    DocumentRefused,
    documents::{DOCUMENT_BYTES_MAX, Document, Expect, Space},
    registry::{CREDENTIALS_MAX, Credential, DeleteDevice, DeviceRecord, LookupHash, PutDevice},
};
use moorline_service::registry::{
    RegistryError, Watch,
    audit::{self, as_actor},
    credential::{
        certificate,
        prove::Chain,
        trust::{CHAIN_MAX, TrustSettings},
    },
    explain::meant,
    principal::kept_as,
    secrets::{SECRET, Style, generate},
    settings::{self, DeviceSettings},
};
use sha2::{Digest, Sha256};

use crate::door::Door;

/// What names of their rows begin with, behind the mark of principals. No token of the API has a colon in its name.
const ROW: &str = "pass:";
/// Where it is kept what keys and certificates are for; and authorities, of which there are few, and all of which are looked at when a
/// certificate is registered.
const PASSES: &str = "passes";
/// See [`PASSES`].
const AUTHORITIES: &str = "authorities";
/// Authorities of an application.
pub(crate) const AUTHORITIES_MAX: usize = 100;
/// What lookups of keys are made of; those of certificates; and those of authorities.
const KEY: &str = "losant key";
/// See [`KEY`].
const CERTIFICATE: &str = "losant certificate";
/// See [`KEY`].
const AUTHORITY: &str = "losant authority";
/// Certificates of one authority: a row has so many credentials.
pub(crate) const BUNDLE_MAX: usize = CREDENTIALS_MAX;
/// Rows are no devices of the application: they don't count among them.
const ROWS_MAX: u32 = u32::MAX;

/// What let a client in.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    pub(crate) tenant: TenantId,
    /// The id of its application.
    pub(crate) application: Text,
    pub(crate) kind: PassKind,
    pub(crate) id: Id,
    /// The version of its row.
    pub(crate) version: u64,
    pub(crate) access: Access,
    /// Until when a certificate counts.
    pub(crate) until_ms: Option<u64>,
    /// The authority that a registered certificate depends on, and the version of its row.
    pub(crate) authority: Option<(Id, u64)>,
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

fn space(tenant: TenantId, kind: PassKind) -> Space {
    let name = match kind {
        PassKind::Key | PassKind::Certificate => PASSES,
        PassKind::Authority => AUTHORITIES,
    };
    Space::of_tenant(tenant, name)
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
    /// Those of an authority's certificates.
    Authority(Vec<[u8; 32]>),
}

/// Whether a chain leads to one of the certificates of a PEM now.
fn leads(chain: &Chain, bundle: &str, now_ms: u64) -> bool {
    let mut trust = TrustSettings::default();
    trust.certificates = bundle.to_owned();
    trust.called(chain, now_ms).is_some()
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
    /// `device`: who its client says it is.
    pub(crate) async fn by_key(
        &self,
        key: &str,
        secret: &[u8],
        device: Option<&Id>,
    ) -> Result<Option<Pass>, Refused> {
        let hash = self.secrets.lookup(KEY, key.as_bytes());
        let Some((pass, record)) = self.found(PassKind::Key, hash).await? else { return Ok(None) };
        if let Some(device) = device {
            meant(pass.tenant, device.text());
        }
        let (name, now) = (row(&pass.id), self.clock.wall().0);
        let holds = self.secrets.holds(pass.tenant, &name, &record, secret, now).is_some();
        let kept = self.kept(pass.tenant, (pass.kind, &pass.id)).await.map_err(unavailable)?;
        counts(pass, &record, kept.map(|(_, kept)| kept), holds).map(Some)
    }

    /// What a certificate lets in whose key its client has; [`None`] if no application has it, nor an authority of its chain. `device`:
    /// who the client says it is.
    pub(crate) async fn by_certificate(
        &self,
        chain: &Chain,
        device: Option<&Id>,
    ) -> Result<Option<Pass>, Refused> {
        let Some((first, others)) = chain.split_first() else { return Ok(None) };
        let own = self.secrets.lookup(CERTIFICATE, &fingerprint(first));
        let authorities = others.iter().take(CHAIN_MAX).map(|shown| {
            let hash = self.secrets.lookup(AUTHORITY, &fingerprint(shown));
            (PassKind::Authority, hash)
        });
        let all: Vec<_> = iter::once((PassKind::Certificate, own)).chain(authorities).collect();
        let (mut refused, mut judged) = (None, Vec::new());
        for (kind, hash) in all {
            let Some((pass, record)) = self.found(kind, hash).await? else { continue };
            let tenant = pass.tenant;
            if judged.contains(&tenant) {
                continue;
            }
            let found = match self.has(tenant, device).await? {
                false => Err(Refused::Device),
                true if kind == PassKind::Certificate => {
                    self.by_its_own(pass, &record, chain).await
                }
                true => self.by_its_authority(pass, &record, chain).await,
            };
            match found {
                Err(why @ (Refused::Device | Refused::Credentials)) => {
                    judged.push(tenant);
                    // What an application says that has the device counts for more than that others have none.
                    if refused.is_none() || matches!(why, Refused::Credentials) {
                        refused = Some(why);
                    }
                }
                other => return other.map(Some),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// Whether an application has a device; what has no id may be anybody's.
    async fn has(&self, tenant: TenantId, device: Option<&Id>) -> Result<bool, Refused> {
        match device {
            Some(id) => {
                let known = self.known(tenant, id).await.map_err(unavailable)?;
                Ok(known.is_some())
            }
            None => Ok(true),
        }
    }

    /// By a certificate that is registered.
    async fn by_its_own(
        &self,
        pass: Pass,
        record: &DeviceRecord,
        chain: &Chain,
    ) -> Result<Pass, Refused> {
        let until_ms = self.valid_until(chain);
        let kept = self.kept(pass.tenant, (pass.kind, &pass.id)).await.map_err(unavailable)?;
        let kept = kept.map(|(_, kept)| kept).ok_or(Refused::Credentials)?;
        let authority = match kept.authority.as_ref().map(|id| Id::parse(id.as_bytes())) {
            None => None,
            Some(id) => {
                let id = id.ok_or(Refused::Credentials)?;
                let version = self.vouches(pass.tenant, &id, chain).await?;
                Some((id, version.ok_or(Refused::Credentials)?))
            }
        };
        let pass = Pass { until_ms, authority, ..pass };
        counts(pass, record, Some(kept), until_ms.is_some())
    }

    /// By one that nobody has registered, of an authority that says whom it lets in.
    async fn by_its_authority(
        &self,
        pass: Pass,
        record: &DeviceRecord,
        chain: &Chain,
    ) -> Result<Pass, Refused> {
        let until_ms = self.valid_until(chain);
        let kept = self.kept(pass.tenant, (pass.kind, &pass.id)).await.map_err(unavailable)?;
        let kept = kept.map(|(_, kept)| kept).filter(|kept| kept.lets_in);
        let led = kept.as_ref().is_some_and(|kept| self.issued(kept, chain));
        let pass = Pass { until_ms, ..pass };
        counts(pass, record, kept, led && until_ms.is_some())
    }

    fn valid_until(&self, chain: &Chain) -> Option<u64> {
        let now = self.clock.wall();
        let valid = certificate::validity(chain.first()?);
        let valid = valid.filter(|(from, until)| *from <= now && now < *until);
        valid.map(|(_, until)| until.0)
    }

    /// The version of an authority's row, if it counts and a chain leads to it now.
    async fn vouches(
        &self,
        tenant: TenantId,
        id: &Id,
        chain: &Chain,
    ) -> Result<Option<u64>, Refused> {
        // The row first: who changes the document writes it then.
        let record = self.registry.device(tenant, &row(id)).await.map_err(unavailable)?;
        let Some(record) = record.filter(|record| record.enabled) else { return Ok(None) };
        let kept = self.kept(tenant, (PassKind::Authority, id)).await.map_err(unavailable)?;
        let kept = kept.map(|(_, kept)| kept);
        let kept = kept.filter(|kept| kept.access.status == Status::Active);
        Ok(kept.filter(|kept| self.issued(kept, chain)).map(|_| record.version))
    }

    /// Whether a chain leads to an authority now.
    fn issued(&self, authority: &Kept, chain: &Chain) -> bool {
        let bundle = authority.ca_bundle.as_ref();
        bundle.is_some_and(|bundle| leads(chain, bundle, self.clock.wall().0))
    }

    /// The authority of an application that has issued a certificate.
    pub(crate) async fn authority_of(
        &self,
        tenant: TenantId,
        chain: &Chain,
    ) -> Result<Option<Id>, RegistryError> {
        let mut after = None;
        loop {
            let of = (tenant, PassKind::Authority);
            let (page, next) = self.all_kept(of, after.as_ref()).await?;
            if let Some((id, _)) = page.into_iter().find(|(_, kept)| self.issued(kept, chain)) {
                return Ok(Some(id));
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(None),
            }
        }
    }

    async fn found(
        &self,
        kind: PassKind,
        hash: LookupHash,
    ) -> Result<Option<(Pass, DeviceRecord)>, Refused> {
        let found = self.registry.find(hash).await.map_err(unavailable)?;
        let Some(found) = found else { return Ok(None) };
        let (Some(id), Some(application)) = (of_row(&found.device), self.application(found.tenant))
        else {
            return Ok(None);
        };
        let (tenant, version) = (found.tenant, found.record.version);
        let access = Access::default();
        let (until_ms, authority) = (None, None);
        let pass = Pass { tenant, application, kind, id, version, access, until_ms, authority };
        Ok(Some((pass, found.record)))
    }

    /// The same as it was when it let somebody in; [`None`] if it is not.
    pub(crate) async fn again(
        &self,
        tenant: TenantId,
        (kind, id): (PassKind, &Id),
        version: u64,
    ) -> Result<Option<Pass>, RegistryError> {
        let record = self.registry.device(tenant, &row(id)).await?;
        if record.is_none_or(|record| !record.enabled || record.version != version) {
            return Ok(None);
        }
        let (Some((_, kept)), Some(application)) =
            (self.kept(tenant, (kind, id)).await?, self.application(tenant))
        else {
            return Ok(None);
        };
        let (id, access) = (id.clone(), kept.access);
        let active = access.status == Status::Active;
        let (until_ms, authority) = (None, None);
        let pass = Pass { tenant, application, kind, id, version, access, until_ms, authority };
        Ok(active.then_some(pass))
    }

    /// Whether a row of these is as it was.
    pub(crate) async fn is_still(
        &self,
        tenant: TenantId,
        id: &Id,
        version: u64,
    ) -> Result<bool, RegistryError> {
        let record = self.registry.device(tenant, &row(id)).await?;
        Ok(record.is_some_and(|record| record.enabled && record.version == version))
    }

    /// News of one, from now on.
    pub(crate) fn watch_pass(&self, tenant: TenantId, id: &Id) -> Watch {
        self.registry.watch(tenant, &row(id))
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
        (kind, id): (PassKind, &Id),
    ) -> Result<Option<(u64, Kept)>, RegistryError> {
        let document = self.registry.document(&space(tenant, kind), id.text()).await?;
        Ok(document.and_then(|document| read(&document)))
    }

    /// A page of all of them that are kept where this kind is, behind `after`; and whether there are more.
    pub(crate) async fn all_kept(
        &self,
        (tenant, kind): (TenantId, PassKind),
        after: Option<&Text>,
    ) -> Result<(Vec<(Id, Kept)>, Option<Text>), RegistryError> {
        const PAGE: u16 = 100;
        let page = self.registry.documents(&space(tenant, kind), after, PAGE).await?;
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
        let name = row(&id);
        let credentials = self.credentials(tenant, &name, new);
        let (body, space) = (Bytes::from(kept.written()), space(tenant, kept.kind()));
        self.registry.put_document(&space, id.text(), body, Expect::Absent).await?;
        let put = put(tenant, name, credentials, Some(0));
        if let Err(error) = self.registry.put_device(put).await {
            if may_be_written(&error) {
                // Then there is a row that needs it; if not, it is in the list to be deleted.
                return Err(error);
            }
            // Nobody would ever find it.
            drop(self.registry.delete_document(&space, id.text(), Expect::Any).await);
            return Err(error);
        }
        Ok(id)
    }

    fn credentials(&self, tenant: TenantId, name: &Text, new: &New) -> Vec<Credential> {
        // Nobody can show it as a secret: it is a hash of random bytes.
        let nothing: [u8; 32] = rand::random();
        let (lookups, secret) = match new {
            New::Key(key, secret) => {
                (vec![self.secrets.lookup(KEY, key.as_bytes())], secret.as_bytes())
            }
            New::Certificate(sha256) => {
                (vec![self.secrets.lookup(CERTIFICATE, sha256)], &nothing[..])
            }
            New::Authority(all) => {
                let lookup = |sha256: &[u8; 32]| self.secrets.lookup(AUTHORITY, sha256);
                (all.iter().map(lookup).collect(), &nothing[..])
            }
        };
        let one = |lookup| {
            let id = rand::random_range(1..=u64::MAX);
            let verifier = self.secrets.verifier(tenant, name, id, secret);
            Credential {
                id,
                kind: SECRET,
                lookup: Some(lookup),
                verifier: Bytes::copy_from_slice(&verifier),
                not_before: None,
                not_after: None,
                created: moorline_core::UnixMillis(0),
            }
        };
        lookups.into_iter().map(one).collect()
    }

    /// Has one be for something else, in the place of a version, and shown by something `new` if that is said; whoever is in by it is
    /// judged anew.
    pub(crate) async fn change_pass(
        &self,
        tenant: TenantId,
        id: &Id,
        (version, kept): (u64, &Kept),
        new: Option<&New>,
    ) -> Result<(), RegistryError> {
        let body = Bytes::from(kept.written());
        if body.len() > DOCUMENT_BYTES_MAX {
            return Err(RegistryError::Documents(DocumentRefused::TooLarge));
        }
        let change = Change {
            tenant,
            id: id.clone(),
            space: space(tenant, kept.kind()),
            body,
            version,
            new: new.map(|new| self.credentials(tenant, &row(id), new)),
        };
        // Also when whoever has asked is gone: what is half done lets nobody in.
        let (door, actor) = (self.clone(), audit::current());
        let changed = async move { as_actor(actor, door.changed(change)).await };
        self.tasks.spawn(changed).await.unwrap_or(Err(RegistryError::Unavailable))
    }

    async fn changed(&self, change: Change) -> Result<(), RegistryError> {
        let Change { tenant, id, space, body, version, new } = change;
        let before = match new {
            // First: somebody else may have it, and then nothing changes.
            Some(new) => self.write_row(tenant, &id, Some(new)).await?,
            None => None,
        };
        let expect = Expect::Version(version);
        if let Err(error) = self.registry.put_document(&space, id.text(), body, expect).await {
            if before.is_some() && !may_be_written(&error) {
                // The document is what it was, and so is the row.
                self.write_row(tenant, &id, before).await?;
            }
            return Err(error);
        }
        self.write_row(tenant, &id, None).await.map(drop)
    }

    /// Writes the row of one anew, so that whoever is in by it hears of that; with other credentials, if there are any. Those it had.
    async fn write_row(
        &self,
        tenant: TenantId,
        id: &Id,
        new: Option<Vec<Credential>>,
    ) -> Result<Option<Vec<Credential>>, RegistryError> {
        let name = row(id);
        let Some(record) = self.registry.device(tenant, &name).await? else { return Ok(None) };
        let before = record.credentials;
        let credentials = new.unwrap_or_else(|| before.clone());
        let put = put(tenant, name, credentials, Some(record.version));
        self.registry.put_device(put).await.map(|_| Some(before))
    }

    /// Forgets one.
    pub(crate) async fn forget_pass(
        &self,
        tenant: TenantId,
        (kind, id): (PassKind, &Id),
    ) -> Result<(), RegistryError> {
        let name = row(id);
        if self.registry.device(tenant, &name).await?.is_some() {
            let delete = DeleteDevice { tenant, device: name, if_version: None };
            self.registry.delete_device(delete).await?;
        }
        self.registry.delete_document(&space(tenant, kind), id.text(), Expect::Any).await.map(drop)
    }
}

/// What is changed of one.
struct Change {
    tenant: TenantId,
    id: Id,
    space: Space,
    body: Bytes,
    /// In the place of which document.
    version: u64,
    /// What it is shown by, if that is something else.
    new: Option<Vec<Credential>>,
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

/// What it is for, if it counts. That it does not is told from a wrong secret by nobody.
fn counts(
    pass: Pass,
    record: &DeviceRecord,
    kept: Option<Kept>,
    holds: bool,
) -> Result<Pass, Refused> {
    let kept = kept.filter(|kept| kept.access.status == Status::Active);
    let access = kept.filter(|_| holds && record.enabled).map(|kept| kept.access);
    Ok(Pass { access: access.ok_or(Refused::Credentials)?, ..pass })
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
