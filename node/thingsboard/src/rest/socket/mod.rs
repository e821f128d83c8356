//! The WebSocket of the API: who connects, what is subscribed to, and what is pushed.
//!
//! ```text
//!   messages ─► commands ─► a task for each subscription (watching.rs, many.rs) ─┐
//!   pushes   ◄─ OUTGOING_MAX ◄───────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - **Nothing is done for who has not said who it is**, and who does not say so within [`AUTH_WAIT`] is closed. Who it is
//!   is looked at again with each message, and every [`LOOK_INTERVAL`]: a token that is deleted or over ends its connection.
//! - **Who sees what is as of the REST API**: devices of its tenant only.
//! - **Bounded**: [`SUBSCRIPTIONS_MAX`] of a connection, [`CONNECTIONS_PER_TENANT_MAX`] at a node, [`OUTGOING_MAX`] pushes. Who reads
//!   slowly gets fewer of them, each with what is new by then; who reads nothing is closed by the listener.
//! - **Every task ends with its connection.**
//!
//! Checked by the cluster tests (`thingsboard_socket.rs`).

mod many;
mod sought;
mod watching;

use std::{collections::HashMap, sync::Arc, time::Duration};

use moorline_core::TenantId;
use moorline_dialects::thingsboard::{
    json::Json,
    query::Query,
    rest::{
        auth::Bearer,
        errors::ErrorCode,
        finding::{self, DataCommand, Finding},
        websocket::{
            self, Auth, CLOSE_AWAY, CLOSE_POLICY, Command, Entity, Kind, NO_COMMAND,
            SubscriptionError, refused,
        },
    },
};
use moorline_http::{Answer, Caller, Head, Heard, WebSocket};
use tokio::{
    sync::mpsc,
    task::{self, AbortHandle, JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::debug;
use uuid::Uuid;

use self::{
    many::Many,
    watching::{Form, Subject, Watching},
};
use super::{Failed, Rest};
use crate::{
    metrics::Counted,
    places::{Place, Places},
};

/// Subscriptions of one connection, and questions for the past that are being answered; a command for many devices is as many as its page
/// may have devices, for each sort of value that it wants.
const SUBSCRIPTIONS_MAX: usize = 256;
/// Connections of one tenant at a node: so that its subscriptions may all wait at one shard's leader (`LISTENERS_MAX`).
const CONNECTIONS_PER_TENANT_MAX: usize = 64;
/// Connections of all tenants at a node: each has a task and a few pushes in memory.
const CONNECTIONS_MAX: usize = 10_000;
/// Pushes that wait for a connection. A subscription whose push finds no room waits, and tells what is new by then.
const OUTGOING_MAX: usize = 16;
/// How long who connects may take to say who it is.
const AUTH_WAIT: Duration = Duration::from_secs(10);
/// How often is looked whether it still is.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// What is counted of its requests.
const LABEL: &str = "rest_socket";
/// The status that is counted with them: of the handshake, and of who is refused behind it.
const OPENED: &str = "101";
const REFUSED: &str = "401";

/// Places of looks at lists that are followed.
pub(super) fn looks() -> Places<TenantId> {
    many::looks()
}

/// Places of connections.
pub(super) fn places() -> Places<TenantId> {
    Places::new(CONNECTIONS_PER_TENANT_MAX, CONNECTIONS_MAX)
}

/// Whether a WebSocket is spoken there.
pub(super) fn is_place(path: &str) -> bool {
    path == websocket::PATH || path == websocket::PATH_OLD
}

/// Answers a handshake.
pub(super) fn answer(rest: &Rest, caller: &Arc<Caller>, head: &Head) -> Answer {
    let query = Query::of(head.query().unwrap_or_default());
    let said = query.ok().and_then(|query| query.get("token").map(str::to_owned));
    let (rest, caller) = (rest.clone(), Arc::clone(caller));
    let talk = move |socket| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { talk(rest, caller, said.map(Bearer::Token), socket).await })
    };
    Answer::websocket(head, Box::new(talk))
}

/// Why a connection is closed.
struct Closed(u16, String);

impl From<Failed> for Closed {
    fn from(failed: Failed) -> Self {
        Self(CLOSE_POLICY, failed.message)
    }
}

async fn talk(rest: Rest, caller: Arc<Caller>, said: Option<Bearer>, mut socket: WebSocket) {
    let counted = |status: &str| {
        rest.door.metrics.http_requests.with_label_values(&[LABEL, status]).inc();
    };
    let stop = caller.stop.clone();
    let closed = tokio::select! {
        () = stop.cancelled() => Some(Closed(CLOSE_AWAY, "the node stops".to_owned())),
        let_in = Session::begin(&rest, &caller, said, &mut socket) => match let_in {
            Ok(Some((session, first))) => {
                counted(OPENED);
                let _counted = Counted::of(&rest.door.metrics.sockets);
                session.serve(&mut socket, first).await
            }
            Ok(None) => None,
            Err(closed) => {
                counted(REFUSED);
                Some(closed)
            }
        },
    };
    if let Some(Closed(code, reason)) = closed {
        debug!(peer = %caller.peer, code, reason, "a WebSocket is closed");
        socket.close(code, &reason).await;
    }
}

/// A connection of somebody who is known.
struct Session {
    rest: Rest,
    caller: Arc<Caller>,
    bearer: Bearer,
    tenant: TenantId,
    _place: Place<TenantId>,
    outgoing: mpsc::Sender<String>,
    pushes: mpsc::Receiver<String>,
    tasks: JoinSet<i64>,
    /// By the ids of their commands.
    known: HashMap<i64, Known>,
}

/// A command that is being carried out.
struct Known {
    task: AbortHandle,
    /// How many subscriptions it is.
    weight: usize,
    /// Which devices it has found: a later one with its id may want more of them.
    found: Option<Finding>,
}

impl Session {
    /// Finds out who connects: it, and its first message if it had to say so there. `None`: it has gone.
    async fn begin(
        rest: &Rest,
        caller: &Arc<Caller>,
        said: Option<Bearer>,
        socket: &mut WebSocket,
    ) -> Result<Option<(Self, Option<String>)>, Closed> {
        let unsaid = || Closed(CLOSE_POLICY, "the first message has to say who you are".to_owned());
        let (bearer, first) = match said {
            Some(bearer) => (bearer, None),
            None => match timeout(AUTH_WAIT, socket.hear()).await.map_err(|_| unsaid())? {
                Heard::Text(text) => {
                    let read = websocket::read(&text, rest.now_ms()).ok();
                    let auth = read.and_then(|message| message.auth);
                    (auth.and_then(bearer_of).ok_or_else(unsaid)?, Some(text))
                }
                Heard::Bytes | Heard::Upto(_) => return Err(unsaid()),
                Heard::Gone => return Ok(None),
            },
        };
        let who = rest.authorise_bearer(caller, bearer.clone()).await?;
        let place = rest.places.take(who.tenant).ok_or_else(|| {
            Closed(CLOSE_POLICY, "there are as many connections as there may be".to_owned())
        })?;
        let (outgoing, pushes) = mpsc::channel(OUTGOING_MAX);
        let session = Self {
            rest: rest.clone(),
            caller: Arc::clone(caller),
            bearer,
            tenant: who.tenant,
            _place: place,
            outgoing,
            pushes,
            tasks: JoinSet::new(),
            known: HashMap::new(),
        };
        Ok(Some((session, first)))
    }

    /// Serves it until it is over; why, if there is somebody to tell.
    async fn serve(mut self, socket: &mut WebSocket, first: Option<String>) -> Option<Closed> {
        let stop = self.caller.stop.clone();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(first) = first {
            self.command(socket, &first).await?;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    return Some(Closed(CLOSE_AWAY, "the node stops".to_owned()));
                }
                _ = looks.tick() => {
                    if let Some(closed) = self.look().await {
                        return Some(closed);
                    }
                }
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Some(push) = self.pushes.recv() => {
                    if !socket.say(push).await {
                        return None;
                    }
                }
                heard = socket.hear() => match heard {
                    Heard::Text(text) => {
                        if let Some(closed) = self.look().await {
                            return Some(closed);
                        }
                        self.command(socket, &text).await?;
                    }
                    Heard::Bytes | Heard::Upto(_) => {}
                    Heard::Gone => return None,
                },
            }
        }
    }

    /// Whether it may go on: what closes it, if not. Who can't be asked now is asked again.
    async fn look(&self) -> Option<Closed> {
        let asked = self.rest.authorise_bearer(&self.caller, self.bearer.clone()).await;
        match asked {
            Err(failed) if failed.code != ErrorCode::Database => Some(failed.into()),
            Ok(_) | Err(_) => None,
        }
    }

    /// Does what a message says. `None`: nobody is there any more.
    async fn command(&mut self, socket: &mut WebSocket, text: &str) -> Option<()> {
        match websocket::read(text, self.rest.now_ms()) {
            Ok(message) => {
                for command in message.commands {
                    if let Err(refused) = self.begin_one(command) {
                        socket.say(refused.to_string()).await.then_some(())?;
                    }
                }
                Some(())
            }
            Err(why) => {
                let refused = refused(NO_COMMAND, SubscriptionError::BadRequest, &why.to_string());
                socket.say(refused.to_string()).await.then_some(())
            }
        }
    }

    /// A task has ended. One that was aborted has lost its id to another before, or to nobody.
    fn ended(&mut self, ended: Result<(task::Id, i64), JoinError>) {
        if let Ok((task, id)) = ended
            && let Some(known) = self.known.get_mut(&id)
            && known.task.id() == task
        {
            match known.found {
                // What it has found may be asked for again.
                Some(_) => known.weight = 1,
                None => drop(self.known.remove(&id)),
            }
        }
    }

    /// Begins or ends a subscription; what is said if it can't be.
    fn begin_one(&mut self, Command { id, kind }: Command) -> Result<(), Json> {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
        let before = self.known.remove(&id);
        if let Some(before) = &before {
            before.task.abort();
        }
        let no = |why: String| Err(refused(id, SubscriptionError::BadRequest, &why));
        let (entity, subject) = match kind {
            Kind::Unsubscribe => return Ok(()),
            Kind::Unsupported(name) => return no(format!("{name} is not served")),
            Kind::Unfound { counts, why } => return Err(unfound(id, &why, counts)),
            Kind::Count(sought) => {
                let many = self.many(id);
                return self
                    .spawn(id, 1, None, many.count(sought))
                    .map_err(|why| unfound(id, &why, true));
            }
            Kind::Data(command) => {
                return self
                    .begin_data(id, *command, before)
                    .map_err(|why| unfound(id, &why, false));
            }
            Kind::Attributes { entity, scope, keys } => {
                (entity, Subject::Attributes { scope, keys })
            }
            Kind::Timeseries { entity, keys, past } => (entity, Subject::Series { keys, past }),
            Kind::History { entity, keys, past } => (entity, Subject::Past { keys, past }),
        };
        let device = match device_of(&entity) {
            Ok(device) => device,
            Err(why) => return no(why),
        };
        let (rest, tenant, outgoing) = (self.rest.clone(), self.tenant, self.outgoing.clone());
        let form = Form::Subscription;
        let watching = Watching { rest, tenant, id, subject, form, outgoing };
        self.spawn(id, 1, None, watching.run(device)).or_else(no)
    }

    /// A command for many devices; one that says no others is for those of the command before it.
    fn begin_data(
        &mut self,
        id: i64,
        command: DataCommand,
        before: Option<Known>,
    ) -> Result<(), String> {
        let found = command.finding.clone().or(before.and_then(|before| before.found));
        let found = found.ok_or("query is needed")?;
        let (weight, many) = (many::weight(&command, &found), self.many(id));
        self.spawn(id, weight, Some(found.clone()), many.run(command, found))
    }

    fn many(&self, id: i64) -> Many {
        let (rest, tenant, outgoing) = (self.rest.clone(), self.tenant, self.outgoing.clone());
        Many { rest, tenant, id, outgoing }
    }

    /// Carries out a command, if there is room for as many subscriptions as it is.
    fn spawn(
        &mut self,
        id: i64,
        weight: usize,
        found: Option<Finding>,
        done: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), String> {
        let taken: usize = self.known.values().map(|known| known.weight).sum();
        if taken.saturating_add(weight) > SUBSCRIPTIONS_MAX {
            return Err(format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions"));
        }
        let task = self.tasks.spawn(async move {
            done.await;
            id
        });
        self.known.insert(id, Known { task, weight, found });
        Ok(())
    }
}

fn unfound(id: i64, why: &str, counts: bool) -> Json {
    finding::not_found(id, SubscriptionError::BadRequest, why, counts)
}

fn bearer_of(auth: Auth) -> Option<Bearer> {
    let Auth { cmd_id: _, token, api_key } = auth;
    let token = token.filter(|token| !token.is_empty()).map(Bearer::Token);
    token.or(api_key.filter(|key| !key.is_empty()).map(Bearer::ApiKey))
}

fn device_of(entity: &Entity) -> Result<Uuid, String> {
    if entity.entity_type != "DEVICE" {
        return Err(format!("{} is not served: devices are", entity.entity_type));
    }
    entity.id.parse().map_err(|_| "entityId is no id".to_owned())
}
