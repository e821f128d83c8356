//! The configuration file of one node: TOML, documented here, checked before anything listens.
//!
//! Order of precedence: built-in defaults, then the file. A key this version does not know is an error that points at
//! its line. Everything the types cannot check is checked by [`Config::check`], which reports all errors at once.
//! `docs/configuration.md` lists every key; `the_reference_names_every_key` holds it to this file.

mod changes;
mod show;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::bail;
use moorline_core::{
    NodeId,
    level::{KNOWN, Levels},
    shard::SHARDS_MAX,
};
use moorline_explain::Limits;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    changes::{Changes, differing},
    show::show,
};

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not the TOML we know; the text points at the place.
    #[error("{path}: {text}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What and where.
        text: String,
    },
    /// It can be read, and cannot work.
    #[error("{path}:\n  {}", problems.join("\n  "))]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Each as `key: what is wrong`.
        problems: Vec<String>,
    },
}

/// A node's configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Config {
    /// Who this node is.
    pub(crate) node: NodeConfig,
    /// Where it listens.
    #[serde(default)]
    pub(crate) listen: ListenConfig,
    /// The cluster it belongs to.
    pub(crate) cluster: ClusterConfig,
    /// How it uses its disk.
    #[serde(default)]
    pub(crate) storage: StorageConfig,
    /// How it treats MQTT clients.
    #[serde(default)]
    pub(crate) mqtt: moorline_edge::EdgeConfig,
    /// How it treats WebSocket clients.
    #[serde(default)]
    pub(crate) ws: moorline_edge::WsConfig,
    /// What it shows TLS clients.
    #[serde(default)]
    pub(crate) tls: Option<moorline_edge::TlsConfig>,
    /// Who may connect.
    #[serde(default)]
    pub(crate) security: SecurityConfig,
    /// Whom it may ask outside the cluster.
    #[serde(default)]
    pub(crate) outward: moorline_outward::OutwardConfig,
    /// What it remembers of devices.
    #[serde(default)]
    pub(crate) explain: ExplainConfig,
    /// What it logs.
    #[serde(default)]
    pub(crate) log: LogConfig,
}

/// Bytes of a MiB.
const MIB: usize = 1024 * 1024;

/// `[explain]`: what a node remembers of each device, for who asks why something did not arrive.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ExplainConfig {
    /// Devices that are remembered; those that are connected are in any case. 0: nothing is remembered.
    pub(crate) devices_max: usize,
    /// Last steps of each.
    pub(crate) notes_per_device_max: usize,
    /// MiB that all of it may take.
    pub(crate) mib_max: usize,
}

impl Default for ExplainConfig {
    fn default() -> Self {
        let Limits { devices, notes, bytes } = Limits::default();
        Self { devices_max: devices, notes_per_device_max: notes, mib_max: bytes / MIB }
    }
}

impl From<ExplainConfig> for Limits {
    fn from(config: ExplainConfig) -> Self {
        Self {
            devices: config.devices_max,
            notes: config.notes_per_device_max,
            bytes: config.mib_max.saturating_mul(MIB),
        }
    }
}

/// `[security]`: who may connect.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct SecurityConfig {
    /// The cluster's key, 64 hexadecimal digits, the same for every node. Outside the data directory: a stolen disk must not
    /// come with it. Without it no device can prove who it is, and the API gives no tokens.
    pub(crate) key_file: Option<PathBuf>,
    /// Whether clients without a device's credentials may connect, as clients of the demo tenant. If it is not said: only
    /// where there is no key, so that nobody has credentials.
    pub(crate) anonymous: Option<bool>,
}

impl SecurityConfig {
    /// Whether everybody may connect.
    pub(crate) fn lets_anybody_in(&self) -> bool {
        self.anonymous.unwrap_or(self.key_file.is_none())
    }
}

/// `[node]`: who this node is.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// The node's id, from 1. Never give it to another data directory again.
    pub(crate) id: u64,
    /// Where its log and state are. Created if its parent exists.
    pub(crate) data_dir: PathBuf,
}

/// `[listen]`: where the node listens. Without any listener for clients it has `mqtts`, on loopback.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ListenConfig {
    /// MQTT over TCP.
    pub(crate) mqtt: Option<SocketAddr>,
    /// MQTT over WebSocket, on any path.
    pub(crate) ws: Option<SocketAddr>,
    /// MQTT over TLS.
    pub(crate) mqtts: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS.
    pub(crate) wss: Option<SocketAddr>,
    /// HTTP device API with server-sent events, and MQTT over WebSocket; needs `security.key-file`.
    pub(crate) http: Option<SocketAddr>,
    /// The same over TLS.
    pub(crate) https: Option<SocketAddr>,
    /// Whether all of these speak MQTT, MQTT over WebSocket and HTTP: what a client says first tells which.
    pub(crate) mixed: bool,
    /// Moonlight; needs `security.key-file`.
    pub(crate) moonlight: Option<SocketAddr>,
    /// Moonlight over TLS.
    pub(crate) moonlights: Option<SocketAddr>,
    /// What wants a token of the API, `/metrics` and `/health/*`, over TLS: for other machines.
    pub(crate) api: Option<SocketAddr>,
    /// Admin API, `/metrics` and `/health/*` over HTTP. Whoever reaches it administers the cluster.
    pub(crate) admin: SocketAddr,
    /// Node to node gRPC.
    pub(crate) cluster: SocketAddr,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            mqtt: None,
            ws: None,
            mqtts: None,
            wss: None,
            http: None,
            https: None,
            mixed: false,
            moonlight: None,
            moonlights: None,
            api: None,
            admin: SocketAddr::from(([127, 0, 0, 1], 9400)),
            cluster: SocketAddr::from(([127, 0, 0, 1], 7400)),
        }
    }
}

/// Where clients find MQTT over TLS, if nothing is said about clients.
const MQTTS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8883);

impl ListenConfig {
    /// Where clients connect without TLS, by key.
    fn plain(&self) -> [(&'static str, Option<SocketAddr>); 4] {
        [
            ("listen.mqtt", self.mqtt),
            ("listen.ws", self.ws),
            ("listen.http", self.http),
            ("listen.moonlight", self.moonlight),
        ]
    }

    /// Where clients connect with TLS, by key.
    fn secure(&self) -> [(&'static str, Option<SocketAddr>); 4] {
        [
            ("listen.mqtts", self.mqtts),
            ("listen.wss", self.wss),
            ("listen.https", self.https),
            ("listen.moonlights", self.moonlights),
        ]
    }

    /// Every listener, by key.
    pub(crate) fn all(&self) -> Vec<(&'static str, SocketAddr)> {
        let clients = self.plain().into_iter().chain(self.secure());
        let others = [
            ("listen.api", self.api),
            ("listen.admin", Some(self.admin)),
            ("listen.cluster", Some(self.cluster)),
        ];
        clients.chain(others).filter_map(|(key, address)| Some((key, address?))).collect()
    }

    /// Every listener with TLS, by key.
    pub(crate) fn with_tls(&self) -> Vec<(&'static str, SocketAddr)> {
        let all = self.secure().into_iter().chain([("listen.api", self.api)]);
        all.filter_map(|(key, address)| Some((key, address?))).collect()
    }

    /// A node that nobody could connect to would be of no use; one that speaks in plain has to be told to.
    fn complete(&mut self) {
        let none = self.plain().into_iter().chain(self.secure()).all(|(_, at)| at.is_none());
        if none {
            self.mqtts = Some(MQTTS_DEFAULT);
        }
    }
}

/// `[cluster]`: the cluster this node belongs to.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ClusterConfig {
    /// The cluster's name. Nodes of clusters with different names refuse each other.
    #[serde(default = "default_name")]
    pub(crate) name: String,
    /// How many shards the data is spread over. Fixed when the cluster is made.
    #[serde(default = "default_shards")]
    pub(crate) shards: u16,
    /// Copies of each shard that the cluster is made with: voters of its group. From then on the cluster itself knows
    /// (`moorline cluster replicas`).
    #[serde(default = "default_replicas")]
    pub(crate) replicas: u8,
    /// Every node the cluster is made with, and its cluster address, this one included. Empty for a node that joins later.
    #[serde(default)]
    pub(crate) peers: Vec<PeerConfig>,
    /// Where the others reach this node, if it is not one of `peers`.
    #[serde(default)]
    pub(crate) address: Option<String>,
    /// Admin addresses of members that are asked to let this node in, if it has not joined yet.
    #[serde(default)]
    pub(crate) join: Vec<String>,
    /// What `moorline cluster token` gave, for the same.
    #[serde(default)]
    pub(crate) token: Option<String>,
    /// The highest level of the cluster that this node takes part in, if it is to be below what its program knows.
    #[serde(default)]
    pub(crate) level_max: Option<u16>,
    /// Certificates for mutual TLS between the nodes; without it they talk in plain.
    #[serde(default)]
    pub(crate) tls: Option<TlsConfig>,
}

impl ClusterConfig {
    /// Where `peers` says that nodes are.
    pub(crate) fn addresses(&self) -> BTreeMap<NodeId, String> {
        self.peers.iter().map(|peer| (NodeId(peer.id), peer.address.clone())).collect()
    }

    /// The levels that this node takes part in: what its program knows, up to `level-max`.
    pub(crate) fn levels(&self) -> Levels {
        Levels { max: self.level_max.unwrap_or(KNOWN.max), ..KNOWN }
    }

    /// Whether this node may take part in a cluster at this level.
    pub(crate) fn fits(&self, level: u16) -> anyhow::Result<()> {
        match self.level_max {
            Some(most) if level > most && KNOWN.know(level) => bail!(
                "the cluster is at level {level}, and cluster.level-max is {most} here: take that out; a level does not go back"
            ),
            Some(_) | None => Ok(KNOWN.check(level)?),
        }
    }

    fn check_level(&self, wrong: &mut impl FnMut(&str, String)) {
        if let Some(level) = self.level_max.filter(|level| !KNOWN.know(*level)) {
            wrong(
                "cluster.level-max",
                format!("{level} is not in {KNOWN}, which this program knows"),
            );
        }
    }
}

/// One entry of `cluster.peers`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PeerConfig {
    /// The node's id.
    pub(crate) id: u64,
    /// `host:port` of its `listen.cluster`, as other nodes reach it.
    pub(crate) address: String,
}

/// `[cluster.tls]`: PEM files.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct TlsConfig {
    /// The authority that signed every node's certificate.
    pub(crate) ca: PathBuf,
    /// This node's certificate chain.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// The name every node's certificate carries.
    pub(crate) domain: String,
}

/// `[storage]`: how the node uses its disk.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct StorageConfig {
    /// Size of the reserve file that is given up when the disk is nearly full.
    pub(crate) reserve_mib: u64,
    /// Below this much free space new messages are refused.
    pub(crate) low_mib: u64,
    /// Below this much the node gives up its reserve and stops cleanly.
    pub(crate) critical_mib: u64,
    /// Changed rows held in memory before a checkpoint writes them out.
    pub(crate) checkpoint_mib: u64,
    /// The longest time between checkpoints.
    pub(crate) checkpoint_s: u64,
    /// Entries of each shard's log that are kept for replicas that lag; one that lacks more gets a snapshot.
    pub(crate) log_keep_entries: u64,
    /// How long rows and log of a shard stay here after its votes have moved away, for the case that they come back.
    pub(crate) moved_keep_s: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            reserve_mib: 64,
            low_mib: 1024,
            critical_mib: 256,
            checkpoint_mib: 64,
            checkpoint_s: 60,
            log_keep_entries: moorline_group::CheckpointLimits::default().keep_entries,
            moved_keep_s: 600,
        }
    }
}

/// `[log]`: what the node logs, to standard error.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,moorline_group=debug`.
    pub(crate) level: String,
    /// `auto` (text on a terminal, else JSON), `text` or `json`.
    pub(crate) format: LogFormat,
    /// Connections of MQTT whose end is told in a second; of more it is told how many they were. 0 for none.
    pub(crate) connections_s: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info,openraft=error".to_owned(), format: LogFormat::Auto, connections_s: 10 }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// For eyes.
    Text,
    /// For machines.
    Json,
}

fn default_name() -> String {
    "moorline".to_owned()
}

/// Few on purpose: a Raft round costs the same for one command as for 400.
fn default_shards() -> u16 {
    12
}

/// Two disks may fail at once without loss only with five.
fn default_replicas() -> u8 {
    3
}

/// The most peers a config may list: meta voters beyond five only cost.
const PEERS_MAX: usize = 64;
/// What a reserve and its thresholds may not exceed, in MiB (1 PiB): larger is a slip of the pen.
const MIB_MAX: u64 = 1 << 30;

impl Config {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Parses and checks a file's text; `path` is for the error.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            text: error.to_string().trim_end().to_owned(),
        })?;
        config.listen.complete();
        let problems = config.check();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Wrong { path: path.to_owned(), problems })
        }
    }

    /// What is open to strangers, since nothing was said about it, and which setting ends that.
    pub(crate) fn left_open(&self) -> Vec<(String, &'static str)> {
        let is_open = |at: &SocketAddr| !at.ip().to_canonical().is_loopback();
        let clients = self.listen.plain().into_iter().chain(self.listen.secure());
        let clients = clients.filter_map(|(key, at)| at.filter(is_open).map(|_| key));
        let clients: Vec<_> = clients.collect();
        let mut open = Vec::new();
        if self.security.anonymous.is_none()
            && self.security.key_file.is_none()
            && !clients.is_empty()
        {
            open.push((
                format!(
                    "{}: anybody may connect, as a client of the demo tenant",
                    clients.join(", ")
                ),
                "set security.key-file, or security.anonymous = true if that is meant",
            ));
        }
        if is_open(&self.listen.cluster) && self.cluster.tls.is_none() {
            open.push((
                format!(
                    "listen.cluster: whoever reaches {} is taken for a node",
                    self.listen.cluster
                ),
                "set [cluster.tls] (moorline ca issue makes its files), or let only nodes reach it",
            ));
        }
        open
    }

    /// What is wrong with it, all at once, each as `key: what`.
    fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, what: String| problems.push(format!("{key}: {what}"));
        if self.node.id == 0 {
            wrong("node.id", "ids count from 1".to_owned());
        }
        if self.cluster.name.is_empty() {
            wrong("cluster.name", "must not be empty".to_owned());
        }
        if !(1..=SHARDS_MAX).contains(&self.cluster.shards) {
            wrong("cluster.shards", format!("{} is not in 1 to {SHARDS_MAX}", self.cluster.shards));
        }
        let peers = &self.cluster.peers;
        let ids: BTreeSet<u64> = peers.iter().map(|peer| peer.id).collect();
        let addresses: BTreeSet<&str> = peers.iter().map(|peer| peer.address.as_str()).collect();
        if peers.len() > PEERS_MAX {
            wrong("cluster.peers", format!("more than {PEERS_MAX} nodes"));
        }
        if ids.len() != peers.len() || ids.contains(&0) {
            wrong("cluster.peers", "every node needs its own id, from 1".to_owned());
        }
        if addresses.len() != peers.len() {
            wrong("cluster.peers", "two nodes have the same address".to_owned());
        }
        for peer in peers.iter().filter(|peer| !is_host_port(&peer.address)) {
            wrong("cluster.peers", format!("{:?} is not host:port", peer.address));
        }
        self.check_listeners(&mut wrong);
        self.check_joining(&ids, &mut wrong);
        let storage = &self.storage;
        if storage.low_mib <= storage.critical_mib {
            wrong("storage.low-mib", "must be above storage.critical-mib".to_owned());
        }
        if storage.reserve_mib.max(storage.low_mib) > MIB_MAX {
            wrong("storage", format!("sizes stop at {MIB_MAX} MiB"));
        }
        if storage.checkpoint_mib == 0 || storage.checkpoint_s == 0 {
            wrong("storage.checkpoint", "must not be 0".to_owned());
        }
        if let Err(error) = self.mqtt.check() {
            wrong("mqtt", error.to_string());
        }
        if let Err(error) = self.outward.check() {
            // Its text begins with the key.
            wrong("outward", error.to_string());
        }
        self.check_ceilings(&mut wrong);
        self.cluster.check_level(&mut wrong);
        problems
    }

    /// What sessions are given must not be more than their shards let them have.
    fn check_ceilings(&self, wrong: &mut impl FnMut(&str, String)) {
        let (mqtt, most) = (&self.mqtt, moorline_machine::SESSION_LIMITS_MAX);
        let sessions_max = u32::try_from(moorline_machine::SESSIONS_PER_SHARD_MAX);
        for (key, value, most) in [
            ("mqtt.session-queue-max", mqtt.session_queue_max, most.queue_items),
            ("mqtt.session-queue-bytes-max", mqtt.session_queue_bytes_max, most.queue_bytes),
            ("mqtt.subscriptions-max", mqtt.subscriptions_max, most.subscriptions),
            (
                "mqtt.sessions-per-shard-max",
                mqtt.sessions_per_shard_max,
                sessions_max.unwrap_or(u32::MAX),
            ),
        ] {
            if value > most {
                wrong(key, format!("{value} is more than {most}, which is what a shard allows"));
            }
        }
    }

    fn check_listeners(&self, wrong: &mut impl FnMut(&str, String)) {
        let listen = &self.listen;
        let of_devices = [
            ("listen.http", listen.http),
            ("listen.https", listen.https),
            ("listen.moonlight", listen.moonlight),
            ("listen.moonlights", listen.moonlights),
        ];
        let clients = listen.plain().into_iter().chain(listen.secure());
        let addresses = clients
            .filter_map(|(_, address)| address)
            .chain(listen.api)
            .chain([listen.admin, listen.cluster])
            .filter(|address| address.port() != 0);
        if addresses.clone().collect::<BTreeSet<_>>().len() != addresses.count() {
            wrong("listen", "two listeners share an address".to_owned());
        }
        for (key, address) in of_devices {
            if address.is_some() && self.security.key_file.is_none() {
                wrong(key, "needs security.key-file: devices prove who they are".to_owned());
            }
        }
        if let Some(Err(error)) = self.tls.as_ref().map(moorline_edge::TlsConfig::load) {
            // Its text begins with the key.
            wrong("tls", error.to_string());
        }
        if let Err(error) = self.ws.check() {
            wrong("ws", error.to_string());
        }
    }

    /// What is wrong with how it finds the others.
    fn check_joining(&self, peers: &BTreeSet<u64>, wrong: &mut dyn FnMut(&str, String)) {
        let cluster = &self.cluster;
        if ![1, 3, 5].contains(&cluster.replicas) {
            wrong("cluster.replicas", format!("{} is not 1, 3 or 5", cluster.replicas));
        }
        if !peers.is_empty() {
            if !peers.contains(&self.node.id) {
                wrong("cluster.peers", format!("node {} (this one) is missing", self.node.id));
            }
            if !cluster.join.is_empty() || cluster.address.is_some() {
                wrong("cluster.join", "for a node that is not one of cluster.peers".to_owned());
            }
            return;
        }
        match &cluster.address {
            None => wrong("cluster.address", "needed without cluster.peers".to_owned()),
            Some(address) if !is_host_port(address) => {
                wrong("cluster.address", format!("{address:?} is not host:port"));
            }
            Some(_) => {}
        }
        for member in cluster.join.iter().filter(|member| !is_host_port(member)) {
            wrong("cluster.join", format!("{member:?} is not host:port"));
        }
        let token = cluster.token.as_deref().map(|token| u128::from_str_radix(token, 16));
        if matches!(token, Some(Err(_))) || (token.is_none() && !cluster.join.is_empty()) {
            wrong("cluster.token", "what `moorline cluster token` gave is needed".to_owned());
        }
    }

    /// The node's id.
    pub(crate) fn node_id(&self) -> NodeId {
        NodeId(self.node.id)
    }
}

fn is_host_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [node]
        id = 1
        data-dir = "data"
        [cluster]
        peers = [{ id = 1, address = "127.0.0.1:7400" }]
    "#;

    fn problem(text: &str) -> String {
        Config::parse(text, Path::new("moorline.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_short_file_is_enough() {
        let config = Config::parse(GOOD, Path::new("moorline.toml")).unwrap();
        assert_eq!((config.node.id, config.cluster.shards), (1, 12));
        assert_eq!(config.listen.with_tls(), [("listen.mqtts", MQTTS_DEFAULT)]);
        assert!(config.listen.plain().iter().all(|(_, address)| address.is_none()));
        let plain = format!("{GOOD}\n[listen]\nmqtt = \"127.0.0.1:1883\"\n");
        let config = Config::parse(&plain, Path::new("moorline.toml")).unwrap();
        assert!(config.listen.with_tls().is_empty(), "who says something gets no more");
    }

    #[test]
    fn what_is_left_open_is_told_unless_it_was_meant() {
        let open = |more: &str| {
            let text = format!("{GOOD}\n{more}");
            let open = Config::parse(&text, Path::new("moorline.toml")).unwrap().left_open();
            open.into_iter().map(|(what, _)| what).collect::<Vec<_>>().join("; ")
        };
        let everywhere = "[listen]\nmqtts = \"0.0.0.0:8883\"\ncluster = \"0.0.0.0:7400\"\n";
        assert_eq!(open(""), "");
        assert_eq!(
            open(everywhere),
            "listen.mqtts: anybody may connect, as a client of the demo tenant; \
             listen.cluster: whoever reaches 0.0.0.0:7400 is taken for a node"
        );
        let tls = "[cluster.tls]\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\ndomain = \"d\"\n";
        for said in ["anonymous = true", "anonymous = false", "key-file = \"key\""] {
            assert_eq!(open(&format!("{everywhere}[security]\n{said}\n{tls}")), "", "{said}");
        }
    }

    #[test]
    fn errors_point_and_come_all_at_once() {
        let unknown = problem(&GOOD.replace("data-dir", "datadir"));
        assert!(unknown.contains("line 4") && unknown.contains("datadir"), "{unknown}");
        let several = problem(
            &GOOD.replace("id = 1\n", "id = 0\n").replace("[cluster]", "[cluster]\nshards = 999"),
        );
        assert!(several.contains("node.id") && several.contains("cluster.shards"), "{several}");
        let table = [
            ("127.0.0.1:7400", "nowhere", "is not host:port"),
            ("id = 1,", "id = 2,", "node 1 (this one) is missing"),
        ];
        for (from, to, expected) in table {
            let text = problem(&GOOD.replace(from, to));
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_node_takes_part_up_to_the_level_it_is_told_of_those_it_knows() {
        let with = |level: u16| format!("{GOOD}\nlevel-max = {level}\n");
        let parse = |text: &str| Config::parse(text, Path::new("moorline.toml")).unwrap().cluster;
        let (all, first) = (parse(GOOD), parse(&with(KNOWN.min)));
        assert_eq!((all.levels(), first.levels().max), (KNOWN, KNOWN.min));
        assert!(all.fits(KNOWN.max).is_ok() && first.fits(KNOWN.min).is_ok());
        let text = first.fits(KNOWN.max).unwrap_err().to_string();
        assert!(text.contains("cluster.level-max is 1"), "{text}");
        let text = first.fits(KNOWN.max + 1).unwrap_err().to_string();
        assert!(text.contains("Start the newer program"), "{text}");
        let text = problem(&with(KNOWN.max + 1));
        assert!(text.contains("cluster.level-max: "), "{text}");
    }

    #[test]
    fn nothing_above_what_a_shard_allows_is_promised() {
        for (key, most) in [
            ("session-queue-max", 100_000),
            ("session-queue-bytes-max", 64 << 20),
            ("subscriptions-max", 1_000),
            ("sessions-per-shard-max", 1_000_000),
        ] {
            let with = |value: u32| format!("{GOOD}\n[mqtt]\n{key} = {value}\n");
            assert!(Config::parse(&with(most), Path::new("moorline.toml")).is_ok(), "{key}");
            let text = problem(&with(most + 1));
            assert!(text.contains(&format!("mqtt.{key}: ")), "{text}");
        }
    }

    #[test]
    fn tls_needs_its_files_and_says_which_one_is_wrong() {
        let (dir, name) = (tempfile::tempdir().unwrap(), "tls.pem");
        let file = dir.path().join(name);
        std::fs::write(&file, "no certificate").unwrap();
        let with = |more: &str| problem(&format!("{GOOD}\n{more}"));
        let tls = |cert: &Path| format!("[tls]\ncert = {cert:?}\nkey = {cert:?}");
        #[rustfmt::skip]
        let table = [
            (with("[listen]\nws = \"127.0.0.1:9400\""), "listen: two listeners share an address"),
            (with("[listen]\napi = \"[::1]:1\"\nwss = \"[::1]:1\""), "listen: two listeners share an address"),
            (with("[tls]\ncert = \"c\"\nkey = \"k\"\nclient-certificates = \"no\""), "`ask` or `off`"),
            (with("[ws]\norigins = [\"a.example\"]"),    "ws: origins: \"a.example\" is not scheme://"),
            (with(&tls(Path::new("/nowhere.pem"))),      "tls: cert: /nowhere.pem: "),
            (with(&tls(&file)),                          "tls: cert: "),
            (with("[outward]\nallow = [\"here\"]"),        "outward: allow: \"here\" is no network"),
        ];
        for (text, expected) in table {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }

    /// The keys of a section, as the parser lists them when it meets one it does not know.
    fn keys(section: &str) -> Vec<String> {
        let text = problem(&format!("[{section}]\nzzz = 1\n"));
        let list = text.split("expected").nth(1).unwrap_or_else(|| panic!("{text}"));
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_reference_names_every_key() {
        let reference = include_str!("../../../docs/configuration.md");
        for section in [
            "node", "listen", "cluster", "storage", "mqtt", "ws", "tls", "outward", "explain",
            "log",
        ] {
            let heading = format!("## `[{section}]`");
            let part = reference.split(&heading).nth(1).unwrap_or_else(|| panic!("{heading}"));
            let part = part.split("\n## ").next().unwrap();
            let keys = keys(section);
            assert!(!keys.is_empty(), "{section}: {keys:?}");
            for key in keys.iter().filter(|key| *key != "tls") {
                assert!(
                    part.contains(&format!("`{key}`")),
                    "[{section}] {key} is not in docs/configuration.md"
                );
            }
        }
    }
}
