//! A node dies and its devices come back to the others at once: they are let in at the pace that a node can afford, whoever is beyond
//! it hears so in its protocol's own way, all are back in the end with all that they had, and those who are connected notice nothing.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::available_parallelism,
    time::Duration,
};

use crate::harness::{
    api::Api,
    cluster::Shape,
    flow::Flow,
    http,
    packet::{self, Connect, Version},
    wait::{READY, SOON, until, until_true},
};

const DEVICES: usize = 300;
/// What a node judges in a second.
const PER_S: usize = 100;
/// How long one of them may take to hear a refusal, or that it is let in.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// CONNACK: server busy (MQTT 5), server unavailable (3.1.1).
const BUSY: [u8; 2] = [0x89, 3];
/// CONNACK in MQTT 5: the shard has no leader yet.
const UNAVAILABLE: u8 = 0x88;
/// Messages of each publisher: enough that something of everything has happened.
const SOME: u64 = 50;

fn shape() -> Shape {
    let cores = available_parallelism().map_or(1, usize::from);
    let mqtt = format!(
        "unauthenticated-per-address-max = 0\nconnects-per-client-s = 0\nconnects-per-tenant-s = 0\n\
         authentications-per-core-s = {}\nadmission-wait-ms = 200\nadmission-waiting-max = 16\n",
        PER_S.div_ceil(cores)
    );
    Shape { mqtt, extra: "anonymous = true\n".to_owned(), ..Shape::of(3) }
}

/// Every second one speaks 3.1.1.
fn device(number: usize) -> Connect {
    let version = if number.is_multiple_of(2) { Version::V5 } else { Version::V4 };
    Connect::durable(version, &format!("d{number}"))
}

fn ask(to: SocketAddr, what: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER_WAIT).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
    stream.write_all(what).unwrap();
    stream
}

/// Whether a session was there, and the reason; by the version's own layout.
fn connack(stream: &mut TcpStream) -> (bool, u8) {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x20, "a CONNACK");
    (head[2] == 1, head[3])
}

/// All of them ask at once, those that are refused again and again: the connections, and how often somebody was refused.
fn all_come(numbers: &[usize], to: &[SocketAddr]) -> (Vec<TcpStream>, usize) {
    let (mut left, mut came, mut refused) = (numbers.to_vec(), Vec::new(), 0);
    until("all are back", READY, || {
        let asked: Vec<_> = left
            .iter()
            .map(|number| {
                let connect = packet::connect(&device(*number));
                (*number, ask(to[number % to.len()], &connect))
            })
            .collect();
        left.clear();
        for (number, mut stream) in asked {
            match connack(&mut stream) {
                (present, 0) => {
                    assert!(present, "the session of d{number} is gone");
                    came.push(stream);
                }
                (_, UNAVAILABLE) => left.push(number),
                (_, reason) => {
                    assert_eq!(reason, BUSY[number % 2], "d{number} was refused");
                    // 3.1.1 has one word for both.
                    refused += usize::from(reason == BUSY[0]);
                    left.push(number);
                }
            }
        }
        left.is_empty().then_some(())
    });
    (came, refused)
}

fn counted(api: &Api, node: u64, series: &str) -> u64 {
    let page = http::get(api.cluster.node(node).admin, "/metrics").unwrap().body;
    let found = page.lines().find_map(|line| line.strip_prefix(series));
    found.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

#[test]
fn a_storm_is_let_in_at_a_pace_and_all_come_back() {
    let mut api = Api::start_as(&shape(), &["http"]);
    let numbers: Vec<usize> = (0..DEVICES).collect();
    // Each with a session at the third node, and a subscription.
    for number in &numbers {
        let (mut client, _) = device(*number).to_patiently(api.cluster.mqtt(3));
        client.subscribe_1(&format!("mail/{number}"));
    }
    let flow = Flow::start(&api.cluster, "steady", &[1, 2]);
    flow.goes_on(SOME);
    api.cluster.node_mut(3).kill();
    let to = [1, 2].map(|node| api.cluster.mqtt(node));
    let (came, refused) = all_come(&numbers, &to);
    assert_eq!(came.len(), DEVICES);
    assert!(refused > 0, "{DEVICES} at once are more than {PER_S} in a second");
    flow.goes_on(SOME);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");

    let rejected = |node| {
        ["authentications_per_core_s", "admission_waiting_max"]
            .map(|limit| {
                counted(
                    &api,
                    node,
                    &format!("moorline_admission_rejected_total{{reason=\"{limit}\"}}"),
                )
            })
            .iter()
            .sum::<u64>()
    };
    assert!(rejected(1) + rejected(2) >= refused as u64);
    for node in [1, 2] {
        let admitted = "moorline_admission_admitted_total{gate=\"authentications\"}";
        assert!(counted(&api, node, admitted) >= DEVICES as u64 / 2);
        let waiting = "moorline_admission_waiting{gate=\"authentications\"}";
        until_true("nobody waits any more", SOON, || counted(&api, node, waiting) == 0);
    }
    drop(came);
    requests_are_told_when_to_come_again(&api);
}

fn requests_are_told_when_to_come_again(api: &Api) {
    let request = b"GET /nothing HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
    let asked: Vec<_> = (0..DEVICES).map(|_| ask(api.at(1, "http"), request)).collect();
    let mut after = Vec::new();
    for mut stream in asked {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        if answer.starts_with("HTTP/1.1 503 ") {
            let said = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
            after.push(said.and_then(|s| s.trim().parse::<u32>().ok()).unwrap());
        }
    }
    assert!(after.iter().all(|seconds| (1..=10).contains(seconds)), "{after:?}");
    let (least, most) = (after.iter().min(), after.iter().max());
    assert!(least < most, "all would come again at once: {after:?}");
}
