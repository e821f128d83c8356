//! What people and programs that run a cluster see and use: health, metrics, the command line, the demo.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{
    cluster::{Cluster, SHARDS, Shape, config_text},
    http,
    node::MOORLINE,
    packet::{Connect, Version},
    wait::{READY, SOON, until, until_true},
};

pub(crate) fn health_tells_what_there_is(cluster: &mut Cluster) {
    for node in cluster.nodes() {
        for path in ["/health/live", "/health/ready", "/health/startup", "/livez", "/readyz"] {
            let answer = http::get(node.admin, path).unwrap();
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            let health = answer.json();
            assert_eq!(health["status"], "ok", "{path}");
            let checks = health["checks"].as_array().unwrap();
            assert!(!checks.is_empty() && checks.iter().all(|check| check["ok"] == true), "{path}");
        }
        assert_eq!(http::get(node.admin, "/nothing").unwrap().status, 404);
        assert_eq!(http::post(node.admin, "/metrics").unwrap().status, 405);
        let again = http::post(node.admin, "/api/v1/cluster/init").unwrap();
        assert_eq!(again.status, 200, "made already counts as made: {}", again.body);
    }
}

pub(crate) fn metrics_are_there(cluster: &mut Cluster) {
    let documented = documented_metrics();
    for node in cluster.nodes() {
        let answer = http::get(node.admin, "/metrics").unwrap();
        assert_eq!(answer.status, 200);
        let families = families(&answer.body);
        for name in ["moorline_ready", "moorline_build_info", "process_resident_memory_bytes"] {
            assert!(families.contains(name), "node {} does not tell {name}", node.id);
        }
        let missing: Vec<_> = documented.difference(&families).collect();
        assert!(missing.is_empty(), "documented, not told by node {}: {missing:?}", node.id);
    }
}

/// The names in docs/metrics.md.
fn documented_metrics() -> BTreeSet<String> {
    // Asked when it runs: clones that share a target directory share this test's binary.
    let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this crate is");
    let text = fs::read_to_string(Path::new(&here).join("../../docs/metrics.md")).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| {
        word.starts_with("moorline_") && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let names: BTreeSet<String> = quoted.filter(is_name).map(str::to_owned).collect();
    assert!(!names.is_empty(), "docs/metrics.md names no metric");
    names
}

/// The families of a scrape; every line must be as the text format wants it.
fn families(text: &str) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].map(|end| name.strip_suffix(end));
            let known = |name: &str| families.contains(name);
            assert!(known(name) || of_histogram.into_iter().flatten().any(known), "{line}");
        }
    }
    families
}

pub(crate) fn status_comes_both_ways(cluster: &mut Cluster) {
    for node in cluster.nodes() {
        let status = ["cluster", "status", "--admin", &node.admin.to_string()];
        let table = done(&moorline(&status));
        let survives = "Each shard survives the loss of 1 node.";
        let head = format!("seen by node {}, ready", node.id);
        let words = [head, "meta".to_owned(), survives.to_owned()];
        for word in words.into_iter().chain(cluster.nodes().iter().map(|n| n.cluster.to_string())) {
            assert!(table.contains(&word), "no {word:?} in\n{table}");
        }
        assert!(!table.contains("DOWN"), "{table}");
        let view: Value =
            serde_json::from_str(&done(&moorline(&[&status[..], &["--json"]].concat()))).unwrap();
        assert_eq!(view["node"], node.id);
        assert_eq!(view["ready"], true);
        assert_eq!(view["groups"].as_array().unwrap().len(), usize::from(SHARDS) + 1);
        assert!(view["groups"].as_array().unwrap().iter().all(|group| group["leader"].is_u64()));
        let said = http::get(node.admin, "/api/v1/guarantees").unwrap().json();
        assert_eq!((&said["survives"], &said["sentences"][0]), (&1.into(), &survives.into()));
    }
    let nobody = moorline(&["cluster", "status", "--admin", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(5), "nobody is there: {}", said(&nobody));
}

pub(crate) fn levels_are_shown_and_kept(cluster: &mut Cluster) {
    for node in cluster.nodes() {
        let view = until("the level is known", SOON, || {
            node.view().filter(|view| view["level"].as_u64() > Some(1))
        });
        assert!(view["next_level"].is_null(), "{view}");
        for of in view["nodes"].as_array().unwrap() {
            let program = &of["program"];
            assert_eq!(program["version"], env!("CARGO_PKG_VERSION"), "{view}");
            assert_eq!((&program["level_min"], &program["level_max"]), (&1.into(), &view["level"]));
        }
        let level = format!("level {}", view["level"]);
        let admin = node.admin.to_string();
        let table = done(&moorline(&["cluster", "status", "--admin", &admin]));
        assert!(table.contains(&level), "no {level:?} in\n{table}");
        let raised = done(&moorline(&["cluster", "upgrade", "--admin", &admin]));
        assert_eq!(raised, format!("the cluster is at {level}\n"), "nothing is above it");
        until_true("the directory says the level", SOON, || {
            let written = fs::read(node.data.join("node.json")).unwrap();
            let written: Value = serde_json::from_slice(&written).unwrap();
            written["format"] == view["level"]
        });
    }
}

pub(crate) fn pub_and_sub_talk(cluster: &mut Cluster) {
    let sub = |node: u64, count: &str| -> Child {
        let mqtt = cluster.mqtt(node);
        let args = ["sub", "-H", &mqtt.ip().to_string(), "-p", &mqtt.port().to_string()]
            .map(str::to_owned);
        let what = ["--topic", "tools/#", "--durable", "--id", "tools-sub", "-n", count];
        let mut command = Command::new(MOORLINE);
        command.args(args).args(what).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let publish = |node: u64, message: Option<&str>, lines: &str| {
        let mqtt = cluster.mqtt(node);
        let mut command = Command::new(MOORLINE);
        command.args(["pub", "-H", &mqtt.ip().to_string(), "-p", &mqtt.port().to_string()]);
        command.args(["--topic", "tools/1"]);
        command.args(message.iter().flat_map(|message| ["--message", message]));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };

    let mut first = sub(1, "1");
    // "Reached no subscriber" goes away once the subscription is there.
    until_true("the subscriber is there", SOON, || publish(2, Some("hello"), "").is_empty());
    let mut line = String::new();
    BufReader::new(first.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "tools/1 hello\n");
    assert!(first.wait().unwrap().success());

    publish(3, None, "one\ntwo\nthree\n");
    let output = sub(2, "3").wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "tools/1 one\ntools/1 two\ntools/1 three\n"
    );
    drop(Connect::clean(Version::V5, "tools-sub").to(cluster.mqtt(1)));
}

#[test]
fn config_check_points_at_everything_that_is_wrong() {
    let cluster = Cluster::prepare(&Shape::of(3));
    let node = cluster.node(1);
    let good = config_text(node, cluster.nodes(), "tests");
    let check = |text: &str| {
        let file = cluster.dir().join("checked.toml");
        fs::write(&file, text).unwrap();
        moorline(&["config", "check", &file.display().to_string()])
    };
    let fine = check(&good);
    assert_eq!(fine.status.code(), Some(0), "{}", said(&fine));

    let tls = "\n[tls]\ncert = \"/nowhere/a\"\nkey = \"/nowhere/b\"\n";
    let mutual = "\n[cluster.tls]\nca = \"/nowhere/c\"\ncert = \"/nowhere/d\"\nkey = \"/nowhere/e\"\ndomain = \"d\"\n";
    #[rustfmt::skip]
    let table = [
        (good.replace("data-dir", "datadir"),                       &["line 3", "datadir"][..]),
        (good.replace("shards = 3", "shards = 0"),                  &["cluster.shards"][..]),
        (good.replace("id = 1\n", "id = 9\n")
             .replace("shards = 3", "shards = 4000"),               &["cluster.peers", "cluster.shards"][..]),
        ("nonsense".to_owned(),                                     &["line 1"][..]),
        (format!("{good}{tls}"),                                    &["tls: cert: /nowhere/a"][..]),
        (format!("{good}{mutual}"),                                 &["cluster.tls: ", "/nowhere/c"][..]),
    ];
    for (text, words) in table {
        let output = check(&text);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        for word in words {
            assert!(said(&output).contains(word), "no {word:?} in {}", said(&output));
        }
    }
    let nowhere = moorline(&["config", "check", "/nowhere/moorline.toml"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
    let server = moorline(&["server", "--config", "/nowhere/moorline.toml"]);
    assert_eq!(server.status.code(), Some(2), "{}", said(&server));
}

/// The demo, ended if a test fails.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // Its nodes end when their standard input closes.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_demo_starts_resumes_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let session = Connect::durable(Version::V5, "demo");
    for run in 0..2 {
        let mut demo = Demo(
            Command::new(MOORLINE)
                .args(["demo", "--nodes", "1", "--quiet", "--dir"])
                .arg(dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let ready = dir.path().join("ready.json");
        let nodes: Value = until("the demo is ready", READY, || {
            let ended = demo.0.try_wait().unwrap();
            assert!(ended.is_none(), "the demo ended: {ended:?}");
            serde_json::from_slice(&fs::read(&ready).ok()?).ok()
        });
        let mqtt: SocketAddr = nodes[0]["mqtt"].as_str().unwrap().parse().unwrap();
        let pid = i32::try_from(nodes[0]["pid"].as_i64().unwrap()).unwrap();

        let (mut client, present) = session.to(mqtt);
        assert_eq!(present, run == 1, "the second demo resumes the first");
        client.subscribe_1("demo");
        client.publish_acked("demo", b"hello");
        assert_eq!(client.take(1), ["hello"]);
        drop(client);

        kill_process(Pid::from_raw(demo.0.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
        let status = until("the demo ends", SOON, || demo.0.try_wait().unwrap());
        assert!(status.success(), "{status}");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "its node is gone");
        let mut hello = String::new();
        std::io::Read::read_to_string(demo.0.stdout.as_mut().unwrap(), &mut hello).unwrap();
        assert!(
            hello.contains("mosquitto_sub") && hello.contains(&mqtt.port().to_string()),
            "{hello}"
        );
    }
}

/// Runs a command of the tool to its end.
pub(crate) fn moorline(args: &[&str]) -> Output {
    Command::new(MOORLINE).args(args).stdin(Stdio::null()).output().unwrap()
}

/// What it printed; it must have succeeded.
#[track_caller]
pub(crate) fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it complained about.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
