//! Managed devices: each thing that happens to one is a change of its document, and what follows from it is said when that is saved.
//!
//! ```text
//!   device ─► link ─► desk.rs: one after the other ─┐
//!   management API ─► rest/ ────────────────────────┼─► read the document ─► step ─► put, if nobody came between ─► publish, note
//!   time, whenever somebody looks ──────────────────┘            ▲                     speak.rs │ records.rs: what became of requests
//!                                                                └──────── again ◄────────────┘
//! ```
//!
//! # Invariants
//!
//! - **Saved, then said**: an answer, a question and a note of a record follow from a document that a majority has.
//! - **What was saved is said**: what is owed is in the document until it was done, and whoever looks at the device later does it
//!   (`moorline_dialects::watson::management::kept`). A question that was answered is not asked again.
//! - **Every change is one of the pure machine's**, whichever node it happens at: two at once meet at the document's version.
//! - **A gateway hears of whom it may speak for**: that is looked at with every change, and who lost its gateway so hears for itself.
//!   Checked by the cluster tests (`watson_gateways.rs`).
//! - **Time passes for whoever looks**: nobody waits for a deadline, and nothing is shown that should be over.
//!
//! Checked by the cluster tests (`watson_managed.rs`).

mod desk;
mod records;
mod speak;

use std::{collections::BTreeSet, fmt, sync::Arc};

use moorline_core::{TenantId, Text};
use moorline_dialects::watson::{
    about::About,
    identity::DeviceName,
    management::{
        address::{Channel, Downward, Upward},
        claims,
        device::{Device, Event},
        kept::{self, Answers, Kept, STATE_BYTES_MAX},
        wire::{Rc, answer_unread},
    },
};
use moorline_machine::{
    DocumentRefused,
    answer::Refused,
    documents::{Expect, Space},
    registry::{DEVICE_SETTINGS_BYTES_MAX, DeviceRecord, PutDevice},
};
use moorline_service::{
    Service,
    registry::{
        RegistryError,
        settings::{self, DeviceSettings},
    },
};

use crate::{
    door::{Door, device_name},
    gateway::about as registered_about,
};

pub(crate) use self::{
    desk::{Desk, Letter},
    records::{DEVICES_AT_ONCE, Made},
};

/// A device's space for its state and its log.
const SPACE: &str = "watson/managed";
const STATE: &str = "state";
const LOG: &str = "log";
/// An organisation's space for extension bundles.
pub(crate) const BUNDLES: &str = "watson/bundle";
/// How often a change is tried again after somebody else's came between.
const TRIES_MAX: usize = 16;

/// Who does all that. Clones are the same.
#[derive(Clone)]
pub(crate) struct Manager {
    pub(crate) door: Door,
    pub(crate) service: Arc<Service>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}

/// Why nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failed {
    /// There is no such device.
    #[error("there is no such device")]
    Gone,
    /// Others came between, again and again.
    #[error("other changes came between")]
    Conflict,
    /// There is no room for what would be kept.
    #[error("there is no room for it")]
    TooLarge,
    /// What is kept can't be read: a later node wrote it.
    #[error("what is kept can't be read")]
    Unreadable,
    /// Nobody can say.
    #[error("{0}")]
    Registry(RegistryError),
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        let known = if let RegistryError::Documents(refused) = &error {
            match refused {
                DocumentRefused::DeviceGone => Some(Self::Gone),
                DocumentRefused::Conflict { .. } => Some(Self::Conflict),
                DocumentRefused::Full | DocumentRefused::TooLarge => Some(Self::TooLarge),
                DocumentRefused::BadName => None,
            }
        } else if error == RegistryError::Refused(Refused::NotFound) {
            Some(Self::Gone)
        } else if matches!(error, RegistryError::Refused(Refused::VersionMismatch { .. })) {
            Some(Self::Conflict)
        } else {
            None
        };
        known.unwrap_or(Self::Registry(error))
    }
}

impl From<kept::Unreadable> for Failed {
    fn from(kept::Unreadable: kept::Unreadable) -> Self {
        Self::Unreadable
    }
}

/// A device as it was read.
pub(crate) struct Loaded {
    pub(crate) name: Text,
    pub(crate) row: DeviceRecord,
    pub(crate) settings: DeviceSettings,
    pub(crate) about: About,
    pub(crate) kept: Kept,
    space: Space,
    expect: Expect,
}

/// Who says something.
#[derive(Debug, Clone, Copy)]
enum By<'a> {
    /// Not the device: who speaks for it stays as it was.
    Others,
    /// The device, by itself or through this gateway, by which it hears of it then.
    Device(Option<&'a DeviceName>),
}

/// What came of an event.
pub(crate) struct Came {
    /// The device as it is kept now.
    pub(crate) kept: Kept,
    /// Where it hears of it.
    channel: Channel,
    answers: Answers,
    space: Space,
    version: u64,
    fresh: u64,
}

fn expected(version: Option<u64>) -> Expect {
    version.map_or(Expect::Absent, Expect::Version)
}

fn space(tenant: TenantId, name: &Text, row: &DeviceRecord) -> Space {
    Space::of_device(tenant, name, row.born, SPACE)
}

impl Manager {
    // ---- reading

    /// A device with its registration and its state.
    pub(crate) async fn load(
        &self,
        tenant: TenantId,
        device: &DeviceName,
    ) -> Result<Loaded, Failed> {
        let (name, registry) = (device_name(device), &self.door.registry);
        let row = registry.device(tenant, &name).await?.ok_or(Failed::Gone)?;
        let space = space(tenant, &name, &row);
        let found = registry.document(&space, &Text::from(STATE)).await?;
        let expect = expected(found.as_ref().map(|found| found.version));
        let mut kept = found.map_or(Ok(Kept::default()), |found| Kept::read(&found.body))?;
        let settings: DeviceSettings = settings::read(&row.settings);
        let about = About::read(settings.metadata.clone());
        (kept.device.info, kept.device.metadata) = (about.info.clone(), about.metadata.clone());
        Ok(Loaded { name, row, settings, about, kept, space, expect })
    }

    /// A device as it is by now: time that has passed has passed, and what was owed for long is done.
    pub(crate) async fn seen(
        &self,
        tenant: TenantId,
        device: &DeviceName,
    ) -> Result<Loaded, Failed> {
        let loaded = self.load(tenant, device).await?;
        let now = self.door.clock.wall();
        let is_late = loaded.kept.device.due().is_some_and(|due| due <= now);
        let owes = loaded.kept.due(loaded.kept.next(), now).next().is_some();
        if !is_late && !owes {
            return Ok(loaded);
        }
        self.happens(tenant, device, Event::Tick).await?;
        self.load(tenant, device).await
    }

    // ---- changing

    /// Something happens to a device. Done: a majority has it, and what follows was said or will be.
    pub(crate) async fn happens(
        &self,
        tenant: TenantId,
        device: &DeviceName,
        event: Event<'_>,
    ) -> Result<Kept, Failed> {
        self.happens_by(tenant, device, event, By::Others).await
    }

    async fn happens_by(
        &self,
        tenant: TenantId,
        device: &DeviceName,
        event: Event<'_>,
        by: By<'_>,
    ) -> Result<Kept, Failed> {
        let mut came = self.changes(tenant, device, event, by).await?;
        self.answer(tenant, &came.channel, &came.answers).await;
        self.carry(tenant, device, &mut came).await;
        Ok(came.kept)
    }

    /// The change, saved.
    async fn changes(
        &self,
        tenant: TenantId,
        device: &DeviceName,
        event: Event<'_>,
        by: By<'_>,
    ) -> Result<Came, Failed> {
        for _ in 0..TRIES_MAX {
            let loaded = self.load(tenant, device).await?;
            match self.changed((tenant, device), loaded, event.clone(), by).await {
                Err(Failed::Conflict) => {}
                done => return done,
            }
        }
        Err(Failed::Conflict)
    }

    async fn changed(
        &self,
        (tenant, device): (TenantId, &DeviceName),
        loaded: Loaded,
        event: Event<'_>,
        by: By<'_>,
    ) -> Result<Came, Failed> {
        let Loaded { name, row, settings, about, kept: before, space, expect } = loaded;
        let (now, fresh) = (self.door.clock.wall(), before.next());
        let (mut kept, answers) = before.clone().after(now, event);
        if let By::Device(gateway) = by {
            kept.gateway = gateway.cloned();
        }
        if !self.may_hear(tenant, (device, &about), kept.gateway.as_ref()).await? {
            kept.gateway = None;
        }
        let Device { info, metadata, .. } = &kept.device;
        if (info, metadata) != (&before.device.info, &before.device.metadata) {
            let about = About { info: info.clone(), metadata: metadata.clone(), ..about };
            self.register(tenant, &name, &row, settings, &about).await?;
        }
        let known = match expect {
            Expect::Version(version) => Some(version),
            Expect::Any | Expect::Absent => None,
        };
        let version = match known {
            // What nobody has told anything is not kept.
            known if kept == before => known.unwrap_or_default(),
            _ => {
                let written = kept.written();
                if written.len() > STATE_BYTES_MAX {
                    return Err(Failed::TooLarge);
                }
                self.door.registry.put_document(&space, &Text::from(STATE), written, expect).await?
            }
        };
        let channel = kept.channel(device);
        Ok(Came { kept, channel, answers, space, version, fresh })
    }

    /// Whether the gateway that spoke for a device last may hear of it still: what it may and who is in its group changes meanwhile.
    async fn may_hear(
        &self,
        tenant: TenantId,
        (device, about): (&DeviceName, &About),
        gateway: Option<&DeviceName>,
    ) -> Result<bool, Failed> {
        let Some(gateway) = gateway.filter(|gateway| *gateway != device) else { return Ok(true) };
        let record = self.door.registry.device(tenant, &device_name(gateway)).await?;
        let known = record.map(|record| registered_about(&record.settings));
        Ok(known.is_some_and(|known| known.may_hear_of(gateway, (device, about))))
    }

    /// Writes what is known of a device to its registration, if nobody did in between.
    pub(crate) async fn register(
        &self,
        tenant: TenantId,
        name: &Text,
        row: &DeviceRecord,
        settings: DeviceSettings,
        about: &About,
    ) -> Result<(), Failed> {
        let settings = DeviceSettings { metadata: about.written(), ..settings };
        let settings = settings::written(&settings);
        if settings.len() > DEVICE_SETTINGS_BYTES_MAX {
            return Err(Failed::TooLarge);
        }
        if settings == row.settings {
            return Ok(());
        }
        let registry = &self.door.registry;
        let put = PutDevice {
            tenant,
            device: name.clone(),
            enabled: row.enabled,
            credentials: row.credentials.clone(),
            settings,
            if_version: Some(row.version),
            devices_max: registry.settings(tenant).devices_per_shard_max,
        };
        registry.put_device(put).await?;
        Ok(())
    }

    // ---- the log, which is a document of its own

    /// Something happens to a device's log.
    pub(crate) async fn logs<T>(
        &self,
        tenant: TenantId,
        device: &DeviceName,
        mut change: impl FnMut(Device) -> (Device, T),
    ) -> Result<T, Failed> {
        let (name, registry) = (device_name(device), &self.door.registry);
        for _ in 0..TRIES_MAX {
            let (space, version, before) = self.log_at(tenant, &name).await?;
            let (after, said) = change(before.clone());
            if (&after.log, after.log_next) == (&before.log, before.log_next) {
                return Ok(said);
            }
            let (id, body) = (Text::from(LOG), kept::log(&after));
            match registry.put_document(&space, &id, body, expected(version)).await {
                Err(RegistryError::Documents(DocumentRefused::Conflict { .. })) => {}
                put => return put.map(|_| said).map_err(Failed::from),
            }
        }
        Err(Failed::Conflict)
    }

    /// A device's log: a device of which nothing else is known.
    pub(crate) async fn log(
        &self,
        tenant: TenantId,
        device: &DeviceName,
    ) -> Result<Device, Failed> {
        let (_, _, log) = self.log_at(tenant, &device_name(device)).await?;
        Ok(log)
    }

    async fn log_at(
        &self,
        tenant: TenantId,
        name: &Text,
    ) -> Result<(Space, Option<u64>, Device), Failed> {
        let registry = &self.door.registry;
        let row = registry.device(tenant, name).await?.ok_or(Failed::Gone)?;
        let space = space(tenant, name, &row);
        let found = registry.document(&space, &Text::from(LOG)).await?;
        let version = found.as_ref().map(|found| found.version);
        let mut log = found.map_or(Ok(Device::default()), |found| kept::read_log(&found.body))?;
        log.forget_old_log(self.door.clock.wall());
        Ok((space, version, log))
    }

    // ---- what devices say

    /// A device says something. Done: it was heard for good, and answered. Returns whether it still owes something to somebody.
    ///
    /// # Errors
    ///
    /// Nobody can say; it should say it again.
    pub(crate) async fn said(
        &self,
        tenant: TenantId,
        device: &DeviceName,
        (address, payload): (&Upward, &[u8]),
        gateway: Option<&DeviceName>,
    ) -> Result<bool, Failed> {
        let (said, by) = ((address, payload), By::Device(gateway));
        let heard = match kept::is_about_log(address) {
            true => self.said_to_log(tenant, device, said, gateway).await.map(|()| false),
            false => self.said_to_state(tenant, device, said, by).await,
        };
        let rc = match heard {
            Ok(owes) => return Ok(owes),
            // Nobody answers an answer: it has to come again.
            Err(Failed::Conflict) if *address == Upward::Response => return Err(Failed::Conflict),
            Err(Failed::Gone) => Rc::NotFound,
            Err(Failed::Conflict) => Rc::Conflict,
            Err(Failed::TooLarge) => Rc::Malformed,
            Err(Failed::Unreadable) => Rc::Failed,
            Err(nobody @ Failed::Registry(_)) => return Err(nobody),
        };
        self.refuse(tenant, &Channel::of(device, gateway), said, rc).await;
        Ok(false)
    }

    /// Answers what was not looked into.
    pub(crate) async fn refuse(
        &self,
        tenant: TenantId,
        channel: &Channel,
        (address, payload): (&Upward, &[u8]),
        rc: Rc,
    ) {
        let Some(answer) = answer_unread(address, payload, rc) else { return };
        self.answer(tenant, channel, &[(Downward::Response, answer)]).await;
    }

    async fn said_to_state(
        &self,
        tenant: TenantId,
        device: &DeviceName,
        (address, payload): (&Upward, &[u8]),
        by: By<'_>,
    ) -> Result<bool, Failed> {
        let bundles = match address {
            Upward::Manage => self.bundles(tenant, claims(payload)).await?,
            Upward::Response
            | Upward::Notify
            | Upward::Unmanage
            | Upward::UpdateLocation
            | Upward::AddErrorCode
            | Upward::ClearErrorCodes
            | Upward::AddLog
            | Upward::ClearLog
            | Upward::Unknown(_) => BTreeSet::new(),
        };
        let event = Event::Said { address, payload, bundles: &bundles };
        let kept = Box::pin(self.happens_by(tenant, device, event, by)).await?;
        Ok(!kept.owed.is_empty())
    }

    async fn said_to_log(
        &self,
        tenant: TenantId,
        device: &DeviceName,
        (address, payload): (&Upward, &[u8]),
        gateway: Option<&DeviceName>,
    ) -> Result<(), Failed> {
        let (now, bundles) = (self.door.clock.wall(), BTreeSet::new());
        let logged = self.logs(tenant, device, |log| {
            let mut kept = Kept::default();
            kept.device = log;
            let (kept, answers) =
                kept.after(now, Event::Said { address, payload, bundles: &bundles });
            (kept.device, answers)
        });
        let answers = logged.await?;
        self.answer(tenant, &Channel::of(device, gateway), &answers).await;
        Ok(())
    }

    /// Those of these extension bundles that the organisation has.
    async fn bundles(
        &self,
        tenant: TenantId,
        claimed: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, Failed> {
        let (space, mut known) = (Space::of_tenant(tenant, BUNDLES), BTreeSet::new());
        for bundle in claimed {
            // What can't be an id is none.
            let id = Text::from(bundle.as_str());
            let is_id = !bundle.is_empty() && bundle.len() <= BUNDLE_ID_BYTES_MAX;
            if is_id && self.door.registry.document(&space, &id).await?.is_some() {
                known.insert(bundle);
            }
        }
        Ok(known)
    }
}

/// The longest id of an extension bundle.
const BUNDLE_ID_BYTES_MAX: usize = moorline_dialects::watson::identity::NAME_CHARS_MAX;
