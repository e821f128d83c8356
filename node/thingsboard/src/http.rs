//! The device API over HTTP, at the listener that all platforms share: what `moorline_dialects::thingsboard::http` decides, done.
//!
//! ```text
//!   head ─► route ─► whose token is it? ─► body ─► telemetry, attributes, … (device.rs) ─────► 200
//!                                              └─► polls.rs: waits for a change ─────────────► 200, 408
//! ```
//!
//! # Invariants
//!
//! - **200 means what a PUBACK means**: what was said is synced on a majority.
//! - **Nobody is let in by what an earlier request showed**: each is judged by the token in its own path.
//! - **No body is read before it is known who sends it**, but for provisioning, which anybody may ask for.
//!
//! Checked by the cluster tests (`thingsboard_http.rs`).

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use moorline_core::Text;
use moorline_dialects::thingsboard::{
    calls::{DeviceCall, SESSION_LIMITS_METHOD},
    http::{self, Response, Route, Routed},
    ota::{self, Source, is_assigned},
    payloads::{Encoding, Payloads},
    requests::{Answer as Said, Failure, PackageRequest, Request as Asked},
    values::Rules,
};
use moorline_edge::Doorkeeper;
use moorline_http::{
    Answer, Answered, Body, Caller, Conversation, Head, Platform, Request, Taken, Unread,
};
use moorline_machine::{
    CallRefused, DocumentRefused, EventRefused, ValueRefused, events::EVENT_BODY_BYTES_MAX,
};
use moorline_service::registry::{
    RegistryError, Watch,
    credential::prove::{Claim, Possession, Proven, Stay, Unproven},
    door::By,
    explain::{Cause, Stage},
    secrets::Secrets,
};
use tracing::info;

use crate::{
    device::{CALL_WAIT, Device, attributes_body, telemetry_body},
    door::Door,
    files::{File, WHOLE_BYTES_MAX, headers},
    marks::DEFAULT_KIND,
    outgoing,
    packages::Held,
    polls::{self, Awaited, Polled},
    provision::Asker,
};

/// What all paths begin with.
const PREFIX: &str = "/api/v1/";
/// The most bytes of a body: it becomes an event. The vendor takes more, which is held in memory until it is written.
const BODY_BYTES_MAX: usize = EVENT_BODY_BYTES_MAX;
/// What a package is to HTTP.
const OCTETS: &str = "application/octet-stream";

/// The device API for ThingsBoard's devices.
#[derive(Clone)]
pub(crate) struct Http {
    door: Door,
    secrets: Secrets,
    /// Who failed too often: the same that counts those of MQTT.
    doors: Doorkeeper,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// Behind this door.
    pub(crate) fn new(door: Door, secrets: Secrets, doors: Doorkeeper) -> Self {
        Self { door, secrets, doors }
    }
}

impl Platform for Http {
    fn claims(&self, path: &str) -> bool {
        path.starts_with(PREFIX)
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

/// Who asks, as long as it may stay.
struct Entered {
    device: Device,
    /// Its type.
    kind: Text,
    stay: Stay,
    watch: Watch,
}

impl Conversation for Connection {
    fn answer(&self, request: Request) -> Answered<'_> {
        Box::pin(async move {
            let (head, body) = request.split();
            let routed = http::route(head.method(), head.path(), head.query().unwrap_or_default());
            let what = routed.as_ref().map_or("none", |routed| label(&routed.route));
            let reply = match routed {
                Ok(routed) => self.respond(&routed, &head, body).await.unwrap_or_else(Reply::Whole),
                Err(response) => Reply::Whole(response),
            };
            let count = |status: u16| {
                let requests = &self.http.door.metrics.http_requests;
                requests.with_label_values(&[what, &status.to_string()]).inc();
            };
            match reply {
                Reply::Whole(Response { status, headers, body }) => {
                    count(status);
                    Answer::whole(status, &headers, body)
                }
                Reply::Told(Response { status, headers, body }, taken) => {
                    count(status);
                    Answer::told(status, &headers, body, taken)
                }
                Reply::File(File { headers, bytes }) => {
                    count(FILE_STATUS);
                    Answer::stream(FILE_STATUS, &headers, bytes)
                }
            }
        })
    }
}

/// What is answered.
enum Reply {
    /// All at once.
    Whole(Response),
    /// The same, and what is done when it was taken.
    Told(Response, Taken),
    /// What is read while it is sent.
    File(File),
}

/// The status of a file.
const FILE_STATUS: u16 = 200;

impl Connection {
    async fn respond(&self, routed: &Routed, head: &Head, body: Body) -> Result<Reply, Response> {
        let entered = match &routed.token {
            Some(token) => Some(self.enter(token).await.map_err(|why| http::respond(Err(why)))?),
            None => None,
        };
        let body = read(body, routed.body_bytes_max.min(BODY_BYTES_MAX)).await?;
        let now_ms = i64::try_from(self.http.door.clock.wall().0).unwrap_or(i64::MAX);
        let payloads = match &entered {
            Some(Entered { device, kind, .. }) if http::is_protobuf(content_type(head)) => {
                let known = device.door.profile_of(device.guest.tenant, kind.as_str()).await;
                known.map_err(|error| refused(&error))?.payloads()
            }
            Some(_) | None => Arc::new(Payloads::Json),
        };
        let encoding = http::encoding(&payloads, content_type(head));
        let asked = routed.request(encoding, &body, now_ms, &Rules::default());
        let asked = asked.inspect_err(|_| {
            self.note_refused(entered.as_ref(), head, Cause::UnreadablePayload);
        })?;
        let Some(entered) = entered else {
            let Asked::Provision { request, .. } = asked else {
                return Err(http::respond(Err(Failure::Unauthorised)));
            };
            let asker = Asker { from: self.caller.peer.ip(), tls: self.caller.tls() };
            let answer = self.http.door.provision(&self.http.doors, asker, &request).await;
            return Ok(Reply::Whole(http::respond(Ok(Said::Provisioned(answer)))));
        };
        if let Some(cost) = asked.cost() {
            let admitted = entered.device.admitted(cost);
            admitted.map_err(|refusal| {
                self.note_refused(Some(&entered), head, Cause::TooOften);
                http::limited(&refusal.text())
            })?;
        }
        if let Asked::Package(request) = asked {
            return self.package(&entered.device, &request).await;
        }
        if let Asked::PollAttributes { timeout_ms } = asked {
            let wait = Duration::from_millis(timeout_ms);
            return self.poll(entered, Awaited::Attributes, wait).await;
        }
        if let Asked::PollCall { timeout_ms } = asked {
            let wait = Duration::from_millis(timeout_ms);
            return self.poll(entered, Awaited::Call, wait).await;
        }
        let body = (encoding == Encoding::Json).then_some(&body);
        let said = self.carry_out(&entered, asked, body).await?;
        Ok(Reply::Whole(http::respond(Ok(said))))
    }

    /// A part of a package, or all of it.
    async fn package(&self, device: &Device, request: &PackageRequest) -> Result<Reply, Response> {
        let failed = |why: Failure| http::respond(Err(why));
        let PackageRequest { kind, title, version, size, chunk } = request;
        let held = device.door.assigned_to(&device.guest, *kind).await;
        let held = held.map_err(|error| refused(&error))?;
        let package = held.as_ref().and_then(Held::package);
        let (Some(held), Some(package)) = (held, package) else {
            return Err(failed(Failure::NoPackage));
        };
        if !is_assigned(&package, title.as_deref(), version.as_deref()) {
            return Err(failed(Failure::OtherPackage));
        }
        let (Source::Stored { size: total, .. }, Some(pieces)) =
            (package.source, held.pieces(device.guest.tenant))
        else {
            return Err(failed(Failure::NoPackage));
        };
        let range = ota::chunk(total, *size, *chunk, u64::MAX);
        let range = range.map_err(|error| failed(error.into()))?;
        let bytes = range.end - range.start;
        if bytes > WHOLE_BYTES_MAX {
            let headers = headers(held.file_name(), OCTETS, bytes);
            let bytes = pieces.stream(device.door.clone(), range);
            return Ok(Reply::File(File { headers, bytes }));
        }
        let bytes = pieces.whole(&device.door, range).await.map_err(|error| refused(&error))?;
        let file_name = held.file_name().to_owned();
        Ok(Reply::Whole(http::respond(Ok(Said::Chunk { file_name, bytes }))))
    }

    /// Whoever asks later why it did not arrive hears of it. Not the whole path: a token stands in it.
    fn note_refused(&self, entered: Option<&Entered>, head: &Head, cause: Cause) {
        let Some(Entered { device, .. }) = entered else { return };
        let what = head.path().rsplit_once('/').map_or("", |(_, what)| what);
        let whose = (device.guest.tenant, &device.guest.device);
        device.door.registry.note_refused(whose, Stage::Request, what, cause);
    }

    // ---- who it is

    /// Lets a request in: judges who has not failed too often, so that nobody guesses for long.
    async fn enter(&self, token: &str) -> Result<Entered, Failure> {
        let Http { door, secrets, doors } = &self.http;
        let (token, from) = (Text::from(token), self.caller.peer.ip());
        if doors.banned(&token, from, door.clock.wall()).is_some() {
            return Err(Failure::Unauthorised);
        }
        let claim = Claim {
            by: By::Http,
            tls: self.caller.tls(),
            server_name: self.caller.channel.server_name.as_ref(),
            client: &Text::default(),
            user: Some(&token),
            password: None,
            possession: Possession::Nothing,
        };
        let proving = Box::pin(door.registry.prove(secrets, &claim, door.clock.wall().0));
        let why = |unproven: &Unproven| Some(unproven.cause());
        match door.registry.remembering(from, why, proving).await {
            Ok(Proven { stay, watch, who, .. }) if door.takes(stay.guest.tenant) => {
                doors.succeeded(&token, from);
                self.caller.is_known();
                door.registry.heard(&stay.guest);
                let device = Device { door: door.clone(), guest: stay.guest.clone() };
                let kind = who.kind.clone().unwrap_or_else(|| Text::from(DEFAULT_KIND));
                Ok(Entered { device, kind, stay, watch })
            }
            Err(Unproven::Busy | Unproven::Unavailable) => Err(Failure::Failed),
            Ok(_) | Err(Unproven::Nothing | Unproven::Wrong) => {
                if doors.failed(&token, from, door.clock.wall()) {
                    // Not who: that is a token.
                    info!(%from, "a client failed too often and is banned for a while");
                }
                Err(Failure::Unauthorised)
            }
            Err(Unproven::Expired | Unproven::Plaintext) => Err(Failure::Unauthorised),
        }
    }

    // ---- what is asked for

    async fn carry_out(
        &self,
        entered: &Entered,
        asked: Asked,
        body: Option<&Bytes>,
    ) -> Result<Said, Response> {
        let device = &entered.device;
        match asked {
            Asked::Telemetry(samples) => {
                let body = telemetry_body(body, &samples);
                done(device.telemetry(samples, body).await)
            }
            Asked::Attributes(reported) => {
                let body = attributes_body(body, &reported);
                done(device.attributes(reported, body).await)
            }
            Asked::ReadAttributes(wanted) => {
                device.read(&wanted).await.map(Said::Attributes).map_err(|error| refused(&error))
            }
            Asked::Call(call) => self.call(entered, &call).await,
            Asked::CallReply { id, data } => done(outgoing::answered(device, id, data).await),
            Asked::Claim(claim) => done(device.claim(&claim).await),
            // No route asks for the others here.
            Asked::Package(_)
            | Asked::PollAttributes { .. }
            | Asked::PollCall { .. }
            | Asked::Provision { .. }
            | Asked::Gateway(_) => Err(http::respond(Err(Failure::Failed))),
        }
    }

    /// A call of the device: applications hear of it, and one may answer.
    async fn call(&self, entered: &Entered, call: &DeviceCall) -> Result<Said, Response> {
        let device = &entered.device;
        if call.method == SESSION_LIMITS_METHOD {
            return Ok(Said::CallAnswered(device.limits(false).to_json().to_string()));
        }
        let own = device.calls().ok_or_else(|| http::respond(Err(Failure::RateLimited)))?;
        device.called(call, &own).await.map_err(|error| refused(&error))?;
        let _present = device.door.registry.arrive(&entered.stay.guest);
        let why = tokio::select! {
            answer = own.answered(CALL_WAIT) => {
                let text = answer.and_then(|answer| String::from_utf8(answer.to_vec()).ok());
                match text {
                    Some(text) => return Ok(Said::CallAnswered(text)),
                    None => Failure::TimedOut,
                }
            }
            // It asks another node.
            () = self.caller.stop.cancelled() => Failure::TimedOut,
            () = revoked(entered) => Failure::Gone,
        };
        Err(http::respond(Err(why)))
    }

    async fn poll(
        &self,
        entered: Entered,
        awaited: Awaited,
        wait: Duration,
    ) -> Result<Reply, Response> {
        let device = &entered.device;
        // As long as it waits it is a connection that speaks for the device.
        let _present = device.door.registry.arrive(&entered.stay.guest);
        let polled = tokio::select! {
            polled = polls::poll(device, awaited, wait) => polled,
            () = self.caller.stop.cancelled() => Ok(Polled::Nothing),
            () = revoked(&entered) => return Err(http::respond(Err(Failure::Gone))),
        };
        let polled = polled.map_err(|error| refused(&error))?;
        let device = device.clone();
        let (said, taken): (_, Taken) = match polled {
            Polled::Nothing => return Err(http::respond(Err(Failure::TimedOut))),
            Polled::Changed(version, changed) => {
                let taken = Box::new(move || device.spawn(device.was_told(version)));
                (Said::Changed(changed), taken)
            }
            Polled::Call(call) => {
                let number = call.number;
                let said = Said::Call(outgoing::server_call(&call));
                (said, Box::new(move || device.spawn(outgoing::delivered(&device, number))))
            }
            Polled::Mail(call, id) => {
                let taken = Box::new(move || device.spawn(polls::taken(device.clone(), id)));
                (Said::Call(call), taken)
            }
        };
        Ok(Reply::Told(http::respond(Ok(said)), taken))
    }
}

/// Returns when a device that waits may not stay.
async fn revoked(entered: &Entered) {
    let Entered { device, stay, watch, .. } = entered;
    let now_ms = || device.door.clock.wall().0;
    let stays = || device.door.registry.stays(stay, now_ms());
    watch.until_revoked(stay.until_ms, now_ms, stays).await;
}

/// What a body says that it is.
fn content_type(head: &Head) -> &str {
    let all = head.headers();
    let said = all.iter().find(|(name, _)| *name == "content-type").map(|(_, value)| *value);
    said.and_then(|said| std::str::from_utf8(said).ok()).unwrap_or_default()
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Response> {
    body.read(bytes_max).await.map_err(|unread| match unread {
        Unread::TooLarge => http::too_large(),
        // It hears nothing of it: its body broke off, or takes for ever.
        Unread::BrokeOff => http::respond(Err(Failure::TimedOut)),
    })
}

fn done(written: Result<(), RegistryError>) -> Result<Said, Response> {
    written.map(|()| Said::Done).map_err(|error| refused(&error))
}

fn refused(error: &RegistryError) -> Response {
    let failure = match error {
        RegistryError::Values(ValueRefused::DeviceGone)
        | RegistryError::Events(EventRefused::DeviceGone)
        | RegistryError::Calls(CallRefused::DeviceGone)
        | RegistryError::Documents(DocumentRefused::DeviceGone)
        | RegistryError::Refused(_) => Failure::Gone,
        // What is too much, or too large, is no better the next time.
        RegistryError::Values(_)
        | RegistryError::Events(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_) => {
            return http::bad_request(&error.to_string());
        }
        RegistryError::Busy => Failure::RateLimited,
        RegistryError::Unavailable
        | RegistryError::TooManyReaders
        | RegistryError::DiskFull
        | RegistryError::Taken(_)
        | RegistryError::Mail(_) => Failure::Failed,
    };
    http::respond(Err(failure))
}

/// What is asked for, as a label.
fn label(route: &Route) -> &'static str {
    match route {
        Route::Telemetry => "telemetry",
        Route::Attributes => "attributes",
        Route::ReadAttributes(_) => "attributes_request",
        Route::PollAttributes { .. } => "attributes_poll",
        Route::PollCall { .. } => "call_poll",
        Route::Call | Route::CallReply(_) => "call",
        Route::Claim => "claim",
        Route::Package(_) => "package",
        Route::Provision => "provision",
    }
}
