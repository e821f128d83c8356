//! The REST API for integrators, at the listener that all platforms share.
//!
//! ```text
//!   head ─► route ─► who is it? (auth.rs) ─► may it? ─► body ─► devices.rs, credentials.rs ─┐
//!                                                           ├─► telemetry.rs ──────────────┼─► the registry
//!                                                           ├─► calls.rs ──────────────────┤
//!                                                           ├─► profiles.rs, packages.rs ──┤
//!                                                           └─► claims.rs ─────────────────┘
//!   WebSocket ─► socket/: who is it? ─► commands ─► pushes
//! ```
//!
//! Users are principals of Moorline's API: the password of any user name, and an API key, is a token of the tenant.
//!
//! # Invariants
//!
//! - **Who asks sees its own tenant only**: ids lead to devices by the tenant of who asks.
//! - **A token that is deleted lets nobody in from then on**: each request reads its row anew.
//! - **200 to a write means that it is synced on a majority.**
//! - **No body is read before it is known who sends it**, but for those of logging in.
//!
//! Checked by the cluster tests (`thingsboard_rest.rs`).

mod auth;
mod calls;
mod claims;
mod credentials;
mod devices;
mod packages;
mod profiles;
mod series;
mod socket;
mod telemetry;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use moorline_core::TenantId;
use moorline_dialects::thingsboard::{
    invalid::Invalid,
    query::WrongParameter,
    rest::{
        errors::ErrorCode,
        routes::{self, Route},
    },
};
use moorline_edge::Doorkeeper;
use moorline_http::{
    Answer, Answered, Body, Caller, Conversation, Head, Platform, Request, Unread,
};
use moorline_machine::{DocumentRefused, answer::Refused};
use moorline_service::registry::{
    RegistryError,
    audit::{Actor, as_actor},
    secrets::Secrets,
};
use serde::Serialize;
use serde_json::Value;

use self::auth::Tokens;
use crate::{door::Door, files::File, places::Places};

/// What all paths begin with. Platforms that are asked before have what is theirs of it.
const PREFIX: &str = "/api/";
/// The most bytes of a body.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// What all answers are.
const JSON_TYPE: (&str, &str) = ("content-type", "application/json");

/// The REST API.
#[derive(Clone)]
pub(crate) struct Rest {
    door: Door,
    secrets: Secrets,
    /// Who failed too often: the same that counts devices.
    doors: Doorkeeper,
    tokens: Arc<Tokens>,
    /// Connections by WebSocket.
    places: Places<TenantId>,
    /// Looks at lists that they follow.
    looks: Places<TenantId>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl Rest {
    /// Behind this door.
    pub(crate) fn new(door: Door, secrets: Secrets, doors: Doorkeeper) -> Self {
        let tokens = Arc::new(Tokens::new(&secrets));
        let (places, looks) = (socket::places(), socket::looks());
        Self { door, secrets, doors, tokens, places, looks }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.door.clock.wall().0).unwrap_or(i64::MAX)
    }
}

impl Platform for Rest {
    fn claims(&self, path: &str) -> bool {
        path.starts_with(PREFIX)
    }

    fn speaks_websocket(&self, path: &str) -> bool {
        socket::is_place(path)
    }

    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation> {
        Box::new(Connection { rest: self.clone(), caller })
    }
}

/// One connection: its requests share nothing but where they come from.
struct Connection {
    rest: Rest,
    caller: Arc<Caller>,
}

/// What is answered to a request that was done.
#[derive(Debug)]
struct Reply {
    status: u16,
    body: Bytes,
    /// In the place of the body: a file that is read while it is sent.
    file: Option<File>,
}

impl Reply {
    /// 200 with nothing.
    fn nothing() -> Self {
        Self::of(200, Bytes::new())
    }

    fn of(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into(), file: None }
    }

    /// 200 with JSON.
    fn json(shown: &impl Serialize) -> Self {
        let body = serde_json::to_vec(shown).expect("maps have text for keys");
        Self::of(200, body)
    }

    /// 200 with JSON that is written.
    fn written(json: &impl fmt::Display) -> Self {
        Self::of(200, json.to_string())
    }
}

/// Why a request was not done.
#[derive(Debug)]
struct Failed {
    code: ErrorCode,
    message: String,
}

impl Failed {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn not_found() -> Self {
        ErrorCode::ItemNotFound.into()
    }
}

impl From<ErrorCode> for Failed {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.message())
    }
}

impl From<WrongParameter> for Failed {
    fn from(wrong: WrongParameter) -> Self {
        Self::new(ErrorCode::BadRequestParams, wrong.to_string())
    }
}

impl From<Invalid> for Failed {
    fn from(invalid: Invalid) -> Self {
        Self::new(ErrorCode::InvalidArguments, invalid.to_string())
    }
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        let code = match &error {
            RegistryError::Busy | RegistryError::TooManyReaders => ErrorCode::TooManyRequests,
            RegistryError::Unavailable | RegistryError::DiskFull => ErrorCode::Database,
            RegistryError::Refused(Refused::NotFound) => ErrorCode::ItemNotFound,
            RegistryError::Refused(Refused::VersionMismatch { .. }) => ErrorCode::VersionConflict,
            RegistryError::Refused(Refused::TooMany) => ErrorCode::EntitiesLimit,
            RegistryError::Refused(_)
            | RegistryError::Taken(_)
            | RegistryError::Mail(_)
            | RegistryError::Events(_)
            | RegistryError::Values(_)
            | RegistryError::Calls(_)
            | RegistryError::Documents(DocumentRefused::TooLarge | DocumentRefused::BadName) => {
                ErrorCode::BadRequestParams
            }
            RegistryError::Documents(DocumentRefused::Conflict { .. }) => {
                ErrorCode::VersionConflict
            }
            RegistryError::Documents(DocumentRefused::DeviceGone) => ErrorCode::ItemNotFound,
            RegistryError::Documents(DocumentRefused::Full) => ErrorCode::EntitiesLimit,
        };
        Self::new(code, error.to_string())
    }
}

impl Conversation for Connection {
    fn answer(&self, request: Request) -> Answered<'_> {
        let (head, body) = request.split();
        if socket::is_place(head.path()) {
            return Box::pin(async move { socket::answer(&self.rest, &self.caller, &head) });
        }
        let asked = format!("{} {}", head.method(), head.path());
        let address = self.caller.peer.ip().to_string();
        let actor = Actor::of(&asked, rand::random(), &address);
        Box::pin(as_actor(Some(actor), async move {
            let route = routes::route(head.method(), head.path(), head.query().unwrap_or_default());
            let label = match &route {
                Ok(Some(route)) => route.label(),
                Ok(None) | Err(_) => "none",
            };
            let done = match route {
                Ok(Some(route)) => self.respond(route, &head, body).await,
                Ok(None) => Err(Failed::not_found()),
                Err(wrong) => Err(wrong.into()),
            };
            let Reply { status, body, file } = done.unwrap_or_else(|failed| self.refusal(&failed));
            let requests = &self.rest.door.metrics.http_requests;
            requests.with_label_values(&[label, &status.to_string()]).inc();
            if let Some(File { headers, bytes }) = file {
                return Answer::stream(status, &headers, bytes);
            }
            let (name, value) = JSON_TYPE;
            Answer::whole(status, &[(name, value.to_owned())], body)
        }))
    }
}

impl Connection {
    fn refusal(&self, failed: &Failed) -> Reply {
        let body = failed.code.body(&failed.message, self.rest.now_ms());
        Reply::of(failed.code.status(), body.to_string())
    }

    async fn respond(&self, route: Route, head: &Head, body: Body) -> Result<Reply, Failed> {
        let Route::Auth(route) = route else {
            let who = self.rest.authorise(&self.caller, head).await?;
            if !self.rest.door.admits_request(who.tenant) {
                return Err(ErrorCode::TooManyRequests.into());
            }
            who.may(route.only_looks())?;
            // It is taken in piece by piece.
            if let Route::Packages(packages::Route::Upload { id, checksum, algorithm }) = route {
                let upload = packages::Upload { id, checksum, algorithm };
                return self.rest.upload(&who, upload, head, body).await;
            }
            let body = read(body).await?;
            return match route {
                Route::Devices(route) => self.rest.devices(&who, route, &body).await,
                Route::Telemetry(device, route) => {
                    self.rest.telemetry(&who, device, route, &body).await
                }
                Route::Calls(route) => self.rest.calls(&who, route, head, &body).await,
                Route::Profiles(route) => self.rest.profiles(&who, route, &body).await,
                Route::Packages(route) => self.rest.packages(&who, route, &body).await,
                Route::Claims(route) => self.rest.claims(&who, route, &body).await,
                Route::Auth(_) => Err(Failed::not_found()),
            };
        };
        self.rest.auth(&self.caller, route, head, body).await
    }
}

async fn read(body: Body) -> Result<Bytes, Failed> {
    read_most(body, BODY_BYTES_MAX).await
}

async fn read_most(body: Body, bytes_max: usize) -> Result<Bytes, Failed> {
    body.read(bytes_max).await.map_err(|unread| match unread {
        Unread::TooLarge => {
            let why = format!("a body has at most {} KiB", bytes_max / 1_024);
            Failed::new(ErrorCode::BadRequestParams, why)
        }
        // It hears nothing of it: its body broke off, or takes for ever.
        Unread::BrokeOff => ErrorCode::General.into(),
    })
}

fn parsed(body: &[u8]) -> Result<Value, Failed> {
    let json = serde_json::from_slice(body);
    json.map_err(|_| Failed::new(ErrorCode::InvalidArguments, "the body is no JSON"))
}
