//! Devices and applications over HTTP, at the listener that all platforms share: what `moorline_dialects::drogue` decides, done.
//!
//! ```text
//!   head ─► route ─► who is it? (door) ─► body ─► listen, if it waits ─► an event ─► 202, or the first command ─► 200
//!                                              └─► command ─► 202
//! ```
//!
//! # Invariants
//!
//! - **202 means what a PUBACK means**: the event is synced on a majority.
//! - **No body is read before it is known who sends it.**
//! - **Nobody is let in by what an earlier request showed**: each is judged.
//!
//! Checked by the cluster tests (`drogue.rs`).

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::drogue::{
    BODY_BYTES_MAX, command,
    discovery::{self, Listening as Endpoints},
    http::{self, Asked, Head, Response, Route},
    outcome::{Outcome, Refusal},
    registry::route,
    tokens as keys, ttn,
};
use moorline_http::{Answer, Answered, Body, Caller, Conversation, Platform, Request, Unread};
use moorline_service::registry::{
    door::By,
    explain::{Cause, Stage},
    principal::{ApiToken, Principal},
    settings::Role,
};

use crate::{
    door::{Coming, Door, Turned},
    metrics::Counted,
    rest,
    speaker::{Saying, Speaker, Target},
    tokens,
    wait::Listening,
};

/// In which another platform's devices say who they are that have such paths, too.
const OTHERS_HEADER: &str = "x-fleet-id";
/// In which ours do.
const AUTHORIZATION: &str = "authorization";
/// The extension that has what stands behind a channel.
const SUFFIX: &str = "topic";
/// Who administers the cluster.
pub(crate) const EVERYBODYS: TenantId = TenantId(0);

/// HTTP for Drogue's devices, and for those who send them commands.
#[derive(Clone)]
pub struct Http {
    door: Door,
    endpoints: Endpoints,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// Behind this door. `endpoints`: what else listens on this node.
    #[must_use]
    pub fn new(door: Door, endpoints: Endpoints) -> Self {
        Self { door, endpoints }
    }
}

impl Platform for Http {
    fn claims(&self, path: &str) -> bool {
        http::is_path(path)
            || command::is_path(path)
            || discovery::is_path(path)
            || route::is_path(path)
            || keys::is_path(path)
    }

    fn claims_with(&self, path: &str, has: &dyn Fn(&str) -> bool) -> bool {
        if !self.claims(path) || !path.starts_with("/v1/") {
            return self.claims(path);
        }
        has(AUTHORIZATION) || !has(OTHERS_HEADER) && self.door.has_applications()
    }

    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation> {
        Box::new(Connection { http: self.clone(), caller })
    }
}

/// One connection.
struct Connection {
    http: Http,
    caller: Arc<Caller>,
}

impl Conversation for Connection {
    fn answer(&self, request: Request) -> Answered<'_> {
        Box::pin(async move {
            let (head, body) = request.split();
            let headers = head.headers();
            let query = head.query().unwrap_or_default();
            let head = Head { method: head.method(), path: head.path(), query, headers: &headers };
            let (what, answered) = if discovery::is_path(head.path) {
                ("discovery", self.discover(&head).await)
            } else if command::is_path(head.path) {
                ("command", self.command(&head, body).await)
            } else if route::is_path(head.path) {
                ("registry", self.registry(&head, body).await)
            } else if keys::is_path(head.path) {
                ("tokens", self.keys(&head, body).await)
            } else {
                let proven = self.caller.channel.proof.is_some();
                match http::route(&head, proven) {
                    Ok(asked) => {
                        let what =
                            if matches!(asked.route, Route::Ttn(_)) { "ttn" } else { "publish" };
                        (what, self.publish(asked, &head, body).await)
                    }
                    Err(refusal) => ("publish", Err(refusal)),
                }
            };
            let response = answered.unwrap_or_else(|refusal| Response::refused(&refusal));
            let status = response.status.to_string();
            self.http.door.metrics.requests.with_label_values(&[what, &status]).inc();
            Answer::whole(response.status, &response.headers, response.body)
        })
    }
}

/// What a request says.
enum Message {
    /// As it stands there.
    Plain { channel: String, suffix: Option<String>, content_type: Option<String>, data: Bytes },
    /// In a message of another platform.
    Uplink(ttn::Uplink),
}

impl Message {
    fn read(route: Route, head: &Head<'_>, body: Bytes) -> Result<Self, Refusal> {
        match route {
            Route::Publish { channel, suffix } => {
                let content_type = head.text("content-type").map(str::to_owned);
                Ok(Self::Plain { channel, suffix, content_type, data: body })
            }
            Route::Ttn(version) => Ok(Self::Uplink(ttn::read(version, &body)?)),
            Route::Alive => Err(Refusal::NotFound),
        }
    }

    /// For whom it is said, if not for who says it.
    fn device<'a>(&'a self, speaks_as: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Plain { .. } => speaks_as,
            Self::Uplink(uplink) => Some(uplink.device.as_str()),
        }
    }
}

impl Connection {
    // ---- devices

    async fn publish(
        &self,
        asked: Asked,
        head: &Head<'_>,
        body: Body,
    ) -> Result<Response, Refusal> {
        let Some(credentials) = &asked.credentials else { return Ok(Response::empty(200)) };
        let door = &self.http.door;
        let (from, channel) = (self.caller.peer.ip().to_canonical(), &self.caller.channel);
        let coming = Coming { by: By::Http, from, channel };
        let entered = door.admit(credentials, coming).await.map_err(refusal_of)?;
        self.caller.is_known();
        let refused_early = |_: &Refusal| {
            let guest = &entered.speaker.guest;
            let (whose, cause) = ((guest.tenant, &guest.device), Cause::UnreadablePayload);
            door.registry.note_refused(whose, Stage::Request, head.path, cause);
        };
        let body = read(body).await.inspect_err(refused_early)?;
        let message = Message::read(asked.route, head, body).inspect_err(refused_early)?;
        // Who may not say it has no place among those who wait.
        let device = message.device(asked.speaks_as.as_deref());
        let target = entered.speaker.target(device).await;
        let target = target.map_err(|outcome| refused(outcome, ""))?;
        let mut listening = None;
        if asked.wait_s > 0 {
            let guest = &entered.speaker.guest;
            let place = door.places.wait(guest.tenant, &guest.device).ok_or(Refusal::Full)?;
            // Before anything is said: a command may be the answer to it.
            let device = asked.speaks_as.as_ref().map(|_| target.device.as_str());
            let begun = Listening::begin(&entered.speaker, device).await;
            listening = Some((place, begun.ok_or(Refusal::Unavailable)?));
        }
        say(&entered.speaker, &target, message, asked.data_schema.as_deref()).await?;
        let Some((_place, mut listening)) = listening else { return Ok(Response::empty(202)) };
        let _waiting = Counted::of(&door.metrics.waiting);
        let wait = Duration::from_secs(asked.wait_s.into());
        let command = tokio::select! {
            command = listening.command(wait, &self.caller.stop) => command,
            () = door.until_revoked(&entered.standing) => return Err(Refusal::Authentication),
        };
        Ok(command.map_or_else(
            || Response::empty(202),
            |command| Response::command(&command.name, command.payload),
        ))
    }

    // ---- applications

    /// Whose key a request shows, who has not failed too often. `about`: the application that it asks about, if it is one.
    async fn principal(&self, head: &Head<'_>, about: Option<&str>) -> Result<Principal, Refusal> {
        let door = &self.http.door;
        let key = command::key(head).ok_or(Refusal::Authentication)?;
        let key = std::str::from_utf8(key.expose()).map_err(|_| Refusal::Authentication)?;
        let from = self.caller.peer.ip().to_canonical();
        let principal = door.principal(key, By::Http, from).await.map_err(refusal_of)?;
        let tenant = principal.tenant;
        let plaintext = || match about {
            // What it is shown for is the application's, which says how.
            Some(about) if tenant == EVERYBODYS => door.takes_plaintext_for(about),
            Some(_) | None => door.registry.takes_plaintext(tenant),
        };
        if !self.caller.tls() && !plaintext() {
            return Err(Refusal::Authentication);
        }
        self.caller.is_known();
        Ok(principal)
    }

    async fn registry(&self, head: &Head<'_>, body: Body) -> Result<Response, Refusal> {
        let asked = route::route(head)?;
        let principal = self.principal(head, asked.0.application()).await?;
        let body = read(body).await?;
        let address = self.caller.peer.ip().to_canonical().to_string();
        let door = &self.http.door;
        let request = rest::Request { door, principal: &principal, head, address: &address };
        request.answer(asked, body).await
    }

    async fn keys(&self, head: &Head<'_>, body: Body) -> Result<Response, Refusal> {
        // What is not served is told to who has a key: there is nothing in it of any application.
        let asked = keys::route(head);
        let principal = self.principal(head, None).await?;
        let (asked, body) = (asked?, read(body).await?);
        let address = self.caller.peer.ip().to_canonical().to_string();
        let door = &self.http.door;
        let request = tokens::Request { door, principal: &principal, head, address: &address };
        request.answer(asked, &body).await
    }

    async fn command(&self, head: &Head<'_>, body: Body) -> Result<Response, Refusal> {
        let asked = command::route(head)?;
        let door = &self.http.door;
        let principal = self.principal(head, Some(&asked.application)).await?;
        if principal.role == Role::ReadOnly {
            return Err(Refusal::Authentication);
        }
        let application = door.application(&asked.application).await;
        let outcome = match application {
            Ok((tenant, _)) if [tenant, EVERYBODYS].contains(&principal.tenant) => {
                let payload = read(body).await?;
                let device = Text::from(asked.device);
                door.command(tenant, &device, &asked.command, payload, By::Http).await
            }
            // Whether there is such a one is nobody else's business.
            Ok(_) | Err(Turned::Away) => command::Outcome::Nobody,
            Err(Turned::Unavailable | Turned::Misconfigured) => command::Outcome::Unavailable,
        };
        Ok(Response::empty(outcome.status()))
    }

    /// Where the endpoints are: all of them for who has a key, else where the API is.
    async fn discover(&self, head: &Head<'_>) -> Result<Response, Refusal> {
        if head.method != "GET" {
            return Err(Refusal::Method);
        }
        if head.path == discovery::VERSION_PATH {
            return Ok(Response::json(200, discovery::version()));
        }
        // Devices ask, too: what is no key of an application is not judged.
        let shown = command::key(head);
        let shown = shown.as_ref().and_then(|key| std::str::from_utf8(key.expose()).ok());
        let is_key = shown.is_some_and(|key| ApiToken::parse(key.trim()).is_some());
        let known = is_key && self.principal(head, None).await.is_ok();
        let host = head.text("host").ok_or_else(|| Refusal::Request("There is no host".into()))?;
        let endpoints = Some(&self.http.endpoints).filter(|_| known);
        Ok(Response::json(200, discovery::endpoints(host, self.caller.tls(), endpoints)))
    }
}

/// Says what a request says, for whom it says it.
async fn say(
    speaker: &Speaker,
    target: &Target,
    message: Message,
    schema: Option<&str>,
) -> Result<(), Refusal> {
    let (channel, content_type, data, extensions, of_spec) = match &message {
        Message::Plain { channel, suffix, content_type, data } => {
            let extensions = suffix.as_deref().map(|suffix| (SUFFIX, suffix));
            let extensions: Vec<_> = extensions.into_iter().collect();
            (channel, content_type.as_deref(), data.clone(), extensions, None)
        }
        Message::Uplink(uplink) => {
            let (content_type, data) = uplink.payload(&target.kept.spec);
            let extensions = uplink.extensions.iter();
            let extensions = extensions.map(|(name, value)| (*name, value.as_str())).collect();
            (&uplink.port, content_type, data, extensions, uplink.schema(&target.kept.spec))
        }
    };
    let saying = Saying {
        channel,
        content_type,
        data_schema: schema.or(of_spec),
        extensions: &extensions,
        data: &data,
    };
    let (outcome, why) = match speaker.say(target, &saying).await {
        Ok(appending) => appending.await,
        Err(said) => said,
    };
    if outcome == Outcome::Accepted { Ok(()) } else { Err(refused(outcome, &why)) }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    body.read(BODY_BYTES_MAX).await.map_err(|unread| match unread {
        Unread::TooLarge => Refusal::TooLarge,
        Unread::BrokeOff => Refusal::Format("The body broke off".to_owned()),
    })
}

pub(crate) fn refusal_of(turned: Turned) -> Refusal {
    match turned {
        Turned::Away => Refusal::Authentication,
        Turned::Unavailable => Refusal::Unavailable,
        Turned::Misconfigured => Refusal::Configuration,
    }
}

fn refused(outcome: Outcome, why: &str) -> Refusal {
    outcome.http(why).unwrap_or(Refusal::Unavailable)
}
