//! Ports for nodes that are started again on the same ones.
//!
//! Not from `:0`: those come from the range of outgoing connections, and while a node is down one of a thousand
//! reconnecting clients may be given its port. Ports below that range are free when they can be bound, and stay so.
//! They do not follow from the seed: two runs with one seed may go on at once.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::RngExt;

/// Lowest port tried: below are services of the machine.
const LOWEST: u16 = 15_000;
/// Where outgoing ports begin if the kernel does not say.
const OUTGOING: u16 = 32_768;
/// How many ports are tried for each one wanted.
const TRIES_MAX: usize = 200;

/// Free loopback ports, all different. Each was bound a moment ago.
pub fn free(many: usize) -> io::Result<Vec<SocketAddr>> {
    let outgoing = outgoing().filter(|&first| first > LOWEST + 1_000).unwrap_or(OUTGOING);
    let mut random = rand::rng();
    let mut held = Vec::new();
    for _ in 0..many * TRIES_MAX {
        if held.len() == many {
            break;
        }
        let port = random.random_range(LOWEST..outgoing);
        // Held until all are found, so that none is found twice.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
        }
    }
    if held.len() < many {
        return Err(io::Error::other(format!("only {} of {many} ports are free", held.len())));
    }
    held.iter().map(TcpListener::local_addr).collect()
}

/// The first port of outgoing connections.
fn outgoing() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_different_free_and_not_outgoing() {
        let ports = free(30).unwrap();
        let set: BTreeSet<u16> = ports.iter().map(SocketAddr::port).collect();
        assert_eq!(set.len(), 30);
        let first = outgoing().unwrap_or(OUTGOING);
        assert!(set.iter().all(|&port| port >= LOWEST && (port < first || first < LOWEST + 1_000)));
    }
}
