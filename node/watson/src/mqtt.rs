//! Judges a CONNECT, and puts a [`Port`] before the service's for the client that it lets in.

use std::{net::SocketAddr, sync::Arc};

use moorline_core::{
    TenantId, Text,
    op::Denial as Denied,
    port::{Inbox, Link, Port},
};
use moorline_dialects::watson::{
    close::Close,
    connect::{self, Hello, Opening, Refused, Session, Version, WillHello},
    identity::{ApiKey, ClientId, Misnamed, USE_TOKEN_AUTH, Who},
    presence::Protocol,
    topics::{Permissions, Role as GatewayRole},
};
use moorline_edge::{Attempt, Denial, Identity};
use moorline_service::Service;

use crate::{
    door::{Door, Entered},
    failed::Failed,
    gateway::Registrar,
    inbox::Shared,
    link::WatsonLink,
    managed::Manager,
    quickstart::Seat,
};

/// Watson's clients among those of an MQTT edge. Clones are the same.
#[derive(Clone)]
pub struct Mqtt {
    door: Door,
    manager: Manager,
}

impl std::fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mqtt").finish_non_exhaustive()
    }
}

/// What of a connection stands in news of it.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) tenant: TenantId,
    pub(crate) peer: SocketAddr,
    pub(crate) port: u16,
    pub(crate) secure: bool,
    pub(crate) protocol: Protocol,
    pub(crate) user: Text,
    /// What its authority calls it.
    pub(crate) certificate: Text,
    /// What its session is called.
    pub(crate) session: Text,
}

impl Mqtt {
    /// Behind this door, before this service.
    #[must_use]
    pub fn new(door: Door, service: Arc<Service>) -> Self {
        let manager = Manager { door: door.clone(), service };
        Self { door, manager }
    }

    /// Whether a client says that it is one of Watson's: by its user name, or by a client id of an organisation that there is.
    #[must_use]
    pub fn is_meant(&self, attempt: &Attempt) -> bool {
        let named = attempt.username.as_ref().is_some_and(|name| {
            name.as_str() == USE_TOKEN_AUTH || ApiKey::parse(name.as_bytes()).is_some()
        });
        let known = |client: &ClientId| self.door.knows(client);
        named || ClientId::parse(attempt.client.as_bytes()).is_ok_and(|client| known(&client))
    }

    /// Judges one.
    ///
    /// # Errors
    ///
    /// Why it may not come in.
    pub async fn judge(self, attempt: Attempt) -> Result<Identity, Denial> {
        let (level, version) = match attempt.version {
            moorline_mqtt::Version::V31 => (3, Version::V31),
            moorline_mqtt::Version::V311 => (4, Version::V311),
            moorline_mqtt::Version::V5 => (5, Version::V5),
        };
        let will = |(topic, payload_bytes): &(Text, usize)| (topic.clone(), *payload_bytes);
        let will = attempt.will.as_ref().map(will);
        let hello = Hello {
            level,
            client_id: attempt.client.as_bytes(),
            username: attempt.username.as_ref().map(Text::as_bytes),
            password: attempt.password.as_deref(),
            clean: attempt.clean_start,
            expiry_s: if version == Version::V5 { attempt.expiry_s } else { 0 },
            keep_alive_s: attempt.keep_alive_s,
            will: will.as_ref().map(|(topic, payload_bytes)| WillHello {
                topic: topic.as_bytes(),
                payload_bytes: *payload_bytes,
            }),
            sni: attempt.channel.server_name.as_ref().map(Text::as_bytes),
        };
        let denied = |refused| {
            self.failed(&attempt, version, refused);
            denial(version, refused)
        };
        let opening = connect::hello(&hello).map_err(denied)?;
        let tls = attempt.channel.tls;
        let entered = self.door.admit(&opening, &attempt.channel).await.map_err(denied)?;
        let of_standard = entered.session_of_standard(&opening.client);
        let name = of_standard.or_else(|| opening.session.name.clone());
        let Entered { tenant, certificate, may, bounds, stay, seat, .. } = entered;
        let registrar = self.registrar(tenant, &opening, bounds.role).await.map_err(denied)?;
        let fresh = || format!("{:032x}", rand::random::<u128>());
        let session = name.unwrap_or_else(|| Session::drawn(&opening.client, &fresh()));
        let rules = self.door.rules.now().of(&opening);
        let begin = self.door.watching(stay);
        let about = About {
            tenant,
            peer: attempt.peer,
            port: attempt.port,
            secure: tls,
            protocol: Protocol::Mqtt { version, websocket: attempt.websocket },
            user: attempt.username.unwrap_or_default(),
            certificate,
            session: session.clone(),
        };
        let seat = seat.map(Arc::new);
        let client = Client { mqtt: self, opening, may, about, registrar, seat };
        let port = Some(Arc::new(client) as Arc<dyn Port>);
        let (session, rules, begin) = (Some(session), Some(rules), Some(begin));
        Ok(Identity { session, port, rules, begin, ..Identity::of(tenant) })
    }
}

impl Mqtt {
    /// Who knows for whom a gateway may speak. Its will is said for somebody, too.
    async fn registrar(
        &self,
        tenant: TenantId,
        opening: &Opening,
        role: GatewayRole,
    ) -> Result<Option<Arc<Registrar>>, Refused> {
        let Who::Gateway(own) = &opening.client.who else { return Ok(None) };
        let registrar = Registrar::new(tenant, &opening.client.org, own, role);
        if let (GatewayRole::Standard, Some(will)) = (role, &opening.will) {
            let grouped = registrar.grouped(&self.door.registry, will.device()).await;
            if !grouped.map_err(|_| Denied::Unavailable)? {
                return Err(Refused::Closed(Close::Will));
            }
        }
        Ok(Some(Arc::new(registrar)))
    }

    /// A client was not let in: those who watch it hear so.
    fn failed(&self, attempt: &Attempt, version: Version, refused: Refused) {
        let (Some(close), Ok(client)) =
            (refused.told(), ClientId::parse(attempt.client.as_bytes()))
        else {
            return;
        };
        self.manager.failed(Failed {
            readings: vec![client],
            close,
            peer: attempt.peer.ip(),
            port: attempt.port,
            secure: attempt.channel.tls,
            protocol: Protocol::Mqtt { version, websocket: attempt.websocket },
            user: attempt.username.clone().unwrap_or_default(),
            is_kept: refused.is_kept(),
        });
    }
}

/// What a CONNACK says of it. MQTT 3 has "not authorised" for all that is no.
fn denial(version: Version, refused: Refused) -> Denial {
    match refused {
        Refused::Version => Denial::Version,
        Refused::ServerName => Denial::Unanswered,
        Refused::ClientId(Misnamed::UnknownClass) => Denial::NotAuthorised,
        Refused::ClientId(_) => Denial::ClientId,
        Refused::Proof(_) | Refused::Denied(Denied::WrongSecret) if version == Version::V5 => {
            Denial::BadCredentials
        }
        Refused::Denied(Denied::Stopping | Denied::Unavailable) => Denial::Unavailable,
        Refused::Denied(Denied::Plaintext) => Denial::Plaintext,
        Refused::Proof(_) | Refused::Denied(_) => Denial::NotAuthorised,
        Refused::Closed(close) if version != Version::V5 && close.connack_v3().is_none() => {
            Denial::Unanswered
        }
        Refused::Closed(_) => Denial::NotAuthorised,
    }
}

/// A client that was let in, before its connection takes it up.
struct Client {
    mqtt: Mqtt,
    opening: Opening,
    may: Permissions,
    about: About,
    registrar: Option<Arc<Registrar>>,
    seat: Option<Arc<Seat>>,
}

impl Port for Client {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let (client, version) = (self.opening.client.clone(), self.opening.version);
        let mail = self.mqtt.door.metrics.mail.clone();
        let shared = Arc::new(Shared::new(client, version, inbox, mail));
        let link = self.mqtt.manager.service.connect(Arc::clone(&shared) as Arc<dyn Inbox>);
        let (manager, opening) = (self.mqtt.manager.clone(), self.opening.clone());
        let (about, may, seat) = (self.about.clone(), self.may, self.seat.clone());
        let registrar = self.registrar.clone();
        Box::new(WatsonLink::new(manager, (opening, may, seat), registrar, about, (shared, link)))
    }
}
