//! Credentials out of what the platform calls by that name: for integrators, and for devices that ask for some.

use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::credentials::{Basic, Credentials, certificate_der};
use moorline_service::registry::credential::{
    kind::{Pin, Pinned},
    make::{Made, Secret, Unmakeable, Wanted, WantedPassword, make},
    password::Place,
};
use sha2::{Digest, Sha256};

use crate::door::Door;

impl Door {
    /// What is to be made; or why not.
    pub(crate) fn wanted(
        &self,
        tenant: TenantId,
        credentials: Credentials,
    ) -> Result<Wanted, &'static str> {
        match credentials {
            Credentials::AccessToken(token) => Ok(Wanted::ReadableToken(Some(Secret::new(token)))),
            Credentials::MqttBasic(Basic { client_id, user_name, password }) => {
                if password.is_some() && !self.registry.settings(tenant).chosen_passwords {
                    return Err("this tenant does not allow chosen passwords");
                }
                let text =
                    |said: Option<String>| said.filter(|said| !said.is_empty()).map(Text::from);
                let chosen = |password| WantedPassword::Chosen(Secret::new(password));
                let password = password.map_or(WantedPassword::None, chosen);
                Ok(Wanted::Login { client: text(client_id), user: text(user_name), password })
            }
            Credentials::X509Certificate(pem) => match certificate_der(&pem) {
                Some(der) => {
                    let sha256 = Sha256::digest(&der).into();
                    Ok(Wanted::Certificate(Pin { what: Pinned::Certificate, sha256 }))
                }
                None => Err("credentialsValue is no certificate"),
            },
            Credentials::Lwm2m { .. } => Err("LwM2M credentials are not served"),
        }
    }

    /// A credential for a device.
    pub(crate) async fn make(
        &self,
        tenant: TenantId,
        device: &Text,
        wanted: Wanted,
    ) -> Result<Made, Unmakeable> {
        let place = Place { tenant, device, id: rand::random_range(1..=u64::MAX) };
        make(&self.secrets, place, wanted, rand::random::<u8>).await
    }
}
