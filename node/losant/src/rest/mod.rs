//! The REST API, at the listener that all platforms share: what `moorline_dialects::losant::rest` decides, done.
//!
//! ```text
//!   head ─► route ─► whose token? (auth.rs) ─► may it? ─► body ─┬─► values.rs: states, commands, who is connected
//!                                                             ├─► devices.rs: which devices there are
//!                                                             ├─► data.rs: what several devices reported
//!                                                             ├─► passes.rs: keys, certificates, authorities
//!                                                             └─► streams.rs: what happens from now on
//! ```
//!
//! # Invariants
//!
//! - **A token reaches its own application**, a device's its own device and those it speaks for. Each request is judged anew.
//! - **Success of a write means that it is synced on a majority.**
//! - **No body is read before it is known who sends it**, but for logins, which are short.
//!
//! Checked by the cluster tests (`losant.rs`, `losant_limits.rs`, `losant_rest.rs`).

mod auth;
mod data;
mod devices;
mod passes;
mod streams;
mod values;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use moorline_core::{TenantId, Text, port::Refusal};
use moorline_dialects::losant::{
    PAYLOAD_BYTES_MAX,
    rest::{
        Asked, BODY_BYTES_MAX, Error, Kind, Method, Resource, ToPublish,
        auth::LOGIN_BYTES_MAX,
        query::Query,
        route::{self, claims},
        sse,
    },
};
use moorline_edge::Doorkeeper;
use moorline_http::{
    Answer, Answered, Body, Caller, Conversation, Head, Platform, Request, Unread,
};
use moorline_machine::{DocumentRefused, EventRefused, MailRefused, ValueRefused, answer::Refused};
use moorline_service::registry::{
    RegistryError,
    audit::{Actor, as_actor},
    settings::Role,
};
use serde_json::{Value, json};

use self::auth::{Tokens, Who};
use crate::{
    device::{NotGiven, Unread as UnreadHistory},
    door::Door,
};

/// How often a change is tried again after somebody else's came between.
const TRIES_MAX: usize = 16;
/// What all answers are, but streams.
const JSON_TYPE: &str = "application/json";

/// The API. Clones are the same.
#[derive(Clone)]
pub struct Http {
    door: Door,
    /// Who failed too often: the same that counts those of MQTT.
    doors: Doorkeeper,
    tokens: Arc<Tokens>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Platform for Http {
    fn claims(&self, path: &str) -> bool {
        claims(path)
    }

    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation> {
        Box::new(Connection { http: self.clone(), caller })
    }
}

/// One connection: its requests share nothing but where they come from.
struct Connection {
    http: Http,
    caller: Arc<Caller>,
}

/// What is answered to a request that was done.
enum Reply {
    /// JSON, with a status.
    Json(u16, Value),
    /// What happens from now on.
    Stream(Box<streams::Feed>),
}

impl Reply {
    fn ok(shown: Value) -> Result<Self, Error> {
        Ok(Self::Json(200, shown))
    }

    fn success() -> Result<Self, Error> {
        Self::ok(json!({ "success": true }))
    }
}

/// What a request is about, and what it says besides.
struct About<'a> {
    tenant: TenantId,
    application: Text,
    who: Who,
    method: Method,
    query: &'a Query,
}

impl Conversation for Connection {
    fn answer(&self, request: Request) -> Answered<'_> {
        Box::pin(async move {
            let (head, body) = request.split();
            let asked = format!("{} {}", head.method(), head.path());
            let from = self.caller.peer.ip().to_canonical().to_string();
            let actor = Actor::of(&asked, rand::random(), &from);
            as_actor(Some(actor), self.http.answer(&self.caller, &head, body)).await
        })
    }
}

impl Http {
    /// Behind this door. `doors`: who failed too often, counted with those of MQTT.
    #[must_use]
    pub fn new(door: Door, doors: Doorkeeper) -> Self {
        let tokens = Arc::new(Tokens::new(&door.secrets));
        Self { door, doors, tokens }
    }

    async fn answer(&self, caller: &Arc<Caller>, head: &Head, body: Body) -> Answer {
        let routed = route::route(head.method(), head.path());
        let what = routed.as_ref().map_or("none", |(_, asked)| asked.label());
        let done = match routed {
            Ok((method, asked)) => Box::pin(self.done(caller, head, (method, asked), body)).await,
            Err(error) => Err(error),
        };
        let (status, answer) = match done {
            Ok(Reply::Json(status, shown)) => (status, whole(status, shown.to_string())),
            Ok(Reply::Stream(feed)) => {
                let headers = [
                    ("content-type", sse::CONTENT_TYPE.to_owned()),
                    ("cache-control", "no-cache".to_owned()),
                ];
                (200, Answer::stream(200, &headers, feed.events(caller.stop.clone())))
            }
            Err(error) => (error.status(), whole(error.status(), error.body())),
        };
        let counted = &self.door.metrics.rest;
        counted.with_label_values(&[what, &status.to_string()]).inc();
        answer
    }

    async fn done(
        &self,
        caller: &Caller,
        head: &Head,
        (method, asked): (Method, Asked),
        body: Body,
    ) -> Result<Reply, Error> {
        let (application, resource) = match asked {
            Asked::AuthDevice => {
                let body = read_most(body, LOGIN_BYTES_MAX).await?;
                return self.log_in_device(caller, &body).await;
            }
            Asked::AuthUser => {
                let body = read_most(body, LOGIN_BYTES_MAX).await?;
                return self.log_in_user(caller, &body).await;
            }
            Asked::Of(application, resource) => (application, resource),
        };
        let who = self.authorise(caller, head).await?;
        let tenant = self.door.tenant(&application).await;
        let tenant = tenant.map_err(|denial| {
            let unavailable = denial == moorline_core::op::Denial::Unavailable;
            Error::from(if unavailable { Kind::Unavailable } else { Kind::NotFound })
        })?;
        if who.tenant() != tenant {
            return Err(Kind::NotFound.into());
        }
        who.may(&resource, method, needs(&resource, method))?;
        let query = Query::read(head.query().unwrap_or_default(), self.door.now_ms())?;
        let application = application.text().clone();
        let about = About { tenant, application, who, method, query: &query };
        let body = match method {
            Method::Post | Method::Patch => read(body).await?,
            Method::Get | Method::Delete => Bytes::new(),
        };
        self.of_application(&about, &resource, &body).await
    }

    async fn of_application(
        &self,
        about: &About<'_>,
        resource: &Resource,
        body: &[u8],
    ) -> Result<Reply, Error> {
        match resource {
            Resource::Application => {
                let tenant = self.door.registry.tenant(about.tenant).ok_or(Kind::NotFound)?;
                let id = about.application.as_str();
                Reply::ok(json!({ "id": id, "applicationId": id, "name": tenant.name.as_str() }))
            }
            Resource::Publish => self.publish(about, body).await,
            Resource::TimeSeries => self.time_series(about, body).await,
            Resource::LastValues => self.last_values(about, body).await,
            Resource::Devices if about.method == Method::Post => {
                self.create_device(about, body).await
            }
            Resource::Devices => self.list_devices(about).await,
            Resource::CommandToMany => self.command_many(about, body).await,
            Resource::Device(id) => self.one_device(about, id, body).await,
            Resource::State(id)
            | Resource::Command(id)
            | Resource::CompositeState(id)
            | Resource::Logs(id)
            | Resource::StateStream(id)
            | Resource::CommandStream(id)
            | Resource::ConnectionStatus(id) => self.of_device(about, resource, id, body).await,
            Resource::Passes(kind) => self.passes(about, *kind, body).await,
            Resource::Pass(kind, id) => self.pass(about, (*kind, id), body).await,
        }
    }

    /// Publishes a message to whoever of the application has subscribed to its topic.
    async fn publish(&self, about: &About<'_>, body: &[u8]) -> Result<Reply, Error> {
        let said = ToPublish::read(body)?;
        let rules = self.door.rules.now();
        if !said.fits(rules.topic_bytes_max, rules.topic_levels_max) {
            return Err(Error::new(Kind::Validation, "topic: too many bytes or levels"));
        }
        let ToPublish { topic, message } = said;
        let topic = Text::from(topic);
        self.limited(about.tenant, &topic, "publish")?;
        debug_assert!(message.len() <= PAYLOAD_BYTES_MAX, "it was checked when it was read");
        let payload = Bytes::from(message);
        let empty = moorline_core::Message::empty();
        let message = moorline_core::Message { topic, payload, ..empty };
        self.door.service.publish(about.tenant, message).await.map_err(of_refusal)?;
        Reply::success()
    }

    /// Counts a request of a device, or to a topic.
    fn limited(&self, tenant: TenantId, whose: &Text, what: &'static str) -> Result<(), Error> {
        let may = self.door.may_ask(tenant, whose, what);
        if may { Ok(()) } else { Err(Kind::TooManyRequests.into()) }
    }
}

/// What a token of the API has to be for.
fn needs(resource: &Resource, method: Method) -> Role {
    let is_pass = matches!(resource, Resource::Passes(_) | Resource::Pass(..));
    if resource.reads(method) && !is_pass {
        return Role::ReadOnly;
    }
    match resource {
        Resource::Application
        | Resource::CommandToMany
        | Resource::State(_)
        | Resource::Command(_)
        | Resource::CompositeState(_)
        | Resource::Logs(_)
        | Resource::StateStream(_)
        | Resource::CommandStream(_)
        | Resource::ConnectionStatus(_)
        | Resource::Publish
        | Resource::TimeSeries
        | Resource::LastValues => Role::App,
        Resource::Devices | Resource::Device(_) | Resource::Passes(_) | Resource::Pass(..) => {
            Role::Operator
        }
    }
}

fn whole(status: u16, body: String) -> Answer {
    Answer::whole(status, &[("content-type", JSON_TYPE.to_owned())], Bytes::from(body))
}

async fn read(body: Body) -> Result<Bytes, Error> {
    read_most(body, BODY_BYTES_MAX).await
}

async fn read_most(body: Body, bytes_max: usize) -> Result<Bytes, Error> {
    body.read(bytes_max).await.map_err(|unread| match unread {
        Unread::TooLarge => Kind::TooLarge.into(),
        Unread::BrokeOff => Error::new(Kind::Validation, "the body broke off"),
    })
}

/// What a failure of the registry is to who asks.
fn of_registry(error: RegistryError) -> Error {
    let kind = match &error {
        RegistryError::Busy | RegistryError::TooManyReaders => Kind::TooManyRequests,
        RegistryError::Unavailable | RegistryError::DiskFull => Kind::Unavailable,
        RegistryError::Refused(Refused::NotFound)
        | RegistryError::Documents(DocumentRefused::DeviceGone)
        | RegistryError::Values(ValueRefused::DeviceGone)
        | RegistryError::Events(EventRefused::DeviceGone)
        | RegistryError::Mail(MailRefused::DeviceGone) => Kind::NotFound,
        RegistryError::Refused(Refused::Exists | Refused::VersionMismatch { .. })
        | RegistryError::Taken(_)
        | RegistryError::Documents(DocumentRefused::Conflict { .. }) => Kind::Conflict,
        // There is room when some of it is taken, or forgotten.
        RegistryError::Mail(MailRefused::Full | MailRefused::TooManyMailboxes)
        | RegistryError::Values(ValueRefused::Full | ValueRefused::TooManyHistories)
        | RegistryError::Documents(DocumentRefused::Full)
        | RegistryError::Events(EventRefused::TooManyStreams) => {
            return Error::new(Kind::TooManyRequests, error.to_string());
        }
        RegistryError::Mail(MailRefused::TooLarge)
        | RegistryError::Events(EventRefused::TooLarge)
        | RegistryError::Documents(DocumentRefused::TooLarge)
        | RegistryError::Refused(Refused::TooLarge) => Kind::TooLarge,
        RegistryError::Refused(_)
        | RegistryError::Mail(_)
        | RegistryError::Events(_)
        | RegistryError::Values(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_) => return Error::new(Kind::Validation, error.to_string()),
    };
    kind.into()
}

fn of_history(unread: UnreadHistory) -> Error {
    match unread {
        UnreadHistory::TooFar => {
            let why = "too much was reported since: ask with since and sortDirection=asc";
            Error::new(Kind::Validation, why)
        }
        UnreadHistory::Busy => Kind::TooManyRequests.into(),
        UnreadHistory::Registry(error) => of_registry(error),
    }
}

fn of_refusal(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Busy | Refusal::Quota => Kind::TooManyRequests.into(),
        Refusal::Unavailable | Refusal::DiskFull => Kind::Unavailable.into(),
        Refusal::NotAuthorised => Kind::Forbidden.into(),
        Refusal::TooLarge => Kind::TooLarge.into(),
        Refusal::Topic | Refusal::Payload | Refusal::Platform(_) => {
            Error::new(Kind::Validation, refusal.to_string())
        }
    }
}

fn of_command(why: NotGiven) -> Error {
    match why {
        NotGiven::TooLarge => Error::new(Kind::TooLarge, "payload: too many bytes"),
        NotGiven::Registry(error) => of_registry(error),
        NotGiven::Refused(refusal) => of_refusal(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_now_may_come_again_and_what_is_too_large_is_told() {
        #[rustfmt::skip]
        let table = [
            (RegistryError::Mail(MailRefused::Full),                  429),
            (RegistryError::Mail(MailRefused::TooManyMailboxes),      429),
            (RegistryError::Values(ValueRefused::Full),               429),
            (RegistryError::Values(ValueRefused::TooManyHistories),   429),
            (RegistryError::Documents(DocumentRefused::Full),         429),
            (RegistryError::Mail(MailRefused::TooLarge),              413),
            (RegistryError::Events(EventRefused::TooLarge),           413),
            (RegistryError::Mail(MailRefused::DeviceGone),            404),
            (RegistryError::Values(ValueRefused::Key),                400),
        ];
        for (error, status) in table {
            let words = error.to_string();
            assert_eq!(of_registry(error).status(), status, "{words}");
        }
        assert_eq!(of_command(NotGiven::TooLarge).status(), 413);
        assert_eq!(of_history(UnreadHistory::TooFar).status(), 400);
    }
}
