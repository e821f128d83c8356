//! Credentials of a device: one is shown and written, as the original has it.
//!
//! A device may have others besides (secrets of Moorline's own, pre-shared keys): they stay.
//!
//! # Invariants
//!
//! - **A secret that is not shown is not lost**: whoever writes back what was read changes nothing. Checked by the tests below.

use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::{
    credentials::{Basic, Credentials, CredentialsType},
    rest::{
        entities::{EntityId, EntityType},
        errors::ErrorCode,
        ids,
    },
};
use moorline_machine::registry::{Credential, DeviceRecord};
use moorline_service::registry::credential::{
    kind::{CERTIFICATE, Kept, LOGIN, Login, Pin, TOKEN},
    make::{Unmakeable, Wanted, read_again},
    password::Place,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Failed, Rest,
    devices::{Change, Row, device_id, place},
};

/// In the place of a token that nobody can show.
const HIDDEN: &str = "not-shown-";

/// What a device is to show, as an integrator says it.
#[derive(Debug)]
pub(super) enum Shows {
    /// A token that is generated.
    NewToken,
    /// These.
    These(Credentials),
}

impl Shows {
    /// A token, a new one if none is said.
    pub(super) fn token(said: Option<String>) -> Self {
        said.map_or(Self::NewToken, |token| Self::These(Credentials::AccessToken(token)))
    }

    pub(super) fn read(json: &Value) -> Result<Self, Failed> {
        // A token that is not said is generated.
        if json["credentialsType"] == json!(CredentialsType::AccessToken)
            && json["credentialsId"].as_str().is_none_or(str::is_empty)
        {
            return Ok(Self::NewToken);
        }
        let read = Credentials::from_json(json);
        read.map(Self::These)
            .map_err(|why| Failed::new(ErrorCode::InvalidArguments, why.to_string()))
    }
}

fn is_shown(held: &&Credential) -> bool {
    [TOKEN, LOGIN, CERTIFICATE].contains(&held.kind)
}

fn hidden(id: u64) -> String {
    format!("{HIDDEN}{id:016x}")
}

/// The id of credentials whose value is not kept: what is kept instead.
fn digits(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was asked for, if the login that a device has is to stay with its password.
fn keeps_password(held: &Credential, wanted: &Credentials) -> bool {
    let Credentials::MqttBasic(Basic { client_id, user_name, password: None }) = wanted else {
        return false;
    };
    let Some(Kept::Login(Login { client, user, .. })) = Kept::read(held.kind, &held.verifier)
    else {
        return false;
    };
    let same = |said: &Option<String>, kept: &Option<Text>| {
        said.as_deref().unwrap_or_default() == kept.as_ref().map_or("", Text::as_str)
    };
    same(client_id, &client) && same(user_name, &user)
}

impl Rest {
    /// A credential for a device.
    pub(super) async fn credential(
        &self,
        tenant: TenantId,
        device: &Text,
        shows: Shows,
    ) -> Result<Credential, Failed> {
        let refused = |why: &str| Failed::new(ErrorCode::InvalidArguments, why);
        let wanted = match shows {
            Shows::NewToken => Wanted::ReadableToken(None),
            Shows::These(credentials) => self.door.wanted(tenant, credentials).map_err(refused)?,
        };
        let made = self.door.make(tenant, device, wanted).await;
        made.map(|made| made.credential).map_err(|why| match why {
            Unmakeable::Busy => ErrorCode::TooManyRequests.into(),
            Unmakeable::Malformed(why) => refused(why),
            Unmakeable::NoHash(why) => refused(&why.to_string()),
        })
    }

    /// The credentials of a device, as they are shown.
    pub(super) fn credentials_of(&self, tenant: TenantId, (device, record): &Row) -> Value {
        let held = record.credentials.iter().find(is_shown);
        let (kind, id, value) = held
            .map_or((CredentialsType::AccessToken, String::new(), Value::Null), |held| {
                self.shown(tenant, device, held)
            });
        let number = held.map_or(0, |held| held.id);
        json!({
            "id": { "id": ids::of_part(place(tenant, device, record), number) },
            "createdTime": held.map_or(record.created, |held| held.created).0,
            "deviceId": device_id(tenant, device, record),
            "credentialsType": kind,
            "credentialsId": id,
            "credentialsValue": value,
            "version": record.version,
        })
    }

    fn shown(
        &self,
        tenant: TenantId,
        device: &Text,
        held: &Credential,
    ) -> (CredentialsType, String, Value) {
        match Kept::read(held.kind, &held.verifier) {
            Some(Kept::Login(Login { client, user, .. })) => {
                let text = |text: Option<Text>| text.map(|text| text.to_string());
                let (client_id, user_name) = (text(client), text(user));
                let basic = Basic { client_id, user_name, password: None };
                let value = json!(json!(basic).to_string());
                (CredentialsType::MqttBasic, Credentials::MqttBasic(basic).id(), value)
            }
            Some(Kept::Certificate(Pin { sha256, .. })) => {
                (CredentialsType::X509Certificate, digits(&sha256), Value::Null)
            }
            Some(Kept::Secret(_) | Kept::Token(_) | Kept::Psk(_) | Kept::Alias(_)) | None => {
                let place = Place { tenant, device, id: held.id };
                let token = read_again(&self.secrets, place, held);
                let token = token.map_or_else(|| hidden(held.id), |token| token.to_string());
                (CredentialsType::AccessToken, token, Value::Null)
            }
        }
    }

    /// Replaces the credentials that are shown of a device.
    pub(super) async fn save_credentials(
        &self,
        tenant: TenantId,
        body: &Value,
    ) -> Result<Row, Failed> {
        let id = body["deviceId"]["id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
        let wrong = || Failed::new(ErrorCode::InvalidArguments, "deviceId is needed");
        let id = EntityId { entity_type: EntityType::Device, id: id.ok_or_else(wrong)? };
        let (device, record) = self.find(tenant, id.id).await?;
        if self.stays(tenant, (&device, &record), body) {
            return Ok((device, record));
        }
        let new = self.credential(tenant, &device, Shows::read(body)?).await?;
        self.change(tenant, device, record.born, |record| {
            let others = record.credentials.iter().filter(|held| !is_shown(held)).cloned();
            let credentials = std::iter::once(new.clone()).chain(others).collect();
            Ok(Change { credentials, settings: record.settings.clone() })
        })
        .await
    }

    /// Whether what is written is what is there.
    fn stays(
        &self,
        tenant: TenantId,
        (device, record): (&Text, &DeviceRecord),
        body: &Value,
    ) -> bool {
        let Some(held) = record.credentials.iter().find(is_shown) else { return false };
        let (kind, id, _) = self.shown(tenant, device, held);
        if kind == CredentialsType::MqttBasic {
            return Credentials::from_json(body).is_ok_and(|wanted| keeps_password(held, &wanted));
        }
        let says_no_value =
            kind == CredentialsType::AccessToken || body["credentialsValue"].is_null();
        body["credentialsType"] == json!(kind)
            && body["credentialsId"] == json!(id)
            && says_no_value
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::UnixMillis;
    use moorline_service::registry::credential::kind::Password;

    use super::*;

    fn login(user: &str) -> Credential {
        let password = Some(Password::Generated([7; 32]));
        let kept = Kept::Login(Login { client: None, user: Some(Text::from(user)), password });
        Credential {
            id: 3,
            kind: kept.kind(),
            lookup: None,
            verifier: kept.to_bytes(),
            not_before: None,
            not_after: None,
            created: UnixMillis(0),
        }
    }

    #[test]
    fn a_password_stays_that_is_not_said() {
        let said = |user: &str, password: Option<&str>| {
            let password = password.map(str::to_owned);
            let user_name = Some(user.to_owned());
            Credentials::MqttBasic(Basic { client_id: None, user_name, password })
        };
        let held = login("bob");
        assert!(keeps_password(&held, &said("bob", None)));
        assert!(!keeps_password(&held, &said("bob", Some("new"))));
        assert!(!keeps_password(&held, &said("eve", None)));
        assert!(!keeps_password(&held, &Credentials::AccessToken("bob".into())));
    }

    #[test]
    fn a_token_that_is_not_said_is_generated() {
        let read = |json: Value| Shows::read(&json);
        let token = json!("ACCESS_TOKEN");
        assert!(matches!(read(json!({ "credentialsType": token })), Ok(Shows::NewToken)));
        let brought = read(json!({ "credentialsType": token, "credentialsId": "A1" })).unwrap();
        assert!(matches!(brought, Shows::These(Credentials::AccessToken(id)) if id == "A1"));
        assert!(read(json!({ "credentialsType": "X509_CERTIFICATE" })).is_err());
    }
}
