//! Devices that a gateway brings along: what it says for one that nobody has made is held until it is registered (§1.5 of the vendor's
//! wire). A standard gateway brings none: what it says is held until it is known that the device is in its group.
//!
//! ```text
//!   publish ──► known device, nothing held ──────────────────────► the service's link
//!           └─► held, in order ──► task: registers whom it must ──┘
//! ```
//!
//! # Invariants
//!
//! - **Order stays**: while something is held, all that comes later is held behind it. Checked by the cluster tests (`watson.rs`).
//! - **At most [`HELD_MESSAGES_MAX`] are held**: more are refused as a cluster does that is busy.
//! - **A device that could not be registered is not asked for again** for [`FAILED_FOR`]: its messages are reported to the gateway.
//! - **A standard gateway speaks for devices of its group alone**, as that was [`GROUPED_FOR`] ago at most. Checked by the cluster tests
//!   (`watson_gateways.rs`).

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{Message, TenantId, Text, port::Token};
use moorline_dialects::watson::{
    about::{About, Registrar as By},
    identity::DeviceName,
    topics::{HELD_MESSAGES_MAX, Message as Said, Role, Standing, resource_group, standing},
};
use moorline_service::registry::{
    Registry, RegistryError,
    brought::Bringer,
    settings::{self, DeviceSettings},
};

use crate::door::device_name;

/// Devices of one gateway that are known to be registered; when there are more, all are looked at anew.
const KNOWN_MAX: usize = 4_096;
/// How long it counts that a device is in a standard gateway's group, or is not.
const GROUPED_FOR: Duration = Duration::from_secs(5);
/// How long it counts that a device could not be registered.
const FAILED_FOR: Duration = Duration::from_secs(10);
/// Devices of which that is remembered.
const FAILED_MAX: usize = 1_024;

/// What waits for its device.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) device: DeviceName,
    pub(crate) token: Token,
    /// The packet id of a QoS 2 publish.
    pub(crate) packet: Option<u16>,
    /// What it means.
    pub(crate) said: Said,
    pub(crate) message: Message,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It may go on.
    Now(Held),
    /// It is held, and somebody works on it already.
    Held,
    /// It is held: somebody has to begin to work on it ([`Registrar::front`]).
    Begin,
    /// Too many are.
    Full(Held),
}

#[derive(Debug, Default)]
struct State {
    /// Those it may speak for, and since when that is known.
    known: HashMap<DeviceName, Instant>,
    failed: HashMap<DeviceName, Instant>,
    held: VecDeque<Held>,
    works: bool,
}

/// One gateway's devices.
#[derive(Debug)]
pub(crate) struct Registrar {
    tenant: TenantId,
    own: DeviceName,
    role: Role,
    group: String,
    state: Mutex<State>,
}

impl Registrar {
    /// Of a gateway of an organisation, which is registered itself.
    pub(crate) fn new(tenant: TenantId, org: &Text, own: &DeviceName, role: Role) -> Self {
        let (group, own) = (resource_group(org, own), own.clone());
        Self { tenant, own, role, group, state: Mutex::default() }
    }

    /// What the gateway may.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Whether it is known that the gateway may speak for a device.
    fn knows(&self, state: &State, device: &DeviceName) -> bool {
        let since = || state.known.get(device);
        *device == self.own
            || match self.role {
                Role::Privileged => since().is_some(),
                Role::Standard => since().is_some_and(|at| at.elapsed() < GROUPED_FOR),
            }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one entry.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message comes.
    pub(crate) fn turn(&self, held: Held) -> Turn {
        let mut state = self.state();
        if !state.works && self.knows(&state, &held.device) {
            return Turn::Now(held);
        }
        if state.held.len() >= HELD_MESSAGES_MAX {
            return Turn::Full(held);
        }
        state.held.push_back(held);
        if std::mem::replace(&mut state.works, true) { Turn::Held } else { Turn::Begin }
    }

    /// The device whose turn it is; `None` if nothing is held any more, and whoever worked is done.
    pub(crate) fn front(&self) -> Option<DeviceName> {
        let mut state = self.state();
        let front = state.held.front().map(|held| held.device.clone());
        state.works = front.is_some();
        front
    }

    /// The message in front, to go on or to be reported. Called between two calls of [`Self::front`], by the same.
    pub(crate) fn take(&self) -> Option<Held> {
        self.state().held.pop_front()
    }

    /// Whether the gateway may speak for a device, which is registered by now. `Err`: nobody can say.
    pub(crate) async fn registered(
        &self,
        registry: &Registry,
        device: &DeviceName,
        by: (&str, &str),
    ) -> Result<bool, RegistryError> {
        if let Some(known) = self.recently(device) {
            return Ok(known);
        }
        match self.role {
            Role::Standard => self.look(registry, device).await,
            Role::Privileged => {
                let registered = self.register(registry, device, by).await?;
                self.learn(device, registered);
                Ok(registered)
            }
        }
    }

    /// Whether a standard gateway may speak for a device: it is registered, and in its group. `Err`: nobody can say.
    pub(crate) async fn grouped(
        &self,
        registry: &Registry,
        device: &DeviceName,
    ) -> Result<bool, RegistryError> {
        match self.recently(device) {
            Some(known) => Ok(known),
            None => self.look(registry, device).await,
        }
    }

    /// What is known of a device.
    fn recently(&self, device: &DeviceName) -> Option<bool> {
        let failed_for = match self.role {
            Role::Standard => GROUPED_FOR,
            Role::Privileged => FAILED_FOR,
        };
        let mut state = self.state();
        if self.knows(&state, device) {
            return Some(true);
        }
        match state.failed.get(device) {
            Some(at) if at.elapsed() < failed_for => Some(false),
            _ => {
                state.failed.remove(device);
                None
            }
        }
    }

    fn learn(&self, device: &DeviceName, may: bool) {
        let state = &mut *self.state();
        let (list, most) = match may {
            true => (&mut state.known, KNOWN_MAX),
            false => (&mut state.failed, FAILED_MAX),
        };
        if list.len() >= most {
            list.clear();
        }
        list.insert(device.clone(), Instant::now());
    }

    async fn look(&self, registry: &Registry, device: &DeviceName) -> Result<bool, RegistryError> {
        let record = registry.device(self.tenant, &device_name(device)).await?;
        let about = record.as_ref().map(|record| about(&record.settings));
        let grouped = about.is_some_and(|about| about.groups.contains(&self.group));
        let may = standing(self.role, &self.own, device, record.is_some(), grouped);
        let may = may == Standing::Speaks;
        self.learn(device, may);
        Ok(may)
    }

    /// Registers a device that nobody has made; it is in the gateway's group then.
    async fn register(
        &self,
        registry: &Registry,
        device: &DeviceName,
        (gateway, address): (&str, &str),
    ) -> Result<bool, RegistryError> {
        let by = Bringer { tenant: self.tenant, gateway, address };
        let registered_by = Some(By { id: gateway.to_owned(), kind: About::BY_GATEWAY.to_owned() });
        let groups = BTreeSet::from([self.group.clone()]);
        let known = DeviceSettings {
            kind: Some(device.kind.to_string()),
            metadata: About { registered_by, groups, ..About::default() }.written(),
            ..DeviceSettings::default()
        };
        match registry.bring_as(by, &device_name(device), &known).await {
            Ok(()) => Ok(true),
            Err(RegistryError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What a registration keeps.
pub(crate) fn about(settings: &Bytes) -> About {
    About::read(settings::read::<DeviceSettings>(settings).metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(id: &str) -> Held {
        let device = DeviceName::new(b"t", id.as_bytes()).unwrap();
        let (event, format) = (Text::from("e"), Text::from("f"));
        let said = Said::Event { device: device.clone(), event, format };
        let message = Message { topic: said.topic(), ..Message::empty() };
        Held { device, token: 1, packet: None, said, message }
    }

    fn of(role: Role) -> Registrar {
        Registrar::new(TenantId(1), &Text::from("abc123"), &held("gw").device, role)
    }

    #[test]
    fn what_is_known_of_a_group_gets_old() {
        for role in [Role::Standard, Role::Privileged] {
            let (registrar, device) = (of(role), held("d").device);
            assert_eq!(registrar.recently(&held("gw").device), Some(true), "itself");
            assert_eq!(registrar.recently(&device), None);
            registrar.learn(&device, true);
            assert_eq!(registrar.recently(&device), Some(true));
            let long_ago = Instant::now().checked_sub(GROUPED_FOR).expect("it runs for longer");
            registrar.state().known.insert(device.clone(), long_ago);
            let still = (role == Role::Privileged).then_some(true);
            assert_eq!(registrar.recently(&device), still, "{role:?}");
        }
    }

    #[test]
    fn what_comes_behind_something_held_is_held() {
        let registrar = of(Role::Privileged);
        assert!(matches!(registrar.turn(held("gw")), Turn::Now(_)));
        assert!(matches!(registrar.turn(held("new")), Turn::Begin));
        assert!(matches!(registrar.turn(held("gw")), Turn::Held), "behind it");
        assert_eq!(registrar.front(), Some(held("new").device));
        assert_eq!(registrar.take().unwrap().device, held("new").device);
        assert_eq!(registrar.front(), Some(held("gw").device));
        assert!(registrar.take().is_some());
        assert!(matches!(registrar.turn(held("gw")), Turn::Held), "somebody works still");
        assert!(registrar.front().is_some() && registrar.take().is_some());
        assert_eq!(registrar.front(), None);
        assert!(matches!(registrar.turn(held("gw")), Turn::Now(_)));
    }

    #[test]
    fn no_more_are_held_than_may_be() {
        let registrar = of(Role::Privileged);
        for _ in 0..HELD_MESSAGES_MAX {
            assert!(!matches!(registrar.turn(held("new")), Turn::Full(_)));
        }
        assert!(matches!(registrar.turn(held("new")), Turn::Full(_)));
    }
}
