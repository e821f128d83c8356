//! The level of a cluster whose nodes are upgraded one after the other. `cluster.level-max` makes a node one whose program knows no
//! more than that: it says so in its hellos and asks when it joins, as an older program does.

use std::fs;

use serde_json::Value;

use crate::{
    harness::{
        cluster::{Cluster, Shape},
        flow::Flow,
        http,
        node::Node,
        wait::{SOON, until, until_true},
    },
    operating::{done, moorline},
};

/// Makes a node an older one.
const OLDER: &str = "level-max = 1\n";
/// Acknowledgements per publisher between what happens.
const SOME: u64 = 30;

/// Its file, without or with the line. The file ends within `[cluster]`.
fn as_older(node: &Node, older: bool) {
    let text = fs::read_to_string(&node.config).unwrap().replace(OLDER, "");
    fs::write(&node.config, if older { text + OLDER } else { text }).unwrap();
}

/// Stops a node, and starts it as an older or a newer one.
#[track_caller]
fn replace(cluster: &mut Cluster, id: u64, older: bool) {
    let node = cluster.node_mut(id);
    assert!(node.stop().success());
    as_older(node, older);
    node.start_ready();
}

/// The highest level a node knows, as another sees it.
fn level_max(view: &Value, of: u64) -> Option<u64> {
    let nodes = view["nodes"].as_array()?;
    nodes.iter().find(|node| node["id"] == of)?["program"]["level_max"].as_u64()
}

#[track_caller]
fn sees(cluster: &Cluster, id: u64, of: u64, level: u64) {
    until_true(&format!("node {id} knows what node {of} knows"), SOON, || {
        cluster.node(id).view().is_some_and(|view| level_max(&view, of) == Some(level))
    });
}

/// The sum of a metric's series that contain `label`.
fn metric(node: &Node, name: &str, label: &str) -> f64 {
    let text = http::get(node.admin, "/metrics").unwrap().body;
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// What a node's directory says of the level.
fn noted(node: &Node) -> u64 {
    let written = fs::read(node.data.join("node.json")).unwrap();
    serde_json::from_slice::<Value>(&written).unwrap()["format"].as_u64().unwrap()
}

#[track_caller]
fn is_at(cluster: &Cluster, nodes: &[u64], level: u64) {
    for node in nodes.iter().map(|id| cluster.node(*id)) {
        until_true(&format!("node {} is at level {level}", node.id), SOON, || {
            node.view().is_some_and(|view| view["level"] == level) && noted(node) == level
        });
    }
}

#[test]
fn a_cluster_is_upgraded_node_by_node_while_messages_flow() {
    let shape = Shape { extra: OLDER.to_owned(), ..Shape::of(3) };
    let mut cluster = Cluster::start_as(&shape);
    is_at(&cluster, &[1, 2, 3], 1);
    let flow = Flow::start(&cluster, "upgrade", &[1, 2, 3]);

    for id in [1, 2] {
        flow.goes_on(SOME);
        replace(&mut cluster, id, false);
    }
    sees(&cluster, 1, 2, 2);
    sees(&cluster, 1, 3, 1);
    let refused = http::post(cluster.node(1).admin, "/api/v1/cluster/upgrade").unwrap();
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body.contains("node 3 knows 1 (version"), "{}", refused.body);
    is_at(&cluster, &[1, 2, 3], 1);
    flow.goes_on(SOME);

    // Back, and forth again: nothing was written that the older one can't read.
    for older in [true, false] {
        replace(&mut cluster, 2, older);
        flow.goes_on(SOME);
    }

    replace(&mut cluster, 3, false);
    let admin = cluster.node(2).admin.to_string();
    until("node 2 says that it can be raised", SOON, || {
        let table = done(&moorline(&["cluster", "status", "--admin", &admin]));
        table.contains("level 1; every node knows level 2").then_some(())
    });
    assert!((metric(cluster.node(2), "moorline_cluster_level_known", "") - 2.0).abs() < 0.5);
    is_at(&cluster, &[1, 2, 3], 1);
    let raised = done(&moorline(&["cluster", "upgrade", "--admin", &admin]));
    assert_eq!(raised, "the cluster is at level 2\n");
    is_at(&cluster, &[1, 2, 3], 2);
    flow.goes_on(SOME);
    flow.finish();
    cluster.digests_agree();
}

#[test]
fn who_does_not_know_the_level_is_refused_at_start_at_hello_and_at_joining() {
    let mut cluster = Cluster::start_as(&Shape { extra: OLDER.to_owned(), ..Shape::of(3) });
    for id in [1, 2, 3] {
        replace(&mut cluster, id, false);
    }
    for of in [2, 3] {
        sees(&cluster, 1, of, 2);
    }
    // It said what it knows, and is not there when the cluster is raised: its directory has not seen it.
    assert!(cluster.node_mut(3).stop().success());
    let raised = http::post(cluster.node(1).admin, "/api/v1/cluster/upgrade").unwrap();
    assert!(raised.status == 200 && raised.json()["level"] == 2, "{}", raised.body);
    is_at(&cluster, &[1, 2], 2);
    let refusals = |cluster: &Cluster| -> f64 {
        let of = |id| metric(cluster.node(id), "moorline_wire_refused_hellos_total", "level");
        of(1) + of(2)
    };
    assert!(refusals(&cluster) < 0.5);
    as_older(cluster.node(3), true);
    cluster.node_mut(3).must_refuse_to_run(&["does not know the level", "docs/upgrades.md"]);
    assert!(refusals(&cluster) > 0.5);

    // With the newer program it goes on, and from then on its directory says it.
    as_older(cluster.node(3), false);
    cluster.node_mut(3).start_ready();
    is_at(&cluster, &[3], 2);
    assert!(cluster.node_mut(3).stop().success());
    as_older(cluster.node(3), true);
    cluster.node_mut(3).must_refuse_to_run(&["the cluster is at level 2", "cluster.level-max"]);
    as_older(cluster.node(3), false);
    cluster.node_mut(3).start_ready();

    let token = cluster.token();
    let (mut fourth, text) = cluster.newcomer();
    let member = cluster.node(1).admin.to_string();
    let text = text + &format!("join = [{member:?}]\ntoken = \"{token}\"\n");
    fs::write(&fourth.config, text.clone() + OLDER).unwrap();
    fourth.must_refuse_to_run(&["does not let this node in", "the cluster is at level 2"]);
    assert!(metric(cluster.node(1), "moorline_joins_misfit_total", "") > 0.5);
    // Its token was not used up.
    fs::write(&fourth.config, text).unwrap();
    fourth.start_ready();
    cluster.add(fourth);
    is_at(&cluster, &[4], 2);
}
