//! Judges a CONNECT, and puts a [`Port`] before the service's for the device that it lets in.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use moorline_core::{
    port::{Inbox, Link, Port},
    rights::Rules,
};
use moorline_dialects::losant::{
    connect::{self, Refused, Shows},
    device::{Attributes, Class},
    id::Id,
    limits::Ban,
};
use moorline_edge::{Attempt, Denial, Identity};
use moorline_service::registry::{
    Watch,
    door::{BY_AUTHORITY, By, Guest},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    desk::{ASKS_MAX, Desk},
    device::Device,
    door::Door,
    inbox::Outside,
    link::{LosantLink, Under, may_will},
    pass::{Pass, chain_of},
    stay::Stay,
    visit::Visit,
};

/// Losant's devices among the clients of an MQTT edge. Clones are the same.
#[derive(Debug, Clone)]
pub struct Mqtt(Door);

/// What a CONNACK says of it: the edge's own words for a ban are another code.
fn denial(refused: Refused) -> Denial {
    match refused {
        Refused::Version => Denial::Version,
        Refused::Session | Refused::Device => Denial::ClientId,
        Refused::Credentials => Denial::BadCredentials,
        Refused::Forbidden => Denial::NotAuthorised,
        Refused::Plaintext => Denial::Plaintext,
        Refused::Banned => Denial::BannedAsBusy,
        Refused::Unavailable => Denial::Unavailable,
    }
}

impl Mqtt {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }

    fn shows<'a>(&self, attempt: &'a Attempt) -> Option<Shows<'a>> {
        let certificate = chain_of(attempt.channel.proof.as_ref()).is_some();
        let password = attempt.password.as_deref();
        let shown =
            connect::shows(&attempt.client, attempt.username.as_ref(), password, certificate);
        let is_device = Id::parse(attempt.client.as_bytes()).is_some();
        let shown = shown.filter(|shown| match shown {
            Shows::Key(key, _) => is_device || connect::is_likely_key(key),
            Shows::Certificate => true,
        });
        shown.filter(|_| self.0.has_applications())
    }

    /// Whether a client may be one of Losant's, by what its CONNECT looks like. Who it is counted as, when it fails too often, is its
    /// device: all of an application may have one key.
    #[must_use]
    pub fn is_meant(&self, attempt: &Attempt) -> bool {
        self.shows(attempt).is_some()
    }

    /// Judges one; [`None`] if what it shows is no application's.
    pub async fn judge(&self, attempt: &Attempt) -> Option<Result<Identity, Denial>> {
        let pass = match self.shows(attempt)? {
            Shows::Key(key, secret) => {
                let device = Id::parse(attempt.client.as_bytes());
                self.0.by_key(key, secret, device.as_ref()).await
            }
            Shows::Certificate => match chain_of(attempt.channel.proof.as_ref()) {
                Some(chain) => {
                    let device = Id::parse(attempt.client.as_bytes());
                    self.0.by_certificate(&chain, device.as_ref()).await
                }
                None => return None,
            },
        };
        let judged = match pass {
            Ok(None) => return None,
            Ok(Some(pass)) => self.admit(pass, attempt).await,
            Err(refused) => Err(refused),
        };
        let result = judged.as_ref().err().map_or("accepted", |refused| refused.label());
        self.0.metrics.admitted.with_label_values(&[result]).inc();
        Some(judged.map_err(denial))
    }

    async fn admit(&self, pass: Pass, attempt: &Attempt) -> Result<Identity, Refused> {
        let door = &self.0;
        if attempt.version != moorline_mqtt::Version::V311 {
            return Err(Refused::Version);
        }
        if !attempt.channel.tls && !door.registry.takes_plaintext(pass.tenant) {
            return Err(Refused::Plaintext);
        }
        if !attempt.clean_start && door.registry.settings(pass.tenant).sessions.clean_only {
            return Err(Refused::Session);
        }
        let id = Id::parse(attempt.client.as_bytes()).ok_or(Refused::Device)?;
        let known = door.device_for(&pass, &id).await?;
        let class = known.about.class;
        if !class.connects() {
            return Err(Refused::Forbidden);
        }
        let rules = pass.access.rules().map_err(|_| Refused::Credentials)?;
        if let Some((topic, bytes)) = &attempt.will
            && !may_will(&rules, topic, *bytes)
        {
            return Err(Refused::Forbidden);
        }
        let device = Device::new(pass.tenant, &pass.application, &known, By::Mqtt);
        let banned = door.ban(&device).await.map_err(|_| Refused::Unavailable)?;
        if banned.is_some_and(|ban| ban.lasts(door.clock.wall().0)) {
            return Err(Refused::Banned);
        }
        // Last: who is refused for what it is takes nobody's place.
        if !door.may_come(pass.tenant) {
            return Err(Refused::Banned);
        }
        let by = (BY_AUTHORITY, By::Mqtt);
        let guest = Guest::of(pass.tenant, id.text(), &known.record, &known.settings, by);
        let watch = Mutex::new(Some(door.registry.watch(pass.tenant, id.text())));
        let tenant = pass.tenant;
        let begin = door.watching(Stay::new(door, guest, pass, class));
        let attributes = known.about.attributes;
        let arrived =
            Arrived { door: door.clone(), device, class, rules, banned, attributes, watch };
        Ok(Identity {
            session: Some(id.text().clone()),
            port: Some(Arc::new(arrived) as Arc<dyn Port>),
            rules: Some(door.rules.now()),
            begin: Some(begin),
            ..Identity::of(tenant)
        })
    }
}

/// A device that was let in, before its connection takes it up.
struct Arrived {
    door: Door,
    device: Device,
    class: Class,
    rules: Rules,
    banned: Option<Ban>,
    attributes: Attributes,
    watch: Mutex<Option<Watch>>,
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrived").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Port for Arrived {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let (door, device) = (self.door.clone(), self.device.clone());
        let may = (self.class, self.rules.clone());
        let visit = Arc::new(Visit::new(door, device, may, self.banned, inbox));
        let outside = Arc::new(Outside::new(Arc::clone(&visit)));
        let below = self.door.service.connect(Arc::clone(&outside) as Arc<dyn Inbox>);
        let below = Arc::new(Mutex::new(below));
        let (desk, asked) = mpsc::channel(ASKS_MAX);
        let stop = CancellationToken::new();
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A port is taken up once.
        if let Some(watch) = watch {
            let under = Under { below: Arc::clone(&below), outside };
            let attributes = self.attributes.clone();
            let serves = Desk::new(Arc::clone(&visit), under, attributes, stop.clone());
            self.door.tasks.spawn(serves.run(asked, watch));
        }
        Box::new(LosantLink::new(visit, below, desk, stop.drop_guard()))
    }
}
