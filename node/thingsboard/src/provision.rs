//! Devices that ask for credentials: whoever shows a profile's key and secret gets those of a device.
//!
//! ```text
//!   key ─► lookup ─► a row "~:thingsboard/profile/ID" of its tenant: which profile ─► its document: is that its key, and its secret?
//!       ─► strategy, device ─► credentials, then what the device was told
//! ```
//!
//! The row is a hint, as all lookups are: the profile's document says what counts.
//!
//! # Invariants
//!
//! - **Whoever shows a wrong key or secret is counted** as one who shows a wrong token, and heard no more after the same number of
//!   failures.
//! - **Credentials are there before they are told**, and a device that was made in advance is noted as one that has asked behind them:
//!   one that was cut off asks again.
//! - **A key is one profile's** in the whole cluster, and the one that a profile's document says leads there, whoever writes it at the same
//!   time and whichever node dies meanwhile: a new key leads there beside the old one before it counts, and the old one goes afterwards.
//!
//! Checked by the cluster tests (`thingsboard_profiles.rs`).

use std::net::IpAddr;

use moorline_core::{AttributeScope, TenantId, Text, UnixMillis, Value};
use moorline_dialects::thingsboard::{
    credentials::Credentials,
    provision::{
        Answer, Existing, NAME_CHARS, Request, STATE_ATTRIBUTE, STATE_PROVISIONED, Step, Strategy,
        step,
    },
    rest::ids,
};
use moorline_edge::Doorkeeper;
use moorline_machine::{
    answer::Refused,
    registry::{
        Credential, DEVICE_NAME_BYTES_MAX, DeleteDevice, DeviceRecord, LookupHash, PutDevice,
    },
};
use moorline_service::registry::{
    AttributeWrite, RegistryError,
    audit::{Actor, as_actor, identified},
    credential::{
        kind::{CERTIFICATE, Kept, LOGIN, TOKEN, Token},
        make::{Wanted, read_again},
        password::Place,
    },
    principal::is_principal,
    settings::{self, Class, DeviceSettings},
};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    door::Door,
    marks,
    profiles::{Keys, Known},
};

/// What a row of a key is called in front of its profile's id. No device, token or key of Moorline's own has such a name.
const ROW: &str = "~:thingsboard/profile/";
/// What is looked up: nobody finds it by showing it as a token.
const LOOKUP: &str = "thingsboard provisioning key v1";
/// Keys that lead to one profile at once: more than one only while it is written, or when a node died then.
const LEADS_MAX: usize = 4;
/// How often a row is written again after somebody else's write came between.
const TRIES_MAX: usize = 5;
/// Characters of keys, secrets and names that are made.
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Settings of a key's row.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Leads {
    thingsboard_profile: String,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) from: IpAddr,
    pub(crate) tls: bool,
}

/// Random letters and digits, as names, keys and secrets are made of.
pub(crate) fn letters() -> String {
    (0..NAME_CHARS).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}

fn row_of(tenant: TenantId, profile: &str) -> Text {
    Text::from(format!("{ROW}{}", ids::of_named(tenant, profile)))
}

impl Door {
    fn lookup(&self, key: &str) -> LookupHash {
        self.secrets.lookup(LOOKUP, key.as_bytes())
    }

    /// Has a key lead to a profile, beside those that do: what its document says counts, whichever keys lead there. `Taken` if it is
    /// another profile's.
    pub(crate) async fn lead(
        &self,
        tenant: TenantId,
        profile: &str,
        key: &str,
    ) -> Result<(), RegistryError> {
        let row = row_of(tenant, profile);
        for _ in 0..TRIES_MAX {
            let there = self.registry.device(tenant, &row).await?;
            if let Some(record) = there.as_ref().filter(|record| self.leads(record, key).is_some())
            {
                // Whoever wrote the row may have been cut off before its lookup.
                return self.registry.lead_to(tenant, &row, record).await;
            }
            let held = there.iter().flat_map(|record| record.credentials.iter().cloned());
            let new = self.leading(tenant, &row, key);
            let all = std::iter::once(new).chain(held).take(LEADS_MAX).collect();
            if self.put_leads(tenant, profile, there.as_ref(), all).await? {
                return Ok(());
            }
        }
        Err(RegistryError::Busy)
    }

    /// Has no key lead to a profile but the one that its document says.
    pub(crate) async fn lead_as_written(
        &self,
        tenant: TenantId,
        profile: &str,
    ) -> Result<(), RegistryError> {
        let row = row_of(tenant, profile);
        for _ in 0..TRIES_MAX {
            // The row before the document: who writes a profile changes the row first, and this is not written then.
            let there = self.registry.device(tenant, &row).await?;
            let keys = self.profile_now(tenant, profile).await?.keys;
            let Some(key) = keys.map(|keys| keys.key) else {
                let Some(there) = there else { return Ok(()) };
                let if_version = Some(there.version);
                let delete = DeleteDevice { tenant, device: row.clone(), if_version };
                match self.registry.delete_device(delete).await {
                    Err(RegistryError::Refused(Refused::VersionMismatch { .. })) => continue,
                    Err(RegistryError::Refused(Refused::NotFound)) => return Ok(()),
                    done => return done,
                }
            };
            let held = there.as_ref().and_then(|record| self.leads(record, &key).cloned());
            if held.is_some() && there.as_ref().is_some_and(|record| record.credentials.len() == 1)
            {
                return Ok(());
            }
            let all = vec![held.unwrap_or_else(|| self.leading(tenant, &row, &key))];
            if self.put_leads(tenant, profile, there.as_ref(), all).await? {
                return Ok(());
            }
        }
        Err(RegistryError::Busy)
    }

    /// What of a row leads there by a key.
    fn leads<'a>(&self, record: &'a DeviceRecord, key: &str) -> Option<&'a Credential> {
        let hash = self.lookup(key);
        record.credentials.iter().find(|held| held.lookup == Some(hash))
    }

    /// What leads to a row by a key.
    fn leading(&self, tenant: TenantId, row: &Text, key: &str) -> Credential {
        let id = rand::random_range(1..=u64::MAX);
        let hash = self.secrets.verifier(tenant, row, id, key.as_bytes());
        let kept = Kept::Token(Token { hash, sealed: bytes::Bytes::new() });
        Credential {
            id,
            kind: kept.kind(),
            lookup: Some(self.lookup(key)),
            verifier: kept.to_bytes(),
            not_before: None,
            not_after: None,
            created: UnixMillis(0),
        }
    }

    /// Writes a row in the place of what was read; false if somebody else's write came between.
    async fn put_leads(
        &self,
        tenant: TenantId,
        profile: &str,
        there: Option<&DeviceRecord>,
        credentials: Vec<Credential>,
    ) -> Result<bool, RegistryError> {
        let leads = Leads { thingsboard_profile: profile.to_owned() };
        let put = PutDevice {
            tenant,
            device: row_of(tenant, profile),
            enabled: true,
            credentials,
            settings: settings::written(&leads),
            if_version: Some(there.map_or(0, |there| there.version)),
            devices_max: self.registry.settings(tenant).devices_per_shard_max,
        };
        match self.registry.put_device(put).await {
            Err(RegistryError::Refused(Refused::VersionMismatch { .. } | Refused::Exists)) => {
                Ok(false)
            }
            put => put.map(|_| true),
        }
    }

    /// What becomes of a request.
    pub(crate) async fn provision(
        &self,
        doors: &Doorkeeper,
        asker: Asker,
        request: &Request,
    ) -> Answer {
        let (key, from, now) = (Text::from(request.key.as_str()), asker.from, self.clock.wall());
        if doors.banned(&key, from, now).is_some() {
            return self.counted(Answer::NotFound);
        }
        let answer = match self.asked_of(asker, request).await {
            Ok(Some((tenant, known))) => {
                doors.succeeded(&key, from);
                self.provision_for(tenant, &known, asker, request).await
            }
            Ok(None) => {
                if doors.failed(&key, from, now) {
                    // Not which key: it may be somebody's.
                    info!(%from, "a client asked for credentials with wrong keys too often and is banned for a while");
                }
                Ok(Answer::NotFound)
            }
            Err(error) => Err(error),
        };
        self.counted(answer.unwrap_or_else(|error| {
            info!(%from, %error, "credentials were asked for, and could not be given");
            Answer::Failure
        }))
    }

    fn counted(&self, answer: Answer) -> Answer {
        let result = match answer {
            Answer::Success(_) => "success",
            Answer::NotFound => "not_found",
            Answer::Failure => "failure",
        };
        self.metrics.provisions.with_label_values(&[result]).inc();
        answer
    }

    /// The profile whose key and secret these are.
    async fn asked_of(
        &self,
        asker: Asker,
        request: &Request,
    ) -> Result<Option<(TenantId, Known)>, RegistryError> {
        let proves = |Keys { key, secret }: &Keys| request.proves(key, secret);
        let led = self.led_to(asker, &request.key).await?;
        Ok(led.filter(|(_, known)| known.keys.as_ref().is_some_and(proves)))
    }

    /// The profile that a key leads to. Whether it is its key is not known yet.
    pub(crate) async fn led_to(
        &self,
        asker: Asker,
        key: &str,
    ) -> Result<Option<(TenantId, Known)>, RegistryError> {
        let Some(found) = self.registry.find(self.lookup(key)).await? else { return Ok(None) };
        let tenant = found.tenant;
        let enabled = self.registry.tenant(tenant).is_some_and(|tenant| tenant.enabled);
        let secure = asker.tls || self.registry.takes_plaintext(tenant);
        if !enabled || !secure || !self.takes(tenant) {
            return Ok(None);
        }
        let Leads { thingsboard_profile: name } = settings::read(&found.record.settings);
        Ok(Some((tenant, self.profile_now(tenant, &name).await?)))
    }

    async fn provision_for(
        &self,
        tenant: TenantId,
        known: &Known,
        asker: Asker,
        request: &Request,
    ) -> Result<Answer, RegistryError> {
        let name = request.device_name.clone().unwrap_or_else(letters);
        let device = Text::from(name);
        let wrong = device.as_str().chars().any(char::is_control) || is_principal(&device);
        if wrong || device.len() > DEVICE_NAME_BYTES_MAX {
            return Ok(Answer::Failure);
        }
        let record = self.registry.device(tenant, &device).await?;
        let existing = match &record {
            None => Existing::Nothing,
            Some(record) => {
                let settings: DeviceSettings = settings::read(&record.settings);
                if marks::kind(&settings) != known.profile.name
                    && known.strategy() != Strategy::Disabled
                {
                    // It is another profile's.
                    return Ok(Answer::Failure);
                }
                self.state_of(tenant, &device).await?
            }
        };
        match step(known.strategy(), existing) {
            Step::NotFound => Ok(Answer::NotFound),
            Step::Fail => Ok(Answer::Failure),
            Step::Create => {
                let profile = known.profile.name.clone();
                let address = asker.from.to_canonical().to_string();
                let actor = Actor::of("provisioning", rand::random(), &address);
                as_actor(Some(actor), async {
                    identified(&format!("profile {profile}"));
                    self.create(tenant, &device, known, request).await
                })
                .await
            }
            Step::Provision => {
                let Some(record) = record else { return Ok(Answer::Failure) };
                let address = asker.from.to_canonical().to_string();
                let actor = Actor::of("provisioning", rand::random(), &address);
                as_actor(Some(actor), async {
                    identified(&format!("profile {}", known.profile.name));
                    self.hand_out(tenant, &device, record, request).await
                })
                .await
            }
        }
    }

    async fn state_of(&self, tenant: TenantId, device: &Text) -> Result<Existing, RegistryError> {
        let keys = vec![Text::from(STATE_ATTRIBUTE)];
        let scope = AttributeScope::Server;
        let found = self.registry.attributes(tenant, device, scope, keys, None).await?;
        let asked = found.is_some_and(|found| {
            let is = |value: &Value| matches!(value, Value::Text(text) if text.as_str() == STATE_PROVISIONED);
            found.set.iter().any(|one| is(&one.value))
        });
        Ok(if asked { Existing::Provisioned } else { Existing::Fresh })
    }

    /// The credential that a request asks for, and how it is told; `None` if it can't be.
    async fn asked_credential(
        &self,
        tenant: TenantId,
        device: &Text,
        chosen: Option<&Credentials>,
    ) -> Option<(Credential, Credentials)> {
        let wanted = match chosen {
            None => Wanted::ReadableToken(None),
            Some(chosen) => self.wanted(tenant, chosen.clone()).ok()?,
        };
        let made = self.make(tenant, device, wanted).await.ok()?;
        let told = match (chosen, made.shown) {
            (Some(chosen), _) => chosen.clone(),
            (None, token) => Credentials::AccessToken(token?.to_string()),
        };
        Some((made.credential, told))
    }

    async fn create(
        &self,
        tenant: TenantId,
        device: &Text,
        known: &Known,
        request: &Request,
    ) -> Result<Answer, RegistryError> {
        let asked = self.asked_credential(tenant, device, request.credentials.as_ref()).await;
        let Some((credential, told)) = asked else { return Ok(Answer::Failure) };
        let settings = DeviceSettings {
            kind: Some(known.profile.name.clone()),
            class: if request.gateway { Class::Gateway } else { Class::Device },
            ..DeviceSettings::default()
        };
        let put = PutDevice {
            tenant,
            device: device.clone(),
            enabled: true,
            credentials: vec![credential],
            settings: settings::written(&settings),
            if_version: Some(0),
            devices_max: self.registry.settings(tenant).devices_per_shard_max,
        };
        self.put(put, told).await.map(|(answer, _)| answer)
    }

    /// Writes a device: what to answer, and with which birth it is there.
    async fn put(
        &self,
        put: PutDevice,
        told: Credentials,
    ) -> Result<(Answer, Option<u64>), RegistryError> {
        match self.registry.put_device(put).await {
            Ok(change) => Ok((Answer::Success(told), Some(change.born))),
            // It was made a moment ago, there are too many, or another device has these credentials.
            Err(RegistryError::Refused(_) | RegistryError::Taken(_)) => Ok((Answer::Failure, None)),
            Err(error) => Err(error),
        }
    }

    /// Gives a device that was made in advance its credentials.
    async fn hand_out(
        &self,
        tenant: TenantId,
        device: &Text,
        record: DeviceRecord,
        request: &Request,
    ) -> Result<Answer, RegistryError> {
        let readable = record.credentials.iter().find_map(|held| {
            let place = Place { tenant, device, id: held.id };
            read_again(&self.secrets, place, held)
        });
        let (answer, born) = match (&request.credentials, readable) {
            (None, Some(token)) => {
                let told = Credentials::AccessToken(token.to_string());
                (Answer::Success(told), Some(record.born))
            }
            (chosen, _) => {
                let asked = self.asked_credential(tenant, device, chosen.as_ref()).await;
                let Some((credential, told)) = asked else { return Ok(Answer::Failure) };
                let is_shown =
                    |held: &&Credential| [TOKEN, LOGIN, CERTIFICATE].contains(&held.kind);
                // What it has chosen takes the place of what it had; what it is given stands beside it.
                let stays = |held: &&Credential| chosen.is_none() || !is_shown(held);
                let others = record.credentials.iter().filter(stays).cloned();
                let put = PutDevice {
                    tenant,
                    device: device.clone(),
                    enabled: record.enabled,
                    credentials: std::iter::once(credential).chain(others).collect(),
                    settings: record.settings.clone(),
                    if_version: Some(record.version),
                    devices_max: self.registry.settings(tenant).devices_per_shard_max,
                };
                self.put(put, told).await?
            }
        };
        let Some(born) = born else { return Ok(answer) };
        let state = Value::Text(Text::from(STATE_PROVISIONED));
        let changes = vec![(Text::from(STATE_ATTRIBUTE), Some(state))];
        let write = AttributeWrite { born, scope: AttributeScope::Server, changes, event: None };
        self.registry.write_attributes(tenant, device, write).await?;
        Ok(answer)
    }
}
