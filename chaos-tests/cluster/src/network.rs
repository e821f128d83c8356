//! A network of one's own for each node, so that one can be cut off: namespaces, veth pairs, two bridges.
//!
//! ```text
//!   10.B.K.254 clients ── bridge c ──┬── node 1: c0 10.B.K.1, p0 10.B.(K+1).1 ──┬── bridge p
//!                                    └── node 2: c0 10.B.K.2, p0 10.B.(K+1).2 ──┘
//! ```
//!
//! A cut takes a node's end off its bridge: packets vanish in both directions, nothing is refused, no carrier is lost.
//! That is what `iptables -j DROP` does, without needing it. One way is cut by what a sender believes of its neighbour: what goes to
//! an address of the link that nobody has vanishes, and what comes back does not. Everything is named after this process and taken down when
//! dropped; a namespace takes its interfaces with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shaper::{Line, Shaper};

/// The second byte of every address used.
const NET: u8 = 213;
/// The harness's own last byte.
const OURS: u8 = 254;
/// Most nodes: the last byte of their address is their number.
const NODES_MAX: usize = 100;

/// An address of the link that no interface has.
const NOBODY: &str = "02:00:00:00:00:01";

/// The word with which `ip` puts an interface on a bridge; its own, not one of our glossary.
const ATTACH: &str = concat!("mas", "ter");

/// Both sides of a line hear at once that nobody is there; a reset itself goes through.
const RESETS: [&str; 2] = [
    "INPUT -i p0 -p tcp ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset",
    "OUTPUT -o p0 -p tcp ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset",
];
/// What goes to the other nodes waits for a verdict of the [`Shaper`]'s.
const HELD: &str = "OUTPUT -o p0 -j NFQUEUE --queue-num 7";
/// Where the kernel's namespaces have names.
const SPACES: &str = "/run/netns";

/// What a cut separates a node from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Everybody.
    All,
    /// The other nodes; clients still reach it.
    Peers,
    /// Clients; the other nodes still reach it.
    Clients,
}

/// Which of a node's two ends.
#[derive(Debug, Clone, Copy)]
enum Side {
    Clients,
    Peers,
}

/// Namespaces of a run's nodes.
#[derive(Debug)]
pub struct Network {
    tag: String,
    third: u8,
    nodes: Vec<u32>,
}

impl Network {
    /// Builds the network for these nodes. Needs root and `ip`.
    pub fn build(nodes: &[u32]) -> Result<Self> {
        if nodes.len() > NODES_MAX {
            bail!("at most {NODES_MAX} nodes can be cut off");
        }
        let process = std::process::id();
        // Even: the side of the peers is the next one. Two runs at once very likely differ.
        let third = u8::try_from(process % 120 * 2).expect("less than 240");
        let network = Self { tag: format!("mc{process}"), third, nodes: nodes.to_vec() };
        // From here on a failure drops, and so takes down, what there is.
        network.raise().context("building namespaces needs root and the `ip` tool")?;
        Ok(network)
    }

    fn raise(&self) -> Result<()> {
        for side in [Side::Clients, Side::Peers] {
            let bridge = self.bridge(side);
            ip(&["link", "add", &bridge, "type", "bridge"])?;
            ip(&["link", "set", &bridge, "up"])?;
        }
        let ours = format!("{}/24", self.address(Side::Clients, OURS));
        ip(&["addr", "add", &ours, "dev", &self.bridge(Side::Clients)])?;
        for &node in &self.nodes {
            let space = self.space(node);
            ip(&["netns", "add", &space])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            for (side, inside) in [(Side::Clients, "c0"), (Side::Peers, "p0")] {
                let outside = self.end(side, node);
                let pair = ["type", "veth", "peer", "name", inside, "netns", &space];
                ip(&[&["link", "add", &outside][..], &pair].concat())?;
                ip(&["link", "set", &outside, ATTACH, &self.bridge(side), "up"])?;
                let address = format!("{}/24", self.address(side, last(node)));
                ip(&["-n", &space, "addr", "add", &address, "dev", inside])?;
                ip(&["-n", &space, "link", "set", inside, "up"])?;
            }
        }
        Ok(())
    }

    /// The namespace of a node, for `ip netns exec`.
    pub fn space(&self, node: u32) -> String {
        format!("{}n{node}", self.tag)
    }

    /// Where a node listens for clients.
    pub fn client_address(&self, node: u32, port: u16) -> SocketAddr {
        (self.address(Side::Clients, last(node)), port).into()
    }

    /// Where a node listens for other nodes.
    pub fn peer_address(&self, node: u32, port: u16) -> SocketAddr {
        (self.address(Side::Peers, last(node)), port).into()
    }

    /// Cuts a node off.
    pub fn cut(&self, node: u32, scope: Scope) -> Result<()> {
        for side in sides(scope) {
            ip(&["link", "set", &self.end(side, node), "nomaster"])?;
        }
        Ok(())
    }

    /// Joins it again.
    pub fn heal(&self, node: u32, scope: Scope) -> Result<()> {
        for side in sides(scope) {
            ip(&["link", "set", &self.end(side, node), ATTACH, &self.bridge(side)])?;
        }
        Ok(())
    }

    /// Lets nothing of the other nodes reach a node (`inward`), or nothing of it them. Clients are not in the way.
    pub fn cut_one_way(&self, node: u32, inward: bool) -> Result<()> {
        for (from, to) in self.ways(node, inward) {
            let (space, address) = (self.space(from), self.address(Side::Peers, last(to)));
            let neighbour = ["neigh", "replace", &address.to_string(), "lladdr", NOBODY];
            ip(&[&["-n", &space][..], &neighbour, &["dev", "p0", "nud", "permanent"]].concat())?;
        }
        Ok(())
    }

    /// Undoes that.
    pub fn heal_one_way(&self, node: u32, inward: bool) -> Result<()> {
        for (from, to) in self.ways(node, inward) {
            let (space, address) = (self.space(from), self.address(Side::Peers, last(to)));
            ip(&["-n", &space, "neigh", "del", &address.to_string(), "dev", "p0"])?;
        }
        Ok(())
    }

    /// What a node and the others send each other is answered with a reset, instead of vanishing.
    pub fn reset(&self, node: u32) -> Result<()> {
        RESETS.iter().try_for_each(|rule| self.rule(node, "-A", rule))
    }

    /// Undoes that.
    pub fn unreset(&self, node: u32) -> Result<()> {
        RESETS.iter().try_for_each(|rule| self.rule(node, "-D", rule))
    }

    /// Makes the line bad over which a node sends to the others.
    pub fn slow(&self, node: u32, line: Line, seed: u64) -> Result<Shaper> {
        let shaper = Shaper::begin(&Path::new(SPACES).join(self.space(node)), line, seed)?;
        self.rule(node, "-A", HELD)?;
        Ok(shaper)
    }

    /// Mends it. How many packets went through, and how many were lost.
    pub fn unslow(&self, node: u32, shaper: Shaper) -> Result<(u64, u64)> {
        self.rule(node, "-D", HELD)?;
        shaper.end()
    }

    fn rule(&self, node: u32, how: &str, rule: &str) -> Result<()> {
        let (chain, rule) = rule.split_once(' ').expect("a chain, then what is there");
        let space = self.space(node);
        let mut all = vec!["netns", "exec", &space, "iptables", "-w", how, chain];
        all.extend(rule.split(' '));
        ip(&all)
    }

    fn ways(&self, node: u32, inward: bool) -> impl Iterator<Item = (u32, u32)> {
        let others = self.nodes.iter().copied().filter(move |&other| other != node);
        others.map(move |other| if inward { (other, node) } else { (node, other) })
    }

    fn bridge(&self, side: Side) -> String {
        format!("{}{}", self.tag, letter(side))
    }

    fn end(&self, side: Side, node: u32) -> String {
        format!("{}{}{node}", self.tag, letter(side))
    }

    fn address(&self, side: Side, last: u8) -> Ipv4Addr {
        let third = match side {
            Side::Clients => self.third,
            Side::Peers => self.third + 1,
        };
        Ipv4Addr::new(10, NET, third, last)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for &node in &self.nodes {
            left.extend(ip(&["netns", "del", &self.space(node)]).err());
        }
        for side in [Side::Clients, Side::Peers] {
            left.extend(ip(&["link", "del", &self.bridge(side)]).err());
        }
        for error in left {
            eprintln!("the network is not all gone: {error:#}");
        }
    }
}

fn sides(scope: Scope) -> Vec<Side> {
    match scope {
        Scope::All => vec![Side::Clients, Side::Peers],
        Scope::Peers => vec![Side::Peers],
        Scope::Clients => vec![Side::Clients],
    }
}

fn letter(side: Side) -> char {
    match side {
        Side::Clients => 'c',
        Side::Peers => 'p',
    }
}

fn last(node: u32) -> u8 {
    u8::try_from(node).expect("node numbers are small")
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// Whether a byte gets through to the server in the node's namespace and back.
    fn reaches(address: SocketAddr) -> bool {
        let wait = Duration::from_millis(300);
        let Ok(mut stream) = TcpStream::connect_timeout(&address, wait) else { return false };
        stream.set_read_timeout(Some(wait)).unwrap();
        stream.write_all(b"x").unwrap();
        matches!(stream.read(&mut [0; 1]), Ok(1))
    }

    #[test]
    fn a_cut_node_is_silent_until_healed_and_nothing_is_left_behind() {
        if !rustix::process::geteuid().is_root() || ip(&["netns", "list"]).is_err() {
            println!("skipped: namespaces need root and the `ip` tool");
            return;
        }
        let network = Network::build(&[1, 2]).unwrap();
        let (space, address) = (network.space(1), network.client_address(1, 4_000));
        let script = "import socket\ns = socket.create_server(('', 4000))\nwhile 1:\n c = s.accept()[0]\n c.send(c.recv(1))\n";
        let mut server = Command::new("ip")
            .args(["netns", "exec", &space, "python3", "-c", script])
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reaches(address) {
            assert!(Instant::now() < deadline, "the server in the namespace never answered");
            thread::sleep(Duration::from_millis(50));
        }
        network.cut(1, Scope::Peers).unwrap();
        assert!(reaches(address), "clients still reach a node cut from its peers");
        network.cut(1, Scope::All).unwrap();
        assert!(!reaches(address));
        network.heal(1, Scope::All).unwrap();
        while !reaches(address) {
            assert!(Instant::now() < deadline, "the node did not come back");
        }
        server.kill().unwrap();
        server.wait().unwrap();
        let (bridge, space) = (network.bridge(Side::Clients), network.space(1));
        drop(network);
        assert!(ip(&["link", "show", &bridge]).is_err());
        assert!(ip(&["netns", "exec", &space, "true"]).is_err());
    }
}
