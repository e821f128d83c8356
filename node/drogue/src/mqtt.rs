//! Judges a CONNECT, and puts a [`Port`] of its own before the service's for the client that it lets in.

use std::sync::{Arc, Mutex, PoisonError};

use moorline_core::{
    Text,
    port::{Inbox, Link, Port},
};
use moorline_dialects::drogue::{
    identity::{self, Credentials, DeviceId, Hello},
    topics::Dialect,
};
use moorline_edge::{
    Attempt, Denial, Identity, Proof,
    asks::{self, Platform},
    watch_over,
};
use moorline_service::registry::door::By;

use crate::{
    application::{self, Application},
    door::{Coming, Door, Entered, Turned},
    inbox::Shared,
    link::{DeviceLink, End, Witness},
    session::Session,
    speaker::Speaker,
};

/// No session lasts. What comes twice with QoS 2 is two events: it is QoS 1 with two more packets.
pub(crate) const HERE: Platform = Platform { present: |_| false, once: true };

/// Drogue's clients among those of an MQTT edge. Clones are the same.
#[derive(Debug, Clone)]
pub struct Mqtt(Door);

impl Mqtt {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }

    /// Whether a tenant's devices are Drogue's: then nobody else lets them in.
    #[must_use]
    pub fn takes(&self, tenant: moorline_core::TenantId) -> bool {
        self.0.takes(tenant)
    }

    /// Whether a client says that it is one of an application that there is.
    #[must_use]
    pub fn is_meant(&self, attempt: &Attempt) -> bool {
        if self.token_of(attempt).is_some() {
            return true;
        }
        let known = |text: &str| {
            DeviceId::parse(text).is_some_and(|id| self.0.knows(id.application.as_str()))
        };
        match (&attempt.username, &attempt.channel.proof) {
            (Some(name), _) if name.as_str().contains('@') => known(name.as_str()),
            (Some(_), _) => known(attempt.client.as_str()),
            (None, Some(Proof::Certificates(chain))) => self.0.authority_of(chain).is_some(),
            (None, Some(Proof::Psk(holder))) => self.0.takes(holder.tenant),
            (None, None) => false,
        }
    }

    fn token_of(&self, attempt: &Attempt) -> Option<String> {
        application::token(&self.0, attempt.username.as_ref(), attempt.password.as_deref())
    }

    /// Judges one. There is one answer for all that is no.
    ///
    /// # Errors
    ///
    /// It may not come in.
    pub async fn judge(self, attempt: Attempt) -> Result<Identity, Denial> {
        let is_v5 = match attempt.version {
            moorline_mqtt::Version::V31 => return Err(Denial::Version),
            moorline_mqtt::Version::V311 => false,
            moorline_mqtt::Version::V5 => true,
        };
        let by = By::Mqtt;
        if !attempt.clean_start {
            self.0.count(by, Some(Turned::Away));
            return Err(Denial::BadCredentials);
        }
        if let Some(token) = self.token_of(&attempt) {
            let application = Application::enter(self.0.clone(), &token, &attempt).await;
            return application.map_err(|_| Denial::BadCredentials);
        }
        let hello = Hello {
            client: attempt.client.as_str(),
            username: attempt.username.as_ref().map(Text::as_str),
            password: attempt.password.as_deref(),
            proven: attempt.channel.proof.is_some(),
        };
        let credentials = identity::mqtt(&hello);
        let credentials = credentials.ok_or(Denial::BadCredentials)?;
        let entered = self.enter(&credentials, &attempt).await;
        let (entered, dialect) = entered.map_err(|_| Denial::BadCredentials)?;
        Ok(self.identity(entered, dialect, is_v5))
    }

    async fn enter(
        &self,
        credentials: &Credentials,
        attempt: &Attempt,
    ) -> Result<(Entered, Dialect), Turned> {
        let (from, channel) = (attempt.peer.ip().to_canonical(), &attempt.channel);
        let entered = self.0.admit(credentials, Coming { by: By::Mqtt, from, channel }).await?;
        let tenant = entered.speaker.guest.tenant;
        let spec = self.0.specs.of(&self.0.registry, tenant).await?;
        let dialect = Dialect::of(&entered.speaker.own().kept.spec, &spec.spec);
        Ok((entered, dialect.map_err(|_| Turned::Misconfigured)?))
    }

    fn identity(self, entered: Entered, dialect: Dialect, is_v5: bool) -> Identity {
        let Entered { speaker, standing } = entered;
        let (tenant, session) = (speaker.guest.tenant, Some(speaker.guest.device.clone()));
        let door = self.0;
        let (rules, tasks) = (Some(door.rules.now()), door.tasks.clone());
        let begin = watch_over(tasks, move || async move { door.until_revoked(&standing).await });
        let device = Device { speaker: Mutex::new(Some(speaker)), dialect, is_v5 };
        let port = Some(Arc::new(device) as Arc<dyn Port>);
        Identity { session, port, rules, begin: Some(begin), ..Identity::of(tenant) }
    }
}

/// A device that was let in, before its connection takes it up.
struct Device {
    speaker: Mutex<Option<Arc<Speaker>>>,
    dialect: Dialect,
    is_v5: bool,
}

impl Port for Device {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let (asks, asked) = asks::link(HERE, Arc::clone(&inbox));
        let speaker = self.speaker.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A port is taken up once.
        let Some(speaker) = speaker else { return asks };
        let mail = speaker.door.metrics.mail.clone();
        let shared = Arc::new(Shared::new(speaker.guest.device.clone(), inbox, mail));
        let service = Arc::clone(&speaker.door.service);
        let (end, opened) = End::new(speaker.gone.clone());
        let end = Arc::new(Mutex::new(end));
        let witness = Witness { shared: Arc::clone(&shared), end: Arc::clone(&end) };
        let below = service.connect(Arc::new(witness) as Arc<dyn Inbox>);
        let below = Arc::new(Mutex::new(below));
        let session = Session {
            speaker: Arc::clone(&speaker),
            dialect: self.dialect,
            is_v5: self.is_v5,
            shared: Arc::clone(&shared),
            below: Arc::clone(&below),
            end: Arc::clone(&end),
        };
        speaker.door.tasks.spawn(session.run(opened, asked));
        Box::new(DeviceLink::new(asks, below, end, speaker, shared))
    }
}
