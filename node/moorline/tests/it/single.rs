//! One node alone: the same promises, but for the one it says it cannot keep.

use crate::harness::{
    cluster::Cluster,
    mqtt::numbered,
    packet::{Connect, Version},
};

#[test]
fn one_node_alone_works_and_says_what_it_does_not_survive() {
    let mut cluster = Cluster::start(1);
    let at = cluster.mqtt(1);
    assert!(cluster.node(1).log().contains("no second copy"));
    let sessions = [Version::V4, Version::V5]
        .map(|version| Connect::durable(version, &format!("alone-{version:?}")));
    for session in &sessions {
        let (mut client, present) = session.to(at);
        assert!(!present);
        client.subscribe_1("alone");
        client.disconnect();
    }
    let payloads = numbered("m", 0..50);
    let publish = |payloads: &[String]| {
        let (mut publisher, _) = Connect::clean(Version::V5, "alone-publisher").to(at);
        for payload in payloads {
            publisher.publish_acked("alone", payload.as_bytes());
        }
    };

    publish(&payloads[..25]);
    cluster.node_mut(1).kill();
    cluster.node_mut(1).start_ready();
    publish(&payloads[25..]);
    let status = cluster.node_mut(1).stop();
    assert!(status.success(), "SIGTERM ends a node with {status}");
    cluster.node_mut(1).start_ready();

    for session in &sessions {
        let (mut client, present) = session.to(at);
        assert!(present, "{} survived", session.client);
        assert_eq!(client.take(payloads.len()), payloads);
        client.hears_nothing();
    }
}
