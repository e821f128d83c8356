//! A node under a service manager: this test is the manager, a socket that `NOTIFY_SOCKET` names.

use std::{
    collections::BTreeSet,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::harness::{
    cluster::{Cluster, Shape},
    http,
    wait::{A_WHILE, READY, SOON, until_true},
};

/// After this much silence the manager would give the node up. It pings three times as often.
const WATCHDOG: Duration = Duration::from_millis(600);

/// What the node said, as far as it has come.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// One line each of what has come since; waits until there is something.
    fn listen(&mut self, within: Duration) -> Vec<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut datagram = [0; 4096];
        let Ok(bytes) = self.socket.recv(&mut datagram) else { return Vec::new() };
        let lines: Vec<String> =
            String::from_utf8_lossy(&datagram[..bytes]).lines().map(str::to_owned).collect();
        self.heard.extend(lines.iter().cloned());
        lines
    }

    /// Waits until a line begins like this.
    #[track_caller]
    fn hears(&mut self, start: &str) {
        let since = Instant::now();
        while !self.listen(A_WHILE).iter().any(|line| line.starts_with(start)) {
            assert!(since.elapsed() < READY, "no {start} among {:?}", self.heard);
        }
    }
}

#[test]
fn a_service_manager_hears_that_a_node_started_works_and_stops() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("notify");
    let mut manager = Manager { socket: UnixDatagram::bind(&path).unwrap(), heard: Vec::new() };
    let mut shape = Shape::of(1);
    shape.env = vec![
        ("NOTIFY_SOCKET".to_owned(), path.to_str().unwrap().to_owned()),
        ("WATCHDOG_USEC".to_owned(), WATCHDOG.as_micros().to_string()),
    ];
    let mut cluster = Cluster::prepare(&shape);

    // Started is ready: nobody has made the cluster yet, and the status says so.
    cluster.node_mut(1).start();
    manager.hears("READY=1");
    manager.hears("STATUS=not ready: not made yet");
    manager.hears("WATCHDOG=1");
    let made = http::post(cluster.node(1).admin, "/api/v1/cluster/init").unwrap();
    assert_eq!(made.status, 200, "{}", made.body);
    manager.hears("STATUS=serves clients");

    // A process that stands still does not ping. What it had sent before is heard first.
    cluster.node(1).pause();
    until_true("the pings end", SOON, || manager.listen(WATCHDOG * 2).is_empty());
    cluster.node(1).resume();
    manager.hears("WATCHDOG=1");

    let status = cluster.node_mut(1).stop();
    assert!(status.success(), "it stopped with {status}");
    manager.hears("STOPPING=1");
    let kinds: BTreeSet<&str> =
        manager.heard.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(kinds, BTreeSet::from(["READY", "STATUS", "STOPPING", "WATCHDOG"]));
}
