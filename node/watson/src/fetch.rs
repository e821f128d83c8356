//! One queued command for a client that asks for it by a request: its session is opened for as long as the request takes.
//!
//! ```text
//!   question: who has the session? ──MQTT──► nothing, it is served there
//!        │ nobody, or another request
//!        ▼
//!   open ─► subscribe ─► the first delivery that was asked for ──► answered ─► settled ─► closed
//!                        └─ nothing in time, or another has the session now ──────────► closed
//! ```
//!
//! # Invariants
//!
//! - **A command is settled when its answer was taken** ([`Settling`]), and is there again for the next request if it was not.
//! - **A session that MQTT has is left alone**; one that another request has is taken over, so that a client that lost its connection
//!   does not wait for its own shadow. Between the question and the opening MQTT may come: then its client is told of a takeover, comes
//!   again, and loses nothing.
//! - **What was not asked for stays in the queue.** Of what waits, [`AHEAD_MAX`] are looked at.
//! - **Every wait ends**: the cluster's within [`ANSWER_WAIT`], that for what is queued within [`QUEUED_WAIT`].
//!
//! Checked by the cluster tests (`watson_http.rs`).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use moorline_core::{
    Delivery, Offset, QoS, SubscriptionOptions, TenantId, Text,
    port::{Close, Filter, Inbox, Link, Notice, Open, Opened, Overflow, Port, Refusal, Token},
    topic,
};
use moorline_dialects::watson::{http, identity::DeviceName};
use moorline_machine::query::SessionStanding;
use moorline_service::{Service, registry::RegistryError};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::rules::Requested;

/// How many queued messages are looked at for one that was asked for: more than one, since they may be other commands.
const AHEAD_MAX: u16 = 16;
/// How long the session may take to be open and subscribed.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long what is queued already may take to come, also for who does not wait.
const QUEUED_WAIT: Duration = Duration::from_secs(2);
/// Notices that wait to be looked at: a few for what was asked, and one or more for each message.
const NOTICES_MAX: usize = 64;
/// Of the one subscribe.
const SUBSCRIBE: Token = 1;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) tenant: TenantId,
    /// The session's name: the client id.
    pub(crate) session: Text,
    /// Which commands.
    pub(crate) filter: Text,
    pub(crate) requested: Requested,
    /// How long is waited for one that is not there yet.
    pub(crate) wait: Duration,
}

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) device: DeviceName,
    pub(crate) name: Text,
    pub(crate) format: Text,
    pub(crate) payload: Bytes,
}

/// What came of it.
pub(crate) enum Fetched {
    Command(Command, Settling),
    /// None came in time.
    Nothing,
    /// MQTT has the session, or has it now.
    Elsewhere,
}

/// What is left to do for a command that was found. Dropped without it, the command is there again.
pub(crate) struct Settling {
    link: Box<dyn Link>,
    /// Of those that are queued.
    offset: Option<Offset>,
}

impl Settling {
    /// The client has it.
    pub(crate) fn settle(mut self) {
        if let Some(offset) = self.offset {
            self.link.settle(&[offset]);
        }
        self.link.close(GOODBYE);
    }
}

const GOODBYE: Close = Close::Clean { expiry_s: None, with_will: false };

/// Why there will be no command.
enum Fruitless {
    TakenOver,
    Stopping,
    Refused(Refusal),
}

/// Finds one.
///
/// Dropping it closes the session, and the command stays where it is.
pub(crate) async fn fetch(
    service: &Service,
    wanted: Wanted,
    stop: &CancellationToken,
) -> Result<Fetched, Refusal> {
    let Wanted { tenant, session, filter, requested, wait } = wanted;
    match service.registry().session(tenant, &session).await {
        Ok(Some(standing)) if is_elsewhere(&standing, &requested) => {
            return Ok(Fetched::Elsewhere);
        }
        Ok(_) => {}
        Err(RegistryError::Busy) => return Err(Refusal::Busy),
        Err(_) => return Err(Refusal::Unavailable),
    }
    let (sender, notices) = mpsc::channel(NOTICES_MAX);
    let link = service.connect(Arc::new(Heard(sender)));
    let mut fetching =
        Fetching { link, notices, filter, came: VecDeque::new(), seen: 0, upto: None };
    fetching.link.open(Open {
        tenant,
        client: session,
        who: None,
        clean_start: false,
        expiry_s: requested.expiry_s,
        credit: AHEAD_MAX.into(),
        limits: requested.limits,
        sessions_max: requested.sessions_max,
        will: None,
        window: AHEAD_MAX,
    });
    let found = match timeout(ANSWER_WAIT, fetching.begin()).await {
        Ok(Ok(opened)) => fetching.find(&opened, wait, stop).await,
        Ok(Err(over)) => Err(over),
        Err(_) => Err(Fruitless::Refused(Refusal::Unavailable)),
    };
    match found {
        Ok(Some((command, offset))) => {
            Ok(Fetched::Command(command, Settling { link: fetching.link, offset }))
        }
        Ok(None) | Err(Fruitless::Stopping) => {
            fetching.link.close(GOODBYE);
            Ok(Fetched::Nothing)
        }
        Err(Fruitless::TakenOver) => Ok(Fetched::Elsewhere),
        Err(Fruitless::Refused(refusal)) => Err(refusal),
    }
}

/// Whether MQTT has a session, and no request.
pub(crate) fn is_elsewhere(standing: &SessionStanding, requested: &Requested) -> bool {
    let of_requests = requested.expiry_s > 0 && standing.expiry_s == requested.expiry_s;
    standing.held && !of_requests
}

/// Where the session's notices go.
#[derive(Debug)]
struct Heard(mpsc::Sender<Notice>);

impl Inbox for Heard {
    fn push(&self, notice: Notice) -> Result<(), Overflow> {
        self.0.try_send(notice).map_err(|_| Overflow)
    }
}

/// A session that is looked into.
struct Fetching {
    link: Box<dyn Link>,
    notices: mpsc::Receiver<Notice>,
    filter: Text,
    /// What came and was not looked at yet.
    came: VecDeque<Delivery>,
    /// How many of the queue were looked at, and up to where.
    seen: u16,
    upto: Option<Offset>,
}

impl Fetching {
    /// Opens and subscribes.
    async fn begin(&mut self) -> Result<Opened, Fruitless> {
        let opened = loop {
            if let Notice::Opened(Ok(opened)) = self.next().await? {
                break opened;
            }
        };
        let options =
            SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        let filter = Filter { filter: self.filter.clone(), options };
        self.link.subscribe(SUBSCRIBE, vec![filter]);
        loop {
            if let Notice::Subscribed { granted, .. } = self.next().await? {
                let refused = |granted: Vec<_>| granted.into_iter().find_map(Result::err);
                return match granted.map(refused) {
                    Ok(None) => Ok(opened),
                    Ok(Some(refusal)) | Err(refusal) => Err(Fruitless::Refused(refusal)),
                };
            }
        }
    }

    /// The next notice; deliveries are put aside. Losing the future loses nothing.
    async fn next(&mut self) -> Result<Notice, Fruitless> {
        let unavailable = Fruitless::Refused(Refusal::Unavailable);
        let notice = self.notices.recv().await.ok_or(unavailable)?;
        match notice {
            Notice::Deliver(deliveries) => {
                self.came.extend(deliveries);
                Ok(Notice::Deliver(Vec::new()))
            }
            Notice::Retained(_) => {
                // No command is retained.
                self.link.retained_taken();
                Ok(Notice::Retained(Vec::new()))
            }
            Notice::TakenOver => Err(Fruitless::TakenOver),
            Notice::Stopping { .. } => Err(Fruitless::Stopping),
            Notice::Opened(Err(refusal)) => Err(Fruitless::Refused(refusal)),
            Notice::Lost | Notice::Ended(_) => Err(Fruitless::Refused(Refusal::Unavailable)),
            same @ (Notice::Opened(Ok(_))
            | Notice::Published { .. }
            | Notice::Completed { .. }
            | Notice::Released(_)
            | Notice::Subscribed { .. }
            | Notice::Unsubscribed { .. }) => Ok(same),
        }
    }

    /// Waits for a command.
    async fn find(
        &mut self,
        opened: &Opened,
        wait: Duration,
        stop: &CancellationToken,
    ) -> Result<Option<(Command, Option<Offset>)>, Fruitless> {
        let now = Instant::now();
        let (waits_until, queued_until) = (now + wait, now + QUEUED_WAIT.max(wait));
        loop {
            if let Some(found) = self.take() {
                return Ok(Some(found));
            }
            let all = opened.first == opened.end || self.has_seen_all(opened.end);
            let until = if all { waits_until } else { queued_until };
            tokio::select! {
                biased;
                notice = self.next() => drop(notice?),
                () = stop.cancelled() => return Ok(None),
                () = sleep_until(until) => return Ok(None),
            }
        }
    }

    /// Whether nothing more comes of what was queued before `end`.
    fn has_seen_all(&self, end: Offset) -> bool {
        self.seen >= AHEAD_MAX || self.upto.is_some_and(|upto| upto.next() >= end)
    }

    /// The first of what came that was asked for.
    fn take(&mut self) -> Option<(Command, Option<Offset>)> {
        while let Some(delivery) = self.came.pop_front() {
            if let Some(offset) = delivery.offset {
                self.upto = Some(offset);
                if delivery.released {
                    // Its client had it by MQTT already, and only did not say so to the end.
                    self.link.settle(&[offset]);
                    continue;
                }
                self.seen += 1;
            }
            let message = &delivery.message;
            if !topic::matches(self.filter.as_bytes(), message.topic.as_bytes()) {
                continue;
            }
            if let Some((device, name, format)) = http::command(message.topic.as_bytes()) {
                let payload = message.payload.clone();
                return Some((Command { device, name, format, payload }, delivery.offset));
            }
        }
        None
    }
}
