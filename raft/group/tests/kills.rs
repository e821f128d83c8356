//! Nodes die at random while producers go on: what was answered is there, once.
#![allow(clippy::unwrap_used)]

mod rig;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId};
use moorline_group::Groups;
use rig::{Cluster, DEADLINE, Node, run, session, within};

const SHARD: ShardId = ShardId(1);
const PRODUCERS: u64 = 4;
const PER_RUN: u16 = 7;
/// Between runs of a producer, or the session's queue would be full before the end.
const PAUSE: Duration = Duration::from_millis(5);
/// An answer that takes longer is taken for lost, and the run is sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Nodes that can be asked. A killed one is taken out first, so that nobody holds its disk.
type Running = Arc<Mutex<BTreeMap<NodeId, Groups>>>;

fn leading(running: &Running) -> Option<Groups> {
    let leads = |groups: &&Groups| groups.role(SHARD).is_some_and(|role| role.borrow().leading);
    running.lock().unwrap().values().find(leads).cloned()
}

/// Sends runs in sequence until told to stop; each until it is answered. Counts what was answered.
fn produce(id: u64, running: &Running, stop: &AtomicBool, longest: &AtomicU64) -> u64 {
    let payload = Bytes::from_static(b"payload");
    let mut next = 1;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let run = run(id, next, PER_RUN, &payload);
        within(DEADLINE, "an answer", || {
            let groups = leading(running)?;
            let (answer, answered) = mpsc::sync_channel(1);
            groups.propose(SHARD, run.clone(), move |result| drop(answer.send(result)));
            drop(groups);
            answered.recv_timeout(ANSWER_WITHIN).ok()?.ok()
        });
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap();
        longest.fetch_max(micros, Ordering::Relaxed);
        next += u64::from(PER_RUN);
        thread::sleep(PAUSE);
    }
    next - 1
}

struct Rig {
    cluster: Cluster,
    nodes: BTreeMap<NodeId, Node>,
    running: Running,
}

impl Rig {
    fn start(&mut self, id: NodeId) {
        let node = self.cluster.start(id);
        node.open(SHARD).unwrap();
        self.running.lock().unwrap().insert(id, node.groups().clone());
        self.nodes.insert(id, node);
    }

    fn kill(&mut self, id: NodeId) {
        self.running.lock().unwrap().remove(&id);
        self.nodes.remove(&id).unwrap().kill();
    }

    fn leader(&self) -> NodeId {
        within(DEADLINE, "a leader", || {
            let leads = |node: &&Node| node.role(SHARD).leading;
            self.nodes.values().find(leads).map(Node::id)
        })
    }

    fn restart(&mut self, victims: &[NodeId]) {
        for id in victims {
            self.kill(*id);
        }
        thread::sleep(Duration::from_millis(300));
        for id in victims {
            self.start(*id);
        }
    }
}

#[test]
fn what_was_answered_survives_kills_and_is_there_once() {
    let mut rig = Rig { cluster: Cluster::new(3), nodes: BTreeMap::new(), running: Arc::default() };
    // Rows are written out and log is purged all the time, so that crashes hit both.
    rig.cluster.configure = |config| {
        config.checkpoint.every = Duration::from_millis(700);
        config.checkpoint.keep_entries = 500;
    };
    let all = [NodeId(1), NodeId(2), NodeId(3)];
    for id in all {
        rig.start(id);
    }
    rig.nodes[&NodeId(1)].initialize(SHARD, &rig.cluster).unwrap();
    rig.leader();

    let stop = Arc::new(AtomicBool::new(false));
    let longest = Arc::new(AtomicU64::new(0));
    let producers: Vec<_> = (1..=PRODUCERS)
        .map(|id| {
            let (running, stop) = (Arc::clone(&rig.running), Arc::clone(&stop));
            let longest = Arc::clone(&longest);
            thread::spawn(move || produce(id, &running, &stop, &longest))
        })
        .collect();
    let follower = |rig: &Rig| all.into_iter().find(|id| *id != rig.leader()).unwrap();
    for round in 0..3 {
        thread::sleep(Duration::from_millis(800));
        let leader = rig.leader();
        rig.restart(&[leader]);
        thread::sleep(Duration::from_millis(800));
        let victim = follower(&rig);
        rig.restart(&[victim]);
        thread::sleep(Duration::from_millis(800));
        rig.leader();
        println!(
            "round {round}: longest wait {:?}",
            Duration::from_micros(longest.swap(0, Ordering::Relaxed))
        );
    }
    rig.restart(&all);
    rig.leader();
    thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let answered: Vec<u64> = producers.into_iter().map(|thread| thread.join().unwrap()).collect();

    // The first two commands of each producer open the session and subscribe; the others are in its queue.
    let published: u64 = answered.iter().map(|count| count - 2).sum();
    println!("{published} published and answered");
    let tails = within(DEADLINE, "the same rows everywhere", || {
        let digests: Option<Vec<_>> = rig.nodes.values().map(|node| node.digest(SHARD)).collect();
        let mut digests = digests?;
        digests.dedup();
        let tail = |node: &Node| {
            let info =
                |machine: &moorline_machine::Machine| machine.session(session()).unwrap().tail;
            node.groups().read(SHARD, |machine, _| info(machine).0)
        };
        (digests.len() == 1).then(|| rig.nodes.values().map(tail).collect::<Vec<_>>())
    });
    assert_eq!(tails, vec![Some(published + 1); 3], "of {answered:?}");
    for id in all {
        rig.kill(id); // before their directory goes
    }
}
