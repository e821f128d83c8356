//! API keys of the application's tenant, by the vendor's paths: those that `moorline token` makes, too.
//!
//! # Invariants
//!
//! - **Only administrators of the tenant make, see and forget keys**, as by the cluster's own API; those of the cluster do it there.
//! - **A key is shown once.**
//!
//! Checked by the cluster tests (`drogue_hashes.rs`).

use bytes::Bytes;
use moorline_core::calendar;
use moorline_dialects::drogue::{
    http::{Head, Response},
    outcome::Refusal,
    tokens::{self, Asked},
};
use moorline_machine::{
    answer::Refused,
    registry::{DeleteDevice, PutDevice},
};
use moorline_service::registry::{
    RegistryError,
    audit::{Actor, as_actor, identified},
    credential::{
        make::{self, Wanted},
        password,
    },
    principal::{self, ApiToken, Principal, kept_as},
    secrets::Style,
    settings::Role,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{door::Door, http::EVERYBODYS};

/// Keys of one tenant, in each shard: as many as the cluster's own API lets it have.
const KEYS_MAX: u32 = 1_000;
/// Rows that are read at once for a list.
const PAGE: usize = 1_000;
/// Rows that one list looks at: keys are among the devices.
const LOOKED_AT_MAX: usize = 100_000;

/// What is kept of a key.
#[derive(Serialize, Deserialize)]
struct Kept {
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

/// What a request is about, and who makes it.
pub(crate) struct Request<'a> {
    pub(crate) door: &'a Door,
    pub(crate) principal: &'a Principal,
    pub(crate) head: &'a Head<'a>,
    pub(crate) address: &'a str,
}

fn failed(error: &RegistryError) -> Refusal {
    match error {
        RegistryError::Refused(Refused::NotFound) => Refusal::NotFound,
        RegistryError::Refused(_) => Refusal::Request("There are too many keys".to_owned()),
        RegistryError::Taken(_)
        | RegistryError::Busy
        | RegistryError::Unavailable
        | RegistryError::DiskFull
        | RegistryError::TooManyReaders
        | RegistryError::Mail(_)
        | RegistryError::Events(_)
        | RegistryError::Values(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_) => Refusal::Unavailable,
    }
}

impl Request<'_> {
    /// Answers it.
    pub(crate) async fn answer(&self, asked: Asked, body: &Bytes) -> Result<Response, Refusal> {
        let Principal { tenant, name, role, .. } = self.principal;
        if *role < Role::Admin {
            return Err(Refusal::Authentication);
        }
        if *tenant == EVERYBODYS {
            let why = "This is a key of the cluster: those of an application are made and seen with one of its own";
            return Err(Refusal::Request(why.to_owned()));
        }
        let said = format!("{} {}", self.head.method, self.head.path);
        let actor = Actor::of(&said, rand::random(), self.address);
        as_actor(Some(actor), async {
            identified(&format!("{}/{name}", tenant.0));
            match asked {
                Asked::List => self.list().await,
                Asked::Create { description, role } => {
                    let of_body = tokens::description(body)?;
                    self.create(description.or(of_body), role.as_deref()).await
                }
                Asked::Delete(prefix) => self.delete(&prefix).await,
            }
        })
        .await
    }

    fn prefix(&self, name: &str) -> String {
        let whole = ApiToken { tenant: self.principal.tenant, name, secret: "" }.text();
        whole.trim_end_matches('_').to_owned()
    }

    async fn list(&self) -> Result<Response, Refusal> {
        let (mut found, mut looked, mut after) = (Vec::new(), 0, None);
        while looked < LOOKED_AT_MAX {
            let page = self.door.registry.devices(self.principal.tenant, after, PAGE).await;
            let page = page.map_err(|error| failed(&error))?;
            looked += page.devices.len();
            for (row, record) in &page.devices {
                let Some(name) = principal::named(row) else { continue };
                let Ok(kept) = serde_json::from_slice::<Kept>(&record.settings) else { continue };
                let created = calendar::rfc3339(record.created);
                let mut key = json!({ "prefix": self.prefix(name), "created": created });
                if let Some(description) = kept.description {
                    key["description"] = Value::from(description);
                }
                found.push(key);
            }
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        Ok(Response::json(200, Bytes::from(Value::Array(found).to_string())))
    }

    /// Without a role it may do what the one may that makes it, as the vendor's.
    async fn create(
        &self,
        description: Option<String>,
        role: Option<&str>,
    ) -> Result<Response, Refusal> {
        let role = match role {
            None => self.principal.role,
            Some(said) => serde_json::from_value(Value::from(said)).map_err(|_| {
                let why = "There is no such role: read-only, app, operator, admin";
                Refusal::Request(why.to_owned())
            })?,
        };
        let tenant = self.principal.tenant;
        let name = format!("drogue-{:016x}", rand::random::<u64>());
        let device = kept_as(&name);
        let id = rand::random_range(1..=u64::MAX);
        let place = password::Place { tenant, device: &device, id };
        let wanted = Wanted::Secret(Style::Plain);
        let made = make::make(&self.door.secrets, place, wanted, rand::random::<u8>).await;
        let made = made.map_err(|_| Refusal::Unavailable)?;
        let secret = made.shown.ok_or(Refusal::Unavailable)?;
        let kept = Kept { role, description };
        let put = PutDevice {
            tenant,
            device,
            enabled: true,
            credentials: vec![made.credential],
            settings: serde_json::to_vec(&kept).expect("a map with string keys").into(),
            if_version: Some(0),
            devices_max: KEYS_MAX,
        };
        self.door.registry.put_device(put).await.map_err(|error| failed(&error))?;
        let token = ApiToken { tenant, name: &name, secret: &secret }.text();
        let said = json!({ "token": token, "prefix": self.prefix(&name) });
        Ok(Response::json(200, Bytes::from(said.to_string())))
    }

    async fn delete(&self, prefix: &str) -> Result<Response, Refusal> {
        let whole = format!("{prefix}_");
        let meant = ApiToken::parse(&whole).filter(|of| of.secret.is_empty());
        let meant = meant.filter(|of| of.tenant == self.principal.tenant);
        let name = meant.ok_or(Refusal::NotFound)?.name;
        let tenant = self.principal.tenant;
        let delete = DeleteDevice { tenant, device: kept_as(name), if_version: None };
        self.door.registry.delete_device(delete).await.map_err(|error| failed(&error))?;
        Ok(Response::empty(204))
    }
}
