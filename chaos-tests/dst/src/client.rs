//! What goes on inside a process on behalf of clients: messages through the router, linearizable reads, digests.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{
    ConnId, Incarnation, Message, NodeId, QoS, SubscriptionOptions, TenantId, port::SessionLimits,
};
use moorline_group::Groups;
use moorline_machine::{
    Answer, Command,
    command::{Holder, SessionId, Subscription},
};
use moorline_router::{Advice, Router};
use tokio::{
    sync::Semaphore,
    time::{interval, sleep},
};

use tokio_util::task::TaskTracker;

use crate::{
    node::{Cluster, SHARD},
    witness::Event,
};

/// Not the devices' tenant.
const TENANT: TenantId = TenantId(2);
/// Messages of one client that are under way at once.
const WINDOW: usize = 16;
/// Between two messages of a client.
const PAUSE: Duration = Duration::from_millis(40);
/// Between two reads.
const READ_EVERY: Duration = Duration::from_millis(150);
/// Between two digests.
const DIGEST_EVERY: Duration = Duration::from_millis(700);
/// Before something that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The clients of one process.
pub(crate) struct Client {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) groups: Groups,
    pub(crate) router: Router,
    pub(crate) node: u64,
    pub(crate) process: u64,
    /// All that it does at the same time.
    pub(crate) tasks: TaskTracker,
}

/// A client's name: its node and the process.
pub(crate) fn name(node: u64, process: u64) -> u64 {
    node << 32 | process
}

impl Client {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        let this = Arc::new(self);
        if this.node == 1 {
            this.open_session().await;
        }
        let mut look = interval(RETRY_PAUSE);
        while this.session().is_none() {
            look.tick().await;
        }
        this.tasks.spawn(Arc::clone(&this).reads());
        if this.node == 1 {
            this.tasks.spawn(Arc::clone(&this).digests());
        }
        this.publish().await;
    }

    fn session(&self) -> Option<SessionId> {
        *self.cluster.session.lock().expect("no panic while it is locked")
    }

    /// One session that receives everything, made by whichever process of node 1 comes to it.
    async fn open_session(&self) {
        while self.session().is_none() {
            match self.try_open().await {
                Some(session) => {
                    let mut known =
                        self.cluster.session.lock().expect("no panic while it is locked");
                    *known = Some(session);
                }
                None => sleep(RETRY_PAUSE).await,
            }
        }
    }

    async fn try_open(&self) -> Option<SessionId> {
        let holder = Holder {
            node: NodeId(self.node),
            incarnation: Incarnation(self.process),
            conn: ConnId(1),
        };
        let open = Command::OpenSession {
            tenant: TENANT,
            client: "client".into(),
            clean_start: false,
            expiry_s: u32::MAX,
            holder,
            limits: SessionLimits::none(),
            sessions_max: u32::MAX,
            will: None,
        };
        let Ok(Answer::Opened { session, epoch, .. }) = self.router.ask(SHARD, &open).await else {
            return None;
        };
        let subscriptions = vec![Subscription {
            filter: "t/#".into(),
            options: SubscriptionOptions::of_qos(QoS::AtLeastOnce),
        }];
        let subscribe = Command::Subscribe { session, epoch, subscriptions };
        match self.router.ask(SHARD, &subscribe).await {
            Ok(Answer::Subscribed { .. }) => Some(session),
            _ => None,
        }
    }

    async fn publish(self: Arc<Self>) {
        let client = name(self.node, self.process);
        let window = Arc::new(Semaphore::new(WINDOW));
        let mut pause = interval(PAUSE);
        for number in 1_u64.. {
            pause.tick().await;
            while !self.cluster.sending.load(Ordering::Relaxed) {
                pause.tick().await;
            }
            let Ok(slot) = Arc::clone(&window).acquire_owned().await else { return };
            let witness = self.cluster.witness.clone();
            witness.tell(Event::Sent { client, number });
            let outcome = self.router.ask(SHARD, &message(client, number));
            self.tasks.spawn(async move {
                let outcome = outcome.await;
                drop(slot);
                witness.tell(match outcome {
                    Ok(Answer::Published { sessions: 1 }) => Event::Acked { client, number },
                    Ok(other) => {
                        Event::Failed { client, number, maybe: true, why: format!("{other:?}") }
                    }
                    Err(error) => {
                        let maybe = error.advice() == Advice::MayHaveHappened;
                        Event::Failed { client, number, maybe, why: error.to_string() }
                    }
                });
            });
        }
    }

    async fn reads(self: Arc<Self>) {
        let mut pause = interval(READ_EVERY);
        let Some(session) = self.session() else { return };
        let witness = &self.cluster.witness;
        loop {
            pause.tick().await;
            let leads = self.groups.role(SHARD).is_some_and(|role| role.borrow().leading);
            if !leads {
                continue;
            }
            let reader = self.node;
            witness.tell(Event::ReadBegan { reader });
            let sure = self.groups.barrier(SHARD).await.is_ok();
            let seen = self.groups.read(SHARD, |machine, _| {
                machine.session(session).map_or(0, |session| session.tail.0)
            });
            if let (true, Some(seen)) = (sure, seen) {
                witness.tell(Event::ReadEnded { reader, seen });
            }
        }
    }

    async fn digests(self: Arc<Self>) {
        let mut pause = interval(DIGEST_EVERY);
        loop {
            pause.tick().await;
            // Whether it was answered says nothing: replicas tell their digests.
            drop(self.router.ask(SHARD, &Command::Digest).await);
        }
    }
}

fn message(client: u64, number: u64) -> Command {
    let mut payload = client.to_be_bytes().to_vec();
    payload.extend_from_slice(&number.to_be_bytes());
    let message = Message {
        topic: "t/a".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        payload: payload.into(),
    };
    Command::Publish { tenant: TENANT, from: None, message }
}

/// What a message is, by its payload.
pub(crate) fn of_payload(payload: &[u8]) -> Option<(u64, u64)> {
    let client = payload.get(..8)?.try_into().ok()?;
    let number = payload.get(8..16)?.try_into().ok()?;
    Some((u64::from_be_bytes(client), u64::from_be_bytes(number)))
}
