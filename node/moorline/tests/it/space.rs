//! A disk that fills up: publishes are refused before it is full, acknowledgements go on, and it ends when space is back.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::harness::{
    cluster::{Cluster, Shape},
    mqtt::numbered,
    packet::{Connect, Version},
    wait::{SOON, until_true},
};

const MIB: u64 = 1 << 20;
/// The file system's size. Space is low below a tenth of it and critical below a twentieth (the documented rule).
const SIZE_MIB: u64 = 400;
/// What is left free: low, and not critical.
const LEFT_MIB: u64 = 30;

/// A small file system in memory. Unmounted with its handle, which must outlive the nodes on it.
struct Tmpfs {
    dir: PathBuf,
    _parent: tempfile::TempDir,
}

impl Tmpfs {
    /// None if this user may not mount.
    fn mount() -> Option<Self> {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("disk");
        fs::create_dir(&dir).unwrap();
        let size = format!("size={SIZE_MIB}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "moorline"]).arg(&dir).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { dir, _parent: parent })
    }

    fn free(&self) -> u64 {
        let said = statvfs(&self.dir).unwrap();
        said.f_bavail * said.f_frsize
    }

    /// Takes all space but so much.
    fn fill(&self, file: &Path, left: u64) {
        let taken = self.free().checked_sub(left).expect("there is more than that");
        let file = File::create(file).unwrap();
        fallocate(&file, FallocateFlags::empty(), 0, taken).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a failed test may leave something open for a moment.
        drop(Command::new("umount").arg("-l").arg(&self.dir).status());
    }
}

#[test]
fn a_nearly_full_disk_refuses_publishes_and_nothing_else() {
    let Some(disk) = Tmpfs::mount() else {
        println!("skipped: mounting a tmpfs needs root");
        return;
    };
    let extra = "[storage]\nreserve-mib = 4\nlow-mib = 1024\ncritical-mib = 256\n".to_owned();
    let shape = Shape { extra, data: Some(disk.dir.clone()), ..Shape::of(1) };
    let mut cluster = Cluster::start_as(&shape);
    let at = cluster.mqtt(1);
    let session = Connect::durable(Version::V5, "full");
    let (mut subscriber, _) = session.to(at);
    subscriber.subscribe_1("full");
    let (mut publisher, _) = Connect::clean(Version::V5, "full-publisher").to(at);
    let payloads = numbered("before", 0..20);
    for payload in &payloads {
        publisher.publish_acked("full", payload.as_bytes());
    }

    let filler = disk.dir.join("filler");
    disk.fill(&filler, LEFT_MIB * MIB);
    until_true("a publish is refused with Quota Exceeded", SOON, || {
        let id = publisher.publish("full", b"");
        publisher.puback(id) == 0x97
    });
    assert!(!cluster.node(1).is_ready(), "a node that refuses publishes is not ready");
    assert!(cluster.node(1).log().contains("the disk is nearly full"));
    // What makes room goes on: the queue is taken and acknowledged, and stays so.
    assert_eq!(subscriber.take(payloads.len()), payloads);
    subscriber.ping();
    subscriber.disconnect();
    let (mut subscriber, present) = session.to(at);
    assert!(present, "sessions are served");
    loop {
        // Publishes from before the watch looked.
        let heard = subscriber.hear(std::time::Duration::from_millis(300));
        if heard == crate::harness::mqtt::Heard::Nothing {
            break;
        }
        assert!(!format!("{heard:?}").contains("before"), "{heard:?} was acknowledged");
    }

    fs::remove_file(&filler).unwrap();
    until_true("a publish is accepted again", SOON, || {
        let id = publisher.publish("full", b"after");
        publisher.puback(id) == 0
    });
    until_true("the node is ready again", SOON, || cluster.node(1).is_ready());
    assert!(cluster.node(1).log().contains("disk space is back"));

    // At the second threshold the node stops by itself, in order, and starts again once there is room.
    disk.fill(&filler, LEFT_MIB * MIB / 3);
    let status = cluster.node_mut(1).wait_for_end(SOON);
    assert!(!status.success(), "a node that stops itself says so: {status}");
    assert!(cluster.node(1).log().contains("giving up the reserve"));
    fs::remove_file(&filler).unwrap();
    cluster.node_mut(1).start_ready();
    let (_, present) = session.to_patiently(at);
    assert!(present, "the session is still there");
}
