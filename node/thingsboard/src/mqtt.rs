//! A [`Port`] for each device: what its connection asks goes to one task.

use std::sync::{Arc, Mutex, PoisonError};

use moorline_core::{
    Text,
    port::{Inbox, Link, Port},
    rights::Who,
};
use moorline_dialects::thingsboard::{
    connect::session_present, mqtt::Version, profile::TransportType,
};
use moorline_edge::{
    Attempt, Begin, Denial, Identity,
    asks::{self, Platform},
};
use moorline_service::registry::{Watch, door::Guest, settings::Class};

use crate::{
    assign::Bearer, children::Children, device::Device, door::Door, marks::DEFAULT_KIND,
    session::Session,
};

/// No session lasts, though a CONNACK says so. What comes twice is written twice: telemetry of the same time is the same then, and so
/// are attributes.
pub(crate) const HERE: Platform = Platform { present: session_present, once: true };

/// ThingsBoard's devices among the clients of an MQTT edge. Clones are the same.
#[derive(Debug, Clone)]
pub struct Mqtt(pub(crate) Door);

impl Mqtt {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }

    /// Whether a device that proved who it is may speak MQTT, as its profile says: asked before anything is begun for it. Those of other
    /// tenants may, as far as is known here.
    ///
    /// # Errors
    ///
    /// It may not, or nobody can say now: either is "server unavailable", as from the original.
    pub async fn admits(&self, guest: &Guest, who: &Who) -> Result<(), Denial> {
        if !self.0.takes(guest.tenant) {
            return Ok(());
        }
        let known = self.0.profile_of(guest.tenant, kind_of(who)).await;
        let admits = known.is_ok_and(|known| known.profile.allows(TransportType::Mqtt));
        if admits { Ok(()) } else { Err(Denial::Unavailable) }
    }

    /// A device that proved who it is, if its tenant is one of ThingsBoard's: `begin` watches over its connection.
    ///
    /// # Errors
    ///
    /// `begin`, if it is not.
    pub fn identity(
        &self,
        guest: &Guest,
        who: &Who,
        attempt: &Attempt,
        begin: Begin,
    ) -> Result<Identity, Begin> {
        if !self.0.takes(guest.tenant) {
            return Err(begin);
        }
        let version = if attempt.version.is_v5() { Version::V5 } else { Version::V3 };
        let watch = self.0.registry.watch(guest.tenant, &guest.device);
        let device = Device { door: self.0.clone(), guest: guest.clone() };
        let bearer =
            Bearer { tenant: guest.tenant, device: guest.device.clone(), born: guest.born };
        let kind = kind_of(who);
        self.0.bring_to_who_comes(bearer, kind);
        let kind = Text::from(kind);
        let address = Text::from(attempt.peer.ip().to_canonical().to_string());
        let is_gateway = who.class == Class::Gateway.name();
        let watch = Mutex::new(Some(watch));
        let arrived = Arrived { device, kind, version, address, is_gateway, watch };
        let (port, rules) = (Some(Arc::new(arrived) as Arc<dyn Port>), self.0.rules.now());
        let session = Some(guest.device.clone());
        let (rules, begin) = (Some(rules), Some(begin));
        Ok(Identity { session, port, rules, begin, ..Identity::of(guest.tenant) })
    }
}

/// A device's type.
fn kind_of(who: &Who) -> &str {
    who.kind.as_ref().map_or(DEFAULT_KIND, Text::as_str)
}

/// A device that was let in, before its connection takes it up.
struct Arrived {
    device: Device,
    /// Its type.
    kind: Text,
    version: Version,
    /// Where it is.
    address: Text,
    is_gateway: bool,
    watch: Mutex<Option<Watch>>,
}

impl Port for Arrived {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let (link, asked) = asks::link(HERE, Arc::clone(&inbox));
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A port is taken up once.
        if let Some(watch) = watch {
            watch.take_over();
            let device = self.device.clone();
            let children =
                self.is_gateway.then(|| Children::new(device.clone(), self.address.clone()));
            let of = (self.kind.clone(), self.address.clone());
            let session = Session::new(device, of, self.version, children, inbox);
            self.device.door.tasks.spawn(session.run(asked, watch));
        }
        link
    }
}
