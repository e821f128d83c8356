//! `moorline-peers`: another broker, run beside ours under the same load, so that benchmarks are ratios.
//!
//! It embeds `rumqttd`, which keeps everything in memory on one node: the ceiling of a design without replication and
//! without disks, not a rival in what it promises (docs/decisions/001-rumqttd-is-a-peer.md).
//!
//! stdout says `listening on 127.0.0.1:PORT` once it accepts connections; it runs until it is ended. NATS and
//! mosquitto, the other peers, are programs of their own and need no help from here.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Parser;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// More than any benchmark of ours opens.
const CONNECTIONS_MAX: usize = 20_000;
/// Far above the benchmarks' 256 B, so that the peer refuses nothing.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Messages a connection may have unacknowledged: the peer's own default.
const INFLIGHT_MAX: usize = 100;
/// Packets the router hands a connection at a time: the peer's own default.
const OUTGOING_PACKETS_MAX: u64 = 200;
/// Bytes of a segment of the peer's log in memory: its own default.
const SEGMENT_BYTES_MAX: usize = 100 << 20;
/// Segments kept per filter. What falls out of the last is lost without a word, so a benchmark must stay below.
const SEGMENTS_MAX: usize = 10;
/// How long a client may take for its CONNECT.
const CONNECT_MS: u16 = 60_000;
/// Between two accepted connections: the peer's own default.
const NEXT_CONNECTION_MS: u64 = 1;
/// How long the broker may take until it listens.
const START_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether it does.
const START_PAUSE: Duration = Duration::from_millis(10);

/// Runs rumqttd on one port, MQTT 3.1.1 or 5 (it can't speak both on one).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Speak MQTT 5 instead of 3.1.1.
    #[arg(long)]
    v5: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listen = free_address(arguments.listen)?;

    let (ended, end) = mpsc::sync_channel(1);
    let mut broker = Broker::new(config(listen, arguments.v5));
    // `start` blocks for as long as the broker runs and can't be asked to stop: the process is its owner.
    thread::Builder::new().name("rumqttd".to_owned()).spawn(move || {
        // The receiver is gone only when `main` has returned.
        drop(ended.send(broker.start()));
    })?;

    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(listen).is_err() {
        if let Ok(result) = end.try_recv() {
            result.context("rumqttd did not start")?;
            bail!("rumqttd ended at once");
        }
        if Instant::now() > deadline {
            bail!("rumqttd does not listen on {listen} after {START_MAX:?}");
        }
        thread::sleep(START_PAUSE);
    }
    println!("listening on {listen}");

    end.recv().context("rumqttd panicked")?.context("rumqttd ended")
}

/// The address, with a port chosen by the operating system if it has none: rumqttd does not say which it got.
fn free_address(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("can't listen on {listen}"))?;
    Ok(listener.local_addr()?)
}

fn config(listen: SocketAddr, v5: bool) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: CONNECT_MS,
        max_payload_size: PAYLOAD_BYTES_MAX,
        max_inflight_count: INFLIGHT_MAX,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let name = if v5 { "v5" } else { "v4" }.to_owned();
    let server = ServerSettings {
        name: name.clone(),
        listen,
        tls: None,
        next_connection_delay_ms: NEXT_CONNECTION_MS,
        connections,
    };
    let servers = Some(HashMap::from([(name, server)]));
    let (v4, v5) = if v5 { (None, servers) } else { (servers, None) };
    let router = RouterConfig {
        max_connections: CONNECTIONS_MAX,
        max_outgoing_packet_count: OUTGOING_PACKETS_MAX,
        max_segment_size: SEGMENT_BYTES_MAX,
        max_segment_count: SEGMENTS_MAX,
        ..RouterConfig::default()
    };
    Config { router, v4, v5, ..Config::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_gets_the_listener() {
        let listen: SocketAddr = "127.0.0.1:1883".parse().unwrap();
        for v5 in [false, true] {
            let config = config(listen, v5);
            assert_eq!((config.v4.is_some(), config.v5.is_some()), (!v5, v5));
        }
    }

    #[test]
    fn port_0_becomes_a_real_one() {
        let address = free_address("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(address.port(), 0);
    }
}
