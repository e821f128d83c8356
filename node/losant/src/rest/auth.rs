//! Who asks: a device that has logged in, or whoever has a token of the API.
//!
//! # Invariants
//!
//! - **A login is for a device, a key and its version**: when either is changed or deleted it counts no more, on every node. Nobody
//!   keeps any.
//! - **A device's token never does what only integrators may.**
//!
//! Checked by the cluster tests (`losant.rs`, `losant_limits.rs`) and below.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use moorline_core::{TenantId, Text, op::Denial};
use moorline_dialects::losant::{
    connect::Refused,
    id::Id,
    rest::{
        Error, Kind, Method, Resource,
        auth::{DeviceLogin, TOKEN_S, UserLogin, allows, bearer},
        route::PassKind,
    },
};
use moorline_http::{Caller, Head};
use moorline_service::registry::{
    Watch,
    audit::identified,
    door::{BY_AUTHORITY, By, Guest},
    explain::Cause,
    principal::{Principal, counted_as, kept_as},
    secrets::Secrets,
    settings::Role,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::info;

use super::{Http, Reply, of_registry};
use crate::{
    device::Device,
    door::Door,
    pass::{Known, Pass},
    stay::Stay,
};

/// What the key is for that logins are signed with.
const PURPOSE: &str = "losant rest tokens v1";
/// What tokens of the API begin with.
const API_TOKEN: &str = "mlt_";
const MS_PER_S: i64 = 1_000;

/// Signs and reads logins.
pub(super) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// What a login says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Login {
    /// The device, or what the principal is called.
    sub: String,
    tenant: u32,
    /// Of a device: its key or certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pass: Option<String>,
    /// The version of the row that let it in.
    version: u64,
    /// Of a device: the version it was made with.
    #[serde(default)]
    born: u64,
    scope: Vec<String>,
    iat: i64,
    exp: i64,
}

impl Tokens {
    pub(super) fn new(secrets: &Secrets) -> Self {
        let key = secrets.key_for(PURPOSE);
        let mut validation = Validation::new(Algorithm::HS512);
        // By the node's clock, which is an argument here.
        validation.validate_exp = false;
        Self {
            encoding: EncodingKey::from_secret(&*key),
            decoding: DecodingKey::from_secret(&*key),
            validation,
        }
    }

    fn sign(&self, login: &Login) -> String {
        encode(&Header::new(Algorithm::HS512), login, &self.encoding)
            .expect("a map with text for keys, and a key of this algorithm")
    }

    fn read(&self, token: &str, now_s: i64) -> Option<Login> {
        let read = decode::<Login>(token, &self.decoding, &self.validation).ok()?;
        Some(read.claims).filter(|login| now_s < login.exp)
    }
}

/// A device that asks.
#[derive(Debug)]
pub(super) struct OfDevice {
    pub(super) known: Known,
    pub(super) pass: Pass,
    guest: Guest,
    scopes: Vec<String>,
    /// Until when its login counts, in seconds since 1970.
    exp: i64,
}

/// Who asks.
#[derive(Debug)]
pub(super) enum Who {
    /// A device.
    Device(Box<OfDevice>),
    /// Whoever has a token of the API; and until when a login counts, in seconds since 1970.
    Integrator(Principal, Option<i64>),
}

/// What a stream depends on that goes on: that whoever has asked for it still may.
#[derive(Debug)]
pub(super) struct LetIn(Depends);

#[derive(Debug)]
enum Depends {
    /// The device that asked; and the one that it asked about, if that is another.
    Device(Box<Stay>, Option<Watch>),
    Integrator(Principal, Option<u64>, Watch),
}

impl LetIn {
    /// Returns when nothing more may be told of a device.
    pub(super) async fn until_over(&self, door: &Door, of: &Device) {
        let now_ms = || door.clock.wall().0;
        match &self.0 {
            Depends::Device(stay, None) => door.until_revoked(stay).await,
            Depends::Device(stay, Some(watch)) => {
                let other = watch.until_revoked(None, now_ms, || async {
                    let known = door.known(of.tenant, &of.id).await;
                    let known = known.map_err(|_| Denial::Unavailable)?;
                    let known = known.filter(|known| known.record.born == of.born);
                    let known = known.ok_or(Denial::UnknownDevice)?;
                    if stay.speaks_for(&known) { Ok(()) } else { Err(Denial::Disabled) }
                });
                tokio::select! {
                    () = door.until_revoked(stay) => {}
                    () = other => {}
                }
            }
            Depends::Integrator(who, until_ms, watch) => {
                let stays = || async {
                    let again =
                        door.registry.principal_again(who.tenant, who.name.as_str(), who.version);
                    match again.await {
                        Ok(Some(_)) => Ok(()),
                        Ok(None) => Err(Denial::WrongSecret),
                        Err(_) => Err(Denial::Unavailable),
                    }
                };
                // What changed before the watch began is not told.
                if stays().await.is_err_and(|denial| denial != Denial::Unavailable) {
                    return;
                }
                watch.until_revoked(*until_ms, now_ms, stays).await;
            }
        }
    }
}

fn ms(exp: i64) -> u64 {
    u64::try_from(exp.saturating_mul(MS_PER_S)).unwrap_or(0)
}

impl Who {
    pub(super) fn tenant(&self) -> TenantId {
        match self {
            Self::Device(device) => device.pass.tenant,
            Self::Integrator(principal, _) => principal.tenant,
        }
    }

    /// What its requests are counted by. No device is called as an integrator is.
    pub(super) fn name(&self) -> Text {
        match self {
            Self::Device(device) => device.known.id.text().clone(),
            Self::Integrator(principal, _) => kept_as(principal.name.as_str()),
        }
    }

    /// The device that asks, if it speaks for no other.
    pub(super) fn alone(&self) -> Option<&Known> {
        match self {
            Self::Device(device) => {
                Some(&device.known).filter(|own| !own.about.class.speaks_for_others())
            }
            Self::Integrator(..) => None,
        }
    }

    /// A device that asks, if one does.
    pub(super) fn device(&self) -> Option<&Known> {
        match self {
            Self::Device(device) => Some(&device.known),
            Self::Integrator(..) => None,
        }
    }

    /// What a stream depends on that it asks for, about a device. What changes from now on ends it.
    pub(super) fn let_in(&self, door: &Door, of: &Device) -> LetIn {
        LetIn(match self {
            Self::Device(device) => {
                let OfDevice { known, pass, guest, exp, .. } = &**device;
                let pass = Pass { until_ms: Some(ms(*exp)), ..pass.clone() };
                let stay = Stay::new(door, guest.clone(), pass, known.about.class);
                let is_other = of.id != known.id;
                let other = is_other.then(|| door.registry.watch(of.tenant, of.id.text()));
                Depends::Device(Box::new(stay), other)
            }
            Self::Integrator(principal, exp) => {
                let watch =
                    door.registry.watch(principal.tenant, &kept_as(principal.name.as_str()));
                Depends::Integrator(principal.clone(), exp.map(ms), watch)
            }
        })
    }

    /// Whether it may, as far as that is not about which device it is.
    pub(super) fn may(
        &self,
        resource: &Resource,
        method: Method,
        needs: Role,
    ) -> Result<(), Error> {
        let may = match self {
            Self::Device(device) => {
                allows(&device.scopes, resource.action(method), resource.reads(method))
            }
            Self::Integrator(principal, _) => principal.role >= needs,
        };
        if may { Ok(()) } else { Err(Kind::Forbidden.into()) }
    }

    /// Whether it may ask about this device.
    pub(super) fn may_have(&self, known: &Known) -> Result<(), Error> {
        let may = match self {
            Self::Device(device) => {
                let own = &device.known;
                let speaks = known.about.is_spoken_for_by(own.about.class, &own.id);
                known.id == own.id || known.record.enabled && speaks
            }
            Self::Integrator(..) => true,
        };
        if may { Ok(()) } else { Err(Kind::Forbidden.into()) }
    }
}

fn wrong() -> Error {
    Error::new(Kind::Unauthorized, "the credentials are wrong")
}

impl Http {
    fn now_s(&self) -> i64 {
        self.door.now_ms() / MS_PER_S
    }

    /// Judges who has not failed too often, so that nobody guesses for long.
    fn checks_ban(&self, caller: &Caller, who: &Text) -> Result<(), Error> {
        let banned = self.doors.banned(who, caller.peer.ip(), self.door.clock.wall());
        match banned {
            Some(_) => Err(Error::new(Kind::Unauthorized, "failed too often: wait a while")),
            None => Ok(()),
        }
    }

    fn failed(&self, caller: &Caller, who: &Text) -> Error {
        let from = caller.peer.ip();
        if self.doors.failed(who, from, self.door.clock.wall()) {
            info!(%from, "a client failed too often and is banned for a while");
        }
        wrong()
    }

    fn checks_tls(&self, caller: &Caller, tenant: TenantId) -> Result<(), Error> {
        let may = caller.tls() || self.door.registry.takes_plaintext(tenant);
        if may { Ok(()) } else { Err(Error::new(Kind::Unauthorized, "this application wants TLS")) }
    }

    pub(super) async fn log_in_device(&self, caller: &Caller, body: &[u8]) -> Result<Reply, Error> {
        let login = DeviceLogin::read(body)?;
        let who = login.device.text().clone();
        self.checks_ban(caller, &who)?;
        let judging = Box::pin(self.judge_device(caller, &login, &who));
        let from = caller.peer.ip();
        let (pass, known) = self
            .door
            .registry
            .remembering(from, |(cause, _)| Some(*cause), judging)
            .await
            .map_err(|(_, error)| error)?;
        self.doors.succeeded(&who, caller.peer.ip());
        caller.is_known();
        let now_s = self.now_s();
        let token = self.tokens.sign(&Login {
            sub: login.device.to_string(),
            tenant: pass.tenant.0,
            pass: Some(pass.id.to_string()),
            version: pass.version,
            born: known.record.born,
            scope: login.scopes.clone(),
            iat: now_s,
            exp: now_s.saturating_add_unsigned(login.token_s),
        });
        let access = &pass.access;
        Reply::ok(json!({
            "applicationId": pass.application.as_str(),
            "deviceId": login.device.as_str(),
            "deviceClass": known.about.class.name(),
            "token": token,
            "scopes": login.scopes,
            "restricted": !access.device_ids.is_empty() || !access.device_tags.is_empty(),
            "filterType": access.filter_type,
            "pubTopics": access.pub_topics,
            "subTopics": access.sub_topics,
        }))
    }

    /// Which key a device shows, and as which device; or why not, for who asks later and for itself.
    async fn judge_device(
        &self,
        caller: &Caller,
        login: &DeviceLogin,
        who: &Text,
    ) -> Result<(Pass, Known), (Cause, Error)> {
        let unavailable = || (Cause::AuthUnavailable, Error::from(Kind::Unavailable));
        let wrong = |cause| (cause, self.failed(caller, who));
        let pass = self.door.by_key(&login.key, login.secret.as_bytes(), Some(&login.device)).await;
        let pass = match pass {
            Ok(Some(pass)) => pass,
            Ok(None) | Err(Refused::Credentials) => return Err(wrong(Cause::WrongCredentials)),
            Err(_) => return Err(unavailable()),
        };
        let tls = self.checks_tls(caller, pass.tenant);
        tls.map_err(|error| (Cause::PlaintextForbidden, error))?;
        match self.door.device_for(&pass, &login.device).await {
            Ok(known) => Ok((pass, known)),
            Err(Refused::Unavailable) => Err(unavailable()),
            Err(_) => Err(wrong(Cause::NotAuthorised)),
        }
    }

    pub(super) async fn log_in_user(&self, caller: &Caller, body: &[u8]) -> Result<Reply, Error> {
        let login = UserLogin::read(body)?;
        let principal = self.principal(caller, &Text::from(login.email), &login.password).await?;
        let now_s = self.now_s();
        let token = self.tokens.sign(&Login {
            sub: principal.name.to_string(),
            tenant: principal.tenant.0,
            pass: None,
            version: principal.version,
            born: 0,
            scope: vec!["all.User".to_owned()],
            iat: now_s,
            exp: now_s.saturating_add_unsigned(TOKEN_S),
        });
        Reply::ok(json!({ "userId": principal.name.as_str(), "token": token }))
    }

    /// Whose token of the API this is.
    async fn principal(
        &self,
        caller: &Caller,
        who: &Text,
        token: &str,
    ) -> Result<Principal, Error> {
        self.checks_ban(caller, who)?;
        let now_ms = self.door.clock.wall().0;
        let found = self.door.registry.principal(&self.door.secrets, token, now_ms).await;
        let found = found.map_err(of_registry)?;
        let found = found.filter(|found| self.door.application(found.tenant).is_some());
        let principal = found.ok_or_else(|| self.failed(caller, who))?;
        self.checks_tls(caller, principal.tenant)?;
        self.doors.succeeded(who, caller.peer.ip());
        Ok(principal)
    }

    /// Who asks, by the header that says so.
    pub(super) async fn authorise(&self, caller: &Caller, head: &Head) -> Result<Who, Error> {
        let headers = head.headers();
        let said = headers.iter().find(|(name, _)| *name == "authorization");
        let said = said.and_then(|(_, value)| std::str::from_utf8(value).ok());
        let token = said.and_then(bearer).ok_or(Kind::Unauthorized)?;
        if token.starts_with(API_TOKEN) {
            let principal = self.principal(caller, &counted_as(token), token).await?;
            return Ok(known(caller, principal, None));
        }
        let login = self.tokens.read(token, self.now_s()).ok_or(Kind::Unauthorized)?;
        let tenant = TenantId(login.tenant);
        self.checks_tls(caller, tenant)?;
        match &login.pass {
            None => {
                let again = self.door.registry.principal_again(tenant, &login.sub, login.version);
                let principal = again.await.map_err(of_registry)?.ok_or(Kind::Unauthorized)?;
                Ok(known(caller, principal, Some(login.exp)))
            }
            Some(pass) => self.device_again(caller, &login, pass).await,
        }
    }

    /// A device that has logged in, if it might again.
    async fn device_again(&self, caller: &Caller, login: &Login, pass: &str) -> Result<Who, Error> {
        let ids = (Id::parse(login.sub.as_bytes()), Id::parse(pass.as_bytes()));
        let (Some(device), Some(pass)) = ids else { return Err(Kind::Unauthorized.into()) };
        // Keys alone log in here.
        let of = (PassKind::Key, &pass);
        let again = self.door.again(TenantId(login.tenant), of, login.version).await;
        let pass = again.map_err(of_registry)?.ok_or(Kind::Unauthorized)?;
        let known = match self.door.device_for(&pass, &device).await {
            Ok(known) if known.record.born == login.born => known,
            Err(Refused::Unavailable) => return Err(Kind::Unavailable.into()),
            Ok(_) | Err(_) => return Err(Kind::Unauthorized.into()),
        };
        caller.is_known();
        let by = (BY_AUTHORITY, By::Http);
        let guest = Guest::of(pass.tenant, device.text(), &known.record, &known.settings, by);
        self.door.registry.heard(&guest);
        let (scopes, exp) = (login.scope.clone(), login.exp);
        Ok(Who::Device(Box::new(OfDevice { known, pass, guest, scopes, exp })))
    }
}

fn known(caller: &Caller, principal: Principal, exp: Option<i64>) -> Who {
    caller.is_known();
    identified(&format!("{}/{}", principal.tenant.0, principal.name));
    Who::Integrator(principal, exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(key: u8) -> Tokens {
        Tokens::new(&Secrets::new([key; 32]))
    }

    #[test]
    fn a_login_counts_for_a_while_and_only_where_it_was_signed() {
        let login = Login {
            sub: "d".into(),
            tenant: 7,
            pass: Some("p".into()),
            version: 1 << 60,
            born: 3,
            scope: vec!["all.Device".into()],
            iat: 1_000,
            exp: 1_060,
        };
        let token = tokens(1).sign(&login);
        assert_eq!(tokens(1).read(&token, 1_059), Some(login.clone()));
        assert_eq!(tokens(1).read(&token, 1_060), None);
        assert_eq!(tokens(2).read(&token, 1_000), None);
        assert_eq!(tokens(1).read("x.y.z", 1_000), None);
    }
}
