//! Clients that subscribe: they come and go, are taken over, acknowledge late or never.

use std::collections::BTreeSet;

use moorline_core::{Epoch, Offset, QoS, SubscriptionOptions, topic::matches};
use moorline_machine::{
    Answer, Command,
    command::{SessionId, Subscription},
};

use crate::{
    Mutant, Violation,
    publishing::{TENANT, topic},
    router::Purpose,
    world::{Options, Phase, World},
};

/// Deliveries that a client has not acknowledged at most.
pub(crate) const CREDIT: usize = 8;

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) group: usize,
    client: String,
    filter: &'static str,
    /// Lasts for ever, or ends with its connection.
    durable: bool,
    /// Seldom there, so that its queue grows long.
    lazy: bool,
    /// Counts connections.
    link: u64,
    /// Connections that asked for a clean start and were not answered. Their commands may come late and wipe what a later
    /// connection has built, so nothing is promised until then.
    wiping: BTreeSet<u64>,
    pub(crate) state: State,
}

#[derive(Debug)]
pub(crate) enum State {
    Offline,
    Opening(Link),
    Attached(Attachment),
}

/// A connection to a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) node: usize,
    pub(crate) incarnation: u64,
    pub(crate) conn: u64,
}

/// A connection that has its session.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) link: Link,
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    /// The next offset wanted.
    pub(crate) cursor: Offset,
    pub(crate) unacknowledged: BTreeSet<Offset>,
    acknowledged: BTreeSet<Offset>,
    subscribed: bool,
    asked: bool,
}

impl Subscriber {
    pub(crate) fn new(n: usize, options: &Options) -> Self {
        Self {
            group: 1 + n % options.shards,
            client: format!("s{n}"),
            filter: ["p/+", "p/0", "#", "p/1"][n % 4],
            durable: n % 5 != 4,
            lazy: n % 5 == 2,
            link: 0,
            wiping: BTreeSet::new(),
            state: State::Offline,
        }
    }

    pub(crate) fn wants(&self, publisher: usize) -> bool {
        matches(self.filter.as_bytes(), topic(publisher).as_bytes())
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        matches!(&self.state, State::Attached(attachment) if attachment.subscribed)
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match &self.state {
            State::Attached(attachment) => Some(attachment.session),
            State::Offline | State::Opening(_) => None,
        }
    }

    pub(crate) fn attachment(&mut self) -> Option<&mut Attachment> {
        match &mut self.state {
            State::Attached(attachment) => Some(attachment),
            State::Offline | State::Opening(_) => None,
        }
    }
}

impl World {
    pub(crate) fn subscriber_acts(&mut self) -> Result<(), Violation> {
        let n = self.random.index(self.subscribers.len());
        let chaos = self.phase == Phase::Chaos;
        let lazy = chaos && self.subscribers[n].lazy;
        match &self.subscribers[n].state {
            State::Offline if lazy && !self.random.chance(5) => {}
            State::Offline if self.phase != Phase::End => self.connect(n),
            State::Offline => {}
            // Another connection may come before the first was answered.
            State::Opening(_) if chaos && self.random.chance(20) => self.connect(n),
            State::Opening(_) => {
                self.is_linked(n);
            }
            State::Attached(_) => match self.random.below(100) {
                0..=1 if chaos => self.disconnect(n),
                2..=3 if chaos => self.connect(n),
                4 if chaos => self.unsubscribe(n),
                0..=14 => self.ask(n),
                15..=29 => self.settle(n),
                30..=59 => self.acknowledge(n),
                _ => self.fetch(n)?,
            },
        }
        Ok(())
    }

    /// Opens the session at any node, whoever has it now.
    fn connect(&mut self, n: usize) {
        let Some(node) = self.any_alive() else { return };
        let clean_start = self.phase == Phase::Chaos && self.random.chance(40);
        let incarnation = self.nodes[node].incarnation;
        let subscriber = &mut self.subscribers[n];
        subscriber.link += 1;
        let conn = conn(n, subscriber.link);
        subscriber.state = State::Opening(Link { node, incarnation, conn });
        let (group, link) = (subscriber.group, subscriber.link);
        if clean_start {
            subscriber.wiping.insert(link);
        }
        if clean_start || !subscriber.durable {
            self.checks.loss.gives_up(n);
        }
        let command = Command::OpenSession {
            tenant: TENANT,
            client: subscriber.client.as_str().into(),
            clean_start,
            expiry_s: if subscriber.durable { u32::MAX } else { 0 },
            holder: self.nodes[node].holder(node, conn),
            limits: moorline_core::port::SessionLimits::none(),
            sessions_max: u32::MAX,
            will: None,
        };
        self.submit(node, group, command, Purpose::Open { subscriber: n, link });
    }

    pub(crate) fn opened(
        &mut self,
        n: usize,
        link: u64,
        answer: Option<Answer>,
    ) -> Result<(), Violation> {
        let subscriber = &mut self.subscribers[n];
        if answer.is_some() {
            subscriber.wiping.remove(&link);
        }
        if subscriber.link != link {
            return Ok(());
        }
        let Some(Answer::Opened { session, epoch, present, head, .. }) = answer else {
            subscriber.state = State::Offline;
            return Ok(());
        };
        if !present && self.checks.loss.is_relying(n) {
            let what = format!("subscriber {n} came back and its session was gone");
            return Err(Violation { invariant: "loss", what });
        }
        let State::Opening(link) = subscriber.state else { return Ok(()) };
        subscriber.state = State::Attached(Attachment {
            link,
            session,
            epoch,
            cursor: head,
            unacknowledged: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            subscribed: false,
            asked: false,
        });
        Ok(())
    }

    /// Subscribes, once per connection.
    fn ask(&mut self, n: usize) {
        let subscriber = &mut self.subscribers[n];
        let (group, link, filter) = (subscriber.group, subscriber.link, subscriber.filter);
        let Some(attachment) = subscriber.attachment().filter(|attachment| !attachment.asked)
        else {
            return;
        };
        attachment.asked = true;
        let (node, session, epoch) = (attachment.link.node, attachment.session, attachment.epoch);
        let subscription = Subscription {
            filter: filter.into(),
            options: SubscriptionOptions::of_qos(QoS::AtLeastOnce),
        };
        let command = Command::Subscribe { session, epoch, subscriptions: vec![subscription] };
        if self.is_linked(n) {
            self.submit(node, group, command, Purpose::Subscribe { subscriber: n, link });
        }
    }

    pub(crate) fn subscribed(
        &mut self,
        node: usize,
        n: usize,
        link: u64,
        answer: Option<Answer>,
    ) -> Result<(), Violation> {
        let step = self.step;
        let subscriber = &mut self.subscribers[n];
        if subscriber.link != link {
            return Ok(());
        }
        let Some(attachment) = subscriber.attachment() else { return Ok(()) };
        let Some(Answer::Subscribed { routes, .. }) = answer else {
            // Refused, because another connection has the session, or unknown: the client comes again.
            subscriber.state = State::Offline;
            return Ok(());
        };
        attachment.subscribed = true;
        if subscriber.durable && subscriber.wiping.is_empty() {
            self.checks.loss.relies(n, step);
        }
        self.announce(node, routes);
        Ok(())
    }

    fn unsubscribe(&mut self, n: usize) {
        self.checks.loss.gives_up(n);
        let subscriber = &mut self.subscribers[n];
        let (group, filter) = (subscriber.group, subscriber.filter);
        let Some(attachment) = subscriber.attachment() else { return };
        (attachment.asked, attachment.subscribed) = (false, false);
        let (node, session, epoch) = (attachment.link.node, attachment.session, attachment.epoch);
        // A late answer to an earlier subscribe must not count any more.
        subscriber.link += 1;
        let command = Command::Unsubscribe { session, epoch, filters: vec![filter.into()] };
        if self.is_linked(n) {
            self.submit(node, group, command, Purpose::Other);
        }
    }

    /// The client acknowledges one of what it got.
    fn acknowledge(&mut self, n: usize) {
        let Some(attachment) = self.subscribers[n].attachment() else { return };
        if attachment.unacknowledged.is_empty() {
            return;
        }
        let at = self.random.index(attachment.unacknowledged.len().min(3));
        let offset = *attachment.unacknowledged.iter().nth(at).expect("below the length");
        attachment.unacknowledged.remove(&offset);
        attachment.acknowledged.insert(offset);
    }

    /// The node passes on what was acknowledged.
    fn settle(&mut self, n: usize) {
        let group = self.subscribers[n].group;
        let Some(attachment) = self.subscribers[n].attachment() else { return };
        if attachment.acknowledged.is_empty() {
            return;
        }
        // Everything below the first unacknowledged one has been delivered here, or was settled before.
        let end = attachment.unacknowledged.first().copied().unwrap_or(attachment.cursor);
        let also = attachment.acknowledged.split_off(&end);
        attachment.acknowledged.clear();
        let (node, session) = (attachment.link.node, attachment.session);
        let (upto, also) = (Offset(end.0 - 1), also.into_iter().collect::<Vec<_>>());
        let purpose = Purpose::Settle { session, upto, also: also.clone() };
        let command = match self.options.mutant {
            Mutant::LostSettle => Command::Settle { session, upto: Offset(0), also: Vec::new() },
            Mutant::None
            | Mutant::NoDedupe
            | Mutant::LostCommit
            | Mutant::EarlySettle
            | Mutant::LostRow
            | Mutant::NewestFirst => Command::Settle { session, upto, also },
        };
        if self.is_linked(n) {
            self.submit(node, group, command, purpose);
        }
    }

    /// Nobody knows whether a settlement was taken: as long as the connection lasts, it is passed on again.
    pub(crate) fn settle_again(
        &mut self,
        group: usize,
        session: SessionId,
        upto: Offset,
        also: &[Offset],
    ) {
        for subscriber in self.subscribers.iter_mut().filter(|one| one.group == group) {
            if let Some(attachment) = subscriber.attachment()
                && attachment.session == session
            {
                attachment.acknowledged.extend(also.iter().chain([&upto]));
            }
        }
    }

    /// The connection ends; its node may or may not say so.
    fn disconnect(&mut self, n: usize) {
        let linked = self.is_linked(n);
        let group = self.subscribers[n].group;
        if let Some(attachment) = self.subscribers[n].attachment() {
            let (node, session, epoch) =
                (attachment.link.node, attachment.session, attachment.epoch);
            let command =
                Command::CloseSession { session, epoch, expiry_s: None, forget_will: false };
            if linked && self.random.chance(700) {
                self.submit(node, group, command, Purpose::Other);
            }
        }
        if !self.subscribers[n].durable {
            self.checks.loss.gives_up(n);
        }
        self.subscribers[n].state = State::Offline;
    }

    /// Whether the process that has the connection still runs; if not, the client has noticed.
    pub(crate) fn is_linked(&mut self, n: usize) -> bool {
        let link = match &self.subscribers[n].state {
            State::Offline => return false,
            State::Opening(link) => *link,
            State::Attached(attachment) => attachment.link,
        };
        let node = &self.nodes[link.node];
        let linked = node.alive && node.incarnation == link.incarnation;
        if !linked {
            self.subscribers[n].state = State::Offline;
        }
        linked
    }

    /// Every client ends its session.
    pub(crate) fn close_all(&mut self) {
        for n in 0..self.subscribers.len() {
            let group = self.subscribers[n].group;
            let Some(attachment) = self.subscribers[n].attachment() else { continue };
            let (node, session, epoch) =
                (attachment.link.node, attachment.session, attachment.epoch);
            let command =
                Command::CloseSession { session, epoch, expiry_s: Some(0), forget_will: false };
            self.submit(node, group, command, Purpose::Other);
            self.subscribers[n].state = State::Offline;
        }
    }
}

/// Connections of all clients have different ids.
fn conn(subscriber: usize, link: u64) -> u64 {
    (subscriber as u64 + 1) << 32 | link
}
