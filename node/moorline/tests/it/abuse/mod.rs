//! What hostile and broken clients do to a node, over real sockets: it answers as the standard says, keeps its limits, its memory
//! and its other clients.
//!
//! Each test carries the numbers of its cases. [`Target::abused`] holds for every one of them that the process lives, that its
//! memory does not grow, that another client's messages go through meanwhile, and that a metric tells of it.
//!
//! `MOORLINE_ABUSE=full` (`scripts/verify abuse`) makes those cases large that come in thousands.

mod api;
mod framing;
mod mailboxes;
mod properties;
mod resources;
mod sessions;
mod streams;
mod websocket;

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::harness::{
    cluster::{Cluster, Shape, ports},
    http,
    packet::{Connect, Version, frame, put_text},
    wait::{SOON, until, until_true},
};

/// What one abuse may cost of memory beside [`Target::cached_kib`], after which all else is given back.
const GROWTH_KIB_MAX: u64 = 8 * 1024;
/// What thousands of clients may leave the first time: tables that were large keep their room, and so do pages of the allocator
/// in which something lives. The second time falls under [`GROWTH_KIB_MAX`].
const WARM_KIB_MAX: u64 = 24 * 1024;
/// The allocator gives back within ten seconds what is free; and then the metrics must agree.
const GIVEN_BACK: Duration = Duration::from_secs(30);
/// Memory that does not shrink for so long is what stays: longer than the allocator takes.
const STEADY: Duration = Duration::from_secs(12);
/// What is not called shrinking.
const STEADY_KIB: u64 = 256;
/// Memory that a node keeps on purpose, each up to a limit of its own: entries, rows, what RocksDB holds of both, and routes that
/// ended.
const CACHES: [&str; 7] = [
    "moorline_routes_removed_bytes",
    "moorline_raft_ring_bytes",
    "moorline_raft_overlay_bytes",
    "moorline_storage_bytes{database=\"log\",kind=\"memtables\"}",
    "moorline_storage_bytes{database=\"log\",kind=\"block_cache\"}",
    "moorline_storage_bytes{database=\"state\",kind=\"memtables\"}",
    "moorline_storage_bytes{database=\"state\",kind=\"block_cache\"}",
];
/// The 99th percentile of the other client's messages. Generous: the machine is busy, and one that hangs takes longer.
const P99_MAX: Duration = Duration::from_secs(2);
/// Between two messages of the other client.
const WITNESS_PAUSE: Duration = Duration::from_millis(5);
/// Messages that make it a witness.
const WITNESS_MESSAGES_MIN: usize = 20;
/// Limits that would keep a test waiting, made a second where it says nothing else.
const SHORT: [&str; 3] = ["first-packet-ms", "tls-handshake-ms", "write-stall-ms"];

/// Whether the large cases have their full size.
pub(crate) fn is_full() -> bool {
    std::env::var("MOORLINE_ABUSE").is_ok_and(|size| size == "full")
}

/// A node with the limits it has when nobody configures any, but for [`SHORT`] and what the test says.
pub(crate) struct Target {
    pub(crate) cluster: Cluster,
    pub(crate) mqtt: SocketAddr,
    pub(crate) ws: SocketAddr,
    /// Only with a certificate ([`Target::start_secure`]).
    pub(crate) mqtts: SocketAddr,
    /// The node's memory when it had served a few clients, without its caches.
    uncached_kib: u64,
    /// What an abuse may cost of memory.
    growth_kib: u64,
}

impl Target {
    /// With more lines of `[mqtt]` and more of the rest.
    #[track_caller]
    pub(crate) fn start(mqtt: &str, extra: &str) -> Self {
        let mut shape = Shape::of(1);
        let short = SHORT.into_iter().filter(|key| !mqtt.contains(key));
        let short: String = short.map(|key| format!("{key} = 1000\n")).collect();
        shape.mqtt = short + mqtt;
        shape.extra = extra.to_owned();
        let mut cluster = Cluster::prepare(&shape);
        let [ws, mqtts] = ports(2)[..] else { unreachable!() };
        let config = &cluster.node(1).config;
        let secure =
            if extra.contains("[tls]") { format!("mqtts = \"{mqtts}\"\n") } else { String::new() };
        let listen = format!("[listen]\nws = \"{ws}\"\n{secure}");
        let text = fs::read_to_string(config).unwrap();
        fs::write(config, text.replace("[listen]\n", &listen)).unwrap();
        cluster.bring_up();
        Self::of(cluster, ws, mqtts)
    }

    /// A node that runs already.
    #[track_caller]
    fn of(cluster: Cluster, ws: SocketAddr, mqtts: SocketAddr) -> Self {
        let mqtt = cluster.mqtt(1);
        let mut target =
            Self { cluster, mqtt, ws, mqtts, uncached_kib: 0, growth_kib: GROWTH_KIB_MAX };
        // What is used once is held from then on.
        Witness::start(mqtt, "warm").finish();
        target.uncached_kib = target.resident() - target.cached_kib();
        target
    }

    /// With TLS, and a certificate made for it.
    #[track_caller]
    pub(crate) fn start_secure(mqtt: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        // Both are read when the node starts.
        Self::start(mqtt, &format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n"))
    }

    /// A metric, which may have labels; 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let answer = until("the metrics answer", SOON, || {
            http::get(self.cluster.node(1).admin, "/metrics").ok().filter(|a| a.status == 200)
        });
        let value = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// How often a limit was reached.
    pub(crate) fn reached(&self, limit: &str) -> u64 {
        self.metric(&limit_metric(limit))
    }

    /// What the node says it keeps on purpose.
    fn cached_kib(&self) -> u64 {
        CACHES.into_iter().map(|cache| self.metric(cache)).sum::<u64>() / 1024
    }

    fn resident(&self) -> u64 {
        let pid = self.cluster.node(1).pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What is done next leaves more than usual, for a reason.
    pub(crate) fn grows_by(&mut self, growth_kib: u64) {
        self.growth_kib = growth_kib;
    }

    /// In full size: has the node do once what it will be measured by.
    #[track_caller]
    pub(crate) fn warm(&mut self, what: &str, load: impl FnOnce(&Self)) {
        if !is_full() {
            return;
        }
        load(self);
        let most = self.uncached_kib + WARM_KIB_MAX;
        let (mut lowest, mut since) = (u64::MAX, Instant::now());
        until_true(
            &format!("{what}, warm: memory goes back to {most} KiB"),
            GIVEN_BACK * 2,
            || {
                let now = self.resident().saturating_sub(self.cached_kib());
                if now.saturating_add(STEADY_KIB) < lowest {
                    since = Instant::now();
                }
                lowest = lowest.min(now);
                lowest < most && since.elapsed() > STEADY
            },
        );
        println!("{what}: {} KiB beside the caches at first, {lowest} KiB warm", self.uncached_kib);
        self.uncached_kib = lowest;
    }

    /// Does something bad to the node, and holds that it takes it: see the module.
    #[track_caller]
    pub(crate) fn abused<T>(
        &mut self,
        what: &str,
        metric: &str,
        abuse: impl FnOnce(&Self) -> T,
    ) -> T {
        let before = self.metric(metric);
        let witness = Witness::start(self.mqtt, "witness");
        let result = abuse(self);
        let (messages, p99) = witness.finish();
        println!("{what}: {messages} messages of another client, p99 {p99:?}");
        assert!(p99 < P99_MAX, "{what}: the other client's p99 is {p99:?}");
        assert!(self.cluster.node_mut(1).answers(), "{what}");
        until_true(&format!("{what}: {metric} grows from {before}"), SOON, || {
            self.metric(metric) > before
        });
        let most = self.uncached_kib + self.growth_kib;
        let (mut now, mut cached) = (0, 0);
        until_true(&format!("{what}: memory goes back to {most} KiB"), GIVEN_BACK, || {
            (now, cached) = (self.resident(), self.cached_kib());
            now < most + cached
        });
        println!(
            "{what}: {} KiB beside the caches at first, {now} KiB with {cached} KiB of them at last",
            self.uncached_kib
        );
        result
    }
}

/// The metric of a limit.
pub(crate) fn limit_metric(limit: &str) -> String {
    format!("moorline_limits_reached_total{{limit=\"{limit}\"}}")
}

/// Another client, which wants to know nothing of it: publishes to itself and looks at the time.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Duration>>,
}

impl Witness {
    fn start(at: SocketAddr, name: &str) -> Self {
        let name = unique(name);
        let topic = format!("{name}/topic");
        // From the first message on, so that whoever starts it begins with a working one.
        let (mut subscriber, _) = Connect::clean(Version::V5, &format!("{name}-in")).to(at);
        let (mut publisher, _) = Connect::clean(Version::V5, &format!("{name}-out")).to(at);
        subscriber.subscribe_1(&topic);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut took = Vec::new();
            while took.len() < WITNESS_MESSAGES_MIN || !stopped.load(Ordering::Relaxed) {
                let since = Instant::now();
                let payload = took.len().to_string();
                let id = publisher.publish(&topic, payload.as_bytes());
                let message = subscriber.message();
                took.push(since.elapsed());
                assert_eq!(message.payload, payload.as_bytes(), "in order, once");
                subscriber.ack(&message);
                assert_eq!(publisher.puback(id), 0);
                thread::sleep(WITNESS_PAUSE);
            }
            subscriber.disconnect();
            publisher.disconnect();
            took
        });
        Self { stop, thread }
    }

    /// Messages, and their 99th percentile.
    fn finish(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().expect("the other client is served");
        took.sort();
        (took.len(), took[(took.len() * 99).div_ceil(100) - 1])
    }
}

/// A socket that says any bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// From the usual address.
    #[track_caller]
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::from(Ipv4Addr::LOCALHOST, address).unwrap()
    }

    /// From an address of its own (any of 127.0.0.0/8).
    pub(crate) fn from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&address.into(), SOON)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        Ok(Self(stream))
    }

    /// Sends bytes, unless the node has closed already: what it said will tell.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes));
    }

    /// The next so many bytes.
    #[track_caller]
    pub(crate) fn hear(&mut self, many: usize) -> Vec<u8> {
        let mut bytes = vec![0; many];
        self.0.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{many} bytes: {error}"));
        bytes
    }

    /// One whole packet.
    #[track_caller]
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let mut packet = self.hear(2);
        let mut length = usize::from(packet[1] & 0x7F);
        let mut place = 7;
        while packet[packet.len() - 1] & 0x80 != 0 {
            let byte = self.hear(1)[0];
            length |= usize::from(byte & 0x7F) << place;
            place += 7;
            packet.push(byte);
        }
        packet.extend(self.hear(length));
        packet
    }

    /// Everything up to the end, which must come.
    #[track_caller]
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            // A reset is an end too: the node does not read what follows a broken rule.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the node does not close: {error}, after {bytes:x?}"),
        }
        bytes
    }
}

/// A CONNECT of MQTT 5 or 3.1.1, clean, with these flags, properties and further fields of the payload.
pub(crate) fn connect(version: Version, flags: u8, client: &[u8], more: &[u8]) -> Vec<u8> {
    connect_with(version, flags, &[], client, more)
}

/// The same with properties (MQTT 5).
pub(crate) fn connect_with(
    version: Version,
    flags: u8,
    properties: &[u8],
    client: &[u8],
    more: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, "MQTT");
    body.extend([version as u8, flags, 0, 60]);
    if version == Version::V5 {
        crate::harness::packet::put_properties(&mut body, properties);
    }
    body.extend(u16::try_from(client.len()).unwrap().to_be_bytes());
    body.extend(client);
    body.extend(more);
    frame(0x10, &body)
}

/// A raw connection with an open clean session.
#[track_caller]
pub(crate) fn opened(target: &Target, version: Version, client: &str) -> Raw {
    let mut raw = Raw::to(target.mqtt);
    raw.say(&connect(version, 2, unique(client).as_bytes(), &[]));
    let connack = raw.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
    raw
}

/// A client id that nobody had: one has its rate.
pub(crate) fn unique(name: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// What a node said last, in words: its packet and reason code, `…, closed` if it closed after it.
pub(crate) fn last_words(bytes: &[u8]) -> String {
    match bytes {
        [] => "closed".to_owned(),
        [0x20, _, _, reason, ..] => format!("connack {reason:#04x}"),
        [0xE0, 0] => "disconnect 0x00".to_owned(),
        [0xE0, _, reason, ..] => format!("disconnect {reason:#04x}"),
        other => format!("{other:x?}"),
    }
}
