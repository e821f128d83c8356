//! A device with a durable session: it subscribes once, takes what comes, and changes nodes.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moorline_core::{QoS, Text};
use moorline_mqtt::codec::{
    Ack, Packet, PacketId, Publish, Reason, RetainHandling, Subscribe, SubscribeFilter,
};
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;

use super::{Key, SUBSCRIPTIONS, link::Link};
use crate::{node::Cluster, witness::Event};

/// Between two looks whether something can be acknowledged.
const TICK: Duration = Duration::from_millis(10);
/// How long a device works on a message, at most.
const WORK_MS_MAX: u64 = 150;
/// Between two attempts to connect, at most.
const RETRY_MS_MAX: u64 = 400;
/// How long a connection is the newest at most.
const STAY_MS_MAX: u64 = 9_000;
/// Connections of one device that live at the same time.
const LINKS_MAX: usize = 4;

/// What outlives the device's connections.
#[derive(Default)]
struct Session {
    subscribed: bool,
    /// QoS 2 messages that were taken and not released.
    received: BTreeSet<u16>,
}

/// See the module.
pub(crate) struct Subscriber {
    cluster: Arc<Cluster>,
    id: u64,
    tasks: TaskTracker,
    session: Mutex<Session>,
    /// The connection that was accepted last.
    newest: AtomicU64,
    links: AtomicU64,
}

/// A message that came and was not acknowledged.
struct Due {
    at: Instant,
    id: PacketId,
    qos: QoS,
    key: Key,
}

impl Subscriber {
    pub(crate) fn new(cluster: Arc<Cluster>, id: u64, tasks: TaskTracker) -> Arc<Self> {
        let (newest, links) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { cluster, id, tasks, session: Mutex::default(), newest, links })
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().expect("no panic while it is locked")
    }

    fn tell(&self, event: Event) {
        self.cluster.witness.tell(event);
    }

    /// Runs for ever.
    pub(crate) async fn run(self: Arc<Self>, mut random: StdRng) {
        let name = format!("s{}", self.id);
        let mut number = 0;
        loop {
            let node = random.random_range(1..=self.cluster.nodes);
            if let Some((link, answer)) = Link::open(&name, node).await {
                number += 1;
                let (device, present) = (name.clone(), answer.session_present);
                self.tell(Event::Resumed { device, node, present });
                self.newest.store(number, Ordering::Relaxed);
                let over = self.links.load(Ordering::Relaxed) > 0;
                let subscriber = self.id;
                self.tell(Event::Attached { subscriber, link: number, over });
                self.links.fetch_add(1, Ordering::Relaxed);
                let work = random.random_range(0..WORK_MS_MAX);
                let rude = random.random_bool(0.5);
                let serving =
                    Arc::clone(&self).serve(link, number, Duration::from_millis(work), rude);
                self.tasks.spawn(serving);
                let stay = Duration::from_millis(random.random_range(100..STAY_MS_MAX));
                let until = Instant::now() + stay;
                // Until it is lost, or another one is to take its place while it lives.
                while Instant::now() < until && self.links.load(Ordering::Relaxed) > 0 {
                    sleep(TICK).await;
                }
            }
            sleep(Duration::from_millis(random.random_range(5..RETRY_MS_MAX))).await;
            while self.links.load(Ordering::Relaxed) >= LINKS_MAX as u64 {
                sleep(TICK).await;
            }
        }
    }

    fn is_newest(&self, number: u64) -> bool {
        self.newest.load(Ordering::Relaxed) == number
    }

    /// Serves one connection until it is over. A rude one goes on acknowledging when it was replaced.
    async fn serve(self: Arc<Self>, mut link: Link, number: u64, work: Duration, rude: bool) {
        self.subscribe(&mut link);
        let mut due = VecDeque::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while link.flush().await {
            tokio::select! {
                biased;
                packet = link.next() => match packet {
                    Some(packet) => if !self.take(&mut link, number, packet, work, &mut due) { break },
                    None => break,
                },
                _ = tick.tick() => {}
            }
            if rude || self.is_newest(number) {
                self.work(&mut link, number, &mut due);
            }
        }
        self.links.fetch_sub(1, Ordering::Relaxed);
        self.tell(Event::Detached { subscriber: self.id, link: number });
    }

    fn subscribe(&self, link: &mut Link) {
        if self.session().subscribed {
            return;
        }
        let (filter, qos) = SUBSCRIPTIONS[usize::try_from(self.id).expect("few")];
        link.put(&Packet::Subscribe(Subscribe {
            id: PacketId::new(1).expect("not 0"),
            subscription_id: None,
            user: Vec::new(),
            filters: vec![SubscribeFilter {
                filter: Text::from(filter),
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Never,
            }],
        }));
    }

    /// `false` if the node says goodbye.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is for a subscriber")]
    fn take(
        &self,
        link: &mut Link,
        number: u64,
        packet: Packet,
        work: Duration,
        due: &mut VecDeque<Due>,
    ) -> bool {
        match packet {
            Packet::Publish(publish) => self.got(link, number, &publish, work, due),
            Packet::PubRel(ack) => {
                let (subscriber, id) = (self.id, ack.id.get());
                self.tell(Event::Released { subscriber, link: number, id });
                if self.is_newest(number) {
                    self.session().received.remove(&ack.id.get());
                }
                link.put(&Packet::PubComp(Ack::new(ack.id, Reason::Success)));
            }
            Packet::SubAck(ack) if !ack.reasons.iter().any(|reason| reason.is_error()) => {
                let first = !std::mem::replace(&mut self.session().subscribed, true);
                if first {
                    self.cluster.subscribed.fetch_add(1, Ordering::Relaxed);
                    self.tell(Event::Subscribed { subscriber: self.id });
                }
            }
            Packet::SubAck(_) => self.subscribe(link),
            Packet::Disconnect(_) => return false,
            _ => {}
        }
        true
    }

    fn got(
        &self,
        link: &mut Link,
        number: u64,
        publish: &Publish,
        work: Duration,
        due: &mut VecDeque<Due>,
    ) {
        let (key, whole) = Key::of(publish.topic.as_str(), &publish.payload);
        let (subscriber, qos) = (self.id, publish.qos);
        let Some(id) = publish.id else { return };
        let known = qos == QoS::ExactlyOnce && self.session().received.contains(&id.get());
        self.tell(Event::Got { subscriber, link: number, key, id: id.get(), whole, known });
        if known {
            link.put(&Packet::PubRec(Ack::new(id, Reason::Success)));
        } else {
            due.push_back(Due { at: Instant::now() + work, id, qos, key });
        }
    }

    /// Takes and acknowledges what it has worked on; on a connection that was replaced only what it need not remember.
    fn work(&self, link: &mut Link, number: u64, due: &mut VecDeque<Due>) {
        let newest = self.is_newest(number);
        while let Some(Due { id, qos, key, .. }) =
            due.pop_front_if(|due| !newest || due.at <= Instant::now())
        {
            let (subscriber, once) = (self.id, qos == QoS::ExactlyOnce);
            if once && !newest {
                continue;
            }
            self.tell(Event::Took { subscriber, link: number, key, once });
            let ack = Ack::new(id, Reason::Success);
            if once {
                self.session().received.insert(id.get());
                link.put(&Packet::PubRec(ack));
            } else {
                link.put(&Packet::PubAck(ack));
            }
        }
    }
}
