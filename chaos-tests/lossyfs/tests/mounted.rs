//! The file system, mounted for real.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use moorline_lossyfs::{Command, Controller, Mounted, Names, ask, available, serve};
use tempfile::TempDir;

struct Disk {
    mounted: Mounted,
    here: TempDir,
}

impl Disk {
    fn path(&self, name: &str) -> PathBuf {
        self.mounted.path().join(name)
    }

    fn backing(&self, name: &str) -> PathBuf {
        self.here.path().join("backing").join(name)
    }

    fn control(&self) -> &Controller {
        self.mounted.controller()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

/// A mounted disk, or nothing where there is no FUSE.
fn disk(names: Names) -> Option<Disk> {
    if !available() {
        println!("skipped: this machine has no /dev/fuse");
        return None;
    }
    let here = tempfile::tempdir().unwrap();
    let (backing, mount) = (here.path().join("backing"), here.path().join("mount"));
    fs::create_dir(&backing).unwrap();
    fs::create_dir(&mount).unwrap();
    let mounted = Mounted::mount(&backing, &mount, names).unwrap();
    Some(Disk { mounted, here })
}

fn synced(path: &PathBuf, bytes: &str) -> File {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes.as_bytes()).unwrap();
    file.sync_all().unwrap();
    file
}

#[test]
fn written_and_not_synced_is_lost_written_and_synced_is_not() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let mut file = synced(&disk.path("a"), "kept ");
    file.write_all(b"lost").unwrap();
    fs::write(disk.path("b"), "lost too").unwrap();
    assert_eq!((disk.read("a"), disk.read("b")), ("kept lost".into(), "lost too".into()));
    assert_eq!(disk.control().status().dirty_files, 2);
    drop(file);
    disk.control().lose().unwrap();
    assert_eq!((disk.read("a"), disk.read("b")), ("kept ".into(), String::new()));
    assert_eq!(disk.control().status().pending_bytes, 0);
    assert_eq!(fs::read_to_string(disk.backing("a")).unwrap(), "kept ");
}

#[test]
fn fdatasync_and_o_dsync_keep_too() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let mut file = File::create(disk.path("a")).unwrap();
    file.write_all(b"data").unwrap();
    file.sync_data().unwrap();
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::DSYNC.bits()).unwrap();
    let options = OpenOptions::new().write(true).create(true).custom_flags(flags).clone();
    options.open(disk.path("b")).unwrap().write_all(b"data").unwrap();
    drop(file);
    disk.control().lose().unwrap();
    assert_eq!((disk.read("a"), disk.read("b")), ("data".into(), "data".into()));
}

#[test]
fn an_open_file_sees_the_loss() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let mut file = synced(&disk.path("a"), "kept");
    file.write_all(b" lost").unwrap();
    disk.control().lose().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4);
    let mut reader = File::open(disk.path("a")).unwrap();
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert_eq!(read, "kept");
}

#[test]
fn an_overwrite_and_a_cut_are_lost_like_an_append() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let file = synced(&disk.path("a"), "0123456789");
    file.write_all_at(b"xyz", 2).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(disk.read("a"), "01xyz5");
    drop(file);
    disk.control().lose().unwrap();
    assert_eq!(disk.read("a"), "0123456789");
}

#[test]
fn a_torn_file_is_a_prefix() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let text: String = ('a'..='z').collect();
    let mut lengths = Vec::new();
    for seed in 0..20 {
        let mut file = synced(&disk.path("a"), "synced ");
        file.write_all(text.as_bytes()).unwrap();
        drop(file);
        disk.control().tear(seed).unwrap();
        let read = disk.read("a");
        assert!(format!("synced {text}").starts_with(&read) && read.len() >= 7, "{read}");
        lengths.push(read.len());
    }
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() > 5, "{lengths:?}");
}

#[test]
fn a_failed_fsync_is_final() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let mut file = synced(&disk.path("a"), "kept ");
    disk.control().fail_fsyncs(1);
    file.write_all(b"doomed").unwrap();
    let error = file.sync_all().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    // The retry "succeeds", and proves nothing.
    file.sync_all().unwrap();
    assert_eq!(disk.read("a"), "kept doomed");
    drop(file);
    disk.control().lose().unwrap();
    assert_eq!(disk.read("a"), "kept ");
}

#[test]
fn a_failed_write_changes_nothing() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let mut file = synced(&disk.path("a"), "kept");
    disk.control().fail_writes(1);
    file.write_all(b"x").unwrap_err();
    file.write_all(b"y").unwrap();
    assert_eq!(disk.control().status().errors, 1);
    assert_eq!(disk.read("a").len(), 5);
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    disk.control().set_quota(Some(64 << 10));
    let mut file = File::create(disk.path("a")).unwrap();
    file.write_all(&[7; 60 << 10]).unwrap();
    let error = file.write_all(&[7; 8 << 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let room = rustix::fs::statvfs(disk.mounted.path()).unwrap();
    assert_eq!((room.f_blocks, room.f_bavail), (16, 1));
    // Overwriting needs no room.
    file.write_all_at(b"x", 0).unwrap();
    fs::write(disk.path("b"), [7; 8 << 10]).unwrap_err();
    drop(file);
    fs::remove_file(disk.path("a")).unwrap();
    assert_eq!(disk.control().status().used_bytes, 0);
    fs::write(disk.path("b"), [7; 8 << 10]).unwrap();
    disk.control().set_quota(None);
    fs::write(disk.path("c"), vec![7; 256 << 10]).unwrap();
    assert_eq!(disk.control().status().used_bytes, 264 << 10);
}

#[test]
fn allocated_room_counts_only_when_the_file_grows() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    use rustix::fs::{FallocateFlags, fallocate};
    let file = File::create(disk.path("a")).unwrap();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    fallocate(&file, FallocateFlags::empty(), 0, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4096);
    assert!(fallocate(&file, FallocateFlags::PUNCH_HOLE, 0, 1).is_err());
    disk.control().set_quota(Some(8192));
    assert!(fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).is_err());
}

#[test]
fn a_lying_fsync_keeps_nothing_and_a_slow_one_takes_its_time() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    disk.control().set_lie(true);
    drop(synced(&disk.path("a"), "believed"));
    disk.control().lose().unwrap();
    assert_eq!(disk.read("a"), "");
    disk.control().heal();
    disk.control().slow_fsyncs(120);
    let began = Instant::now();
    drop(synced(&disk.path("a"), "slow"));
    assert!(began.elapsed() >= Duration::from_millis(120));
    disk.control().lose().unwrap();
    assert_eq!(disk.read("a"), "slow");
}

#[test]
fn names_are_durable_at_once_unless_strict() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    fs::create_dir(disk.path("d")).unwrap();
    drop(synced(&disk.path("d/a"), "a"));
    fs::rename(disk.path("d/a"), disk.path("d/b")).unwrap();
    fs::hard_link(disk.path("d/b"), disk.path("c")).unwrap();
    disk.control().lose().unwrap();
    assert_eq!((disk.read("d/b"), disk.read("c")), ("a".into(), "a".into()));
    assert!(!disk.path("d/a").exists());
    assert_eq!(fs::metadata(disk.path("c")).unwrap().nlink(), 2);
}

#[test]
fn strict_names_need_their_directory_synced() {
    let Some(disk) = disk(Names::WhenSynced) else { return };
    let root = File::open(disk.mounted.path()).unwrap();
    drop(synced(&disk.path("kept"), "kept"));
    drop(synced(&disk.path("current"), "old"));
    root.sync_all().unwrap();
    // A database's way to replace a file, without the last step.
    drop(synced(&disk.path("current.new"), "new"));
    fs::rename(disk.path("current.new"), disk.path("current")).unwrap();
    fs::remove_file(disk.path("kept")).unwrap();
    fs::create_dir(disk.path("d")).unwrap();
    drop(synced(&disk.path("d/a"), "a"));
    assert_eq!(disk.read("current"), "new");
    disk.control().lose().unwrap();
    assert_eq!((disk.read("current"), disk.read("kept")), ("old".into(), "kept".into()));
    assert!(!disk.path("d").exists() && !disk.path("current.new").exists());
    // And with it.
    drop(synced(&disk.path("current.new"), "new"));
    fs::rename(disk.path("current.new"), disk.path("current")).unwrap();
    root.sync_all().unwrap();
    disk.control().lose().unwrap();
    assert_eq!(disk.read("current"), "new");
    let names: Vec<_> = fs::read_dir(disk.mounted.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "what could come back is not seen: {names:?}");
}

#[test]
fn a_removed_file_stays_readable_while_open() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create_new(true).open(disk.path("a")).unwrap();
    file.write_all(b"still here").unwrap();
    fs::remove_file(disk.path("a")).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut read = String::new();
    file.read_to_string(&mut read).unwrap();
    assert_eq!(read, "still here");
}

#[test]
fn a_whole_tree_can_be_removed() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    for d in 0..5 {
        fs::create_dir_all(disk.path(&format!("t/{d}"))).unwrap();
        for f in 0..200 {
            fs::write(disk.path(&format!("t/{d}/{f}")), "x").unwrap();
        }
    }
    assert_eq!(fs::read_dir(disk.path("t/3")).unwrap().count(), 200);
    fs::remove_dir_all(disk.path("t")).unwrap();
    assert_eq!(fs::read_dir(disk.mounted.path()).unwrap().count(), 0);
}

#[test]
fn an_orderly_unmount_keeps_everything_and_a_new_mount_finds_it() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    fs::write(disk.path("a"), "not synced").unwrap();
    let Disk { mounted, here } = disk;
    let (backing, mount) = (here.path().join("backing"), mounted.path().to_owned());
    mounted.unmount().unwrap();
    assert_eq!(fs::read_to_string(backing.join("a")).unwrap(), "not synced");
    let again = Mounted::mount(&backing, &mount, Names::AtOnce).unwrap();
    assert_eq!(again.controller().status().used_bytes, 10);
    assert_eq!(fs::read_to_string(mount.join("a")).unwrap(), "not synced");
}

#[test]
fn commands_come_over_the_socket() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let socket = disk.here.path().join("control");
    let listener = UnixListener::bind(&socket).unwrap();
    let controller = disk.control().clone();
    // Lives as long as the test's process; it holds no file of the mount.
    thread::spawn(move || serve(&listener, &controller));
    fs::write(disk.path("a"), "12345").unwrap();
    let status = ask(&socket, Command::Status).unwrap();
    assert_eq!((&status["pending-bytes"], &status["dirty-files"]), (&5.into(), &1.into()));
    let status = ask(&socket, Command::Lose).unwrap();
    assert_eq!((&status["pending-bytes"], &status["losses"]), (&0.into(), &1.into()));
    assert_eq!(disk.read("a"), "");
}

/// RocksDB syncs its log after each group commit. A debug build on a busy machine must still leave room.
#[test]
fn thousands_of_synced_writes_a_second() {
    let Some(disk) = disk(Names::AtOnce) else { return };
    let mut file = File::create(disk.path("log")).unwrap();
    let began = Instant::now();
    let mut done = 0_u32;
    while began.elapsed() < Duration::from_secs(1) {
        file.write_all(&[7; 256]).unwrap();
        file.sync_data().unwrap();
        done += 1;
    }
    println!("{done} synced writes in one second");
    assert!(done > 1_000, "only {done}: too slow to run a database on");
}
