//! Devices that a gateway brings along: what it says for one that nobody has made is held until it is registered (§1.5 of the vendor's
//! wire).
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

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moorline_core::{Message, TenantId, port::Token};
use moorline_dialects::watson::{
    about::{About, Registrar as By},
    identity::DeviceName,
    topics::HELD_MESSAGES_MAX,
};
use moorline_service::registry::{
    Registry, RegistryError, brought::Bringer, settings::DeviceSettings,
};

use crate::door::device_name;

/// Devices of one gateway that are known to be registered; when there are more, all are looked at anew.
const KNOWN_MAX: usize = 4_096;
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
    known: HashSet<DeviceName>,
    failed: HashMap<DeviceName, Instant>,
    held: VecDeque<Held>,
    works: bool,
}

/// One gateway's devices.
#[derive(Debug)]
pub(crate) struct Registrar {
    tenant: TenantId,
    state: Mutex<State>,
}

impl Registrar {
    /// Of a gateway, which is registered itself.
    pub(crate) fn new(tenant: TenantId, own: &DeviceName) -> Self {
        let state = State { known: HashSet::from([own.clone()]), ..State::default() };
        Self { tenant, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one entry.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message comes.
    pub(crate) fn turn(&self, held: Held) -> Turn {
        let mut state = self.state();
        if !state.works && state.known.contains(&held.device) {
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

    /// Whether a device is registered, by now. `Err`: nobody can say.
    pub(crate) async fn registered(
        &self,
        registry: &Registry,
        device: &DeviceName,
        by: (&str, &str),
    ) -> Result<bool, RegistryError> {
        {
            let mut state = self.state();
            if state.known.contains(device) {
                return Ok(true);
            }
            match state.failed.get(device) {
                Some(at) if at.elapsed() < FAILED_FOR => return Ok(false),
                _ => drop(state.failed.remove(device)),
            }
        }
        let (gateway, address) = by;
        let by = Bringer { tenant: self.tenant, gateway, address };
        let registered_by = Some(By { id: gateway.to_owned(), kind: About::BY_GATEWAY.to_owned() });
        let known = DeviceSettings {
            kind: Some(device.kind.to_string()),
            metadata: About { registered_by, ..About::default() }.written(),
            ..DeviceSettings::default()
        };
        let outcome = registry.bring_as(by, &device_name(device), &known).await;
        let mut state = self.state();
        match outcome {
            Ok(()) => {
                if state.known.len() >= KNOWN_MAX {
                    state.known.clear();
                }
                state.known.insert(device.clone());
                Ok(true)
            }
            Err(RegistryError::Refused(_)) => {
                if state.failed.len() >= FAILED_MAX {
                    state.failed.clear();
                }
                state.failed.insert(device.clone(), Instant::now());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::Text;

    use super::*;

    fn held(id: &str) -> Held {
        let device = DeviceName::new(b"t", id.as_bytes()).unwrap();
        let topic = Text::from("t");
        Held { device, token: 1, packet: None, message: Message { topic, ..Message::empty() } }
    }

    #[test]
    fn what_comes_behind_something_held_is_held() {
        let registrar = Registrar::new(TenantId(1), &held("gw").device);
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
        let registrar = Registrar::new(TenantId(1), &held("gw").device);
        for _ in 0..HELD_MESSAGES_MAX {
            assert!(!matches!(registrar.turn(held("new")), Turn::Full(_)));
        }
        assert!(matches!(registrar.turn(held("new")), Turn::Full(_)));
    }
}
