//! Case 43, as far as it is about streams of server-sent events: more than there are places for, and readers that take nothing.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use moorline_service::registry::EVENT_READERS_PER_TENANT_MAX;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::{
    Raw,
    api::{REFUSED, Victim},
    is_full,
};
use crate::harness::{
    http,
    sse::Sse,
    wait::{SOON, until_true},
};

/// Streams of applications, and how many attempts at more there are.
const READERS: &str = "moorline_event_readers";
/// Those of Fostrom's devices.
const DEVICES: &str = "moorline_fostrom_connections{protocol=\"sse\"}";
/// For what a node notices after half a minute: who takes nothing for so long.
const STALL_WAIT: Duration = Duration::from_secs(60);
/// What a socket that is never read takes, as far as the kernel lets us say.
const RECEIVE_BYTES: usize = 4 * 1024;
/// Events of 200 KB that such a reader is to be sent: more than the sockets take.
const REPORTS: usize = 60;
/// A device's secret in Fostrom's style.
const SECRET: &str = "FOS-abcdefghijklmnopqrstuvwxyz012345";

#[test]
fn streams_have_so_many_places() {
    let mut victim = Victim::start();
    let attempts = if is_full() { 10_000 } else { 40 };
    let (admin, root) = (victim.admin, format!("Bearer {}", victim.root));
    let headers = [("authorization", root.as_str())];
    let open =
        |tenant: &str| Sse::open(admin, &format!("/api/v1/events?tenant={tenant}"), &headers);
    victim.target.abused(
        "43: streams of applications",
        "moorline_event_readers_refused_total",
        |target| {
            let held: Vec<_> =
                (0..EVENT_READERS_PER_TENANT_MAX).map(|_| open("acme").unwrap()).collect();
            for _ in 0..attempts {
                let (status, body) = open("acme").err().expect("all places are taken");
                assert_eq!(status, 503, "{body}");
                assert!(body.contains("too-many-readers"), "{body}");
            }
            drop(open("other").expect("another tenant has its own places"));
            let answer = http::api("GET", admin, "/api/v1/devices/pump?tenant=acme", &headers, "");
            assert_eq!(answer.status, 200, "{}", answer.body);
            drop(held);
            until_true("the places are free again", SOON, || target.metric(READERS) == 0);
            drop(open("acme").expect("a place"));
        },
    );
}

#[test]
fn devices_hold_a_stream_each() {
    let mut victim = Victim::start();
    let devices = if is_full() { 10_000 } else { 300 };
    let root = victim.root.clone();
    let aliases = json!({ "name": "fleet", "aliases": ["fostrom:FLEET043"],
        "settings": { "plaintext": true, "fostrom": {} } });
    let made = victim.ask(&root, "POST", "/tenants", &aliases.to_string());
    assert_eq!(made.status, 201, "{}", made.body);
    let line = |number: usize| {
        json!({ "name": format!("DEVICE{number:04}"), "credentials": [{ "secret": SECRET }] })
            .to_string()
            + "\n"
    };
    let lines: String = (0..devices).map(line).collect();
    let imported = victim.ask(&root, "POST", "/devices/import?tenant=fleet", &lines);
    assert_eq!(imported.status, 200, "{}", imported.body);
    assert!(
        !imported.body.contains("failed"),
        "{}",
        imported.body.get(..2_000).unwrap_or(&imported.body)
    );
    let fostrom = victim.fostrom;
    if is_full() {
        // Rows, events and presence of so many devices stay. Level from the fourth of twelve rounds on: 104 MiB before the first, 130 to 140 then.
        victim.target.grows_by(64 * 1024);
    }
    victim.target.abused(
        "43: streams of devices",
        "moorline_connections_opened_total{listener=\"http\"}",
        |target| {
            hold(target, fostrom, devices);
        },
    );
}

/// One stream for each device, all at once, until each is counted; and none when they are gone.
fn hold(target: &super::Target, fostrom: std::net::SocketAddr, devices: usize) {
    let mut held = Vec::new();
    for number in 0..devices {
        // An address has no more than 28,000 ports, and other cases run beside this one.
        let address = Ipv4Addr::new(127, 43, 0, 1 + u8::try_from(number / 1_000).unwrap());
        let mut stream = Raw::from(address, fostrom).unwrap().0;
        write!(
            stream,
            "GET /v1/events HTTP/1.1\r\nhost: x\r\nx-fleet-id: FLEET043\r\nx-device-id: DEVICE{number:04}\r\n\
             x-device-secret: {SECRET}\r\naccept: text/event-stream\r\n\r\n"
        )
        .unwrap();
        held.push(stream);
        // Few are unknown at a time.
        if held.len() % 25 == 0 {
            let many = held.len() as u64;
            until_true(&format!("{many} streams"), SOON, || target.metric(DEVICES) >= many);
        }
    }
    let many = held.len() as u64;
    until_true("all streams", SOON, || target.metric(DEVICES) == many);
    drop(held);
    until_true("no stream", SOON, || target.metric(DEVICES) == 0);
}

#[test]
fn who_takes_nothing_loses_its_place() {
    let mut victim = Victim::start();
    let (admin, root) = (victim.admin, victim.root.clone());
    let bearer = format!("Bearer {root}");
    let headers = [("authorization", bearer.as_str())];
    let report =
        json!({ "type": "datapoint", "channel": "c", "data": "x".repeat(200_000) }).to_string();
    victim.target.abused("43: a reader that takes nothing", REFUSED, |target| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
        socket.connect(&admin.into()).unwrap();
        let mut idle = TcpStream::from(socket);
        write!(
            idle,
            "GET /api/v1/events?tenant=acme HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n\r\n"
        )
        .unwrap();
        until_true("it reads", SOON, || target.metric(READERS) == 1);
        let path = "/api/v1/devices/pump/events?tenant=acme";
        for _ in 0..REPORTS {
            let answer = http::api("POST", admin, path, &headers, &report);
            assert_eq!(answer.status, 201, "nobody waits for it: {}", answer.body);
        }
        until_true("it loses its place", STALL_WAIT, || target.metric(READERS) == 0);
        // The next one has all of it.
        let mut reader =
            Sse::open(admin, "/api/v1/events?tenant=acme&group=late", &headers).unwrap();
        let said = reader.said(Instant::now() + SOON).expect("the oldest event");
        assert!(said.data.is_some());
        let refused = http::api("GET", admin, "/api/v1/events?tenant=nobody", &headers, "");
        assert_eq!(refused.status, 404);
    });
}
