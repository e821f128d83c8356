//! What is sent arrives, in order, in few frames; what is not answered ends all the same.

use std::sync::Condvar;

use super::{
    super::{CallError, MESSAGE_BYTES_MAX, SendError},
    *,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_requests_arrive_in_the_order_of_the_calls() {
    let mut nodes = nodes(2);
    let taken = collect(&nodes[1].peers, Kind::Deliver);
    start(&mut nodes).await;
    let peers = nodes[0].peers.clone();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..2_000_u32 {
        let body = Bytes::copy_from_slice(&number.to_be_bytes());
        if number % 3 == 0 {
            let call = peers.call(NodeId(2), Lane::Data, Kind::Deliver, SHARD, body, PATIENCE);
            calls.spawn(call);
        } else {
            peers.send(NodeId(2), Lane::Data, Kind::Deliver, SHARD, body).unwrap();
        }
    }
    for number in 0..2_000_u32 {
        let expected = (NodeId(1), SHARD, Bytes::copy_from_slice(&number.to_be_bytes()));
        assert_eq!(taken.recv_timeout(PATIENCE).unwrap(), expected);
    }
    while let Some(answer) = timeout(PATIENCE, calls.join_next()).await.unwrap() {
        assert_eq!(answer.unwrap(), Ok(Bytes::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_share_a_frame() {
    let mut nodes = nodes(2);
    let taken = collect(&nodes[1].peers, Kind::Deliver);
    start(&mut nodes).await;
    for _ in 0..20_000 {
        let body = Bytes::from_static(&[1; 100]);
        nodes[0].peers.send(NodeId(2), Lane::Data, Kind::Deliver, SHARD, body).unwrap();
    }
    for _ in 0..20_000 {
        taken.recv_timeout(PATIENCE).unwrap();
    }
    let sent = |what| {
        nodes[0].metric(&format!("moorline_wire_{what}_total"), "direction=\"sent\",lane=\"data\"")
    };
    assert!(sent("messages") >= 20_000.0);
    assert!(sent("frames") < 10_000.0, "{} frames", sent("frames"));
    assert!(sent("bytes") >= 2_320_000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_come_whole_both_ways() {
    let mut nodes = nodes(2);
    echo(&nodes[1].peers, Kind::SnapshotChunk);
    start(&mut nodes).await;
    for lane in [Lane::Data, Lane::Bulk] {
        for size in [0, 64 << 10, 256 << 10, 1 << 20, 8 << 20, MESSAGE_BYTES_MAX] {
            let body: Bytes = (0..size).map(|byte| (byte % 251) as u8).collect();
            let peers = &nodes[0].peers;
            let call =
                peers.call(NodeId(2), lane, Kind::SnapshotChunk, SHARD, body.clone(), PATIENCE);
            assert!(call.await == Ok(body), "{size} bytes");
        }
    }
    let body = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
    let sent = nodes[0].peers.send(NodeId(2), Lane::Bulk, Kind::SnapshotChunk, SHARD, body);
    assert_eq!(sent, Err(SendError::TooLarge));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_an_answer_ends() {
    let mut nodes = nodes(2);
    ignore(&nodes[1].peers, Kind::Submit);
    nodes[1].peers.register(Kind::Attachment, Arc::new(|_, _, _, _| {}));
    start(&mut nodes).await;
    let peers = &nodes[0].peers;
    let soon = Duration::from_millis(20);
    let call = peers.call(NodeId(2), Lane::Data, Kind::Submit, SHARD, Bytes::new(), soon);
    assert_eq!(call.await, Err(CallError::Deadline));

    let (sender, ended) = mpsc::sync_channel(1);
    let done = move |outcome| sender.send(outcome).unwrap();
    peers.request(NodeId(2), Lane::Data, Kind::Submit, SHARD, Bytes::new(), soon, done);
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), Err(CallError::Deadline));

    let dropped = CallError::Refused("the request was dropped".to_owned());
    assert_eq!(nodes[0].call(2, Kind::Attachment, "").await, Err(dropped));
    let unknown = CallError::Refused("no handler for kind 18".to_owned());
    assert_eq!(nodes[0].call(2, Kind::Deliver, "").await, Err(unknown));
    assert_eq!(nodes[0].call(9, Kind::Submit, "").await, Err(CallError::Unreachable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_node_needs_no_connection() {
    let nodes = nodes(2);
    let peers = &nodes[0].peers;
    echo(peers, Kind::Submit);
    let taken = collect(peers, Kind::Deliver);
    assert_eq!(nodes[0].call(1, Kind::Submit, "here").await, Ok(Bytes::from("here")));
    let body = Bytes::from("told");
    peers.send(NodeId(1), Lane::Data, Kind::Deliver, SHARD, body.clone()).unwrap();
    assert_eq!(taken.try_recv(), Ok((NodeId(1), SHARD, body.clone())), "handled inside the call");
    let (sender, ended) = mpsc::sync_channel(1);
    let done = move |outcome| sender.send(outcome).unwrap();
    peers.request(NodeId(1), Lane::Data, Kind::Submit, SHARD, body.clone(), PATIENCE, done);
    assert_eq!(ended.try_recv(), Ok(Ok(body)));
    let unknown = CallError::Refused("no handler for kind 17".to_owned());
    assert_eq!(nodes[0].call(1, Kind::Attachment, "").await, Err(unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_all_reach_each_other() {
    let mut nodes = nodes(3);
    for node in &nodes {
        echo(&node.peers, Kind::Submit);
    }
    start(&mut nodes).await;
    for node in &nodes {
        for to in 1..=3 {
            assert_eq!(node.call(to, Kind::Submit, "there?").await, Ok(Bytes::from("there?")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_waits_for_a_peer_that_does_not_take_it_is_bounded_and_not_lost() {
    let mut nodes = nodes(2);
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (sender, taken) = mpsc::sync_channel(100_000);
    let at_gate = gate.clone();
    let handler = move |_, _, body: Bytes, _| {
        let open = at_gate.1.wait_while(at_gate.0.lock().unwrap(), |open| !*open).unwrap();
        drop(open);
        sender.try_send(body[0]).unwrap();
    };
    nodes[1].peers.register(Kind::Deliver, Arc::new(handler));
    start(&mut nodes).await;

    let mut accepted = 0_u8;
    let refused = loop {
        let body = Bytes::from(vec![accepted; 1 << 20]);
        match nodes[0].peers.send(NodeId(2), Lane::Data, Kind::Deliver, SHARD, body) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 200, "nothing stops it");
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, SendError::Full);
    assert!(nodes[0].metric("moorline_wire_queued_bytes", "data") > 0.0);
    // The control lane does not care.
    echo(&nodes[1].peers, Kind::Heartbeat);
    let call = nodes[0].peers.call(
        NodeId(2),
        Lane::Control,
        Kind::Heartbeat,
        SHARD,
        Bytes::new(),
        PATIENCE,
    );
    assert_eq!(call.await, Ok(Bytes::new()));

    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for number in 0..accepted {
        assert_eq!(taken.recv_timeout(PATIENCE).unwrap(), number);
    }
}
