//! Fostrom over HTTP/1.1, by hyper: the sockets of what `moorline_dialects::fostrom::http` decides.
//!
//! # Invariants
//!
//! - **No body is read before it is known who sends it**, and none beyond [`BODY_BYTES_MAX`].
//! - **A device that asks again by one connection is let in by the version of its row**, compared where its mailbox is, with the same
//!   question or command: nobody whom a row that has changed since let in gets or settles anything.
//! - **Every wait ends**: a head within [`HEAD_WAIT`], which is also how long a connection may rest, a body within [`BODY_WAIT`].
//!
//! Checked by the cluster tests (`fostrom.rs`).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{
    BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody,
};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONNECTION, HeaderValue, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_core::{
    op::{Answer, Declined, Op},
    port::Refusal,
};
use moorline_dialects::fostrom::{
    http::{self, BODY_BYTES_MAX, Head, Route, Routed},
    identity::Credentials,
};
use moorline_edge::{Served, Speaks, Stalling, Stranger, Visit};
use moorline_service::registry::{
    Watch,
    door::{Admitted, By, Guest},
};
use prometheus::IntGauge;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    door::{Door, From},
    events,
};

/// How long a request's head may take, and how long a connection may rest between two.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a body may take.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what it is sent: a stream must not keep its place for nothing.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 100;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// HTTP with server-sent events for Fostrom's devices: beside MQTT over WebSocket at the same listener.
#[derive(Debug, Clone)]
pub struct Http(Door);

impl Http {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }
}

impl Speaks for Http {
    fn name(&self, tls: bool) -> &'static str {
        if tls { "https" } else { "http" }
    }

    fn serve(&self, visit: Visit) -> Served {
        Box::pin(serve(self.0.clone(), visit))
    }
}

/// What the requests of one connection share.
struct Connection {
    door: Door,
    from: From,
    stop: CancellationToken,
    /// Until somebody has proved who it is.
    stranger: Mutex<Option<Stranger>>,
    /// Who was let in last, and by what.
    known: Mutex<Option<Arc<Known>>>,
}

/// Who was let in, and what it showed.
struct Known {
    credentials: Credentials,
    admitted: Admitted,
}

async fn serve(door: Door, visit: Visit) {
    let Visit { stream, peer, tls, stop, stranger, .. } = visit;
    let stranger = Mutex::new(stranger);
    let from = From { address: peer.ip(), tls };
    let known = Mutex::new(None);
    let shared = Arc::new(Connection { door, from, stop: stop.clone(), stranger, known });
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Stalling::new(stream, STALL_MAX)), service);
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        debug!(%peer, %error, "an HTTP connection ended badly");
    }
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let headers: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        // What a proxy in front takes for the end of such a body may be another place: nothing behind it is a request.
        let ends = head.headers.contains_key(TRANSFER_ENCODING);
        let head = Head { method: head.method.as_str(), path: head.uri.path(), headers: &headers };
        let mut answer = self.outcome(&head, body).await.unwrap_or_else(whole);
        if ends {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn outcome(
        &self,
        head: &Head<'_>,
        body: Incoming,
    ) -> Result<Response<Body>, http::Response> {
        let Routed { route, credentials } = http::route(head)?;
        let Some(credentials) = credentials else {
            return Ok(whole(http::respond(&route, None, Ok(Answer::Done), None)));
        };
        if route == Route::Events {
            let admitted = self.door.admit_to_stay(&credentials, self.from, By::Http).await;
            let admitted = admitted.map_err(http::denied)?;
            self.is_known();
            return Ok(self.stream(admitted, &route));
        }
        let known = match self.known(&credentials) {
            Some(known) if route.is_about_mail() => known,
            _ => self.admit(&credentials).await?,
        };
        let body = match timeout(BODY_WAIT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(http::declined(&Refusal::TooLarge.into()));
            }
            Ok(Err(_)) | Err(_) => {
                return Err(http::declined(&Declined::Unreadable("the body broke off")));
            }
        };
        let (guest, identity) = (&known.admitted.guest, Some(&credentials.identity));
        let outcome = match http::op(&route, head, body)? {
            None => Ok(Answer::Done),
            Some(op) if route.is_about_mail() => self.run_if(&known, op).await?,
            Some(op) => self.door.run(guest, op).await,
        };
        let waits = match &outcome {
            Ok(
                Answer::Mail { size, .. } | Answer::MailboxSize(size) | Answer::Settled { size },
            ) => Some(*size > 0),
            _ => self.door.mail_waits(guest).await,
        };
        Ok(whole(http::respond(&route, identity, outcome, waits)))
    }

    /// Who was let in last, if it shows the same again and might still be let in.
    fn known(&self, credentials: &Credentials) -> Option<Arc<Known>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let is_same = known.credentials.are_same(credentials)
            && self.door.may_return(&known.admitted, credentials, self.from);
        is_same.then_some(known)
    }

    async fn admit(&self, credentials: &Credentials) -> Result<Arc<Known>, http::Response> {
        let admitted = self.door.admit(credentials, self.from, By::Http).await;
        let admitted = admitted.map_err(http::denied)?;
        self.is_known();
        let known = Arc::new(Known { credentials: credentials.clone(), admitted });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&known));
        Ok(known)
    }

    /// Has something done about its mail: as it was let in, else as it is let in now.
    async fn run_if(
        &self,
        known: &Known,
        op: Op,
    ) -> Result<Result<Answer, Declined>, http::Response> {
        if let Some(outcome) = self.door.run_if(&known.admitted, op.clone()).await {
            return Ok(outcome);
        }
        let known = self.admit(&known.credentials).await?;
        Ok(self.door.run(&known.admitted.guest, op).await)
    }

    /// Its address may send another one who has to prove who it is.
    fn is_known(&self) {
        drop(self.stranger.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn stream(&self, admitted: (Guest, Watch), route: &Route) -> Response<Body> {
        let metric = self.door.metrics.connections.with_label_values(&["sse"]);
        metric.inc();
        // An open stream is a connection that speaks for the device.
        let open = (Open(metric), self.door.registry.arrive(&admitted.0));
        let head = http::respond(route, None, Ok(Answer::Done), None);
        let events = events::feed(self.door.clone(), admitted, self.stop.clone());
        let frames = events.map(move |bytes| {
            // Gone with the stream, however that ends.
            let _ = &open;
            Ok::<_, Infallible>(Frame::data(bytes))
        });
        with_body(&head, UnsyncBoxBody::new(StreamBody::new(frames)))
    }
}

/// Counts a stream that is open.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn whole(response: http::Response) -> Response<Body> {
    let body = Full::new(response.body.clone());
    with_body(&response, UnsyncBoxBody::new(body))
}

fn with_body(response: &http::Response, body: Body) -> Response<Body> {
    let mut built = Response::new(body);
    *built.status_mut() =
        StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &response.headers {
        // Both are ours: letters and digits.
        if let Ok(value) = value.parse() {
            built.headers_mut().insert(*name, value);
        }
    }
    built
}
