//! What is found in which facts.

use std::{collections::BTreeMap, path::PathBuf};

use super::*;
use crate::cluster::{GroupView, ProgramView};

const NOW_S: i64 = 1_800_000_000;
const DAY_S: i64 = 24 * 3600;

/// Three nodes, six shards, all well, as node 1 sees it; who is first in a list leads.
fn view() -> ClusterView {
    let node = |id| NodeView {
        id,
        address: format!("10.0.0.{id}:7400"),
        alive: true,
        state: "active".to_owned(),
        program: Some(ProgramView { version: "0.2.0".to_owned(), level_min: 1, level_max: 2 }),
    };
    let group = |shard: u16| GroupView {
        shard,
        leader: Some(u64::from(shard) % 3 + 1),
        term: 1,
        last_log: 9_000,
        committed: 9_000,
        applied: 9_000,
        voters: vec![1, 2, 3],
        learners: Vec::new(),
        target: Vec::new(),
        confirmed: BTreeMap::new(),
        digest_index: None,
        digest: None,
    };
    ClusterView {
        node: 1,
        clock_ms: 0,
        name: "test".to_owned(),
        cluster: "c1".to_owned(),
        shards: 6,
        replicas: 3,
        level: 2,
        next_level: None,
        ready: true,
        waiting_for: Vec::new(),
        nodes: (1..=3).map(node).collect(),
        groups: (0..=6).map(group).collect(),
    }
}

fn asked(view: ClusterView) -> Asked {
    Asked {
        admin: format!("10.0.0.{}:9400", view.node),
        view: Ok(view),
        ahead_ms: Some((3, 5)),
        descriptors: Some((120, 1_048_576)),
        certificate_s: Some(NOW_S + 90 * DAY_S),
        wire_certificate_s: Some(NOW_S + 90 * DAY_S),
    }
}

fn machine() -> Machine {
    let data = Data {
        dir: PathBuf::from("/var/lib/moorline"),
        file_system: Some("ext4".to_owned()),
        space: Ok((80 << 30, 100 << 30)),
        low: 1 << 30,
        sync: Ok((Duration::from_millis(1), Duration::from_millis(4))),
    };
    Machine {
        file: "one.toml".to_owned(),
        data: Some(data),
        certificates: vec![("tls.cert", NOW_S + 60 * DAY_S)],
        ..Machine::default()
    }
}

/// A way to make something wrong.
type Wrong<T> = fn(&mut T);

#[track_caller]
fn check(found: &[Finding], severity: Severity, check: &str, what: &str) {
    let of: Vec<_> = found.iter().filter(|one| one.what.contains(what)).collect();
    let [one] = of.as_slice() else { panic!("{what:?} is once in {found:#?}") };
    assert_eq!((one.severity, one.check), (severity, check), "{one:?}");
    assert!(!one.means.is_empty() && !one.next.is_empty(), "{one:?}");
}

#[test]
fn where_all_is_well_nothing_is_found() {
    assert_eq!(judge(Some(&machine()), &[asked(view())], NOW_S), []);
    assert_eq!(judge(None, &[asked(view()), asked(view())], NOW_S), []);
}

#[test]
fn what_is_wrong_with_a_machine_is_found() {
    use Severity::{Error, Warning};
    fn data(machine: &mut Machine) -> &mut Data {
        machine.data.as_mut().unwrap()
    }
    #[rustfmt::skip]
    let table: [(Wrong<Machine>, Severity, &str, &str); 17] = [
        (|of| of.problems.push("node.id: 0 is none".to_owned()), Error, "config", "node.id: 0"),
        (|of| of.open.push(("listen.cluster: whoever reaches it".to_owned(), "set [cluster.tls]")),
            Warning, "config", "whoever reaches it"),
        (|of| of.withheld.push(("listen.mqtt", "10.0.0.1:1883".parse().unwrap(), ErrorKind::AddrInUse)),
            Error, "ports", "another program listens"),
        (|of| of.withheld.push(("listen.mqtt", "10.0.0.1:1883".parse().unwrap(), ErrorKind::AddrNotAvailable)),
            Error, "ports", "no address 10.0.0.1"),
        (|of| of.withheld.push(("listen.mqtts", "10.0.0.1:443".parse().unwrap(), ErrorKind::PermissionDenied)),
            Error, "ports", "may not listen on 10.0.0.1:443"),
        (|of| data(of).file_system = Some("tmpfs".to_owned()), Error, "disk", "in memory"),
        (|of| data(of).file_system = Some("nfs4".to_owned()), Warning, "disk", "not this machine's"),
        (|of| data(of).file_system = Some("fuse.sshfs".to_owned()), Warning, "disk", "not this machine's"),
        (|of| data(of).file_system = Some("overlay".to_owned()), Warning, "disk", "overlay"),
        (|of| data(of).space = Ok((1000 << 20, 100 << 30)), Error, "disk", "less than storage.low-mib = 1024"),
        (|of| data(of).space = Ok((9 << 30, 100 << 30)), Warning, "disk", "9216 of 102400 MiB"),
        (|of| data(of).space = Err("no".to_owned()), Warning, "disk", "nobody knows"),
        (|of| data(of).sync = Err("read-only".to_owned()), Error, "disk", "nothing can be written"),
        (|of| data(of).sync = Ok((Duration::from_millis(12), Duration::from_millis(40))),
            Warning, "disk", "a sync takes 12.0 ms, 1 of 100 more than 40.0 ms"),
        (|of| data(of).sync = Ok((Duration::from_secs(1), Duration::from_secs(2))), Error, "disk", "a sync takes"),
        (|of| of.certificates[0].1 = NOW_S, Error, "certificates", "tls.cert of one.toml has expired"),
        (|of| of.certificates[0].1 = NOW_S + 13 * DAY_S, Warning, "certificates", "expires in 13 days"),
    ];
    for (wrong, severity, of, what) in table {
        let mut machine = machine();
        wrong(&mut machine);
        let found = judge(Some(&machine), &[], NOW_S);
        assert_eq!(found.len(), 1, "{what}: {found:#?}");
        check(&found, severity, of, what);
    }
}

/// Findings by severity, check, and a part of what they say.
type Expected = &'static [(Severity, &'static str, &'static str)];

#[test]
fn what_is_wrong_in_a_cluster_is_found() {
    use Severity::{Error, Note, Warning};
    #[rustfmt::skip]
    let table: [(Wrong<ClusterView>, Expected); 12] = [
        (|of| of.nodes[2].alive = false,
            &[(Warning, "groups", "survives the loss of no node: node 3 is down"), (Warning, "nodes", "node 3 (10.0.0.3:7400) is down")]),
        (|of| { of.nodes[1].alive = false; of.nodes[2].alive = false; },
            &[(Error, "groups", "no majority, 1 of 3 votes: nodes 2 and 3 are down"), (Warning, "nodes", "node 2 (10.0.0.2:7400) is down"),
              (Warning, "nodes", "node 3 (10.0.0.3:7400) is down")]),
        (|of| { of.nodes[2].alive = false; of.nodes[2].state = "removed".to_owned(); of.groups.iter_mut().for_each(|group| group.voters = vec![1, 2]); },
            &[(Warning, "groups", "only 2 have a vote"), (Note, "groups", "3 copies of each shard are wanted")]),
        (|of| { let mut four = of.nodes[0].clone(); four.id = 4; four.alive = false; four.program = None; of.nodes.push(four); },
            &[(Warning, "nodes", "node 4 (10.0.0.1:7400) was let in and has never run")]),
        (|of| { of.ready = false; of.waiting_for = vec!["nearly full".to_owned()]; },
            &[(Warning, "nodes", "node 1 is not ready: nearly full")]),
        (|of| of.nodes[1].program.as_mut().unwrap().version = "0.3.0".to_owned(),
            &[(Note, "versions", "0.2.0 on [1, 3], 0.3.0 on [2]")]),
        (|of| of.nodes[1].program.as_mut().unwrap().level_max = 1,
            &[(Error, "versions", "node 2 knows levels up to 1, the cluster is at 2")]),
        (|of| of.next_level = Some(3), &[(Note, "versions", "every node knows level 3")]),
        (|of| of.groups[2].leader = None, &[(Warning, "groups", "Shard 2 has no leader")]),
        (|of| of.groups[1].confirmed = BTreeMap::from([(2, 9_000), (3, 0)]),
            &[(Warning, "groups", "survives the loss of no node: node 3 has to catch up"), (Warning, "groups", "it lacks 9000 entries")]),
        (|of| of.replicas = 5, &[(Note, "groups", "5 copies of each shard are wanted")]),
        (|of| of.groups[1..].iter_mut().for_each(|group| group.leader = Some(1)),
            &[(Note, "balance", "node 1 leads 6 shards, node 2 leads 0")]),
    ];
    for (wrong, expected) in table {
        let mut view = view();
        wrong(&mut view);
        let found = judge(None, &[asked(view)], NOW_S);
        for (severity, of, what) in expected {
            check(&found, *severity, of, what);
        }
        let more: Vec<_> = found.iter().filter(|one| one.check != "balance").collect();
        let wanted = expected.iter().filter(|(_, of, _)| *of != "balance").count();
        assert_eq!(more.len(), wanted, "{expected:?}: {found:#?}");
        assert!(found.is_sorted_by_key(|one| one.severity), "the worst first: {found:#?}");
    }
}

#[test]
fn what_is_wrong_with_one_node_is_found() {
    use Severity::{Error, Warning};
    #[rustfmt::skip]
    let table: [(Wrong<Asked>, Severity, &str, &str); 8] = [
        (|of| of.view = Err("nobody answers at 10.0.0.1:9400".to_owned()), Error, "nodes", "nobody answers"),
        (|of| of.descriptors = Some((950, 1000)), Error, "descriptors", "950 of 1000"),
        (|of| of.descriptors = Some((100, 1024)), Warning, "descriptors", "may open 1024 files"),
        (|of| of.certificate_s = Some(NOW_S - 1), Error, "certificates", "node 1 has expired"),
        (|of| of.wire_certificate_s = Some(NOW_S - 1), Error, "certificates", "node 1 for other nodes has expired"),
        (|of| of.ahead_ms = Some((2_500, 100)), Warning, "clock", "differ by 2.4 s: that of node 1 is ahead of this machine's"),
        (|of| of.ahead_ms = Some((-90_000, 100)), Error, "clock", "this machine's is ahead of that of node 1"),
        (|of| *of = asked(ClusterView { cluster: String::new(), groups: Vec::new(), ..view() }), Warning, "groups", "There is no cluster yet"),
    ];
    for (wrong, severity, of, what) in table {
        let mut node = asked(view());
        wrong(&mut node);
        let found = judge(None, &[node], NOW_S);
        assert_eq!(found.len(), 1, "{what}: {found:#?}");
        check(&found, severity, of, what);
    }
    // A slow answer says little about a clock.
    let unsure = Asked { ahead_ms: Some((2_500, 2_000)), ..asked(view()) };
    assert_eq!(judge(None, &[unsure], NOW_S), []);
}

#[test]
fn several_nodes_are_seen_together_and_nothing_is_found_twice() {
    let (mut first, mut second) = (view(), view());
    second.node = 2;
    // Each has a part of the shards; together they have all.
    first.groups.retain(|group| group.shard < 4);
    second.groups.retain(|group| group.shard > 2 || group.shard == 0);
    second.groups[1].leader = Some(2);
    second.groups[1].confirmed = BTreeMap::from([(1, 0)]);
    // Who answers is not down, whatever another thinks.
    first.nodes[1].alive = false;
    let found = judge(None, &[asked(first.clone()), asked(second)], NOW_S);
    check(&found, Severity::Warning, "groups", "Shard 3 waits for node 1");
    assert!(!found.iter().any(|one| one.what.contains("is down")), "{found:#?}");

    first.nodes[1].alive = true;
    first.nodes[2].alive = false;
    let mut again = first.clone();
    again.node = 2;
    let found = judge(None, &[asked(first), asked(again)], NOW_S);
    check(&found, Severity::Warning, "nodes", "node 3 (10.0.0.3:7400) is down");
}
