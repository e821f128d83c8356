//! When applications were there: a document each, for whoever asks how they stand. Whether one is there now, its session says, which
//! every node can ask for: a node that dies leaves nobody behind.
//!
//! # Invariants
//!
//! - **Nothing waits for it**: what there is no room for is counted, and the application is connected all the same.
//! - **Bounded**: [`NOTING_MAX`] are written at once; an organisation has as many as its space, and those that went make way.
//! - **That one left is not forgotten**: that it came may be written later, and says nothing new then
//!   (`moorline_dialects::watson::rest::kept`).
//!
//! Checked by the cluster tests (`watson_gateways.rs`).

use std::sync::Arc;

use moorline_core::{TenantId, Text, UnixMillis};
use moorline_dialects::watson::{identity::ClientId, management::kept, rest::kept::KeptApp};
use moorline_machine::{
    DocumentRefused,
    documents::{Document, Expect, Space},
};
use moorline_service::registry::{RegistryError, documents::is_conflict};
use tokio::sync::Semaphore;

use crate::{door::Door, mqtt::About};

/// An organisation's space for them.
const SPACE: &str = "watson/app";
/// How many are written at once.
const NOTING_MAX: usize = 64;
/// How often a change is tried again after somebody else's came between.
const TRIES_MAX: usize = 4;
/// How many are read at once to find one that makes way.
const PAGE: u16 = 200;
/// How many sessions are asked for then: of those that have not said that they left.
const ASKED_MAX: usize = 200;

/// Those that are written. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Noting(Arc<Semaphore>);

impl Default for Noting {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(NOTING_MAX)))
    }
}

/// How an application stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppStanding {
    pub(crate) connected: bool,
    pub(crate) since: UnixMillis,
    /// When it was heard from last, by all that is known.
    pub(crate) heard: UnixMillis,
}

fn space(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, SPACE)
}

impl Door {
    /// An application came, or left.
    pub(crate) fn note_app(
        &self,
        about: &About,
        client: &ClientId,
        since: UnixMillis,
        left: Option<UnixMillis>,
    ) {
        if !client.class().is_application() || client.is_quickstart() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.noting.0).try_acquire_owned() else {
            return self.unnoted();
        };
        let app = KeptApp { session: about.session.to_string(), since, left };
        let (door, tenant, id) = (self.clone(), about.tenant, Text::from(client.to_string()));
        self.tasks.spawn(async move {
            if Box::pin(door.write_app(tenant, &id, app)).await.is_err() {
                door.unnoted();
            }
            drop(permit);
        });
    }

    fn unnoted(&self) {
        self.metrics.dropped.with_label_values(&["app_state"]).inc();
    }

    async fn write_app(
        &self,
        tenant: TenantId,
        id: &Text,
        app: KeptApp,
    ) -> Result<(), RegistryError> {
        let space = space(tenant);
        for _ in 0..TRIES_MAX {
            let found = self.registry.document(&space, id).await?;
            let known = found.as_ref().and_then(|found| kept::read::<KeptApp>(&found.body).ok());
            if known.is_some_and(|known| known.is_newer_than(&app)) {
                return Ok(());
            }
            let expect = found.map_or(Expect::Absent, |found| Expect::Version(found.version));
            match self.registry.put_document(&space, id, kept::write(&app), expect).await {
                Err(error) if is_conflict(&error) => {}
                Err(RegistryError::Documents(DocumentRefused::Full)) => {
                    self.forget_an_app(tenant, id).await?;
                }
                put => return put.map(drop),
            }
        }
        Err(RegistryError::Busy)
    }

    /// One that went makes way for this one: all are looked at, behind it first, so that not all who come ask for the same.
    async fn forget_an_app(&self, tenant: TenantId, id: &Text) -> Result<(), RegistryError> {
        let (space, mut after, mut asked) = (space(tenant), Some(id.clone()), 0);
        let mut is_around = false;
        loop {
            let page = self.registry.documents(&space, after.as_ref(), PAGE).await?;
            if let Some(went) = self.one_that_went(tenant, &page.documents, &mut asked).await {
                let expect = Expect::Version(went.version);
                return match self.registry.delete_document(&space, &went.id, expect).await {
                    Err(error) if !is_conflict(&error) => Err(error),
                    _ => Ok(()),
                };
            }
            after = page.documents.last().filter(|_| page.more).map(|last| last.id.clone());
            let is_over = after.as_ref().is_none_or(|after| is_around && after >= id);
            if is_over && is_around {
                return Err(RegistryError::Documents(DocumentRefused::Full));
            }
            is_around |= is_over;
        }
    }

    /// One of these that went: it says so, or can't be read, or nobody holds its session: its node may have died. Of whom nobody can say
    /// stays.
    async fn one_that_went<'a>(
        &self,
        tenant: TenantId,
        apps: &'a [Document],
        asked: &mut usize,
    ) -> Option<&'a Document> {
        let read = |found: &Document| kept::read::<KeptApp>(&found.body).ok();
        let says_so = |found: &&Document| read(found).is_none_or(|app| app.left.is_some());
        if let Some(went) = apps.iter().find(says_so) {
            return Some(went);
        }
        for found in apps {
            let Some(app) = read(found).filter(|_| *asked < ASKED_MAX) else { continue };
            *asked += 1;
            let standing = self.app_standing(tenant, &app).await;
            if standing.is_ok_and(|standing| !standing.connected) {
                return Some(found);
            }
        }
        None
    }

    /// How an application stands, if it ever came.
    pub(crate) async fn app(
        &self,
        tenant: TenantId,
        client: &ClientId,
    ) -> Result<Option<AppStanding>, RegistryError> {
        let id = Text::from(client.to_string());
        let found = self.registry.document(&space(tenant), &id).await?;
        let app = found.and_then(|found| kept::read::<KeptApp>(&found.body).ok());
        match app {
            Some(app) => Ok(Some(self.app_standing(tenant, &app).await?)),
            None => Ok(None),
        }
    }

    /// Some of an organisation's applications by their client ids, and behind which one the next begin.
    pub(crate) async fn apps(
        &self,
        tenant: TenantId,
        after: Option<&Text>,
        most: u16,
    ) -> Result<(Vec<(ClientId, AppStanding)>, Option<Text>), RegistryError> {
        let page = self.registry.documents(&space(tenant), after, most).await?;
        let mut apps = Vec::with_capacity(page.documents.len());
        for found in &page.documents {
            let client = ClientId::parse(found.id.as_bytes()).ok();
            let app = kept::read::<KeptApp>(&found.body).ok();
            if let Some((client, app)) = client.zip(app) {
                apps.push((client, self.app_standing(tenant, &app).await?));
            }
        }
        let last = page.documents.last().filter(|_| page.more);
        Ok((apps, last.map(|found| found.id.clone())))
    }

    async fn app_standing(
        &self,
        tenant: TenantId,
        app: &KeptApp,
    ) -> Result<AppStanding, RegistryError> {
        let session = Text::from(app.session.as_str());
        let standing = self.registry.session(tenant, &session).await?;
        let connected = standing.is_some_and(|standing| standing.held);
        let heard = app.left.filter(|_| !connected).unwrap_or(app.since);
        Ok(AppStanding { connected, since: app.since, heard })
    }
}
