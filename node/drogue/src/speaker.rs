//! A device that was let in: what it says becomes CloudEvents in the streams of those it says them for.
//!
//! # Invariants
//!
//! - **An event is on its way when [`Speaker::say`] returns**: whoever calls in an order has it written in that order, also if endpoints of
//!   rules are asked about it.
//! - **Bounded**: of those that a device speaks for, [`PROXIED_MAX`] are remembered.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::drogue::{
    event::{CloudEvent, Names, Publish},
    outcome::Outcome,
    registry::device::{Kept, is_disabled},
    rules::{InvalidRules, Next, Rules},
};
use moorline_machine::events::{
    EVENT_BODY_BYTES_MAX, EVENT_CHANNEL_BYTES_MAX, EventKind, EventRefused,
};
use moorline_service::registry::{
    NewEvent, RegistryError,
    door::{By, Guest, JSON},
};
use uuid::Uuid;

use crate::{door::Door, endpoints::Gone, kept::kept_of, link::locked, spec::Unknown};

/// Those that a device speaks for, of which it is known whether it may.
const PROXIED_MAX: usize = 128;
/// How long that counts.
const PROXIED_FOR: Duration = Duration::from_secs(30);

/// Whom an event is about.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) device: Text,
    born: u64,
    pub(crate) kept: Kept,
    /// All rules that count for it, with what its application said when they were read.
    rules: Mutex<Option<Read>>,
}

type Read = (Arc<Kept>, Result<Arc<Rules>, InvalidRules>);

impl Target {
    fn new(device: Text, born: u64, kept: Kept) -> Self {
        Self { device, born, kept, rules: Mutex::default() }
    }

    /// The rules of its application and its own: read once, as long as the application says the same.
    fn rules(&self, application: &Arc<Kept>) -> Result<Arc<Rules>, InvalidRules> {
        // Every change is all of it.
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, rules)) = &*known
            && Arc::ptr_eq(of, application)
        {
            return rules.clone();
        }
        let rules = Rules::of(&application.spec, &self.kept.spec).map(Arc::new);
        *known = Some((Arc::clone(application), rules.clone()));
        rules
    }
}

type Proxied = HashMap<Text, (Option<Arc<Target>>, Instant)>;

/// A device that was spoken for is gone: by whatever names.
fn forget(proxied: &mut Proxied, device: &Text, born: u64) {
    proxied.retain(|_, (known, _)| {
        known.as_ref().is_none_or(|known| known.device != *device || known.born != born)
    });
}

/// What is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saying<'a> {
    pub(crate) channel: &'a str,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) data_schema: Option<&'a str>,
    pub(crate) extensions: &'a [(&'a str, &'a str)],
    pub(crate) data: &'a Bytes,
}

/// What became of it; and of what is rejected, why.
pub(crate) type Said = (Outcome, String);
/// It is on its way.
pub(crate) type Appending = Pin<Box<dyn Future<Output = Said> + Send>>;

/// See the module.
pub(crate) struct Speaker {
    pub(crate) door: Door,
    pub(crate) guest: Guest,
    /// The application's name.
    pub(crate) application: Text,
    /// Whether its connection has ended.
    pub(crate) gone: Gone,
    own: Arc<Target>,
    proxied: Arc<Mutex<Proxied>>,
}

/// What an application's or a device's id is in events.
fn uid(tenant: TenantId, born: Option<u64>) -> String {
    match born {
        None => tenant.0.to_string(),
        Some(born) => format!("{}-{born}", tenant.0),
    }
}

impl Speaker {
    pub(crate) fn new(door: Door, guest: Guest, application: Text, kept: Kept) -> Self {
        let own = Arc::new(Target::new(guest.device.clone(), guest.born, kept));
        let (gone, proxied) = (Gone::default(), Arc::default());
        Self { door, guest, application, gone, own, proxied }
    }

    /// Itself.
    pub(crate) fn own(&self) -> &Arc<Target> {
        &self.own
    }

    /// Whom it speaks for: itself, or one that has it among its gateways.
    pub(crate) async fn target(&self, device: Option<&str>) -> Result<Arc<Target>, Outcome> {
        let Some(device) = device.filter(|device| *device != self.guest.device.as_str()) else {
            return Ok(Arc::clone(&self.own));
        };
        let name = Text::from(device);
        let known = locked(&self.proxied).get(&name).cloned();
        if let Some((known, at)) = known
            && at.elapsed() < PROXIED_FOR
        {
            return known.ok_or(Outcome::NotAllowed);
        }
        let found = self.door.device_named(self.guest.tenant, &name).await;
        let found = found.map_err(|error| outcome_of(&error))?;
        let found = found.filter(|(_, record)| record.enabled);
        let found = found.and_then(|(device, record)| {
            // What can't be read names nobody.
            let kept = kept_of(&record.settings).ok()?;
            let may = kept.allows(self.guest.device.as_str()) && !is_disabled(&kept.spec);
            may.then(|| Arc::new(Target::new(device, record.born, kept)))
        });
        let mut proxied = locked(&self.proxied);
        if proxied.len() >= PROXIED_MAX {
            proxied.clear();
        }
        proxied.insert(name, (found.clone(), Instant::now()));
        found.ok_or(Outcome::NotAllowed)
    }

    /// Says something for a device, unless its connection counts no more when all endpoints have answered.
    pub(crate) async fn say(
        &self,
        target: &Target,
        saying: &Saying<'_>,
    ) -> Result<Appending, Said> {
        let said = self.event(target, saying).await;
        let void = self.gone.is_void();
        self.append(
            target,
            saying,
            if void { Err((Outcome::NotAllowed, String::new())) } else { said },
        )
    }

    /// The same of what is said when its connection is over.
    pub(crate) async fn say_last(
        &self,
        target: &Target,
        saying: &Saying<'_>,
    ) -> Result<Appending, Said> {
        let said = self.event(target, saying).await;
        self.append(target, saying, said)
    }

    fn append(
        &self,
        target: &Target,
        saying: &Saying<'_>,
        said: Result<Option<Bytes>, Said>,
    ) -> Result<Appending, Said> {
        self.door.registry.heard(&self.guest);
        let (Guest { tenant, by, .. }, counted) = (&self.guest, self.door.metrics.events.clone());
        let by = *by;
        let count = move |outcome: Outcome| {
            counted.with_label_values(&[By::name(by as u8), outcome.name()]).inc();
        };
        let body = match said {
            Ok(Some(body)) => body,
            Ok(None) => {
                count(Outcome::Accepted);
                return Err((Outcome::Accepted, String::new()));
            }
            Err((outcome, why)) => {
                count(outcome);
                return Err((outcome, why));
            }
        };
        let event = NewEvent {
            born: Some(target.born),
            kind: EventKind::Message,
            channel: Text::from(saying.channel),
            content_type: JSON,
            body,
            by: by as u8,
        };
        let appended = self.door.registry.append_event(*tenant, &target.device, event);
        let (proxied, device, born) =
            (Arc::clone(&self.proxied), target.device.clone(), target.born);
        Ok(Box::pin(async move {
            let outcome = match appended.await {
                Ok(_) => Outcome::Accepted,
                Err(error) => outcome_of(&error),
            };
            if outcome == Outcome::NotAllowed {
                // There may be another one of its name.
                forget(&mut locked(&proxied), &device, born);
            }
            count(outcome);
            (outcome, String::new())
        }))
    }

    /// The event as it is kept, after all rules; nothing, if a rule drops it.
    async fn event(&self, target: &Target, saying: &Saying<'_>) -> Result<Option<Bytes>, Said> {
        let refused = |outcome| (outcome, String::new());
        if saying.channel.is_empty() || saying.channel.len() > EVENT_CHANNEL_BYTES_MAX {
            return Err(refused(Outcome::Topic));
        }
        let tenant = self.guest.tenant;
        let spec = self.door.specs.of(&self.door.registry, tenant).await;
        let spec = spec.map_err(|unknown| match unknown {
            Unknown::Unavailable => refused(Outcome::Failed),
            Unknown::Unreadable => refused(Outcome::Misconfigured),
        })?;
        if is_disabled(&spec.spec) {
            return Err(refused(Outcome::NotAllowed));
        }
        let rules = target.rules(&spec).map_err(|_| refused(Outcome::Misconfigured))?;
        let (application, sender) = (uid(tenant, None), uid(tenant, Some(self.guest.born)));
        let device = uid(tenant, Some(target.born));
        let names = Names {
            application: (self.application.as_str(), &application),
            device: (target.device.as_str(), &device),
            sender: (self.guest.device.as_str(), &sender),
        };
        let publish = Publish {
            channel: saying.channel,
            content_type: saying.content_type,
            data_schema: saying.data_schema,
            extensions: saying.extensions,
            data: saying.data,
        };
        let id = Uuid::from_u128(rand::random()).to_string();
        let event = CloudEvent::said(&id, self.door.clock.wall(), &names, &publish);
        let mut event = event.map_err(|_| refused(Outcome::Payload))?;
        let ruled = self.door.ruled(tenant, &rules, saying.channel, &mut event, &self.gone).await;
        match ruled.map_err(refused)? {
            Next::Accepted => {}
            Next::Dropped => return Ok(None),
            Next::Rejected(why) => return Err((Outcome::Rejected, why)),
            Next::Failed => return Err(refused(Outcome::Failed)),
            Next::Ask(..) | Next::Invalid => return Err(refused(Outcome::Misconfigured)),
        }
        let body = event.structured();
        if body.len() > EVENT_BODY_BYTES_MAX {
            return Err(refused(Outcome::Full));
        }
        Ok(Some(body))
    }
}

fn outcome_of(error: &RegistryError) -> Outcome {
    match error {
        RegistryError::Busy
        | RegistryError::DiskFull
        | RegistryError::TooManyReaders
        | RegistryError::Events(
            EventRefused::TooLarge
            | EventRefused::TooManyStreams
            | EventRefused::BeyondTail { .. }
            | EventRefused::TooManyConsumers
            | EventRefused::NoSuchConsumer,
        ) => Outcome::Full,
        // It was deleted a moment ago.
        RegistryError::Events(EventRefused::DeviceGone) | RegistryError::Refused(_) => {
            Outcome::NotAllowed
        }
        RegistryError::Unavailable
        | RegistryError::Taken(_)
        | RegistryError::Mail(_)
        | RegistryError::Values(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_) => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_is_refused_and_forgotten_by_all_names() {
        let table = [
            (RegistryError::Events(EventRefused::DeviceGone), Outcome::NotAllowed),
            (RegistryError::Events(EventRefused::TooManyStreams), Outcome::Full),
            (RegistryError::Busy, Outcome::Full),
            (RegistryError::Unavailable, Outcome::Failed),
        ];
        for (error, expected) in table {
            assert_eq!(outcome_of(&error), expected, "{error}");
        }
        let target = |born| Arc::new(Target::new(Text::from("d"), born, Kept::default()));
        let (old, new) = (target(1), target(2));
        let now = Instant::now();
        let known = [("d", Some(&old)), ("alias", Some(&old)), ("anew", Some(&new)), ("x", None)];
        let mut proxied: Proxied = known
            .map(|(name, known)| (Text::from(name), (known.cloned(), now)))
            .into_iter()
            .collect();
        forget(&mut proxied, &Text::from("d"), 1);
        let mut left: Vec<_> = proxied.keys().map(Text::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["anew", "x"]);
    }
}
