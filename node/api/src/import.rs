//! Devices by the thousand: lines of JSON in, a line of result for each out, while both last.
//!
//! ```text
//!   body ──► Lines ──► at most WINDOW devices at once, over all shards ──► results, in the order of the lines
//! ```
//!
//! A client that takes no results is sent nothing more, and then no more of its body is read.
//!
//! # Invariants
//!
//! - **The same file again changes nothing**: what is there as its line says it is `unchanged`. So whoever was cut off sends the
//!   whole file again. Checked by the cluster tests (`bulk.rs`).
//! - **A line that is wrong harms no other.**
//! - **A secret is in the answer only if this import generated it**, and then only once.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    extract::State,
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesOrdered};
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_machine::{
    answer::Refused,
    registry::{CREDENTIALS_MAX, Credential, DeviceRecord, PutDevice},
};
use moorline_service::registry::{
    RegistryError,
    audit::{self, Actor, as_actor},
    credential::{
        make::{self, Unmakeable},
        password::Place,
    },
    secrets::{Style, is_strong},
    settings::{self, DeviceSettings, TenantSettings},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    Api, Problem, SECRET,
    auth::{Caller, Role},
    credentials::{CredentialKind, NO_CHOSEN_PASSWORDS, NewCredential, PinOf, SecretStyle},
    devices::{device_name, devices_max, yes},
    extract::Asked,
    lines::{self, Line, Lines, PIECE_BYTES, Source},
};

/// Devices that are written at once: some entries of the log for each of a dozen shards.
const WINDOW: usize = 2_048;
/// Imports at once on a node: more would share the same shards.
pub(crate) const IMPORTS_MAX: usize = 4;
/// How long a client may send nothing while nothing is under way.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often a line is tried again while its shard is busy or has no leader, and the pause before: 15 s, longer than an election.
const TRIES_MAX: usize = 75;
/// See there.
const TRY_PAUSE: Duration = Duration::from_millis(200);
/// What is wrong with a credential that is several.
const ONE_SORT: &str = "a credential is one of: `secret`, `generate`, `token`, a login (`user`, `client_id`, `password` or `password_hash`), a `certificate`, a pre-shared key (`identity` and `key`), an `alias`";

/// A line of an import.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportLine {
    /// Unique in its tenant.
    #[schema(example = "pump-1")]
    name: String,
    /// Whether it may connect.
    #[serde(default = "yes")]
    enabled: bool,
    /// What it is, and its limits.
    #[serde(default)]
    settings: DeviceSettings,
    /// To be added to those it has.
    #[serde(default)]
    credentials: Vec<ImportCredential>,
}

/// A credential of a line: a secret or a token it has already, a login, a certificate, a pre-shared key, or one to be generated.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ImportCredential {
    /// A secret the device has already, of at least 104 bits: 18 letters and digits, or 26 hexadecimal digits.
    secret: Option<String>,
    /// In its place: generate one of this style, for a device that is new.
    generate: Option<SecretStyle>,
    /// In its place: a token the device has already, of 20 to 128 letters, digits and `-_.~`.
    token: Option<String>,
    /// Of a token: as of a new credential.
    readable: Option<bool>,
    /// Of a login: the user name, at most 88 bytes.
    user: Option<String>,
    /// Of a login: the client id, at most 72 bytes.
    client_id: Option<String>,
    /// Of a login: the password, where the tenant allows chosen ones.
    password: Option<String>,
    /// Of a login: a password that another system hashed, as of a new credential.
    password_hash: Option<String>,
    /// Of a pre-shared key: what the client calls it.
    identity: Option<String>,
    /// Of a pre-shared key: 16 to 64 bytes, in hexadecimal digits.
    key: Option<String>,
    /// A certificate, in PEM.
    certificate: Option<String>,
    /// Or its SHA-256, as of a new credential.
    sha256: Option<String>,
    /// What of a certificate is pinned.
    pin: Option<PinOf>,
    /// Another name of the device, as of a new credential.
    alias: Option<String>,
    /// From when on it counts, in milliseconds since 1970.
    not_before_ms: Option<u64>,
    /// Until when.
    not_after_ms: Option<u64>,
}

/// By hand: what is secret is not printed.
impl fmt::Debug for ImportCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImportCredential(…)")
    }
}

/// What a credential of a line is.
enum Sort {
    Secret(String),
    Generated(SecretStyle),
    Brought(Box<NewCredential>),
}

impl ImportCredential {
    /// Which sort it is: exactly one.
    fn asked(&self) -> Result<Sort, Problem> {
        let password = self.password.is_some() || self.password_hash.is_some();
        let login = self.user.is_some() || self.client_id.is_some() || password;
        let certificate = self.certificate.is_some() || self.sha256.is_some() || self.pin.is_some();
        let psk = self.identity.is_some() || self.key.is_some();
        let kind = match (self.token.is_some(), login, certificate, psk, self.alias.is_some()) {
            (false, false, false, false, false) => None,
            (true, false, false, false, false) => Some(CredentialKind::Token),
            (false, true, false, false, false) => Some(CredentialKind::MqttBasic),
            (false, false, true, false, false) => Some(CredentialKind::Certificate),
            (false, false, false, true, false) if self.identity.is_some() && self.key.is_some() => {
                Some(CredentialKind::Psk)
            }
            (false, false, false, false, true) => Some(CredentialKind::Alias),
            _ => return Err(Problem::malformed(ONE_SORT)),
        };
        if self.readable.is_some() && kind != Some(CredentialKind::Token) {
            return Err(Problem::malformed(ONE_SORT));
        }
        match (self.secret.clone(), self.generate, kind) {
            (Some(secret), None, None) => Ok(Sort::Secret(secret)),
            (None, style, None) => Ok(Sort::Generated(style.unwrap_or_default())),
            (None, None, Some(kind)) => {
                let Self {
                    token,
                    readable,
                    user,
                    client_id,
                    password,
                    password_hash,
                    identity,
                    key,
                    certificate,
                    sha256,
                    pin,
                    alias,
                    ..
                } = self.clone();
                let new = NewCredential {
                    kind,
                    token,
                    readable,
                    user,
                    client_id,
                    password,
                    password_hash,
                    identity,
                    key,
                    certificate,
                    sha256,
                    pin,
                    alias,
                    ..NewCredential::default()
                };
                new.check()?;
                Ok(Sort::Brought(Box::new(new)))
            }
            _ => Err(Problem::malformed(ONE_SORT)),
        }
    }
}

/// What became of a line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportResult {
    /// Its number, from 1.
    line: u64,
    /// The device, if the line named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// `created`, `updated`, `unchanged` or `failed`.
    result: &'static str,
    /// If it failed: which problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// If it failed: what, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The secrets that were generated: they are never shown again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<String>,
}

/// How to import.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct How {
    /// A tenant's name; not needed with a token of that tenant.
    tenant: Option<String>,
    /// Change devices that are there and differ; otherwise such lines fail.
    #[serde(default)]
    update: bool,
}

/// Makes devices, one for each line: newline-delimited JSON in and out, results in the order of the lines. The same body again
/// goes on where it was cut off: what is there already is `unchanged`.
#[utoipa::path(
    post, path = "/api/v1/devices/import", params(How),
    request_body(content = ImportLine, content_type = "application/x-ndjson", description = "a device each line"),
    responses(
        (status = 200, description = "a result each line", body = ImportResult, content_type = "application/x-ndjson"),
        (status = 503, description = "too many imports at this node", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn import(
    State(api): State<Api>,
    caller: Caller,
    Asked(how): Asked<How>,
    body: Body,
) -> Result<Response, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, record) = caller.tenant(&api, how.tenant.as_deref()).await?;
    let Ok(permit) = Arc::clone(&api.imports.0).try_acquire_owned() else {
        let detail = "as many imports are under way at this node as may: ask another node";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-imports", detail));
    };
    let (devices_max, actor) = (devices_max(&record), audit::current());
    let chosen_passwords = settings::read::<TenantSettings>(&record.settings).chosen_passwords;
    let plan = Plan { api, tenant, devices_max, chosen_passwords, update: how.update, actor };
    Ok(lines::answer(Import {
        plan: Arc::new(plan),
        body: Some(body.into_data_stream()),
        lines: Lines::default(),
        line: 0,
        running: FuturesOrdered::new(),
        _permit: permit,
    }))
}

/// How many imports may begin. Clones are the same.
#[derive(Debug, Clone)]
pub struct Imports(Arc<Semaphore>);

impl Default for Imports {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(IMPORTS_MAX)))
    }
}

/// What holds for all lines.
#[derive(Debug)]
struct Plan {
    api: Api,
    tenant: TenantId,
    devices_max: u32,
    chosen_passwords: bool,
    update: bool,
    /// Who asked: lines are worked on when the handler has returned.
    actor: Option<Actor>,
}

type Running = Pin<Box<dyn Future<Output = ImportResult> + Send>>;

/// See the module.
struct Import {
    plan: Arc<Plan>,
    /// Until its end.
    body: Option<BodyDataStream>,
    lines: Lines,
    line: u64,
    running: FuturesOrdered<Running>,
    _permit: OwnedSemaphorePermit,
}

impl Import {
    /// Begins as many lines as may be under way.
    fn begin_lines(&mut self) {
        while self.running.len() < WINDOW {
            let Some(line) = self.lines.next(self.body.is_none()) else { return };
            self.line += 1;
            let (plan, number) = (Arc::clone(&self.plan), self.line);
            match line {
                Line::Whole(text) if text.trim_ascii().is_empty() => {}
                Line::Whole(text) => {
                    let actor = plan.actor.clone();
                    let worked_on = async move { plan.one(number, &text).await };
                    self.running.push_back(Box::pin(as_actor(actor, worked_on)));
                }
                Line::TooLong => {
                    let problem = Problem::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "too-large",
                        "a line has at most 64 KiB",
                    );
                    let failed = failed(number, None, problem);
                    self.running.push_back(Box::pin(std::future::ready(failed)));
                }
            }
        }
    }

    /// Reads more of the body, or ends it. Cancel-safe, as a stream's `next` is.
    async fn read(body: &mut Option<BodyDataStream>) -> Option<Bytes> {
        match body {
            Some(stream) => stream.next().await.and_then(Result::ok),
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, piece: Option<Bytes>) {
        match piece {
            Some(piece) => self.lines.push(&piece),
            None => self.body = None,
        }
    }
}

impl Source for Import {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            self.begin_lines();
            if self.running.is_empty() {
                self.body.as_ref()?;
                let Ok(piece) = timeout(SILENCE_MAX, Self::read(&mut self.body)).await else {
                    self.body = None;
                    let problem = Problem::new(
                        StatusCode::REQUEST_TIMEOUT,
                        "timeout",
                        "nothing came for 30 s",
                    );
                    let mut out = Vec::new();
                    lines::write(&mut out, &failed(self.line + 1, None, problem));
                    return Some(out);
                };
                self.take(piece);
                continue;
            }
            let room = self.running.len() < WINDOW;
            tokio::select! {
                Some(done) = self.running.next() => {
                    let mut out = Vec::new();
                    lines::write(&mut out, &done);
                    while out.len() < PIECE_BYTES
                        && let Some(Some(done)) = self.running.next().now_or_never()
                    {
                        lines::write(&mut out, &done);
                    }
                    return Some(out);
                }
                piece = Self::read(&mut self.body), if room => self.take(piece),
            }
        }
    }
}

fn failed(line: u64, name: Option<String>, problem: Problem) -> ImportResult {
    let (code, detail) = problem.into_parts();
    let (code, detail) = (Some(code), Some(detail));
    ImportResult { line, name, result: "failed", code, detail, secrets: Vec::new() }
}

/// What a line asks for, checked.
struct Wanted {
    device: Text,
    enabled: bool,
    settings: Bytes,
    credentials: Vec<Credential>,
    /// Of those, which were generated now.
    generated: Vec<u64>,
}

impl Wanted {
    /// Whether a device is as it was asked for: generated credentials are for new ones only.
    fn is_met_by(&self, record: &DeviceRecord) -> bool {
        record.enabled == self.enabled
            && settings::read::<DeviceSettings>(&record.settings)
                == settings::read::<DeviceSettings>(&self.settings)
            && self.given().all(|wanted| record.credentials.iter().any(|held| same(held, wanted)))
    }

    fn given(&self) -> impl Iterator<Item = &Credential> {
        self.credentials.iter().filter(|wanted| !self.generated.contains(&wanted.id))
    }

    /// Whether this line made it, and only the answer got lost.
    fn made(&self, record: &DeviceRecord) -> bool {
        let held = |id: &u64| record.credentials.iter().any(|held| held.id == *id);
        !self.generated.is_empty() && self.generated.iter().all(held)
    }
}

fn same(held: &Credential, wanted: &Credential) -> bool {
    (held.id, held.not_before, held.not_after) == (wanted.id, wanted.not_before, wanted.not_after)
        && held.verifier == wanted.verifier
}

impl Plan {
    async fn one(&self, line: u64, text: &[u8]) -> ImportResult {
        let asked: ImportLine = match serde_json::from_slice(text) {
            Ok(asked) => asked,
            Err(error) => return failed(line, None, Problem::malformed(error.to_string())),
        };
        let name = Some(asked.name.clone());
        let mut made = None;
        for tried in 1.. {
            match self.attempt(&asked, &mut made).await {
                Ok(result) => {
                    let secrets = made.map(|(_, secrets)| secrets).unwrap_or_default();
                    let secrets = if result == "created" { secrets } else { Vec::new() };
                    return ImportResult { line, name, result, code: None, detail: None, secrets };
                }
                Err(Failed::ForNow(_)) if tried < TRIES_MAX => sleep(TRY_PAUSE).await,
                Err(Failed::ForNow(problem) | Failed::ForGood(problem)) => {
                    return failed(line, name, problem);
                }
            }
        }
        unreachable!("the last try returns")
    }

    /// What a line asks for is made once, since it holds what was generated.
    async fn attempt(
        &self,
        asked: &ImportLine,
        made: &mut Option<(Wanted, Vec<String>)>,
    ) -> Result<&'static str, Failed> {
        let (wanted, _) = match made {
            Some(made) => made,
            None => made.insert(self.wanted(asked).await?),
        };
        self.put(wanted).await
    }

    async fn put(&self, wanted: &Wanted) -> Result<&'static str, Failed> {
        let (tenant, device) = (self.tenant, wanted.device.clone());
        let put = PutDevice {
            tenant,
            device: device.clone(),
            enabled: wanted.enabled,
            credentials: wanted.credentials.clone(),
            settings: wanted.settings.clone(),
            if_version: Some(0),
            devices_max: self.devices_max,
        };
        let registry = &self.api.registry;
        let plain = wanted.credentials.iter().all(|held| held.lookup.is_none());
        let done = match plain {
            true => registry.put_device_plainly(put.clone()).await,
            false => registry.put_device(put.clone()).await,
        };
        match done {
            Ok(_) => return Ok("created"),
            Err(RegistryError::Refused(Refused::Exists)) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(record) = registry.device(tenant, &device).await? else {
            return Err(RegistryError::Busy.into());
        };
        if wanted.made(&record) {
            return Ok("created");
        }
        if wanted.is_met_by(&record) {
            registry.lead_to(tenant, &device, &record).await?;
            return Ok("unchanged");
        }
        if !self.update {
            let detail = "it exists and differs from this line; with ?update=true it is changed";
            let problem = Problem::new(StatusCode::CONFLICT, "exists", detail);
            return Err(Failed::ForGood(problem));
        }
        let mut credentials = record.credentials.clone();
        for given in wanted.given() {
            credentials.retain(|held| held.id != given.id);
            credentials.push(given.clone());
        }
        if credentials.len() > CREDENTIALS_MAX {
            return Err(RegistryError::Refused(Refused::TooMany).into());
        }
        let if_version = Some(record.version);
        registry.put_device(PutDevice { credentials, if_version, ..put }).await?;
        Ok("updated")
    }

    async fn wanted(&self, line: &ImportLine) -> Result<(Wanted, Vec<String>), Failed> {
        let device = device_name(&line.name)?;
        if line.credentials.len() > CREDENTIALS_MAX {
            return Err(Problem::malformed("a device has at most 8 credentials").into());
        }
        let (mut credentials, mut generated, mut secrets) = (Vec::new(), Vec::new(), Vec::new());
        for (at, wanted) in line.credentials.iter().enumerate() {
            // Which of the keys of one identity it is: each has an id of its own.
            let same = |other: &&ImportCredential| {
                wanted.identity.is_some() && other.identity == wanted.identity
            };
            let nth = line.credentials[..at].iter().filter(same).count();
            let (not_before, not_after) = (wanted.not_before_ms, wanted.not_after_ms);
            let credential = match wanted.asked()? {
                Sort::Secret(secret) => self.given(&device, &secret)?,
                Sort::Brought(new) => self.brought(&device, *new, nth).await?,
                Sort::Generated(style) => {
                    let style = match style {
                        SecretStyle::Plain => Style::Plain,
                        SecretStyle::Fostrom => Style::Fostrom,
                    };
                    let (secret, credential) = self.api.new_secret(self.tenant, &device, style);
                    generated.push(credential.id);
                    secrets.push(secret);
                    credential
                }
            };
            credentials.push(Credential {
                not_before: not_before.map(UnixMillis),
                not_after: not_after.map(UnixMillis),
                ..credential
            });
        }
        let settings = settings::written(&line.settings);
        let wanted = Wanted { device, enabled: line.enabled, settings, credentials, generated };
        Ok((wanted, secrets))
    }

    /// A token, a login, a certificate, a pre-shared key or an alias. Its id follows from what it is found by: a changed password is that of the same login.
    async fn brought(
        &self,
        device: &Text,
        new: NewCredential,
        nth: usize,
    ) -> Result<Credential, Failed> {
        if new.is_slow() && !self.chosen_passwords {
            return Err(Problem::forbidden(NO_CHOSEN_PASSWORDS).into());
        }
        let wanted = new.wanted(String::new())?;
        let known = match &wanted {
            make::Wanted::Token(Some(token)) | make::Wanted::ReadableToken(Some(token)) => {
                token.0.to_vec()
            }
            make::Wanted::Certificate(pin) => pin.sha256.to_vec(),
            make::Wanted::Login { client, user, .. } => {
                serde_json::to_vec(&[client, user].map(|text| text.as_ref().map(Text::as_str)))
                    .expect("texts")
            }
            make::Wanted::Psk { identity, key: Some(_) } if nth == 0 => identity.to_vec(),
            // No identity has a zero in it.
            make::Wanted::Psk { identity, key: Some(_) } => {
                [identity, &b"\0"[..], nth.to_string().as_bytes()].concat()
            }
            // Not that of a key of which it is the identity.
            make::Wanted::Alias(name) => [&b"alias "[..], name.as_bytes()].concat(),
            make::Wanted::Token(None)
            | make::Wanted::ReadableToken(None)
            | make::Wanted::Secret(_)
            | make::Wanted::Psk { key: None, .. } => {
                return Err(Problem::malformed(ONE_SORT).into());
            }
        };
        let id = self.id_of(device, &known);
        let place = Place { tenant: self.tenant, device, id };
        match make::make(&self.api.secrets, place, wanted, rand::random::<u8>).await {
            Ok(made) => Ok(made.credential),
            Err(why @ Unmakeable::Busy) => Err(Failed::ForNow(why.into())),
            Err(why @ (Unmakeable::Malformed(_) | Unmakeable::NoHash(_))) => {
                Err(Failed::ForGood(why.into()))
            }
        }
    }

    /// The same line again means the same credential.
    fn id_of(&self, device: &Text, known: &[u8]) -> u64 {
        let digest = self.api.secrets.verifier(self.tenant, device, 0, known);
        u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
    }

    /// Its id follows from the secret.
    fn given(&self, device: &Text, secret: &str) -> Result<Credential, Problem> {
        if !is_strong(secret) {
            let why = "a secret needs 104 bits, such as 18 random letters and digits, and at most 256 bytes; or say \
                       `generate`";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "weak-secret", why));
        }
        let secrets = &self.api.secrets;
        let id = self.id_of(device, secret.as_bytes());
        let verifier = secrets.verifier(self.tenant, device, id, secret.as_bytes());
        Ok(Credential {
            id,
            kind: SECRET,
            lookup: None,
            verifier: verifier.to_vec().into(),
            not_before: None,
            not_after: None,
            created: UnixMillis(0),
        })
    }
}

/// Why a line was not done.
enum Failed {
    ForNow(Problem),
    ForGood(Problem),
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::ForGood(problem)
    }
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        let for_now = match &error {
            RegistryError::Busy | RegistryError::Unavailable => true,
            RegistryError::Refused(refused) => matches!(refused, Refused::VersionMismatch { .. }),
            RegistryError::Taken(_)
            | RegistryError::Mail(_)
            | RegistryError::Events(_)
            | RegistryError::Values(_)
            | RegistryError::Calls(_)
            | RegistryError::Documents(_)
            | RegistryError::TooManyReaders
            | RegistryError::DiskFull => false,
        };
        if for_now { Self::ForNow(error.into()) } else { Self::ForGood(error.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_it_knows_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<ImportLine>(text).is_ok();
        assert!(read(r#"{"name":"a"}"#));
        assert!(read(r#"{"name":"a","credentials":[{"generate":"fostrom"},{"secret":"s"}]}"#));
        assert!(!read(r#"{"name":"a","version":7}"#));
        assert!(read(
            r#"{"name":"a","credentials":[{"token":"t"},{"user":"u"},{"certificate":"c","pin":"key"}]}"#
        ));
        assert!(!read(r#"{"name":"a","name":"b"}"#));
    }

    #[test]
    fn a_credential_is_of_one_sort() {
        let sort = |text: &str| {
            let credential: ImportCredential = serde_json::from_str(text).unwrap();
            credential.asked().is_ok()
        };
        for one in [
            "{}",
            r#"{"secret":"s"}"#,
            r#"{"generate":"plain"}"#,
            r#"{"token":"t"}"#,
            r#"{"token":"t","readable":true}"#,
            r#"{"client_id":"c"}"#,
            r#"{"user":"u","password":"p"}"#,
            r#"{"user":"u","password_hash":"h"}"#,
            r#"{"sha256":"00","pin":"certificate"}"#,
        ] {
            assert!(sort(one), "{one}");
        }
        for several in [
            r#"{"secret":"s","generate":"plain"}"#,
            r#"{"secret":"s","token":"t"}"#,
            r#"{"secret":"s","readable":true}"#,
            r#"{"token":"t","user":"u"}"#,
            r#"{"generate":"plain","certificate":"c"}"#,
        ] {
            assert!(!sort(several), "{several}");
        }
        let secret: ImportCredential = serde_json::from_str(r#"{"token":"canary"}"#).unwrap();
        assert!(!format!("{secret:?}").contains("canary"));
    }
}
