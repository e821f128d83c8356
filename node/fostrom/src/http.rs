//! Fostrom over HTTP, at the listener that all platforms share: what `moorline_dialects::fostrom::http` decides, done.
//!
//! # Invariants
//!
//! - **No body is read before it is known who sends it**, and none beyond [`BODY_BYTES_MAX`].
//! - **A device that asks again by one connection is let in by the version of its row**, compared where its mailbox is, with the same
//!   question or command: nobody whom a row that has changed since let in gets or settles anything.
//!
//! Checked by the cluster tests (`fostrom.rs`).

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use moorline_core::{
    op::{Answer as Done, Declined, Op},
    port::Refusal,
};
use moorline_dialects::fostrom::{
    http::{self, BODY_BYTES_MAX, Head, Route, Routed},
    identity::Credentials,
};
use moorline_http::{Answer, Answered, Body, Caller, Conversation, Platform, Request, Unread};
use moorline_service::registry::{
    Watch,
    door::{Admitted, By, Guest},
};
use prometheus::IntGauge;

use crate::{
    door::{Door, From},
    events,
};

/// HTTP with server-sent events for Fostrom's devices.
#[derive(Debug, Clone)]
pub struct Http(Door);

impl Http {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }
}

impl Platform for Http {
    /// What no platform before it claims: it answers what is in no table, too.
    fn claims(&self, _: &str) -> bool {
        true
    }

    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation> {
        let from = From { address: caller.peer.ip(), tls: caller.tls() };
        Box::new(Connection { door: self.0.clone(), from, caller, known: Mutex::new(None) })
    }
}

/// What the requests of one connection share.
struct Connection {
    door: Door,
    from: From,
    caller: Arc<Caller>,
    /// Who was let in last, and by what.
    known: Mutex<Option<Arc<Known>>>,
}

/// Who was let in, and what it showed.
struct Known {
    credentials: Credentials,
    admitted: Admitted,
}

impl Conversation for Connection {
    fn answer(&self, request: Request) -> Answered<'_> {
        Box::pin(async move {
            let (head, body) = request.split();
            let headers = head.headers();
            let head = Head { method: head.method(), path: head.path(), headers: &headers };
            self.outcome(&head, body).await.unwrap_or_else(whole)
        })
    }
}

impl Connection {
    async fn outcome(&self, head: &Head<'_>, body: Body) -> Result<Answer, http::Response> {
        let Routed { route, credentials } = http::route(head)?;
        let Some(credentials) = credentials else {
            return Ok(whole(http::respond(&route, None, Ok(Done::Done), None)));
        };
        if route == Route::Events {
            let admitted = self.door.admit_to_stay(&credentials, self.from, By::Http).await;
            let admitted = admitted.map_err(http::denied)?;
            self.caller.is_known();
            return Ok(self.stream(admitted, &route));
        }
        let known = match self.known(&credentials) {
            Some(known) if route.is_about_mail() => known,
            _ => self.admit(&credentials).await?,
        };
        let body = body.read(BODY_BYTES_MAX).await.map_err(|unread| {
            let declined = match unread {
                Unread::TooLarge => Refusal::TooLarge.into(),
                Unread::BrokeOff => Declined::Unreadable("the body broke off"),
            };
            self.door.declined(&known.admitted.guest, head.path, &declined);
            http::declined(&declined)
        })?;
        let (guest, identity) = (&known.admitted.guest, Some(&credentials.identity));
        let op = http::op(&route, head, body).inspect_err(|_| {
            let unreadable = Declined::Unreadable("the request");
            self.door.declined(guest, head.path, &unreadable);
        });
        let outcome = match op? {
            None => Ok(Done::Done),
            Some(op) if route.is_about_mail() => self.run_if(&known, op).await?,
            Some(op) => self.door.run(guest, op).await,
        };
        let waits = match &outcome {
            Ok(Done::Mail { size, .. } | Done::MailboxSize(size) | Done::Settled { size }) => {
                Some(*size > 0)
            }
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
        self.caller.is_known();
        let known = Arc::new(Known { credentials: credentials.clone(), admitted });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&known));
        Ok(known)
    }

    /// Has something done about its mail: as it was let in, else as it is let in now.
    async fn run_if(
        &self,
        known: &Known,
        op: Op,
    ) -> Result<Result<Done, Declined>, http::Response> {
        if let Some(outcome) = self.door.run_if(&known.admitted, op.clone()).await {
            return Ok(outcome);
        }
        let known = self.admit(&known.credentials).await?;
        Ok(self.door.run(&known.admitted.guest, op).await)
    }

    fn stream(&self, admitted: (Guest, Watch), route: &Route) -> Answer {
        let metric = self.door.metrics.connections.with_label_values(&["sse"]);
        metric.inc();
        // An open stream is a connection that speaks for the device.
        let open = (Open(metric), self.door.registry.arrive(&admitted.0));
        let head = http::respond(route, None, Ok(Done::Done), None);
        let events = events::feed(self.door.clone(), admitted, self.caller.stop.clone());
        let events = events.inspect(move |_| {
            // Gone with the stream, however that ends.
            let _ = &open;
        });
        Answer::stream(head.status, &head.headers, events)
    }
}

/// Counts a stream that is open.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn whole(response: http::Response) -> Answer {
    Answer::whole(response.status, &response.headers, response.body)
}
