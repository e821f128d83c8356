//! The management API, `/api/v0002` of an organisation's own host: types, devices, what is known of them, and what they are asked to do.
//!
//! ```text
//!   head ─► route ─► who is it? (judge.rs) ─► may it? ─► body ─┬─► types.rs, devices.rs, bulk.rs ──────► the registry
//!                                                            ├─► managed.rs, requests.rs, bundles.rs ─► managed/
//!                                                            ├─► groups.rs: gateways' roles and groups
//!                                                            ├─► states.rs, logs.rs, cache.rs ─────► presence, events, last events
//!                                                            └─► security.rs ──────────────────────► what is asked of connections
//! ```
//!
//! # Invariants
//!
//! - **An API key reaches its own organisation**, and is judged anew with each request.
//! - **Success of a write means that it is synced on a majority.**
//! - **No body is read before it is known who sends it.**
//! - **Ten requests a second** of an organisation at a node; who is a little early waits, who is much too early is refused ([`RATE`]).
//! - **A refusal has the platform's form**, and so has what is not served: not found.
//!
//! Checked by the cluster tests (`watson_rest.rs`).

mod bulk;
mod bundles;
mod cache;
mod devices;
mod groups;
mod logs;
mod managed;
mod requests;
mod security;
mod states;
mod types;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::watson::{
    identity::Proof,
    rest::{
        Asked, BODY_BYTES_MAX, Head, Method, Resource, error::Error, query::Query, response, route,
    },
};
use moorline_edge::{Buckets, Rate, Turn};
use moorline_http::{Answer, Body, Caller, Unread};
use moorline_machine::{DocumentRefused, answer::Refused};
use moorline_mqtt::Millis;
use moorline_service::registry::{
    RegistryError,
    audit::{Actor, as_actor, identified},
    settings::Role,
};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    judge::{Judge, Turned},
    managed::{Failed, Manager},
};

/// What all answers are.
const JSON_TYPE: (&str, &str) = ("content-type", "application/json");
/// Requests of an organisation at a node (§1.9 of the vendor's wire: 10 calls a second, more "delayed or denied").
const RATE: Rate = Rate { per_s: 10, burst: 10, wait_ms_max: 5_000 };
/// Organisations whose requests are counted.
const COUNTED_MAX: usize = 4_096;
/// How often a change is tried again after somebody else's came between.
const TRIES_MAX: usize = 16;

/// The API. Clones are the same.
#[derive(Clone)]
pub(crate) struct Rest {
    manager: Manager,
    judge: Judge,
    turns: Arc<Mutex<Buckets<TenantId>>>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

/// Who asks.
struct Who {
    tenant: TenantId,
    org: Text,
    /// The name of its key.
    key: String,
    role: Role,
}

/// What is answered to a request that was done.
#[derive(Debug)]
struct Reply {
    status: u16,
    body: Bytes,
}

impl Reply {
    fn json(status: u16, shown: &impl Serialize) -> Self {
        let body = serde_json::to_vec(shown).expect("maps have text for keys");
        Self { status, body: body.into() }
    }

    fn nothing(status: u16) -> Self {
        Self { status, body: Bytes::new() }
    }
}

impl From<Failed> for Wrong {
    fn from(failed: Failed) -> Self {
        Self(match failed {
            Failed::Gone => Error::NotFound,
            Failed::Conflict => Error::Conflict,
            Failed::TooLarge => Error::Full,
            Failed::Unreadable => Error::Failed,
            Failed::Registry(error) => return error.into(),
        })
    }
}

/// Why a request was not done.
#[derive(Debug)]
struct Wrong(Error);

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<RegistryError> for Wrong {
    fn from(error: RegistryError) -> Self {
        Self(match error {
            RegistryError::Busy | RegistryError::TooManyReaders => Error::TooOften,
            RegistryError::Unavailable | RegistryError::DiskFull => Error::Unavailable,
            RegistryError::Refused(Refused::NotFound)
            | RegistryError::Documents(DocumentRefused::DeviceGone) => Error::NotFound,
            RegistryError::Refused(Refused::Exists | Refused::VersionMismatch { .. })
            | RegistryError::Taken(_)
            | RegistryError::Documents(DocumentRefused::Conflict { .. }) => Error::Conflict,
            RegistryError::Refused(Refused::TooMany)
            | RegistryError::Documents(DocumentRefused::Full | DocumentRefused::TooLarge) => {
                Error::Full
            }
            RegistryError::Refused(_)
            | RegistryError::Mail(_)
            | RegistryError::Events(_)
            | RegistryError::Values(_)
            | RegistryError::Calls(_)
            | RegistryError::Documents(DocumentRefused::BadName) => Error::Failed,
        })
    }
}

impl From<moorline_dialects::watson::management::kept::Unreadable> for Wrong {
    fn from(_: moorline_dialects::watson::management::kept::Unreadable) -> Self {
        Self(Error::Failed)
    }
}

/// What a key has to be for.
fn needs(resource: &Resource, method: Method) -> Role {
    if method == Method::Get {
        return Role::ReadOnly;
    }
    match resource {
        // What applications do with devices.
        Resource::Location(_)
        | Resource::Logs(_)
        | Resource::Log(..)
        | Resource::ErrorCodes(_)
        | Resource::Requests
        | Resource::Request(_)
        | Resource::RequestCancel(_) => Role::App,
        // Which there are, and what they can do.
        Resource::BulkAdd
        | Resource::BulkRemove
        | Resource::BulkDevices
        | Resource::Types
        | Resource::Type(_)
        | Resource::Devices(_)
        | Resource::Device(_)
        | Resource::Management(_)
        | Resource::Events(_)
        | Resource::Event(..)
        | Resource::CacheSettings
        | Resource::ConnectionSecurity
        | Resource::ConnectionStates
        | Resource::ConnectionState(_)
        | Resource::ConnectionLog
        | Resource::ServiceStatus
        | Resource::DataTraffic
        | Resource::Groups
        | Resource::Group(_)
        | Resource::GroupDevices(_)
        | Resource::GroupIds(_)
        | Resource::GroupAdd(_)
        | Resource::GroupRemove(_)
        | Resource::Authorization(_)
        | Resource::Roles(_)
        | Resource::RequestDevices(_)
        | Resource::RequestDevice(..)
        | Resource::Bundles
        | Resource::Bundle(_) => Role::Operator,
    }
}

impl Rest {
    pub(crate) fn new(manager: Manager, judge: Judge) -> Self {
        let turns = Arc::new(Mutex::new(Buckets::new(RATE, COUNTED_MAX)));
        Self { manager, judge, turns }
    }

    /// Waits until it is an organisation's turn.
    async fn turn(&self, tenant: TenantId) -> Result<(), Wrong> {
        let now = Millis(self.now().0);
        // Every change is one entry.
        let turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner).take(tenant, now);
        match turn {
            Turn::Now => Ok(()),
            Turn::After(ms) => {
                sleep(Duration::from_millis(ms)).await;
                Ok(())
            }
            Turn::Refused => Err(Error::TooOften.into()),
        }
    }

    /// Answers a request.
    pub(crate) async fn answer(
        &self,
        caller: &Caller,
        head: &Head<'_>,
        query: &str,
        body: Body,
    ) -> Answer {
        let asked = format!("{} {}", head.method, head.path);
        let actor = Actor::of(&asked, rand::random(), &caller.peer.ip().to_string());
        as_actor(Some(actor), async move {
            let routed = route(head);
            let what = routed.as_ref().map_or("none", |asked| label(&asked.resource));
            let done = match routed {
                Ok(asked) => Box::pin(self.done(caller, asked, query, body)).await,
                Err(error) => Err(error.into()),
            };
            let Reply { status, body } = done.unwrap_or_else(|Wrong(error)| Reply {
                status: error.status(),
                body: error.body(),
            });
            let counted = &self.judge.door.metrics.rest;
            counted.with_label_values(&[what, &status.to_string()]).inc();
            let (name, value) = JSON_TYPE;
            let headers = [(name, value.to_owned())];
            Answer::whole(status, if body.is_empty() { &[] } else { &headers }, body)
        })
        .await
    }

    async fn done(
        &self,
        caller: &Caller,
        asked: Asked,
        query: &str,
        body: Body,
    ) -> Result<Reply, Wrong> {
        let who = self.authorise(caller, &asked).await?;
        if who.role < needs(&asked.resource, asked.method) {
            return Err(Error::Forbidden.into());
        }
        self.turn(who.tenant).await?;
        let query = Query::parse(query)?;
        let body = body.read(BODY_BYTES_MAX).await.map_err(|unread| match unread {
            Unread::TooLarge => Error::TooLarge,
            Unread::BrokeOff => Error::Malformed("the body broke off"),
        })?;
        let Asked { resource, method, success, .. } = asked;
        self.dispatch(&who, (method, resource, success), &query, &body).await
    }

    async fn authorise(&self, caller: &Caller, asked: &Asked) -> Result<Who, Wrong> {
        let (client, key) = (asked.key.client_id(), asked.key.clone());
        let name = key.to_string();
        let proof = Proof::Key { key, token: asked.secret.clone() };
        let let_in = self.judge.let_in(caller, std::slice::from_ref(&client), &proof).await;
        let (_, entered) = let_in.map_err(|turned| match turned {
            Turned::Wrong | Turned::Banned => Error::Unauthorised,
            Turned::Forbidden => Error::Forbidden,
            Turned::Unavailable => Error::Unavailable,
        })?;
        caller.is_known();
        identified(&format!("{}/{name}", entered.tenant.0));
        let role = entered.role.ok_or(Error::Forbidden)?;
        Ok(Who { tenant: entered.tenant, org: client.org, key: name, role })
    }

    async fn dispatch(
        &self,
        who: &Who,
        (method, resource, success): (Method, Resource, u16),
        query: &Query,
        body: &Bytes,
    ) -> Result<Reply, Wrong> {
        use Method::Get;
        match resource {
            Resource::Types | Resource::Type(_) => {
                self.types(who, (method, resource, success), query, body).await
            }
            Resource::BulkDevices | Resource::BulkAdd | Resource::BulkRemove => {
                self.bulk(who, (resource, success), query, body).await
            }
            Resource::Devices(_) | Resource::Device(_) => {
                self.devices(who, (method, resource, success), query, body).await
            }
            Resource::Location(_)
            | Resource::Management(_)
            | Resource::Logs(_)
            | Resource::Log(..)
            | Resource::ErrorCodes(_) => self.managed(who, (method, resource, success), body).await,
            Resource::Requests
            | Resource::Request(_)
            | Resource::RequestCancel(_)
            | Resource::RequestDevices(_)
            | Resource::RequestDevice(..) => {
                self.requests(who, (method, resource, success), query, body).await
            }
            Resource::Bundles | Resource::Bundle(_) => {
                self.bundles(who, (method, resource, success), body).await
            }
            Resource::Events(device) if method == Get => self.last_events(who, &device).await,
            Resource::Event(device, event) if method == Get => {
                self.last_event(who, &device, &event).await
            }
            Resource::Groups
            | Resource::Group(_)
            | Resource::GroupDevices(_)
            | Resource::GroupIds(_)
            | Resource::GroupAdd(_)
            | Resource::GroupRemove(_)
            | Resource::Authorization(_)
            | Resource::Roles(_) => {
                self.groups(who, (method, resource, success), query, body).await
            }
            Resource::CacheSettings => self.cache_settings(who, (method, success), body).await,
            Resource::ConnectionSecurity => {
                self.connection_security(who, (method, success), body).await
            }
            Resource::ConnectionStates => self.states(who, query).await,
            Resource::ConnectionState(client) => self.state(who, &client).await,
            Resource::ConnectionLog => self.connection_log(who, query).await,
            Resource::ServiceStatus => Ok(Reply::json(success, &self.status())),
            // Nobody counts or keeps these.
            Resource::DataTraffic | Resource::Events(_) | Resource::Event(..) => {
                Err(Error::NotFound.into())
            }
        }
    }

    fn status(&self) -> response::ServiceStatus {
        // Whoever is asked serves: it was let in by a majority's word a moment ago.
        response::ServiceStatus { dashboard: "green", messaging: "green", third_party: "green" }
    }
}

/// What is asked for, as a label.
fn label(resource: &Resource) -> &'static str {
    match resource {
        Resource::BulkAdd | Resource::BulkRemove | Resource::BulkDevices => "bulk",
        Resource::Types | Resource::Type(_) => "types",
        Resource::Devices(_) | Resource::Device(_) => "devices",
        Resource::Location(_) => "location",
        Resource::Management(_) => "mgmt",
        Resource::Logs(_) | Resource::Log(..) | Resource::ErrorCodes(_) => "diag",
        Resource::Events(_) | Resource::Event(..) | Resource::CacheSettings => "lec",
        Resource::Groups
        | Resource::Group(_)
        | Resource::GroupDevices(_)
        | Resource::GroupIds(_)
        | Resource::GroupAdd(_)
        | Resource::GroupRemove(_)
        | Resource::Authorization(_)
        | Resource::Roles(_) => "groups",
        Resource::ConnectionSecurity => "security",
        Resource::ConnectionStates | Resource::ConnectionState(_) => "states",
        Resource::ConnectionLog | Resource::DataTraffic | Resource::ServiceStatus => "status",
        Resource::Requests
        | Resource::Request(_)
        | Resource::RequestCancel(_)
        | Resource::RequestDevices(_)
        | Resource::RequestDevice(..) => "requests",
        Resource::Bundles | Resource::Bundle(_) => "bundles",
    }
}
