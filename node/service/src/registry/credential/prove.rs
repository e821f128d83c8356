//! From what a client shows to the device it is.
//!
//! ```text
//!   pre-shared key    ─► its holder                                         (TLS said that it has the key)
//!   certificate       ─► lookup of its key, or of all of it ─► device
//!                     ─► authorities of the tenant          ─► device of that name
//!   NAME@TENANT, or NAME at a tenant's host
//!      and a password ─► secrets of the device of that name
//!                     ─► logins of the tenant: client id and user name, either of them
//!   a name alone      ─► lookup of the token ─► device
//! ```
//!
//! A tenant's host is an alias `host:NAME` for the name a client asks for in TLS (SNI); `host:*` is the tenant of those who ask for
//! no such name.
//!
//! # Invariants
//!
//! - **The device's row decides**, read after news of it are listened to: what changes from then on is told.
//! - **Who came by a tenant's host is of that tenant**, whatever it shows.
//! - **What is shown besides a key must not contradict it**: a user name, if there is one, names the same device.
//! - **A wrong password costs the same whether its user exists**, in a tenant that has chosen passwords; but for a user whose hash
//!   another system made, which takes as long as that one wanted.
//! - **Nothing is looked at without TLS in a tenant that wants it.**
//!
//! Checked by the cluster tests (`credentials.rs`), but for certificates and pre-shared keys, of which only the parts have tests.

use std::sync::Arc;

use bytes::Bytes;
use moorline_core::{TenantId, Text, op, rights::Who};
use moorline_explain::Cause;
use moorline_machine::registry::{Credential, DeviceRecord, LookupHash};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{
    certificate,
    kind::{Kept, Login, Password, Pinned},
    make::{lookup_of_alias, lookup_of_identity, lookup_of_pin, lookup_of_token},
    password::{Busy, Place},
    shared,
};
use crate::{
    registry::{
        Found, Registry, RegistryError, Watch,
        door::{BY_AUTHORITY, By, Guest},
        explain::{because, meant},
        principal::is_principal,
        secrets::{Secrets, counts},
        settings,
    },
    rights::who_of,
};

/// Which tenant has a host name; see the module.
const HOST: &str = "host:";
/// Which tenant has all others.
const ANY_HOST: &str = "host:*";

/// Certificates, that of the client first.
pub type Chain = Arc<[CertificateDer<'static>]>;

/// What TLS proved.
#[derive(Debug, Clone)]
pub enum Possession {
    /// Nothing.
    Nothing,
    /// The key of the first of these certificates.
    Certificates(Chain),
    /// A pre-shared key.
    Psk(Holder),
}

/// Whose a pre-shared key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The device's tenant.
    pub tenant: TenantId,
    /// Its name.
    pub device: Text,
    /// Its birth.
    pub born: u64,
    /// Which of its credentials.
    pub credential: u64,
}

/// What a client shows.
pub struct Claim<'a> {
    /// By which protocol.
    pub by: By,
    /// Whether by TLS.
    pub tls: bool,
    /// The host it asked for.
    pub server_name: Option<&'a Text>,
    /// Its client id.
    pub client: &'a Text,
    /// Its user name.
    pub user: Option<&'a Text>,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// What TLS proved.
    pub possession: Possession,
}

impl std::fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("by", &self.by)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Who it is, as long as it may stay.
#[derive(Debug)]
pub struct Proven {
    /// What it depends on.
    pub stay: Stay,
    /// News of the device.
    pub watch: Watch,
    /// What its rights depend on.
    pub who: Arc<Who>,
    /// The device's settings, as they are stored.
    pub settings: Bytes,
}

/// What it depends on that a device may stay.
#[derive(Debug, Clone)]
pub struct Stay {
    /// The device.
    pub guest: Guest,
    /// Until when its credential counts, in milliseconds since 1970.
    pub until_ms: Option<u64>,
    tls: bool,
    /// What its tenant's authorities vouched for.
    chain: Option<Chain>,
}

/// Why somebody is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// It shows nothing that means anything here.
    Nothing,
    /// It is not so.
    Wrong,
    /// It was so, or will be.
    Expired,
    /// It shows it without TLS.
    Plaintext,
    /// Too many passwords are being checked.
    Busy,
    /// Nobody can say now.
    Unavailable,
}

impl Unproven {
    /// The same to who asks later why it was not let in.
    #[must_use]
    pub fn cause(self) -> Cause {
        match self {
            Self::Nothing | Self::Wrong => Cause::WrongCredentials,
            Self::Expired => Cause::CredentialExpired,
            Self::Plaintext => Cause::PlaintextForbidden,
            Self::Busy => Cause::CheckersBusy,
            Self::Unavailable => Cause::AuthUnavailable,
        }
    }
}

impl From<Busy> for Unproven {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl From<RegistryError> for Unproven {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Busy
            | RegistryError::Unavailable
            | RegistryError::TooManyReaders
            | RegistryError::DiskFull => Self::Unavailable,
            RegistryError::Refused(_)
            | RegistryError::Taken(_)
            | RegistryError::Mail(_)
            | RegistryError::Events(_)
            | RegistryError::Values(_)
            | RegistryError::Calls(_)
            | RegistryError::Documents(_) => Self::Wrong,
        }
    }
}

/// The tenant of the host name that a client asked for.
#[derive(Debug, Clone, Copy)]
struct Host {
    tenant: Option<TenantId>,
    /// Whether it was asked for by name: then no other tenant will do.
    is_named: bool,
}

impl Host {
    fn admits(self, tenant: TenantId) -> Result<(), Unproven> {
        if self.is_named && self.tenant != Some(tenant) {
            return Err(Unproven::Wrong);
        }
        Ok(())
    }
}

/// One attempt: what it shows, and when.
struct Attempt<'a> {
    registry: &'a Registry,
    secrets: &'a Secrets,
    claim: &'a Claim<'a>,
    host: Host,
    now_ms: u64,
}

/// A device as it is, and news of it from before.
struct Row {
    tenant: TenantId,
    device: Text,
    record: DeviceRecord,
    watch: Watch,
}

impl Registry {
    /// Who a client is.
    ///
    /// # Errors
    ///
    /// Why it is nobody.
    pub async fn prove(
        &self,
        secrets: &Secrets,
        claim: &Claim<'_>,
        now_ms: u64,
    ) -> Result<Proven, Unproven> {
        let host = self.host(claim.server_name);
        let attempt = Attempt { registry: self, secrets, claim, host, now_ms };
        let proven = match &claim.possession {
            Possession::Nothing => None,
            Possession::Certificates(chain) => attempt.by_certificate(chain).await?,
            Possession::Psk(holder) => Some(attempt.by_psk(holder).await?),
        };
        match proven {
            Some(proven) if attempt.names(&proven.stay.guest) => Ok(proven),
            Some(_) => Err(Unproven::Wrong),
            None => attempt.by_words().await,
        }
    }

    fn host(&self, name: Option<&Text>) -> Host {
        let named = name.and_then(|name| self.tenant_by_alias(&format!("{HOST}{name}")));
        let is_named = named.is_some();
        let found = named.or_else(|| self.tenant_by_alias(ANY_HOST));
        Host { tenant: found.map(|(tenant, _)| tenant), is_named }
    }

    /// The device that has another name, too; [`None`] if none of the tenant has. Who shows the name has proved nothing.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn device_called(
        &self,
        secrets: &Secrets,
        tenant: TenantId,
        alias: &Text,
    ) -> Result<Option<(Text, DeviceRecord)>, RegistryError> {
        let hash = lookup_of_alias(secrets, tenant, alias);
        let found = self.find(hash).await?.filter(|found| found.tenant == tenant);
        Ok(found.filter(|found| is_alias(&found.record, hash, alias)).map(|found| {
            let Found { device, record, .. } = found;
            (device, record)
        }))
    }

    /// The key of a pre-shared identity, and whose it is; [`None`] if there is none that counts, or nobody can say now.
    pub async fn psk(
        &self,
        secrets: &Secrets,
        identity: &[u8],
        now_ms: u64,
    ) -> Option<(Zeroizing<Vec<u8>>, Holder)> {
        let hash = lookup_of_identity(secrets, identity);
        let found = self.find(hash).await.ok()??;
        let of = self.tenant(found.tenant).filter(|of| of.enabled && found.record.enabled);
        // While a key is exchanged there are two of one identity: of those that count the newer one.
        let valid = found.record.credentials.iter();
        let valid = valid.filter(|held| {
            counts(held, now_ms) && shared::identity_of(held).is_some_and(|of| of == identity)
        });
        let held = newest(valid);
        let held = held.filter(|_| of.is_some())?;
        let Some(Kept::Psk(psk)) = Kept::read(held.kind, &held.verifier) else { return None };
        let place = Place { tenant: found.tenant, device: &found.device, id: held.id };
        let key = secrets.open(place, &psk.sealed)?;
        let (born, credential) = (found.record.born, held.id);
        Some((key, Holder { tenant: found.tenant, device: found.device, born, credential }))
    }

    /// Whether a device that was let in may stay.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn stays(&self, stay: &Stay, now_ms: u64) -> Result<(), op::Denial> {
        let Stay { guest, tls, chain, .. } = stay;
        if !tls && !self.takes_plaintext(guest.tenant) {
            return Err(op::Denial::Plaintext);
        }
        if let Some(chain) = chain {
            let named = self.settings(guest.tenant).trust_anchors.device_of(chain, now_ms);
            if named.as_ref() != Some(&guest.device) {
                return Err(op::Denial::WrongSecret);
            }
        }
        if stay.until_ms.is_some_and(|until| until <= now_ms) {
            return Err(op::Denial::WrongSecret);
        }
        self.still(guest).await
    }
}

/// That which begins last; of two that begin together the one that lasts longer, and what has no end lasts longest.
fn newest<'a>(held: impl Iterator<Item = &'a Credential>) -> Option<&'a Credential> {
    held.max_by_key(|held| (held.not_before, held.not_after.is_none(), held.not_after))
}

/// The credential that a lookup led to.
fn listed(record: &DeviceRecord, hash: LookupHash) -> Option<&Credential> {
    record.credentials.iter().find(|held| held.lookup == Some(hash))
}

/// Whether a lookup led to an alias: it stands for the name, this is what is kept.
fn is_alias(record: &DeviceRecord, hash: LookupHash, alias: &Text) -> bool {
    let kept = listed(record, hash).and_then(|held| Kept::read(held.kind, &held.verifier));
    kept.is_some_and(|kept| kept == Kept::Alias(alias.clone()))
}

impl Attempt<'_> {
    /// Whether a tenant lets anybody in, this way.
    fn enter(&self, tenant: TenantId) -> Result<(), Unproven> {
        self.host.admits(tenant)?;
        if !self.registry.tenant(tenant).is_some_and(|of| of.enabled) {
            because(Cause::Disabled);
            return Err(Unproven::Wrong);
        }
        if !self.claim.tls && !self.registry.takes_plaintext(tenant) {
            return Err(Unproven::Plaintext);
        }
        Ok(())
    }

    /// A device that may connect.
    async fn row(&self, tenant: TenantId, device: &Text) -> Result<Option<Row>, Unproven> {
        if device.is_empty() || is_principal(device) {
            return Ok(None);
        }
        let watch = self.registry.watch(tenant, device);
        let record = self.registry.device(tenant, device).await?;
        match &record {
            Some(record) if !record.enabled => because(Cause::Disabled),
            Some(record) if record.credentials.is_empty() => because(Cause::NoCredential),
            Some(_) | None => {}
        }
        let record = record.filter(|record| record.enabled);
        Ok(record.map(|record| Row { tenant, device: device.clone(), record, watch }))
    }

    /// The device that has what a lookup stands for.
    async fn found(&self, hash: LookupHash) -> Result<Option<Row>, Unproven> {
        let Some(found) = self.registry.find(hash).await? else { return Ok(None) };
        self.enter(found.tenant)?;
        let row = self.row(found.tenant, &found.device).await?;
        Ok(row.filter(|row| row.record.born == found.record.born))
    }

    /// It has this credential: is it valid now?
    fn admitted(&self, row: Row, credential: &Credential) -> Result<Proven, Unproven> {
        if !counts(credential, self.now_ms) {
            return Err(Unproven::Expired);
        }
        let until_ms = credential.not_after.map(|until| until.0);
        Ok(self.proven(row, credential.id, until_ms, None))
    }

    fn proven(
        &self,
        row: Row,
        credential: u64,
        until_ms: Option<u64>,
        chain: Option<Chain>,
    ) -> Proven {
        let Row { tenant, device, record, watch } = row;
        let stored = record.settings.clone();
        let settings = settings::read(&stored);
        let guest = Guest::of(tenant, &device, &record, &settings, (credential, self.claim.by));
        let who = who_of(&device, record.born, settings);
        let stay = Stay { guest, until_ms, tls: self.claim.tls, chain };
        Proven { stay, watch, who, settings: stored }
    }

    /// Whether a user name, if there is one, is that of this device.
    fn names(&self, guest: &Guest) -> bool {
        let Some(user) = self.claim.user.filter(|user| !user.is_empty()) else { return true };
        if *user == guest.device {
            return true;
        }
        self.at_tenant(user)
            .is_some_and(|(tenant, name)| tenant == guest.tenant && name == guest.device)
    }

    /// `NAME@TENANT`.
    fn at_tenant(&self, user: &Text) -> Option<(TenantId, Text)> {
        let (name, tenant) = user.as_str().rsplit_once('@')?;
        let (tenant, _) = self.registry.tenant_by_name(tenant)?;
        Some((tenant, Text::from(name)))
    }

    async fn by_psk(&self, holder: &Holder) -> Result<Proven, Unproven> {
        self.enter(holder.tenant)?;
        let row = self.row(holder.tenant, &holder.device).await?;
        let row = row.filter(|row| row.record.born == holder.born).ok_or(Unproven::Wrong)?;
        let held = row.record.credentials.iter().find(|held| held.id == holder.credential);
        let held = held.cloned().ok_or(Unproven::Wrong)?;
        self.admitted(row, &held)
    }

    async fn by_certificate(&self, chain: &Chain) -> Result<Option<Proven>, Unproven> {
        let Some(first) = chain.first() else { return Ok(None) };
        for what in [Pinned::Key, Pinned::Certificate] {
            let Some(pin) = certificate::pin(what, first) else { continue };
            let hash = lookup_of_pin(self.secrets, pin);
            let Some(row) = self.found(hash).await? else { continue };
            let held = listed(&row.record, hash).cloned();
            let is_pinned = |held: &Credential| {
                Kept::read(held.kind, &held.verifier) == Some(Kept::Certificate(pin))
            };
            let Some(held) = held.filter(is_pinned) else { continue };
            if !certificate::counts(first, self.now_ms) {
                return Err(Unproven::Expired);
            }
            return self.admitted(row, &held).map(Some);
        }
        let named = self.claim.user.and_then(|user| self.at_tenant(user));
        let tenant = match self.host.tenant {
            Some(tenant) if self.host.is_named => Some(tenant),
            any => named.map(|(tenant, _)| tenant).or(any),
        };
        let Some(tenant) = tenant else { return Ok(None) };
        let settings = self.registry.settings(tenant);
        let Some(device) = settings.trust_anchors.device_of(chain, self.now_ms) else {
            return Ok(None);
        };
        self.enter(tenant)?;
        let row = self.row(tenant, &device).await?.ok_or(Unproven::Wrong)?;
        let until_ms = certificate::validity(first).map(|(_, until)| until.0);
        Ok(Some(self.proven(row, BY_AUTHORITY, until_ms, Some(Arc::clone(chain)))))
    }

    async fn by_words(&self) -> Result<Proven, Unproven> {
        let user = self.claim.user.filter(|user| !user.is_empty());
        let password = self.claim.password.filter(|password| !password.is_empty());
        if let (Some(token), None) = (user, password)
            && let Some(proven) = self.by_token(token).await?
        {
            return Ok(proven);
        }
        let at_host = |user: &Text| self.host.tenant.map(|tenant| (tenant, user.clone()));
        let (tenant, name) = match user {
            Some(user) => {
                let called = self.at_tenant(user).or_else(|| at_host(user));
                let (tenant, name) = called.ok_or(Unproven::Nothing)?;
                (tenant, Some(name))
            }
            None => (self.host.tenant.ok_or(Unproven::Nothing)?, None),
        };
        if let Some(name) = &name {
            meant(tenant, name);
        }
        self.enter(tenant)?;
        if let (Some(name), Some(password)) = (&name, password)
            && let Some(proven) = self.by_secret(tenant, name, password).await?
        {
            return Ok(proven);
        }
        let mut hashed = false;
        if let Some(proven) = self.by_login(tenant, name.as_ref(), password, &mut hashed).await? {
            return Ok(proven);
        }
        if let Some(password) = password
            && !hashed
            && self.registry.settings(tenant).chosen_passwords
        {
            self.secrets.passwords().pretend(password).await?;
        }
        Err(if user.is_some() { Unproven::Wrong } else { Unproven::Nothing })
    }

    async fn by_token(&self, token: &Text) -> Result<Option<Proven>, Unproven> {
        let hash = lookup_of_token(self.secrets, token.as_bytes());
        let Some(row) = self.found(hash).await? else { return Ok(None) };
        let Some(held) = listed(&row.record, hash).cloned() else { return Ok(None) };
        let Some(Kept::Token(kept)) = Kept::read(held.kind, &held.verifier) else {
            return Ok(None);
        };
        if !self.is_hashed(&row, &held, token.as_bytes(), &kept.hash) {
            return Ok(None);
        }
        self.admitted(row, &held).map(Some)
    }

    async fn by_secret(
        &self,
        tenant: TenantId,
        device: &Text,
        secret: &[u8],
    ) -> Result<Option<Proven>, Unproven> {
        let Some(row) = self.row(tenant, device).await? else { return Ok(None) };
        let mut fitting: Vec<_> =
            self.secrets.fitting(tenant, device, &row.record, secret).cloned().collect();
        // One that counts, if there is one.
        fitting.sort_by_key(|held| !counts(held, self.now_ms));
        let Some(held) = fitting.first() else { return Ok(None) };
        self.admitted(row, held).map(Some)
    }

    async fn by_login(
        &self,
        tenant: TenantId,
        user: Option<&Text>,
        password: Option<&[u8]>,
        hashed: &mut bool,
    ) -> Result<Option<Proven>, Unproven> {
        let client = Some(self.claim.client).filter(|client| !client.is_empty());
        let both = client.is_some() && user.is_some();
        let said = [(None, user), if both { (client, user) } else { (None, None) }, (client, None)];
        for (client, user) in said {
            if client.is_none() && user.is_none() {
                continue;
            }
            let hash = self.secrets.lookup_login(tenant, client, user);
            let Some(row) = self.found(hash).await? else { continue };
            let Some(held) = listed(&row.record, hash).cloned() else { continue };
            let Some(Kept::Login(login)) = Kept::read(held.kind, &held.verifier) else { continue };
            // The lookup stands for both; this is what is kept.
            if row.tenant != tenant
                || login.client.as_ref() != client
                || login.user.as_ref() != user
            {
                continue;
            }
            // A hash of another system takes its own time: twice would tell more.
            *hashed |= matches!(login.password, Some(Password::Chosen(_) | Password::Foreign(_)));
            if self.is_password(&row, &held, &login, password).await? {
                return self.admitted(row, &held).map(Some);
            }
        }
        Ok(None)
    }

    async fn is_password(
        &self,
        row: &Row,
        held: &Credential,
        login: &Login,
        password: Option<&[u8]>,
    ) -> Result<bool, Unproven> {
        let Some(kept) = &login.password else { return Ok(true) };
        let Some(password) = password else { return Ok(false) };
        match kept {
            Password::Generated(kept) => Ok(self.is_hashed(row, held, password, kept)),
            Password::Chosen(kept) => {
                let place = Place { tenant: row.tenant, device: &row.device, id: held.id };
                Ok(self.secrets.passwords().verify(place, kept, password).await?)
            }
            Password::Foreign(kept) => {
                let place = Place { tenant: row.tenant, device: &row.device, id: held.id };
                Ok(self.secrets.passwords().verify_foreign(place, kept, password).await?)
            }
        }
    }

    fn is_hashed(&self, row: &Row, held: &Credential, secret: &[u8], kept: &[u8]) -> bool {
        self.secrets.verify(row.tenant, &row.device, held.id, secret, kept)
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::UnixMillis;

    use super::*;

    #[test]
    fn of_two_keys_the_one_counts_that_begins_last_or_lasts_longer() {
        let key = |(id, from, until): (u64, Option<u64>, Option<u64>)| Credential {
            id,
            kind: 0,
            lookup: None,
            verifier: Bytes::new(),
            not_before: from.map(UnixMillis),
            not_after: until.map(UnixMillis),
            created: UnixMillis(0),
        };
        #[rustfmt::skip]
        let table = [
            ([(1, None, Some(9)),    (2, None, None)],       2),
            ([(1, None, None),       (2, None, Some(9))],    1),
            ([(1, None, Some(8)),    (2, None, Some(9))],    2),
            ([(1, Some(5), Some(9)), (2, None, None)],       1),
            ([(1, Some(5), Some(9)), (2, Some(5), None)],    2),
            ([(1, Some(6), Some(9)), (2, Some(5), None)],    1),
        ];
        for (held, expected) in table {
            let held = held.map(key);
            assert_eq!(newest(held.iter()).map(|held| held.id), Some(expected), "{held:?}");
        }
    }
}
