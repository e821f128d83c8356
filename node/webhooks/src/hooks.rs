//! What operators do with webhooks: a document of their tenant each.
//!
//! # Invariants
//!
//! - **A change is of the version that was read**, and is tried again when somebody else's came between.
//! - **No secret is read back**: [`Hook`] shows names of headers alone. Checked by the cluster tests (`webhooks.rs`).

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis, calendar::rfc3339};
use moorline_machine::{
    answer::Refused as MachineRefused,
    documents::{Document, Expect},
    events::EventRefused,
};
use moorline_outward::{Outward, Unanswered};
use moorline_service::registry::{
    Cursor, Registry, RegistryError,
    documents::is_conflict,
    secrets::{Secrets, Style, generate},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    kept::{GROUP_PREFIX, Hook, Kept, NewHook, Settings, checked_name, space, states},
    sealed::secret_of,
    state::State,
};

/// Webhooks of a tenant: each is a consumer group, of which its streams keep 64.
pub const WEBHOOKS_PER_TENANT_MAX: u16 = 16;
/// Of those that are read: some more, since two may be made at the same moment.
pub(crate) const READ_MAX: u16 = 2 * WEBHOOKS_PER_TENANT_MAX;
/// What every secret begins with, so that secret scanners find lost ones.
pub const SECRET_PREFIX: &str = "mlw_";
/// How often a change is tried that others make at the same moment.
const TRIES_MAX: usize = 8;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// What was said can't be.
    #[error("{0}")]
    Wrong(String),
    /// No request would go there.
    #[error("url: {0}")]
    Blocked(Unanswered),
    /// There is one of that name.
    #[error("there is a webhook of that name")]
    Exists,
    /// There are as many as there may be.
    #[error("a tenant has at most {WEBHOOKS_PER_TENANT_MAX} webhooks")]
    TooMany,
    /// There is none.
    #[error("there is no such webhook")]
    NotFound,
    /// It has another version.
    #[error("it has version {0} now")]
    Version(u64),
    /// The registry's.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// What came of a test.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = WebhookTested)]
pub struct Tested {
    /// Whether the receiver took it.
    pub ok: bool,
    /// What it answered, if it did.
    pub status: Option<u16>,
    /// Why there is no answer: as in `moorline_outward_failed_total` and `moorline_outward_refused_total`.
    pub reason: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}

/// A tenant's webhooks. Clones are the same.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// The cluster's registry.
    pub registry: Registry,
    /// The cluster's key.
    pub secrets: Secrets,
    /// Whom requests go through.
    pub outward: Outward,
    /// Wall time in milliseconds since 1970.
    pub now: fn() -> u64,
}

impl Webhooks {
    /// Makes a webhook: as it is, and its secret, which is never told again.
    ///
    /// # Errors
    ///
    /// [`WebhookError`]; after [`RegistryError::Unavailable`] it may be there all the same.
    pub async fn create(
        &self,
        tenant: TenantId,
        new: NewHook,
    ) -> Result<(Hook, String), WebhookError> {
        let NewHook { name, settings, headers } = new;
        let id = checked_name(&name)?;
        let secret = format!("{SECRET_PREFIX}{}", generate(Style::Plain, &mut rand::random::<u8>));
        let number = rand::random();
        let mut kept = Kept {
            id: number,
            settings,
            because: None,
            begins: String::new(),
            secret: self.seal(tenant, &secret_of(&name), number, secret.as_bytes()),
            headers: self.sealed_headers(tenant, &name, number, &headers)?,
            created_ms: (self.now)(),
        };
        self.check(tenant, &name, &kept)?;
        let all = self.kept(tenant).await?;
        if all.len() >= usize::from(WEBHOOKS_PER_TENANT_MAX) {
            return Err(WebhookError::TooMany);
        }
        self.forget_orphans(tenant, &all).await?;
        let cursor = self.registry.newest(tenant).await?;
        kept.begins = cursor.to_string();
        let space = space(tenant);
        let put = self.registry.put_document(&space, &id, kept.body(), Expect::Absent);
        let version = match put.await {
            Ok(version) => version,
            Err(error) if is_conflict(&error) => return Err(WebhookError::Exists),
            Err(error) => return Err(error.into()),
        };
        let begun = self.registry.commit_events(tenant, &kept.group(&name), &cursor).await;
        if let Err(error @ RegistryError::Events(EventRefused::TooManyConsumers)) = begun {
            self.registry.delete_document(&space, &id, Expect::Version(version)).await?;
            return Err(error.into());
        }
        // Without an answer it is known where it begins all the same: its document says so.
        let document =
            Document { id, version, changed: UnixMillis(kept.created_ms), body: Bytes::new() };
        Ok((kept.view(&document), secret))
    }

    /// Consumer groups of webhooks that are gone: of one that a node died over, or that committed after it was deleted.
    async fn forget_orphans(
        &self,
        tenant: TenantId,
        all: &[(Document, Kept)],
    ) -> Result<(), WebhookError> {
        let own: Vec<_> = all.iter().map(|(of, kept)| kept.group(of.id.as_str())).collect();
        for group in self.registry.consumers(tenant).await? {
            if group.name.as_str().starts_with(GROUP_PREFIX) && !own.contains(&group.name) {
                match self.registry.delete_consumer(tenant, &group.name).await {
                    Ok(()) | Err(RegistryError::Events(EventRefused::NoSuchConsumer)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    async fn kept(&self, tenant: TenantId) -> Result<Vec<(Document, Kept)>, WebhookError> {
        let page = self.registry.documents(&space(tenant), None, READ_MAX).await?;
        let read = |document: Document| Some((document.clone(), Kept::read(&document)?));
        Ok(page.documents.into_iter().filter_map(read).collect())
    }

    async fn one(&self, tenant: TenantId, name: &str) -> Result<(Document, Kept), WebhookError> {
        let id = checked_name(name).map_err(|_| WebhookError::NotFound)?;
        let found = self.registry.document(&space(tenant), &id).await?;
        let found = found.and_then(|document| Some((document.clone(), Kept::read(&document)?)));
        found.ok_or(WebhookError::NotFound)
    }

    /// A tenant's webhooks, by name.
    ///
    /// # Errors
    ///
    /// [`WebhookError`].
    pub async fn list(&self, tenant: TenantId) -> Result<Vec<Hook>, WebhookError> {
        let all = self.kept(tenant).await?;
        Ok(all.into_iter().map(|(document, kept)| kept.view(&document)).collect())
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// [`WebhookError`].
    pub async fn show(&self, tenant: TenantId, name: &str) -> Result<Hook, WebhookError> {
        self.one(tenant, name).await.map(|(document, kept)| kept.view(&document))
    }

    /// Changes one as `change` says: what it is then. Headers: those that are named, a value or none.
    ///
    /// # Errors
    ///
    /// [`WebhookError`], and what `change` says.
    pub async fn change<E: From<WebhookError>>(
        &self,
        tenant: TenantId,
        name: &str,
        if_version: Option<u64>,
        headers: &BTreeMap<String, Option<String>>,
        change: impl Fn(&Settings) -> Result<Settings, E>,
    ) -> Result<Hook, E> {
        for _ in 0..TRIES_MAX {
            let (document, mut kept) = self.one(tenant, name).await?;
            if if_version.is_some_and(|wanted| wanted != document.version) {
                return Err(WebhookError::Version(document.version).into());
            }
            let before = kept.settings.paused;
            kept.settings = change(&kept.settings)?;
            if !(before && kept.settings.paused) {
                kept.because = None;
            }
            for (header, value) in headers {
                let one = value.iter().map(|value| (header.clone(), value.clone())).collect();
                kept.headers.remove(&header.to_ascii_lowercase());
                kept.headers.extend(self.sealed_headers(tenant, name, kept.id, &one)?);
            }
            self.check(tenant, name, &kept)?;
            match self.put(tenant, &document, &kept).await {
                Ok(version) => return Ok(kept.view(&Document { version, ..document })),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(WebhookError::from(error).into()),
            }
        }
        Err(WebhookError::from(RegistryError::Busy).into())
    }

    async fn put(
        &self,
        tenant: TenantId,
        before: &Document,
        kept: &Kept,
    ) -> Result<u64, RegistryError> {
        let expect = Expect::Version(before.version);
        self.registry.put_document(&space(tenant), &before.id, kept.body(), expect).await
    }

    /// Forgets one with its offsets: what it has not sent it never sends.
    ///
    /// # Errors
    ///
    /// [`WebhookError`].
    pub async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), WebhookError> {
        let (document, kept) = self.one(tenant, name).await?;
        let id = document.id;
        self.registry.delete_document(&space(tenant), &id, Expect::Any).await?;
        self.registry.delete_document(&states(tenant), &id, Expect::Any).await?;
        self.forget_group(tenant, &kept.group(name)).await.map_err(WebhookError::from)
    }

    pub(crate) async fn forget_group(
        &self,
        tenant: TenantId,
        group: &Text,
    ) -> Result<(), RegistryError> {
        match self.registry.delete_consumer(tenant, group).await {
            Ok(()) | Err(RegistryError::Events(EventRefused::NoSuchConsumer)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How one goes, and how many events it has not got behind it.
    ///
    /// # Errors
    ///
    /// [`WebhookError`].
    pub async fn status(
        &self,
        tenant: TenantId,
        name: &str,
    ) -> Result<(Hook, State, u64), WebhookError> {
        let (document, kept) = self.one(tenant, name).await?;
        let (state, _) = self.state(tenant, &document.id, kept.id).await?;
        let at = self.place(tenant, name, &kept).await?;
        let newest = self.registry.newest(tenant).await?;
        let behind = |(shard, offset): (_, moorline_core::Offset)| {
            newest.of(shard).0.saturating_sub(offset.0)
        };
        let lag = at.shards().map(behind).sum();
        Ok((kept.view(&document), state, lag))
    }

    /// How it goes, as its node last said, and in the place of what the next one says it.
    pub(crate) async fn state(
        &self,
        tenant: TenantId,
        name: &Text,
        id: u32,
    ) -> Result<(State, Expect), RegistryError> {
        let found = self.registry.document(&states(tenant), name).await?;
        let expect = found.as_ref().map_or(Expect::Absent, |of| Expect::Version(of.version));
        let read = |document: Document| serde_json::from_slice::<State>(&document.body).ok();
        let state = found.and_then(read).filter(|state| state.id == id);
        Ok((state.unwrap_or_else(|| State { id, ..State::default() }), expect))
    }

    /// Behind which events it goes on.
    pub(crate) async fn place(
        &self,
        tenant: TenantId,
        name: &str,
        kept: &Kept,
    ) -> Result<Cursor, RegistryError> {
        let mut at = self.registry.committed(tenant, &kept.group(name)).await?;
        if let Some(begins) = self.registry.cursor(&kept.begins) {
            for (shard, offset) in begins.shards() {
                at.set(shard, offset.max(at.of(shard)));
            }
        }
        Ok(at)
    }

    /// It pauses by itself, unless somebody changed it meanwhile: whether it does.
    pub(crate) async fn pause(
        &self,
        tenant: TenantId,
        name: &Text,
        version: u64,
        why: &str,
    ) -> Result<bool, RegistryError> {
        let found = self.registry.document(&space(tenant), name).await?;
        let found = found.filter(|document| document.version == version);
        let Some((document, mut kept)) = found.and_then(|of| Some((of.clone(), Kept::read(&of)?)))
        else {
            return Ok(false);
        };
        (kept.settings.paused, kept.because) = (true, Some(why.to_owned()));
        match self.put(tenant, &document, &kept).await {
            Ok(_) => Ok(true),
            Err(RegistryError::Refused(MachineRefused::NotFound)) => Ok(false),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends an event of its own to the receiver, once, also while the webhook is paused.
    ///
    /// # Errors
    ///
    /// [`WebhookError`].
    pub async fn test(
        &self,
        tenant: TenantId,
        tenant_name: &str,
        name: &str,
    ) -> Result<Tested, WebhookError> {
        let (_, kept) = self.one(tenant, name).await?;
        let opened = self.opened(tenant, name, &kept).ok_or(WebhookError::NotFound)?;
        let id = format!("test-{}", Uuid::from_u128(rand::random()));
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": format!("/tenants/{tenant_name}"),
            "type": "moorline.test",
            "time": rfc3339(UnixMillis((self.now)())),
            "datacontenttype": "application/json",
            "data": { "webhook": name },
        });
        let is_list = kept.settings.batch_max > 1;
        let body = if is_list { json!([event]) } else { event }.to_string();
        let request = self.request(name, &kept.settings, &opened, (&id, 1), &body);
        let begun = Instant::now();
        let answer = self.outward.ask(tenant, &request).await;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(match answer {
            Ok(answer) => Tested {
                ok: matches!(answer.status, 200..=299),
                status: Some(answer.status),
                reason: None,
                took_ms,
            },
            Err(why) => {
                Tested { ok: false, status: None, reason: Some(why.name().to_owned()), took_ms }
            }
        })
    }
}
