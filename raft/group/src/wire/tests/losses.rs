//! Peers that stop, die or freeze: how soon it is known, and what becomes of what was asked.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

use super::{super::CallError, *};

const ADDRESS: &str = "MOORLINE_TEST_PEER_ADDRESS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_ends_with_the_connection_and_the_peer_comes_back() {
    let mut nodes = nodes(2);
    let addresses: BTreeMap<_, _> = nodes
        .iter()
        .map(|node| {
            (node.peers.node(), node.listener.as_ref().unwrap().local_addr().unwrap().to_string())
        })
        .collect();
    ignore(&nodes[1].peers, Kind::Submit);
    start(&mut nodes).await;
    let second = nodes.pop().unwrap();
    let first = nodes.pop().unwrap();
    let body = Bytes::new();
    let calls = [Lane::Data, Lane::Control]
        .map(|lane| first.peers.call(NodeId(2), lane, Kind::Submit, SHARD, body.clone(), PATIENCE));
    let (sender, ended) = mpsc::sync_channel(1);
    let done = move |outcome| sender.send(outcome).unwrap();
    first.peers.request(NodeId(2), Lane::Bulk, Kind::Submit, SHARD, body, PATIENCE, done);

    second.stop().await;
    for call in calls {
        assert_eq!(call.await, Err(CallError::Closed));
    }
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), Err(CallError::Closed));
    first.wait(2, |state| state == PeerState::Down { refused: true }).await;
    assert_eq!(first.call(2, Kind::Submit, "").await, Err(CallError::Unreachable));
    assert!(!first.peers.is_up(NodeId(2)));

    // The same node, another process.
    let mut again = config(2, &addresses, None);
    again.incarnation = Incarnation(21);
    let mut second = node(again, TcpListener::bind(&addresses[&NodeId(2)]).unwrap());
    echo(&second.peers, Kind::Submit);
    second.start();
    let state = first.wait(2, PeerState::is_up).await;
    assert!(matches!(state, PeerState::Up { incarnation: Incarnation(21), .. }), "{state:?}");
    assert_eq!(first.call(2, Kind::Submit, "back").await, Ok(Bytes::from("back")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moves_is_found_and_one_that_left_is_gone() {
    let mut nodes = nodes(3);
    echo(&nodes[2].peers, Kind::Submit);
    start(&mut nodes).await;
    nodes[2].stop().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let moved = BTreeMap::from([(NodeId(3), address)]);
    let mut third =
        node(config(3, &BTreeMap::from([(NodeId(1), "127.0.0.1:1".into())]), None), listener);
    echo(&third.peers, Kind::Submit);
    third.start();
    nodes[0].peers.update_peers(moved);
    nodes[0].wait_up(3).await;
    assert_eq!(nodes[0].peers.peers(), [NodeId(3)]);
    assert_eq!(nodes[0].call(3, Kind::Submit, "new").await, Ok(Bytes::from("new")));
    assert_eq!(nodes[0].call(2, Kind::Submit, "").await, Err(CallError::Unreachable));
    assert_eq!(nodes[0].peers.state().borrow().get(NodeId(2)), None);
    // Node 2 still calls, and is not let in any more.
    let mut refusals = nodes[1].peers.refusals();
    let refused = refusals.wait_for(|refusal| {
        refusal.is_some_and(|refusal| refusal.by_peer && refusal.peer == NodeId(1))
    });
    timeout(PATIENCE, refused).await.expect("in time").unwrap();
}

/// A peer in a process of its own: this same test binary, running [`peer_process`].
struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts node 2; node 1 is at `address`.
    fn start(address: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["wire::tests::losses::peer_process", "--exact", "--ignored", "--nocapture"])
            .env(ADDRESS, address)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address =
            lines.filter_map(|line| Some(line.split_once("listens on ")?.1.to_owned())).next();
        Self { child, address: address.expect("it says its address") }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already in the test that killed it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other process of the tests below"]
async fn peer_process() {
    let Ok(address) = env::var(ADDRESS) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    let mut node = node(config(2, &BTreeMap::from([(NodeId(1), address)]), None), listener);
    echo(&node.peers, Kind::Submit);
    node.start();
    println!("listens on {own}");
    tokio::time::sleep(PATIENCE * 3).await;
}

/// Node 1 here, node 2 in another process, connected.
async fn with_a_process() -> (Node, Process) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let process = Process::start(&listener.local_addr().unwrap().to_string());
    let peers = BTreeMap::from([(NodeId(2), process.address.clone())]);
    let mut first = node(config(1, &peers, None), listener);
    first.start();
    first.wait_up(2).await;
    assert_eq!(first.call(2, Kind::Submit, "there?").await, Ok(Bytes::from("there?")));
    (first, process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_known_to_be_dead_in_milliseconds() {
    let (first, process) = with_a_process().await;
    let killed = Instant::now();
    process.signal("-KILL");
    first.wait(2, |state| state == PeerState::Down { refused: true }).await;
    let took = killed.elapsed();
    println!("known after {took:?}");
    // Usually 2 ms, and the `kill` program's own time is in it; what must not happen is waiting for a timer (1 s).
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_process_becomes_suspect_and_recovers() {
    let (first, process) = with_a_process().await;
    let frozen = Instant::now();
    process.signal("-STOP");
    let state = first.wait(2, |state| !state.is_up()).await;
    let took = frozen.elapsed();
    println!("suspect after {took:?}");
    assert_eq!(state, PeerState::Suspect);
    // Keep-alive: 1 s + 2 s.
    assert!(took < Duration::from_secs(6), "{took:?}");
    process.signal("-CONT");
    first.wait_up(2).await;
    assert_eq!(first.call(2, Kind::Submit, "again").await, Ok(Bytes::from("again")));
}
