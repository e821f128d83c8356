//! Subscriptions: a row or a live entry first, then a route, then the barrier, then the answer.
//!
//! Invariant: a client hears of its subscription only after every node that may publish has applied the route to it.
//! Checked by the cluster tests (`a_suback_covers_publishes_on_every_node`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moorline_core::{
    QoS, ShardId, SubscriptionOptions, TenantId, Text,
    port::{Filter, Notice, Refusal, Token},
};
use moorline_group::wire::{Kind, Lane};
use moorline_machine::{
    Answer, Command,
    answer::{Refused, RouteChange},
    command::Subscription,
};

use tracing::debug;

use crate::{
    conn::{Conn, Whose},
    frames::Report,
    leader::route_command,
    refusal_of,
    retained::{Goal, Stream, Want},
    service::Inner,
    shared::is_shared,
};

/// How long a subscription may take.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(20);
/// How long one question of it may take.
const ASK_WAIT: Duration = Duration::from_secs(3);
/// The pause before a question is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// The highest QoS that is granted.
const GRANTED_MAX: QoS = QoS::ExactlyOnce;

/// What is asked of a shard for a filter.
pub(crate) fn subscription(asked: Filter) -> Subscription {
    Subscription { filter: asked.filter, options: granted(asked.options) }
}

/// Waits for the answers to plain and to shared filters, and puts them where they belong: `order` says which are shared.
async fn both(
    order: Vec<bool>,
    plain: Option<impl Future<Output = Granted>>,
    shared: Option<impl Future<Output = Granted>>,
) -> Granted {
    let count = |of: bool| order.iter().filter(|shared| **shared == of).count();
    let each =
        |granted: Granted, of| granted.unwrap_or_else(|refusal| vec![Err(refusal); count(of)]);
    let waits =
        async { if let Some(plain) = plain { each(plain.await, false) } else { Vec::new() } };
    let and =
        async { if let Some(shared) = shared { each(shared.await, true) } else { Vec::new() } };
    let (plain, shared) = tokio::join!(waits, and);
    let (mut plain, mut shared) = (plain.into_iter(), shared.into_iter());
    let next = |of: bool| if of { shared.next() } else { plain.next() };
    Ok(order.iter().copied().filter_map(next).collect())
}

/// The answers to the filters that a client may subscribe to, and between them those to the others.
fn with_denied(may: &[bool], granted: Vec<Result<QoS, Refusal>>) -> Vec<Result<QoS, Refusal>> {
    let mut granted = granted.into_iter();
    let mut next = || granted.next().unwrap_or(Err(Refusal::Unavailable));
    may.iter().map(|may| if *may { next() } else { Err(Refusal::NotAuthorised) }).collect()
}

fn granted(options: SubscriptionOptions) -> SubscriptionOptions {
    SubscriptionOptions { qos: options.qos.min(GRANTED_MAX), ..options }
}

/// What a SUBSCRIBE came to: per filter, in order.
pub(crate) type Granted = Result<Vec<Result<QoS, Refusal>>, Refusal>;

/// What is retained and still to be sent to a connection, after the answer.
struct Passing {
    stream: Stream,
    tenant: TenantId,
    wants: Vec<Want>,
}

/// A stream of retained messages, if one of the filters may want it. Before the subscription.
fn begin_stream(conn: &Arc<Conn>, filters: &[Filter]) -> Option<Stream> {
    let may = |Filter { filter, options }: &Filter| options.wants_retained(filter.as_bytes(), true);
    filters.iter().any(may).then(|| Stream::begin(conn))
}

fn wants(subscriptions: &[Subscription]) -> Vec<Want> {
    let want = |subscription: &Subscription| Want {
        filter: subscription.filter.clone(),
        options: subscription.options,
    };
    subscriptions.iter().map(want).collect()
}

/// Those of which what is retained is sent; `new` says which subscriptions the session did not have.
fn wanted(wants: Vec<Want>, new: &[bool]) -> Vec<Want> {
    let with_new = wants.into_iter().zip(new);
    let wanted =
        with_new.filter(|(want, new)| want.options.wants_retained(want.filter.as_bytes(), **new));
    wanted.map(|(want, _)| want).collect()
}

/// Why there is no subscription.
fn refused(answer: &Answer) -> Refusal {
    debug!(?answer, "a subscribe was refused");
    let used_up = [Refused::TooManySubscriptions, Refused::TooManyRoutes]
        .into_iter()
        .any(|quota| *answer == Answer::Refused(quota));
    if used_up { Refusal::Quota } else { Refusal::Unavailable }
}

impl Inner {
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        token: Token,
        filters: Vec<Filter>,
    ) {
        let Some(whose) = conn.whose() else {
            conn.push(Notice::Subscribed { token, granted: Err(Refusal::NotAuthorised) });
            return;
        };
        let deadline = Instant::now() + SUBSCRIBE_WAIT;
        let may: Vec<bool> =
            filters.iter().map(|asked| conn.may_subscribe(&asked.filter)).collect();
        let mut allowed = may.iter().copied();
        let filters: Vec<_> =
            filters.into_iter().filter(|_| allowed.next() == Some(true)).collect();
        self.metrics.rights.filters.inc_by((may.len() - filters.len()) as u64);
        if filters.is_empty() {
            let granted = Ok(vec![Err(Refusal::NotAuthorised); may.len()]);
            conn.push(Notice::Subscribed { token, granted });
            return;
        }
        let order: Vec<bool> = filters.iter().map(|asked| is_shared(&asked.filter)).collect();
        let (shared, plain): (Vec<_>, Vec<_>) =
            filters.into_iter().partition(|asked| is_shared(&asked.filter));
        // Before anything is written: what is refused leaves nothing behind.
        if !whose.durable && !self.live.has_room(conn.id(), &plain, conn.subscriptions_max()) {
            conn.push(Notice::Subscribed { token, granted: Err(Refusal::Quota) });
            return;
        }
        // What they do first they do now, so that an UNSUBSCRIBE behind this one comes behind it.
        let shared =
            (!shared.is_empty()).then(|| self.subscribe_shared(conn, whose, shared, deadline));
        if whose.durable {
            let plain =
                (!plain.is_empty()).then(|| self.subscribe_durable(conn, whose, plain, deadline));
            let granted = both(order, plain, shared);
            self.answer_subscribe(conn, token, may, async { (granted.await, None) });
        } else {
            // Live ones are granted together or not at all.
            let first = order.iter().position(|shared| !shared);
            let (plain, passing) =
                first.map(|_| self.subscribe_live(conn, whose, plain, deadline)).unzip();
            let granted = both(order, plain, shared);
            self.answer_subscribe(conn, token, may, async move {
                let granted = granted.await;
                let each = granted.as_deref().unwrap_or_default();
                let holds = first.is_some_and(|first| each.get(first).is_some_and(Result::is_ok));
                (granted, passing.flatten().filter(|_| holds))
            });
        }
    }

    /// Answers, and then sends what is retained, where that was not done before.
    fn answer_subscribe(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        token: Token,
        may: Vec<bool>,
        granted: impl Future<Output = (Granted, Option<Passing>)> + Send + 'static,
    ) {
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        let answered = async move {
            let (granted, passing) = granted.await;
            let granted = granted.map(|granted| with_denied(&may, granted));
            conn.push(Notice::Subscribed { token, granted });
            let Some(Passing { stream, tenant, wants }) = passing else { return };
            let sent = service.send_retained(&stream, tenant, &wants, Goal::Connection).await;
            if sent.is_err() && conn.whose().is_some() {
                // It was told that it is subscribed: it must not miss what is retained.
                conn.push(Notice::Lost);
            }
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = answered => {}
            }
        });
    }

    fn subscribe_durable(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        whose: Whose,
        filters: Vec<Filter>,
        deadline: Instant,
    ) -> impl Future<Output = Granted> + Send + use<> {
        let stream = begin_stream(conn, &filters);
        let subscriptions: Vec<_> = filters.into_iter().map(subscription).collect();
        let wants = wants(&subscriptions);
        let Whose { session, epoch, .. } = whose;
        let command = Command::Subscribe { session, epoch, subscriptions };
        let asked = self.below().router.ask(whose.shard, &command);
        let service = Arc::clone(self);
        async move {
            let answer = asked.await.map_err(|error| refusal_of(&error))?;
            let Answer::Subscribed { granted, new, at, routes } = answer else {
                return Err(refused(&answer));
            };
            service.make_known(routes, deadline).await?;
            if let Some(stream) = stream {
                // Before the answer: a client that is told it is subscribed may rely on its queue.
                let wants = wanted(wants, &new);
                let goal = Goal::Queue(whose, at);
                service.send_retained(&stream, whose.tenant, &wants, goal).await?;
            }
            Ok(granted.into_iter().map(Ok).collect())
        }
    }

    fn subscribe_live(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        whose: Whose,
        filters: Vec<Filter>,
        deadline: Instant,
    ) -> (impl Future<Output = Granted> + Send + use<>, Option<Passing>) {
        let stream = begin_stream(conn, &filters);
        let announcing = self.live.announce();
        let mut granted = Vec::new();
        let mut routes = Vec::new();
        let (mut wants, mut new) = (Vec::new(), Vec::new());
        for Filter { filter, options } in filters {
            let options = self::granted(options);
            new.push(self.live.subscribe(conn, whose, &filter, options));
            wants.push(Want { filter: filter.clone(), options });
            // Always anew: a removal by the one who held it before may still be on its way.
            routes.push(self.live_route(whose.tenant, filter));
            granted.push(Ok(options.qos));
        }
        if conn.whose().is_none() {
            // It was closed while we subscribed it.
            for (tenant, filter) in self.live.leave(conn.id()) {
                self.remove_live_route(tenant, filter);
            }
        }
        let tenant = whose.tenant;
        let passing = stream.map(|stream| Passing { stream, tenant, wants: wanted(wants, &new) });
        let service = Arc::clone(self);
        let granted = async move {
            let made_known = service.make_known(routes, deadline).await;
            drop(announcing);
            made_known.map(|()| granted)
        };
        (granted, passing)
    }

    /// A route to this process, with a version above all it gave before.
    pub(crate) fn live_route(&self, tenant: TenantId, filter: Text) -> RouteChange {
        RouteChange {
            tenant,
            filter,
            target: self.own_target(),
            version: self.next_route_version(),
            present: true,
        }
    }

    /// Sets routes that the meta group does not have, and waits until every node that may publish knows them.
    pub(crate) async fn make_known(
        self: &Arc<Self>,
        routes: Vec<RouteChange>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let mut newest = 0;
        let mut unknown = Vec::new();
        self.below().groups.read(ShardId::META, |machine, _| {
            for route in &routes {
                let RouteChange { tenant, filter, target, version, .. } = route;
                match machine.meta().route(*tenant, filter.as_bytes(), *target) {
                    Some(known) if known.version >= *version => newest = newest.max(known.index),
                    Some(_) | None => unknown.push(route.clone()),
                }
            }
        });
        let mut asked: Vec<_> = unknown
            .into_iter()
            .map(|route| {
                let command = route_command(route);
                (self.below().router.ask(ShardId::META, &command), command)
            })
            .collect();
        while let Some((answer, command)) = asked.pop() {
            match answer.await {
                Ok(Answer::At(index)) => newest = newest.max(index),
                Ok(Answer::Refused(Refused::TooManyRoutes)) => return Err(Refusal::Quota),
                // This process is not registered yet, or no more: the keeper sees to it.
                Ok(Answer::Refused(_)) | Err(_) if Instant::now() < deadline => {
                    tokio::time::sleep(ASK_PAUSE).await;
                    asked.push((self.below().router.ask(ShardId::META, &command), command));
                }
                Ok(_) | Err(_) => return Err(Refusal::Unavailable),
            }
        }
        self.barrier(newest, deadline).await
    }

    /// Waits until every node that may publish has applied the meta group up to `index`.
    async fn barrier(&self, index: u64, deadline: Instant) -> Result<(), Refusal> {
        loop {
            let below = self.below();
            if let Some(leader) = below.router.leader(ShardId::META) {
                let body = Report { applied: index }.encode();
                let (kind, meta) = (Kind::RouteBarrier, ShardId::META);
                let passed =
                    below.peers.call(leader, Lane::Control, kind, meta, body, ASK_WAIT).await;
                if passed.is_ok() {
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                return Err(Refusal::Unavailable);
            }
            tokio::time::sleep(ASK_PAUSE).await;
        }
    }

    /// Ends live subscriptions: per filter, in order, whether there was one.
    fn unsubscribe_live(&self, conn: &Arc<Conn>, whose: Whose, filters: &[Text]) -> Vec<bool> {
        let mut existed = Vec::new();
        for filter in filters {
            let (was_there, last) = self.live.unsubscribe(conn.id(), whose.tenant, filter);
            existed.push(was_there);
            if last {
                self.remove_live_route(whose.tenant, filter.clone());
            }
        }
        existed
    }

    pub(crate) fn unsubscribe(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        token: Token,
        filters: Vec<Text>,
    ) {
        let Some(whose) = conn.whose() else {
            conn.push(Notice::Unsubscribed { token, existed: Err(Refusal::NotAuthorised) });
            return;
        };
        self.leave_shares(conn, whose, &filters);
        let live = self.unsubscribe_live(conn, whose, &filters);
        if !whose.durable && !filters.iter().any(is_shared) {
            conn.push(Notice::Unsubscribed { token, existed: Ok(live) });
            return;
        }
        let command = Command::Unsubscribe { session: whose.session, epoch: whose.epoch, filters };
        let conn = Arc::clone(conn);
        let done = move |outcome| {
            let existed = match outcome {
                Ok(Answer::Unsubscribed { existed, .. }) => {
                    Ok(existed.into_iter().zip(live).map(|(row, live)| row || live).collect())
                }
                Ok(_) => Err(Refusal::Unavailable),
                Err(error) => Err(refusal_of(&error)),
            };
            conn.push(Notice::Unsubscribed { token, existed });
        };
        self.below().router.submit(
            whose.shard,
            &command,
            moorline_router::Done::Call(Box::new(done)),
        );
    }
}
