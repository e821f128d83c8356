//! Credentials of devices: made, shown without their secrets, revoked.
//!
//! # Invariants
//!
//! - **What is generated is in one answer, and nowhere else**; what is brought is in none. `Debug` of a request prints neither.
//!   Checked by the tests below and by the cluster test `canaries.rs`.

use std::fmt;

use axum::{Json, extract::State, http::StatusCode};
use bytes::Bytes;
use moorline_core::{Text, UnixMillis};
use moorline_machine::{
    answer::Refused,
    presence::PresenceRecord,
    registry::{CREDENTIALS_MAX, Credential},
};
use moorline_service::registry::{
    RegistryError,
    credential::{
        certificate,
        kind::{HASH_BYTES, Kept, Pin, Pinned},
        make::{Secret, Unmakeable, Wanted, WantedPassword, make},
        password::Place,
    },
    secrets::Style,
    settings::{self, TenantSettings},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    devices::{changed, devices_max, found},
    extract::{Asked, At, Body},
    presence,
    tokens::OfTenant,
};

/// Why a tenant takes no passwords that somebody chose.
pub(crate) const NO_CHOSEN_PASSWORDS: &str =
    "this tenant takes generated passwords only: `chosen-passwords` in its settings";

/// What a device proves its identity with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CredentialKind {
    /// Generated; shown together with the device's name, as `DEVICE@TENANT` and password.
    #[default]
    Secret,
    /// Says by itself whose it is: an MQTT user name without a password.
    Token,
    /// A user name and a password, generated or chosen.
    Password,
    /// What an MQTT client says: client id, user name and password, each of which may be absent, but not all.
    MqttBasic,
    /// A pinned certificate, or its key.
    Certificate,
    /// A pre-shared key of TLS.
    Psk,
    /// Another name of the device, where its platform has such: nobody comes in by it alone.
    Alias,
}

/// How a generated secret looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SecretStyle {
    /// 43 letters and digits.
    #[default]
    Plain,
    /// `FOS-` and 32 capital letters and digits.
    Fostrom,
}

/// What of a certificate is pinned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PinOf {
    /// Its public key: a renewed certificate with the same key is as good.
    #[default]
    Key,
    /// All of it.
    Certificate,
}

/// A credential to be made. Fields that its kind does not have are refused.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NewCredential {
    /// Which sort.
    pub(crate) kind: CredentialKind,
    /// Of a secret: how it looks.
    pub(crate) style: Option<SecretStyle>,
    /// From when on it counts, in milliseconds since 1970.
    pub(crate) not_before_ms: Option<u64>,
    /// Until when.
    pub(crate) not_after_ms: Option<u64>,
    /// Of a token: one that exists already, of 20 to 128 letters, digits and `-_.~`. Without it a new one.
    pub(crate) token: Option<String>,
    /// Of a token: it is kept sealed, so that the API of its platform shows it again to operators.
    pub(crate) readable: Option<bool>,
    /// Of a password or `mqtt-basic`: the user name, at most 88 bytes.
    pub(crate) user: Option<String>,
    /// Of `mqtt-basic`: the client id, at most 72 bytes.
    pub(crate) client_id: Option<String>,
    /// Of a password or `mqtt-basic`: one that somebody chose, where the tenant allows it. A password without it is generated.
    pub(crate) password: Option<String>,
    /// In the place of `password`: one that another system hashed, bcrypt (`$2b$…`) with a cost of 12 at most, or SHA-512-crypt (`$6$…`)
    /// with 700,000 rounds at most.
    pub(crate) password_hash: Option<String>,
    /// Of `mqtt-basic`: a password is to be generated. Without this and `password` there is none.
    pub(crate) generate: Option<bool>,
    /// Of a certificate: it, in PEM.
    pub(crate) certificate: Option<String>,
    /// Of a certificate, in the place of `certificate`: the SHA-256 of its DER, or of that of its SubjectPublicKeyInfo, in
    /// hexadecimal digits.
    pub(crate) sha256: Option<String>,
    /// Of a certificate: what of it is pinned.
    pub(crate) pin: Option<PinOf>,
    /// Of a pre-shared key: what the client calls it; `DEVICE@TENANT` without it. One identity is one device's in the whole cluster.
    pub(crate) identity: Option<String>,
    /// Of a pre-shared key: one that exists already, in hexadecimal digits, 16 to 64 bytes. Without it a new one.
    pub(crate) key: Option<String>,
    /// Of an alias: the name, at most 240 bytes, of no other device of the tenant.
    pub(crate) alias: Option<String>,
}

/// By hand: what is secret is not printed.
impl fmt::Debug for NewCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewCredential").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A credential, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CredentialView {
    /// Its number in the device.
    id: String,
    /// Which sort: `secret`, `token`, `password`, `mqtt-basic`, `certificate`, `psk` or `alias`.
    kind: &'static str,
    /// When it was made, in milliseconds since 1970.
    created_ms: u64,
    /// From when on it counts.
    not_before_ms: Option<u64>,
    /// Until when.
    not_after_ms: Option<u64>,
    /// When a device last came in with it, to about a minute.
    last_used_ms: Option<u64>,
    /// The user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The client id.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// What of a certificate is pinned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<PinOf>,
    /// Its SHA-256, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// The identity of a pre-shared key.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    /// The other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
}

/// A credential that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeCredential {
    /// Its number in the device.
    id: String,
    /// Which sort.
    kind: CredentialKind,
    /// What was generated: a secret, a token, a password, or a key in hexadecimal digits. It is never shown again. Absent if
    /// nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// The identity of a pre-shared key.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
}

/// By hand: what is secret is not printed.
impl fmt::Debug for MadeCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeCredential").field("id", &self.id).finish_non_exhaustive()
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    let pairs = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

impl CredentialView {
    pub(crate) fn of(held: &Credential, presence: Option<&PresenceRecord>) -> Self {
        let kept = Kept::read(held.kind, &held.verifier);
        let mut view = Self {
            id: id_text(held.id),
            kind: kept.as_ref().map_or("unknown", Kept::name),
            created_ms: held.created.0,
            not_before_ms: held.not_before.map(|at| at.0),
            not_after_ms: held.not_after.map(|at| at.0),
            last_used_ms: presence.and_then(|presence| presence.used_at(held.id)).map(|at| at.0),
            user: None,
            client_id: None,
            pin: None,
            sha256: None,
            identity: None,
            alias: None,
        };
        match kept {
            None | Some(Kept::Secret(_) | Kept::Token(_)) => {}
            Some(Kept::Login(login)) => {
                view.user = login.user.map(|user| user.to_string());
                view.client_id = login.client.map(|client| client.to_string());
            }
            Some(Kept::Certificate(pin)) => {
                view.pin = Some(match pin.what {
                    Pinned::Key => PinOf::Key,
                    Pinned::Certificate => PinOf::Certificate,
                });
                view.sha256 = Some(digits(&pin.sha256));
            }
            Some(Kept::Psk(psk)) => {
                view.identity = Some(String::from_utf8_lossy(&psk.identity).into_owned());
            }
            Some(Kept::Alias(name)) => view.alias = Some(name.to_string()),
        }
        view
    }
}

/// Fields of one kind, as they are said.
const FIELDS: [(&str, &[CredentialKind]); 13] = {
    use CredentialKind as K;
    [
        ("style", &[K::Secret]),
        ("token", &[K::Token]),
        ("readable", &[K::Token]),
        ("user", &[K::Password, K::MqttBasic]),
        ("client_id", &[K::MqttBasic]),
        ("password", &[K::Password, K::MqttBasic]),
        ("password_hash", &[K::Password, K::MqttBasic]),
        ("generate", &[K::MqttBasic]),
        ("certificate", &[K::Certificate]),
        ("sha256", &[K::Certificate]),
        ("pin", &[K::Certificate]),
        ("identity", &[K::Psk]),
        ("alias", &[K::Alias]),
    ]
};

impl NewCredential {
    /// Whether a field is there, in the order of [`FIELDS`].
    fn said(&self) -> [bool; FIELDS.len()] {
        [
            self.style.is_some(),
            self.token.is_some(),
            self.readable.is_some(),
            self.user.is_some(),
            self.client_id.is_some(),
            self.password.is_some(),
            self.password_hash.is_some(),
            self.generate.is_some(),
            self.certificate.is_some(),
            self.sha256.is_some(),
            self.pin.is_some(),
            self.identity.is_some(),
            self.alias.is_some(),
        ]
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        for ((field, kinds), said) in FIELDS.iter().zip(self.said()) {
            if said && !kinds.contains(&self.kind) {
                return Err(Problem::malformed(format!("{field}: not of this kind of credential")));
            }
        }
        if self.key.is_some() && self.kind != CredentialKind::Psk {
            return Err(Problem::malformed("key: not of this kind of credential"));
        }
        if self.password.is_some() && self.password_hash.is_some() {
            return Err(Problem::malformed("password_hash: there is a password already"));
        }
        match (self.not_before_ms, self.not_after_ms) {
            (Some(from), Some(until)) if until <= from => {
                Err(Problem::malformed("not_after_ms: it would never count"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it brings a password that is hashed slowly whenever somebody shows one.
    pub(crate) fn is_slow(&self) -> bool {
        self.password.is_some() || self.password_hash.is_some()
    }

    /// What is asked for. `called`: the device's name and its tenant's.
    pub(crate) fn wanted(self, called: String) -> Result<Wanted, Problem> {
        let text = |text: Option<String>| text.map(Text::from);
        let chosen = self.password.map(|password| WantedPassword::Chosen(Secret::new(password)));
        let hashed = self.password_hash.map(|hash| WantedPassword::Hashed(Secret::new(hash)));
        let brought = chosen.or(hashed);
        Ok(match self.kind {
            CredentialKind::Secret => Wanted::Secret(match self.style.unwrap_or_default() {
                SecretStyle::Plain => Style::Plain,
                SecretStyle::Fostrom => Style::Fostrom,
            }),
            CredentialKind::Token => {
                let token = self.token.map(Secret::new);
                let readable = self.readable.unwrap_or_default();
                if readable { Wanted::ReadableToken(token) } else { Wanted::Token(token) }
            }
            CredentialKind::Password => {
                if self.user.is_none() {
                    return Err(Problem::malformed("user: a password wants a user name"));
                }
                let password = brought.unwrap_or(WantedPassword::Generated);
                Wanted::Login { client: None, user: text(self.user), password }
            }
            CredentialKind::MqttBasic => {
                let password = match (brought, self.generate.unwrap_or_default()) {
                    (Some(_), true) => {
                        return Err(Problem::malformed("generate: there is a password already"));
                    }
                    (Some(password), false) => password,
                    (None, true) => WantedPassword::Generated,
                    (None, false) => WantedPassword::None,
                };
                Wanted::Login { client: text(self.client_id), user: text(self.user), password }
            }
            CredentialKind::Certificate => {
                Wanted::Certificate(pin_of(self.pin, self.certificate.as_ref(), self.sha256)?)
            }
            CredentialKind::Psk => {
                let wrong = || Problem::malformed("key: hexadecimal digits, two a byte");
                let key = match &self.key {
                    None => None,
                    Some(key) => Some(Secret::new(bytes_of(key).ok_or_else(wrong)?)),
                };
                Wanted::Psk { identity: Bytes::from(self.identity.unwrap_or(called)), key }
            }
            CredentialKind::Alias => {
                let wrong = || Problem::malformed("alias: it wants the name");
                Wanted::Alias(text(self.alias).ok_or_else(wrong)?)
            }
        })
    }
}

/// What is pinned.
fn pin_of(
    pin: Option<PinOf>,
    certificate: Option<&String>,
    sha256: Option<String>,
) -> Result<Pin, Problem> {
    let what = match pin.unwrap_or_default() {
        PinOf::Key => Pinned::Key,
        PinOf::Certificate => Pinned::Certificate,
    };
    match (certificate, sha256) {
        (Some(pem), None) => {
            let wrong = || Problem::malformed("certificate: there is none in it, as PEM");
            let certificate =
                CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong())?;
            certificate::pin(what, &certificate).ok_or_else(wrong)
        }
        (None, Some(sha256)) => {
            let wrong = || Problem::malformed("sha256: 64 hexadecimal digits");
            let bytes = bytes_of(&sha256.replace(':', "")).ok_or_else(wrong)?;
            let sha256 = <[u8; HASH_BYTES]>::try_from(bytes).map_err(|_| wrong())?;
            Ok(Pin { what, sha256 })
        }
        (None, None) | (Some(_), Some(_)) => {
            Err(Problem::malformed("certificate or sha256: one of them says which certificate"))
        }
    }
}

impl From<Unmakeable> for Problem {
    fn from(why: Unmakeable) -> Self {
        match why {
            Unmakeable::Busy => RegistryError::Busy.into(),
            Unmakeable::Malformed(why) => Self::malformed(why),
            Unmakeable::NoHash(why) => Self::malformed(format!("password_hash: {why}")),
        }
    }
}

/// A device's credentials, without their secrets.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}/credentials",
    params(("device" = String, Path, description = "its name"), OfTenant),
    responses(
        (status = 200, description = "all of them", body = Vec<CredentialView>),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<Vec<CredentialView>>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let one = [(device.clone(), found(&api, tenant, &device).await?)];
    let presence = presence::of_devices(&api, tenant, &one).await?;
    let known = presence.first().and_then(Option::as_ref);
    let [(_, record)] = &one;
    let view = |held: &Credential| CredentialView::of(held, known);
    Ok(Json(record.credentials.iter().map(view).collect()))
}

/// Makes a credential for a device, beside those it has.
#[utoipa::path(
    post, path = "/api/v1/devices/{device}/credentials",
    params(("device" = String, Path, description = "its name"), OfTenant), request_body = NewCredential,
    responses(
        (status = 201, description = "it is made; this is the only time what was generated is shown", body = MadeCredential),
        (status = 409, description = "another device has it", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
    Body(new): Body<NewCredential>,
) -> Result<(StatusCode, Json<MadeCredential>), Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, of) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    new.check()?;
    if new.is_slow() && !settings::read::<TenantSettings>(&of.settings).chosen_passwords {
        return Err(Problem::forbidden(NO_CHOSEN_PASSWORDS));
    }
    // Before anything is hashed for it.
    found(&api, tenant, &device).await?;
    let (kind, not_before, not_after) = (new.kind, new.not_before_ms, new.not_after_ms);
    let called = format!("{device}@{}", of.name);
    let place = Place { tenant, device: &device, id: new_id() };
    let wanted = new.wanted(called)?;
    let identity = match &wanted {
        Wanted::Psk { identity, .. } => Some(String::from_utf8_lossy(identity).into_owned()),
        Wanted::Secret(_)
        | Wanted::Token(_)
        | Wanted::ReadableToken(_)
        | Wanted::Login { .. }
        | Wanted::Certificate(_)
        | Wanted::Alias(_) => None,
    };
    let made = make(&api.secrets, place, wanted, rand::random::<u8>).await?;
    let credential = Credential {
        not_before: not_before.map(UnixMillis),
        not_after: not_after.map(UnixMillis),
        ..made.credential
    };
    changed(&api, tenant, &device, devices_max(&of), None, |record| {
        let mut credentials = record.credentials.clone();
        if credentials.len() >= CREDENTIALS_MAX {
            return Err(RegistryError::Refused(Refused::TooMany).into());
        }
        // A key beside another one has the same identity, so that it can be exchanged.
        if credential.lookup.is_some()
            && kind != CredentialKind::Psk
            && credentials.iter().any(|held| held.lookup == credential.lookup)
        {
            return Err(Problem::new(StatusCode::CONFLICT, "exists", "the device has it already"));
        }
        credentials.push(credential.clone());
        Ok((record.enabled, credentials, record.settings.clone()))
    })
    .await?;
    let secret = made.shown.map(|shown| shown.as_str().to_owned());
    let made = MadeCredential { id: id_text(credential.id), kind, secret, identity };
    Ok((StatusCode::CREATED, Json(made)))
}

/// 0 stands for no credential.
fn new_id() -> u64 {
    rand::random_range(1..=u64::MAX)
}

/// Revokes a credential: it is refused everywhere from the answer on.
#[utoipa::path(
    delete, path = "/api/v1/devices/{device}/credentials/{credential}",
    params(
        ("device" = String, Path, description = "its name"),
        ("credential" = String, Path, description = "its id"), OfTenant,
    ),
    responses(
        (status = 204, description = "it is gone"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    At((name, credential)): At<(String, String)>,
    Asked(of): Asked<OfTenant>,
) -> Result<StatusCode, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, of) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let id = u64::from_str_radix(&credential, 16).map_err(|_| Problem::not_found("credential"))?;
    changed(&api, tenant, &device, devices_max(&of), None, |record| {
        let mut credentials = record.credentials.clone();
        credentials.retain(|held| held.id != id);
        if credentials.len() == record.credentials.len() {
            return Err(Problem::not_found("credential"));
        }
        Ok((record.enabled, credentials, record.settings.clone()))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(json: &str) -> Result<Wanted, Problem> {
        let new: NewCredential = serde_json::from_str(json).unwrap();
        new.check()?;
        new.wanted("pump@acme".to_owned())
    }

    #[test]
    fn each_kind_has_its_fields_and_no_others() {
        #[rustfmt::skip]
        let fits = [
            "{}", r#"{"kind":"secret","style":"fostrom"}"#,
            r#"{"kind":"token"}"#, r#"{"kind":"token","readable":true}"#, r#"{"kind":"token","token":"t"}"#,
            r#"{"kind":"password","user":"u"}"#, r#"{"kind":"password","user":"u","password":"p"}"#,
            r#"{"kind":"password","user":"u","password_hash":"h"}"#,
            r#"{"kind":"mqtt-basic","client_id":"c","password_hash":"h"}"#,
            r#"{"kind":"mqtt-basic","client_id":"c"}"#, r#"{"kind":"mqtt-basic","user":"u","generate":true}"#,
            r#"{"kind":"psk"}"#, r#"{"kind":"psk","identity":"i","key":"00ff"}"#,
        ];
        for json in fits {
            assert!(wanted(json).is_ok(), "{json}");
        }
        let fingerprint = format!(r#"{{"kind":"certificate","sha256":"{}"}}"#, "AB:".repeat(32));
        assert!(matches!(wanted(&fingerprint), Ok(Wanted::Certificate(_))));
        #[rustfmt::skip]
        let refused = [
            r#"{"token":"t"}"#, r#"{"readable":true}"#, r#"{"kind":"token","user":"u"}"#, r#"{"kind":"password","password":"p"}"#,
            r#"{"kind":"password","user":"u","client_id":"c"}"#, r#"{"kind":"secret","key":"00"}"#,
            r#"{"kind":"mqtt-basic","user":"u","password":"p","generate":true}"#,
            r#"{"kind":"mqtt-basic","user":"u","password_hash":"h","generate":true}"#,
            r#"{"kind":"password","user":"u","password":"p","password_hash":"h"}"#,
            r#"{"kind":"token","password_hash":"h"}"#,
            r#"{"kind":"certificate"}"#, r#"{"kind":"certificate","certificate":"x"}"#,
            r#"{"kind":"certificate","sha256":"ab"}"#, r#"{"kind":"psk","key":"0"}"#, r#"{"kind":"psk","key":"é0"}"#,
            r#"{"not_before_ms":2,"not_after_ms":2}"#,
        ];
        for json in refused {
            assert!(wanted(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_request_is_printed_without_what_is_secret() {
        let new: NewCredential =
            serde_json::from_str(r#"{"kind":"password","user":"u","password":"canary"}"#).unwrap();
        assert!(!format!("{new:?}").contains("canary"));
    }
}
