//! The commands, as the SDKs and people use them: start, stop, status, and the files in between.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::MetadataExt, net::UnixListener},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    agent::Place,
    cluster::{Cluster, FLEET},
    node::Node,
    until,
};

/// An agent in the background that ends with the test.
struct Background(Place);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.output(&["stop"]);
    }
}

fn pid(place: &Place) -> Pid {
    let text = fs::read_to_string(place.directory().join("agent.pid")).unwrap();
    Pid::from_raw(text.parse().unwrap()).unwrap()
}

#[test]
fn the_version_is_the_one_that_sdks_look_for() {
    let place = Place::new(&["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(place.prints(&["version"]), "v0.1.0\n");
    assert!(place.prints(&["help"]).contains("start"));
    assert_eq!(place.output(&["nonsense"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_started_once_and_stopped() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let mut background = Background(Place::new(&[node.address]));
    let place = &mut background.0;
    assert_eq!(place.prints(&["status"]), "not_running\n");
    assert_eq!(place.prints(&["stop"]), "stopped: no agent was running\n");
    let began = Instant::now();
    let started = place.prints(&["start"]);
    println!("started in {:?}", began.elapsed());
    assert!(started.starts_with("started: "), "{started}");
    let first = pid(place);
    let again = place.prints(&["start"]);
    assert!(again.starts_with("already_started: "), "{again}");
    assert_eq!(pid(place), first);
    until("it is connected", || node.connections() == 1).await;
    let status = place.prints(&["status"]);
    assert!(status.starts_with("running\n\nHTTP/1.1 200 OK\r\n"), "{status}");
    assert!(status.ends_with("{\"connected\":true}\n"), "{status}");

    let directory = place.directory();
    let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for name in ["agent.sock", "agent.pid", "config.hash", "stdout.log", "stderr.log"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let hash = || fs::read_to_string(directory.join("config.hash")).unwrap();
    let before = hash();
    // Another configuration is another agent.
    place.set("FOSTROM_RUNTIME_ENV", "production");
    assert!(place.prints(&["start"]).starts_with("started: "));
    assert_ne!((pid(place), hash()), (first, before));

    let stopped = place.prints(&["stop"]);
    assert!(stopped.starts_with("stopped: "), "{stopped}");
    assert!(!directory.join("agent.sock").exists());
    until("the node hears the goodbye", || node.connections() == 0).await;
    assert_eq!(place.prints(&["status"]), "not_running\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_start_at_once_start_one() {
    let place = Background(Place::new(&["127.0.0.1:1".parse().unwrap()]));
    let both = [(); 2].map(|()| {
        let mut command = place.0.command(&["start"]);
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    });
    let mut said = both.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().split(':').next().unwrap().to_owned()
    });
    said.sort();
    assert_eq!(said, ["already_started", "started"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_a_code() {
    let mut place = Place::new(&["127.0.0.1:1".parse().unwrap()]);
    place.set("FOSTROM_FLEET_ID", "");
    assert_eq!(place.complains(&["start"]), "invalid_config: Fleet ID is missing\n");
    assert_eq!(place.complains(&["run"]), "invalid_config: Fleet ID is missing\n");
    place.set("FOSTROM_FLEET_ID", FLEET);
    place.set("MOORLINE_PLAINTEXT", "0");
    place.set("MOORLINE_CA", "/nowhere/ca.pem");
    let failed = place.complains(&["start"]);
    assert!(
        failed.starts_with("start_failed: invalid_config: MOORLINE_CA: /nowhere/ca.pem: "),
        "{failed}"
    );
    let file = place.file("file", "");
    place.set("MOORLINE_AGENT_DIR", &file);
    assert_eq!(
        place.complains(&["start"]),
        format!("directory_failed: {file}: this is no directory\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_in_one_directory_is_refused() {
    let agent = Place::new(&["127.0.0.1:1".parse().unwrap()]).run().await;
    assert_eq!(agent.place.complains(&["run"]), "already_running: another agent runs here\n");
    assert_eq!(agent.sdk().ask("GET", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_leaves_nothing_in_the_way() {
    let place = Background(Place::new(&["127.0.0.1:1".parse().unwrap()]));
    let place = &place.0;
    assert!(place.prints(&["start"]).starts_with("started: "));
    kill_process(pid(place), Signal::KILL).unwrap();
    until("it is gone", || place.prints(&["status"]) == "not_running\n").await;
    assert!(place.directory().join("agent.sock").exists());
    assert!(place.prints(&["start"]).starts_with("started: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_is_ended_all_the_same() {
    let place = Background(Place::new(&["127.0.0.1:1".parse().unwrap()]));
    let place = &place.0;
    assert!(place.prints(&["start"]).starts_with("started: "));
    let hangs = pid(place);
    kill_process(hangs, Signal::STOP).unwrap();
    assert!(place.prints(&["start"]).starts_with("started: "), "in its place");
    assert_ne!(pid(place), hangs);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_the_vendor_is_sent_away_first() {
    let place = Background(Place::new(&["127.0.0.1:1".parse().unwrap()]));
    let place = &place.0;
    fs::create_dir(place.directory()).unwrap();
    let socket = place.directory().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let vendors = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            if bytes[..read].starts_with(b"DELETE /stop-agent ") {
                return fs::remove_file(socket).unwrap();
            }
        }
    });
    assert!(place.prints(&["start"]).starts_with("started: "));
    vendors.join().unwrap();
    assert_eq!(place.sdk().ask("GET", "/").await.header("x-powered-by"), "Moorline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_a_signal_stop_it() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    for signalled in [true, false] {
        let mut agent = Place::new(&[node.address]).run().await;
        let mut events = agent.sdk().events().await;
        events.until_connected().await;
        if signalled {
            kill_process(Pid::from_child(&agent.child), Signal::TERM).unwrap();
        } else {
            let answer = agent.sdk().send("DELETE /stop-agent HTTP/1.1\r\n\r\n").await;
            assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{\"ok\":true}"[..]));
        }
        while events.next().await.is_some() {}
        assert!(agent.child.wait().unwrap().success());
        assert!(!agent.place.directory().join("agent.sock").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_tested() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let nobody = Place::new(&["127.0.0.1:1".parse().unwrap()]);
    let failed = nobody.complains(&["test-conn"]);
    assert!(failed.starts_with("connect_failed: 127.0.0.1:1: "), "{failed}");
    let both = Place::new(&["127.0.0.1:1".parse().unwrap(), node.address]);
    let said = both.prints(&["test-conn"]);
    assert!(said.contains(&format!("\nok: {} answered in ", node.address)), "{said}");
}
