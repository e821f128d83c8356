//! A cluster of real processes on one machine.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
    thread,
};

use tempfile::TempDir;

use super::{
    http,
    node::Node,
    wait::{READY, SOON, until, until_true},
};

/// Enough that every node leads one, few enough for two cores.
pub(crate) const SHARDS: u16 = 3;

/// What a cluster is to be like.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) nodes: u64,
    /// What `[mqtt]` says.
    pub(crate) mqtt: String,
    /// More configuration, as TOML tables.
    pub(crate) extra: String,
    /// Where data directories go, if not beside the logs.
    pub(crate) data: Option<PathBuf>,
    /// Environment of every node.
    pub(crate) env: Vec<(String, String)>,
}

impl Shape {
    /// So many nodes, and nothing special.
    pub(crate) fn of(nodes: u64) -> Self {
        Self { nodes, mqtt: LIMITS.to_owned(), extra: String::new(), data: None, env: Vec::new() }
    }
}

/// Nodes, and the directory with their files. All of it goes with the handle; a failed test prints the logs first.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    dir: TempDir,
    /// More configuration, of nodes that join too.
    extra: String,
}

impl Cluster {
    /// So many nodes, started, made a cluster, ready.
    #[track_caller]
    pub(crate) fn start(nodes: u64) -> Self {
        Self::start_as(&Shape::of(nodes))
    }

    /// The same with more to say.
    #[track_caller]
    pub(crate) fn start_as(shape: &Shape) -> Self {
        let mut cluster = Self::prepare(shape);
        cluster.bring_up();
        cluster
    }

    /// Starts what was prepared, makes it a cluster, waits until it is ready.
    #[track_caller]
    pub(crate) fn bring_up(&mut self) {
        self.nodes.iter_mut().for_each(Node::start);
        until_true("the admin APIs answer", READY, || self.nodes.iter_mut().all(Node::answers));
        let made = http::post(self.node(1).admin, "/api/v1/cluster/init").unwrap();
        assert_eq!(made.status, 200, "{}", made.body);
        self.wait_ready();
    }

    /// Files and ports, no process.
    pub(crate) fn prepare(shape: &Shape) -> Self {
        let mut dir = tempfile::tempdir().unwrap();
        if log_level().is_some() {
            println!("files of the nodes: {}", dir.path().display());
            dir.disable_cleanup(true);
        }
        let ports = ports(usize::try_from(shape.nodes).unwrap() * 3);
        let mut nodes = Vec::new();
        for (id, ports) in (1..).zip(ports.chunks_exact(3)) {
            let parent = shape.data.clone().unwrap_or_else(|| dir.path().to_owned());
            let data = parent.join(format!("node{id}"));
            let mut node = Node::new(id, dir.path(), data, ports.try_into().unwrap());
            node.env.clone_from(&shape.env);
            nodes.push(node);
        }
        for node in &nodes {
            let text = config_text(node, &nodes, "tests").replace(LIMITS, &shape.mqtt);
            fs::write(&node.config, text + &shape.extra).unwrap();
        }
        Self { nodes, dir, extra: shape.extra.clone() }
    }

    /// A node, by id.
    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[usize::try_from(id).unwrap() - 1]
    }

    /// The same, to do something to.
    pub(crate) fn node_mut(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(id).unwrap() - 1]
    }

    /// All of them.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All of them, to do something to.
    pub(crate) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// MQTT address of a node.
    pub(crate) fn mqtt(&self, id: u64) -> SocketAddr {
        self.node(id).mqtt
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The other nodes' ids.
    pub(crate) fn others(&self, than: u64) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).filter(|id| *id != than).collect()
    }

    /// Waits until every node serves clients.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        self.nodes.iter_mut().for_each(Node::wait_ready);
    }

    /// Kills all nodes as nearly at once as threads can.
    pub(crate) fn kill_all(&mut self) {
        thread::scope(|scope| {
            for node in &mut self.nodes {
                scope.spawn(|| node.kill());
            }
        });
    }

    /// The node that leads a shard, as `seen_by` sees it.
    #[track_caller]
    pub(crate) fn leader(&self, shard: u16, seen_by: u64) -> u64 {
        until(&format!("shard {shard} has a leader"), SOON, || {
            self.node(seen_by).group(shard, "leader")?.as_u64()
        })
    }

    /// Adds a node, with a token that node 2 gives; starts it, and waits until it serves clients.
    #[track_caller]
    pub(crate) fn join(&mut self) -> u64 {
        let token = self.token();
        let (mut node, text) = self.newcomer();
        let members: Vec<_> = [1, 2].map(|member| self.node(member).admin.to_string()).into();
        let text = text + &format!("join = {members:?}\ntoken = \"{token}\"\n") + &self.extra;
        fs::write(&node.config, text).unwrap();
        node.start_ready();
        self.nodes.push(node);
        self.nodes.len() as u64
    }

    /// A token that lets one node in, from node 2.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        let given = http::post(self.node(2).admin, "/api/v1/cluster/token").unwrap();
        assert_eq!(given.status, 200, "{}", given.body);
        given.json()["token"].as_str().unwrap().to_owned()
    }

    /// A node that may join, and its file, which ends within `[cluster]` and names no member and no token.
    pub(crate) fn newcomer(&self) -> (Node, String) {
        let id = self.nodes.len() as u64 + 1;
        let dir = self.dir.path();
        let node = Node::new(id, dir, dir.join(format!("node{id}")), ports(3).try_into().unwrap());
        let text = config_text(&node, &[], "tests") + &format!("address = \"{}\"\n", node.cluster);
        (node, text)
    }

    /// A node that has joined belongs to the cluster from now on.
    pub(crate) fn add(&mut self, node: Node) {
        self.nodes.push(node);
    }

    /// Has every replica digest its rows, waits until all replicas have, and compares.
    #[track_caller]
    pub(crate) fn digests_agree(&self) {
        let all: Vec<u64> = self.nodes.iter().map(|node| node.id).collect();
        self.digests_agree_on(&all);
    }

    /// The same of some nodes, each of which has a replica of every group.
    #[track_caller]
    pub(crate) fn digests_agree_on(&self, nodes: &[u64]) {
        // A node that has just come back may lack entries, or a leader for a moment.
        let groups = until("a node digests all groups", READY, || {
            let answer = http::post(self.node(nodes[0]).admin, "/api/v1/cluster/digest").ok()?;
            let groups = answer.json()["groups"].as_array().cloned().unwrap_or_default();
            (groups.len() == usize::from(SHARDS) + 1).then_some(groups)
        });
        for group in groups {
            let shard = u16::try_from(group["shard"].as_u64().unwrap()).unwrap();
            let mut digests = BTreeMap::new();
            for node in nodes.iter().map(|node| self.node(*node)) {
                let what = format!("node {} digests shard {shard}", node.id);
                let digest = until(&what, SOON, || {
                    let there = node.group(shard, "digest_index")? == group["index"];
                    there.then(|| node.group(shard, "digest"))?
                });
                digests.insert(node.id, digest);
            }
            let same = digests.values().all(|digest| *digest == group["digest"]);
            assert!(same, "shard {shard} differs: {digests:?}");
        }
    }
}

/// Every test ends here: what nodes have counted must add up, and what a failed test's nodes said is printed.
impl Drop for Cluster {
    fn drop(&mut self) {
        let mut imbalances = Vec::new();
        if !thread::panicking() {
            // Exact at any moment: nothing has to settle.
            imbalances.extend(self.nodes.iter().map(|node| (node.id, node.imbalances())));
            imbalances.retain(|(_, of_node)| !of_node.is_empty());
        }
        if thread::panicking() || !imbalances.is_empty() {
            self.nodes.iter().for_each(Node::print_log);
        }
        assert!(imbalances.is_empty(), "counts of messages differ: {imbalances:?}");
    }
}

/// `MOORLINE_TEST_LOG`: the level nodes log at, for a look at a test; their files are kept then.
fn log_level() -> Option<String> {
    std::env::var("MOORLINE_TEST_LOG").ok()
}

/// All clients come from one address, come back at once, and leave more waiting than a device would.
const LIMITS: &str = "unauthenticated-per-address-max = 0\nconnects-per-client-s = 0\n\
    connects-per-tenant-s = 0\nauthentications-per-core-s = 0\nsession-queue-max = 100000\nsession-queue-bytes-max = 67108864\n";

/// A node's configuration; `nodes` are all of its cluster.
pub(crate) fn config_text(node: &Node, nodes: &[Node], cluster: &str) -> String {
    let mut text = format!(
        "[node]\nid = {}\ndata-dir = {:?}\n\
         [listen]\nmqtt = \"{}\"\nadmin = \"{}\"\ncluster = \"{}\"\n\
         [log]\nformat = \"json\"\nlevel = \"{}\"\n\
         [mqtt]\n{LIMITS}\
         [cluster]\nname = \"{cluster}\"\nshards = {SHARDS}\npeers = [\n",
        node.id,
        node.data,
        node.mqtt,
        node.admin,
        node.cluster,
        log_level().as_deref().unwrap_or("info"),
    );
    for peer in nodes {
        writeln!(text, "  {{ id = {}, address = \"{}\" }},", peer.id, peer.cluster).unwrap();
    }
    text + "]\n"
}

/// Ports of the OS's choice, on a loopback address that nobody else has: other tests run at the same time, and what one
/// of its nodes leaves for a moment must not become the outgoing port of somebody's client.
pub(crate) fn ports(many: usize) -> Vec<SocketAddr> {
    static CLUSTERS: AtomicU8 = AtomicU8::new(1);
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, cluster, high, low);
    let held: Vec<_> = (0..many).map(|_| TcpListener::bind((host, 0)).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}
