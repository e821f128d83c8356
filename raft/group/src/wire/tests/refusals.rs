//! Wrong company: other clusters, other nodes, wiped directories.

use tokio::time::sleep;

use super::{
    super::{CallError, Refusal, RefusalReason},
    *,
};

impl Node {
    async fn wait_refusal(&self, peer: u64, reason: RefusalReason, by_peer: bool) {
        let expected = Refusal { peer: NodeId(peer), reason, by_peer };
        let mut refusals = self.peers.refusals();
        let refused = refusals.wait_for(|refusal| *refusal == Some(expected));
        timeout(PATIENCE, refused).await.expect("in time").unwrap();
    }
}

/// Two nodes, the second one with a changed configuration, started.
fn with_second(change: impl FnOnce(&mut WireConfig)) -> (Node, Node) {
    let (mut listeners, addresses) = listeners(2);
    let mut config_2 = config(2, &addresses, None);
    change(&mut config_2);
    let mut second = node(config_2, listeners.pop().unwrap());
    let mut first = node(config(1, &addresses, None), listeners.pop().unwrap());
    for node in [&first, &second] {
        echo(&node.peers, Kind::Submit);
    }
    first.start();
    second.start();
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused() {
    let (first, second) = with_second(|config| config.cluster = CLUSTER + 1);
    first.wait_refusal(2, RefusalReason::Cluster, false).await;
    second.wait_refusal(1, RefusalReason::Cluster, false).await;
    assert_eq!(first.call(2, Kind::Submit, "").await, Err(CallError::Unreachable));
    assert_eq!(second.call(1, Kind::Submit, "").await, Err(CallError::Unreachable));
    assert!(first.metric("moorline_wire_refused_hellos_total", "cluster") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_another_ones_address_is_refused() {
    let (first, _third) = with_second(|config| config.node = NodeId(3));
    first.wait_refusal(2, RefusalReason::Node, false).await;
    assert_eq!(first.call(2, Kind::Submit, "").await, Err(CallError::Unreachable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_not_the_registered_one_is_refused_by_both() {
    let (first, second) = with_second(|config| config.store = 201);
    first.wait_up(2).await;
    second.wait_up(1).await;
    first.peers.expect_stores(BTreeMap::from([(NodeId(1), 100), (NodeId(2), 0)]));
    assert_eq!(first.call(2, Kind::Submit, "").await, Ok(Bytes::new()), "not registered yet");

    first.peers.expect_stores(BTreeMap::from([(NodeId(1), 100), (NodeId(2), 200)]));
    first.wait(2, |state| !state.is_up()).await;
    first.wait_refusal(2, RefusalReason::Store, false).await;
    second.wait_refusal(1, RefusalReason::Store, true).await;
    second.wait(1, |state| !state.is_up()).await;
    // All lanes end, each in its own time.
    let ended = async {
        while first.call(2, Kind::Submit, "").await != Err(CallError::Unreachable) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registered_data_directory_is_let_in() {
    let (first, second) = with_second(|_| {});
    first.peers.expect_stores(BTreeMap::from([(NodeId(2), 200)]));
    first.wait_up(2).await;
    second.wait_up(1).await;
    assert_eq!(*first.peers.refusals().borrow(), None);
}

#[test]
fn an_address_without_a_port_is_an_error() {
    for address in ["", "host", "host:", "http://host:1", "a b:1"] {
        let peers = BTreeMap::from([(NodeId(2), address.to_owned())]);
        let error = Peers::new(config(1, &peers, None), &Registry::new()).unwrap_err();
        assert!(error.to_string().contains("host:port"), "{error}");
    }
    for address in ["host:1", "127.0.0.1:7400", "[::1]:7400"] {
        let peers = BTreeMap::from([(NodeId(2), address.to_owned())]);
        Peers::new(config(1, &peers, None), &Registry::new()).expect(address);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_does_not_know_the_level_is_refused_also_when_it_is_connected() {
    let (first, second) = with_second(|config| config.program = Program::SILENT);
    first.wait_up(2).await;
    second.wait_up(1).await;
    assert_eq!(first.peers.programs()[&NodeId(2)], Program::SILENT);
    assert_eq!(second.peers.programs()[&NodeId(1)], Program::this());
    first.peers.set_level(1);
    assert_eq!(first.call(2, Kind::Submit, "").await, Ok(Bytes::new()), "it knows the first");

    first.peers.set_level(2);
    first.wait(2, |state| !state.is_up()).await;
    first.wait_refusal(2, RefusalReason::Level, false).await;
    second.wait_refusal(1, RefusalReason::Level, true).await;
    assert!(first.metric("moorline_wire_refused_hellos_total", "level") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_the_other_does_not_know_is_answered_so_and_harms_nothing() {
    let (first, second) = with_second(|_| ());
    first.wait_up(2).await;
    // Nobody has registered it there, as in a program of before it.
    let unknown = first.call(2, Kind::Explain, "anything").await;
    assert!(
        matches!(&unknown, Err(CallError::Refused(why)) if why.contains("no handler")),
        "{unknown:?}"
    );
    assert_eq!(first.call(2, Kind::Submit, "still").await, Ok(Bytes::from("still")));
    drop(second);
}
