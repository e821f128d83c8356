//! What is kept of webhooks, and what operators do with them.
//!
//! A webhook is a document in a space of its tenant. Its secret and the values of its headers are sealed for their place under the
//! cluster's key, as pre-shared keys are.
//!
//! # Invariants
//!
//! - **A webhook begins with what comes after it was made**: its document says where that is, before anybody commits for it.
//! - **No secret is read back**: [`Hook`] shows names of headers alone, and `Debug` prints none. Checked below and by the cluster tests.
//! - **Its consumer group is its own**: a number of the webhook is in its name, which nobody can commit or delete by the API (`:`).

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis, calendar::rfc3339};
use moorline_machine::{
    answer::Refused as MachineRefused,
    documents::{Document, Expect, Space},
    events::EventRefused,
};
use moorline_outward::{Outward, Request, Unanswered};
use moorline_service::registry::{
    Cursor, Registry, RegistryError,
    credential::password::Place,
    documents::is_conflict,
    secrets::{Secrets, Style, generate},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{batch::content_type, filter::Filter, signature::signature, state::State};

/// Webhooks of a tenant: each is a consumer group, of which its streams keep 64.
pub const WEBHOOKS_PER_TENANT_MAX: u16 = 16;
/// Of those that are read: some more, since two may be made at the same moment.
pub(crate) const READ_MAX: u16 = 2 * WEBHOOKS_PER_TENANT_MAX;
/// What every secret begins with, so that secret scanners find lost ones.
pub const SECRET_PREFIX: &str = "mlw_";
/// Bytes of a name: it stands in that of the consumer group, which has 64.
const NAME_BYTES_MAX: usize = 40;
/// Bytes of a URL, as `node/outward` takes it.
const URL_BYTES_MAX: usize = 2_048;
/// Headers of a webhook.
const HEADERS_MAX: usize = 16;
/// Bytes of all that is kept of a webhook: all of a tenant are read at once.
const KEPT_BYTES_MAX: usize = 7 * 1024;
/// Events of one request.
const BATCH_MAX: u16 = 100;
/// How long a receiver may take, in milliseconds; the node's configuration may allow less.
const TIMEOUT_MS_MIN: u32 = 100;
const TIMEOUT_MS_MAX: u32 = 30_000;
/// How often a change is tried that others make at the same moment.
const TRIES_MAX: usize = 8;
/// The spaces of a tenant where webhooks are, and how they go.
pub(crate) const SPACE: &str = "webhooks";
const STATES: &str = "webhook-states";
/// What the name of each webhook's consumer group begins with.
const GROUP_PREFIX: &str = "webhook:";
/// What our own headers begin with.
const OWN_HEADERS: &str = "moorline-";
/// Headers that say what we know better.
const RESERVED_HEADERS: [&str; 2] = ["content-type", "content-encoding"];

/// What happens to a request that its receiver refuses for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// The webhook pauses, and says why. Nothing is left out.
    #[default]
    Pause,
    /// Its events are left out and counted.
    Skip,
}

/// What an operator says of a webhook, but for its name and headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where: `https://` or `http://`.
    #[schema(example = "https://hooks.example.org/moorline")]
    pub url: String,
    /// Which events; all, if it says nothing.
    #[serde(default)]
    pub filter: Filter,
    /// Events of one request at most: 1 to 100. With more than 1 a body is an array.
    #[serde(default = "one")]
    pub batch_max: u16,
    /// How long the receiver may take, in milliseconds: 100 to 30,000.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u32,
    /// What happens when it refuses an event again and again.
    #[serde(default)]
    pub refused: Refused,
    /// Whether nothing is sent for now. Events wait, as long as the stream keeps them.
    #[serde(default)]
    pub paused: bool,
}

fn one() -> u16 {
    1
}

fn timeout_ms() -> u32 {
    10_000
}

/// A webhook to be made.
#[derive(Clone)]
pub struct NewHook {
    /// Its name.
    pub name: String,
    /// What it does.
    pub settings: Settings,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
}

/// A webhook, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub settings: Settings,
    /// Names of its headers.
    pub headers: Vec<String>,
    /// Why it is paused, if not because an operator said so.
    pub paused_because: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// For `If-Match`.
    pub version: u64,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Tells it from others that had its name.
    pub(crate) id: u32,
    pub(crate) settings: Settings,
    pub(crate) because: Option<String>,
    /// Behind which events it begins.
    begins: String,
    /// Sealed, in base64, as values of headers are.
    secret: String,
    headers: BTreeMap<String, String>,
    created_ms: u64,
}

/// What opens a request to its receiver.
pub(crate) struct Opened {
    secret: Zeroizing<Vec<u8>>,
    headers: Vec<(String, String)>,
}

/// By hand, both: what is secret is not printed.
impl fmt::Debug for NewHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewHook").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

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

pub(crate) fn space(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, SPACE)
}

pub(crate) fn states(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, STATES)
}

/// Where a secret of a webhook is sealed for.
fn sealed_for(name: &str, what: &str) -> Text {
    Text::from(format!("~webhook/{name}/{what}"))
}

fn secret_of(name: &str) -> Text {
    sealed_for(name, "secret")
}

fn header_of(name: &str, header: &str) -> Text {
    sealed_for(name, &format!("header/{header}"))
}

impl Kept {
    /// What a document says, if it can be read.
    pub(crate) fn read(document: &Document) -> Option<Self> {
        serde_json::from_slice(&document.body).ok()
    }

    pub(crate) fn body(&self) -> Bytes {
        serde_json::to_vec(self).expect("a map with string keys").into()
    }

    /// Its consumer group.
    pub(crate) fn group(&self, name: &str) -> Text {
        Text::from(format!("{GROUP_PREFIX}{name}:{:08x}", self.id))
    }

    fn view(self, document: &Document) -> Hook {
        Hook {
            name: document.id.to_string(),
            settings: self.settings,
            headers: self.headers.into_keys().collect(),
            paused_because: self.because,
            created_ms: self.created_ms,
            version: document.version,
        }
    }
}

fn checked_name(name: &str) -> Result<Text, WebhookError> {
    let is_of = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_of) {
        let why = format!("name: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -");
        return Err(WebhookError::Wrong(why));
    }
    Ok(Text::from(name))
}

impl Settings {
    /// With the defaults of all else.
    #[must_use]
    pub fn of(url: String) -> Self {
        Self {
            url,
            filter: Filter::default(),
            batch_max: one(),
            timeout_ms: timeout_ms(),
            refused: Refused::default(),
            paused: false,
        }
    }

    fn check(&self) -> Result<(), WebhookError> {
        let wrong = |why: String| Err(WebhookError::Wrong(why));
        if self.url.len() > URL_BYTES_MAX {
            return wrong(format!("url: at most {URL_BYTES_MAX} bytes"));
        }
        if !(1..=BATCH_MAX).contains(&self.batch_max) {
            return wrong(format!("batch_max: 1 to {BATCH_MAX}"));
        }
        if !(TIMEOUT_MS_MIN..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return wrong(format!("timeout_ms: {TIMEOUT_MS_MIN} to {TIMEOUT_MS_MAX}"));
        }
        self.filter.check().map_err(WebhookError::Wrong)
    }
}

impl Webhooks {
    // ---- secrets

    fn seal(&self, tenant: TenantId, device: &Text, id: u32, bytes: &[u8]) -> String {
        let place = Place { tenant, device, id: id.into() };
        STANDARD.encode(self.secrets.seal(place, rand::random(), bytes))
    }

    fn open(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u32,
        sealed: &str,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = STANDARD.decode(sealed).ok()?;
        self.secrets.open(Place { tenant, device, id: id.into() }, &sealed)
    }

    fn sealed_headers(
        &self,
        tenant: TenantId,
        name: &str,
        id: u32,
        headers: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, WebhookError> {
        let mut sealed = BTreeMap::new();
        for (header, value) in headers {
            let header = header.to_ascii_lowercase();
            if header.starts_with(OWN_HEADERS) || RESERVED_HEADERS.contains(&&*header) {
                return Err(WebhookError::Wrong(format!(
                    "headers: {header} is set by the cluster"
                )));
            }
            let value = self.seal(tenant, &header_of(name, &header), id, value.as_bytes());
            sealed.insert(header, value);
        }
        Ok(sealed)
    }

    /// What is sealed of a webhook. [`None`]: it was sealed with another key.
    pub(crate) fn opened(&self, tenant: TenantId, name: &str, kept: &Kept) -> Option<Opened> {
        let secret = self.open(tenant, &secret_of(name), kept.id, &kept.secret)?;
        let mut headers = Vec::new();
        for (header, sealed) in &kept.headers {
            let value = self.open(tenant, &header_of(name, header), kept.id, sealed)?;
            headers.push((header.clone(), String::from_utf8(value.to_vec()).ok()?));
        }
        Some(Opened { secret, headers })
    }

    /// A request as it is sent now. `id`: what tells it from all others but its repeats.
    pub(crate) fn request(
        &self,
        name: &str,
        settings: &Settings,
        opened: &Opened,
        (id, attempt): (&str, u32),
        body: &str,
    ) -> Request {
        let mut headers = opened.headers.clone();
        let own = [
            ("content-type", content_type(settings.batch_max).to_owned()),
            ("moorline-webhook", name.to_owned()),
            ("moorline-delivery", id.to_owned()),
            ("moorline-attempt", attempt.to_string()),
            (
                "moorline-signature",
                signature(&opened.secret, (self.now)() / MS_PER_S, body.as_bytes()),
            ),
        ];
        headers.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Request {
            method: "POST".to_owned(),
            url: settings.url.clone(),
            headers,
            body: Bytes::from(body.to_owned()),
            within: Duration::from_millis(settings.timeout_ms.into()),
        }
    }

    /// Whether requests may be sent, and it fits what is kept.
    fn check(&self, tenant: TenantId, name: &str, kept: &Kept) -> Result<(), WebhookError> {
        kept.settings.check()?;
        if kept.headers.len() > HEADERS_MAX || kept.body().len() > KEPT_BYTES_MAX {
            let why = format!("it is too large: at most {HEADERS_MAX} headers, and 7 KiB in all");
            return Err(WebhookError::Wrong(why));
        }
        let opened = self.opened(tenant, name, kept);
        let opened = opened.ok_or_else(|| {
            WebhookError::Wrong("its secrets were sealed with another key: make it anew".to_owned())
        })?;
        let request = self.request(name, &kept.settings, &opened, ("check", 1), "");
        match self.outward.judge(&request) {
            Ok(()) => Ok(()),
            Err(Unanswered::Header) => {
                Err(WebhookError::Wrong("headers: one can't be sent, or is the node's".to_owned()))
            }
            Err(why) => Err(WebhookError::Blocked(why)),
        }
    }

    // ---- what operators do

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

    /// It pauses by itself, unless somebody changed it meanwhile.
    pub(crate) async fn pause(
        &self,
        tenant: TenantId,
        name: &Text,
        version: u64,
        why: &str,
    ) -> Result<(), RegistryError> {
        let Some(document) = self.registry.document(&space(tenant), name).await? else {
            return Ok(());
        };
        let Some(mut kept) = Kept::read(&document).filter(|_| document.version == version) else {
            return Ok(());
        };
        (kept.settings.paused, kept.because) = (true, Some(why.to_owned()));
        match self.put(tenant, &document, &kept).await {
            Err(error) if is_conflict(&error) => Ok(()),
            Err(RegistryError::Refused(MachineRefused::NotFound)) => Ok(()),
            put => put.map(drop),
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

/// Milliseconds of a second.
const MS_PER_S: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::of("https://a.example/".to_owned())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let said: Settings = serde_json::from_str(r#"{"url":"https://a.example/"}"#).unwrap();
        assert_eq!(said, settings());
        let unknown = r#"{"url":"https://a.example/","secret":"x"}"#;
        assert!(serde_json::from_str::<Settings>(unknown).is_err());
    }

    #[test]
    fn what_can_not_be_is_refused() {
        type Change = fn(&mut Settings);
        #[rustfmt::skip]
        let table: [(Change, Option<&str>); 8] = [
            (|_| {},                                    None),
            (|s| s.batch_max = 100,                     None),
            (|s| s.batch_max = 0,                       Some("batch_max")),
            (|s| s.batch_max = 101,                     Some("batch_max")),
            (|s| s.timeout_ms = 99,                     Some("timeout_ms")),
            (|s| s.timeout_ms = 30_001,                 Some("timeout_ms")),
            (|s| s.url = "x".repeat(URL_BYTES_MAX + 1), Some("url")),
            (|s| s.filter.types = vec!["x".to_owned()], Some("filter.types")),
        ];
        for (change, expected) in table {
            let mut settings = settings();
            change(&mut settings);
            let said = settings.check().err().map(|error| error.to_string());
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().starts_with(expected.unwrap_or_default()));
        }
        for (name, expected) in [("a-1", true), ("", false), ("A", false), ("a:b", false)] {
            assert_eq!(checked_name(name).is_ok(), expected, "{name}");
        }
        assert!(checked_name(&"n".repeat(NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_group_of_the_longest_name_is_one_that_streams_take() {
        let kept = Kept {
            id: u32::MAX,
            settings: settings(),
            because: None,
            begins: String::new(),
            secret: String::new(),
            headers: BTreeMap::new(),
            created_ms: 0,
        };
        let group = kept.group(&"n".repeat(NAME_BYTES_MAX));
        assert!(group.len() <= moorline_machine::events::CONSUMER_NAME_BYTES_MAX, "{group}");
    }

    #[test]
    fn nothing_secret_is_printed() {
        let headers = [("authorization".to_owned(), "canary".to_owned())].into();
        let new = NewHook { name: "a".to_owned(), settings: settings(), headers };
        let secret = Zeroizing::new(b"canary".to_vec());
        let opened = Opened { secret, headers: vec![("a".to_owned(), "canary".to_owned())] };
        assert!(!format!("{new:?} {opened:?}").contains("canary"));
    }
}
