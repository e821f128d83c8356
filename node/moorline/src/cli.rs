//! The command line: nouns, then verbs. What each command does is in the module of its name.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    backup::BackupCommand,
    bench::Way,
    ca::CaCommand,
    registry::{
        AuditArgs, CredCommand, DeviceCommand, EventsArgs, ExplainCommand, MailCommand, MovedArgs,
        ProvisioningCommand, TenantCommand, TokenCommand, WebhookCommand,
    },
    settings::{DiffArgs, LogCommand, ReloadArgs},
};

/// A clustered IoT device broker: what it acknowledged is on the disks of a majority.
#[derive(Debug, Parser)]
#[command(name = "moorline", version, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one node.
    Server(ServerArgs),
    /// Run a real cluster of node processes on this machine, with a live status.
    Demo(DemoArgs),
    /// Create a cluster, or look at one.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Keep everything a running cluster has in a directory, check it, and make a new cluster of it.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Tokens of the API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Tenants.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Devices of a tenant.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Make the devices of another platform, out of what its API says of them; they keep their credentials.
    Import(MovedArgs),
    /// Secrets of devices.
    #[command(subcommand)]
    Cred(CredCommand),
    /// Make, show and revoke keys by which devices make themselves known.
    #[command(subcommand)]
    ProvisioningKey(ProvisioningCommand),
    /// Mail to devices.
    #[command(subcommand)]
    Mail(MailCommand),
    /// Print what devices send up.
    Events(EventsArgs),
    /// Where a tenant's events are posted to.
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Why something did not arrive: what the nodes remember of a device, or of a message.
    #[command(subcommand)]
    Explain(ExplainCommand),
    /// Print who changed what.
    Audit(AuditArgs),
    /// Publish a message, or one per line of standard input.
    Pub(PubArgs),
    /// Subscribe and print what comes.
    Sub(SubArgs),
    /// Look for what is wrong, or soon will be, on this machine and in the cluster, and say what to do about it. Exit code 0: nothing; 1:
    /// something to look at; 2: something is wrong.
    Doctor(DoctorArgs),
    /// Measure a broker, or Moorline beside its peers.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// An authority for TLS, and certificates of it.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Look at a configuration file, or have a node read its own again.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What a running node logs.
    #[command(subcommand)]
    Log(LogCommand),
}

/// `moorline server`.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The node's configuration file.
    #[arg(long, short)]
    pub(crate) config: PathBuf,
    /// Stop when standard input closes: for a process that is somebody's child.
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

/// `moorline demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many node processes: 1, 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) nodes: u8,
    /// Where configs, logs and data go; kept, and resumed by the next demo.
    #[arg(long, default_value = "moorline-demo")]
    pub(crate) dir: PathBuf,
    /// Forget what an earlier demo left there.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// How many shards.
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// What `[mqtt]` of the nodes says, in place of limits that keep nobody off: for measurements of them.
    #[arg(long, hide = true)]
    pub(crate) mqtt: Option<String>,
    /// Print the addresses once and no live status.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Do not start a node again after it died.
    #[arg(long)]
    pub(crate) no_restart: bool,
    /// Instead of the status: five simulated devices of five platforms, one mail to all and one consumer, while a node dies; ends
    /// within half a minute, with 1 if anything is missing.
    #[arg(long)]
    pub(crate) fleet: bool,
    /// With --fleet: the cluster stays until Ctrl-C.
    #[arg(long, requires = "fleet")]
    pub(crate) stay: bool,
    /// Stop when standard input closes: for a process that is somebody's child.
    #[arg(long, hide = true)]
    pub(crate) stop_with_stdin: bool,
}

/// `moorline cluster …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make the configured nodes a cluster: once, on one node.
    Init(AdminArgs),
    /// Show nodes, leaders and how far each shard is.
    Status(StatusArgs),
    /// Ask a node how it is, for probes that no stranger can be in the way of. Exit code 0 if it is well.
    Health(HealthArgs),
    /// Print a token that lets one node join within the hour: for `cluster join`, or `cluster.token` of its file.
    Token(AdminArgs),
    /// Let this machine's node into a cluster with a token. Then `moorline server` starts it.
    Join(JoinArgs),
    /// Show how each node stands: active, draining, leaving or removed.
    Members(AdminArgs),
    /// Move everything off a node for good; its process ends when it is done.
    Leave(MemberArgs),
    /// Move votes and clients off a node for a while.
    Drain(MemberArgs),
    /// Let a drained node take part again.
    Resume(MemberArgs),
    /// Give up a node that will never come back. Its id is refused from then on.
    Remove(MemberArgs),
    /// Change how many copies each shard has: 1, 3 or 5. Votes and data move by themselves, while messages flow.
    Replicas(ReplicasArgs),
    /// Raise the cluster to the level that every node's program knows: what only newer programs can read is used from then on, and
    /// no node goes back to an older program.
    Upgrade(AdminArgs),
    /// Make a node the preferred leader of a group.
    Transfer(TransferArgs),
}

/// `moorline cluster join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// What `moorline cluster token` printed on a member.
    #[arg(long)]
    pub(crate) token: String,
    /// `host:port` of a member's `listen.admin`; may be given again, they are asked one after the other.
    #[arg(long = "member", required = true)]
    pub(crate) members: Vec<String>,
    /// The file of the node that joins: with `cluster.address`, without `cluster.peers`.
    #[arg(long, short)]
    pub(crate) config: PathBuf,
}

/// Which node is meant.
#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    /// The node's id.
    pub(crate) node: u64,
    /// Where to ask: any node.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// `moorline doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// This machine's node: its file. Without it only the cluster is looked at.
    #[arg(long, short)]
    pub(crate) config: Option<PathBuf>,
    /// `host:port` of a node's `listen.admin`; may be given again: each node knows its own groups and its own clock. Without it, what the
    /// file says.
    #[arg(long = "admin", env = "MOORLINE_ADMIN", value_delimiter = ',')]
    pub(crate) admins: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moorline cluster replicas`.
#[derive(Debug, Args)]
pub(crate) struct ReplicasArgs {
    /// How many: 1, 3 or 5. With fewer nodes than that there are fewer until nodes join.
    #[arg(value_parser = crate::cluster::copies)]
    pub(crate) copies: u8,
    /// Needed for 1 copy: it is gone with its disk.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Where to ask: any node.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// `moorline cluster transfer`.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// The group; 0 is the meta group.
    #[arg(long)]
    pub(crate) group: u16,
    /// The node that is to lead it. It must have a vote in the group.
    #[arg(long)]
    pub(crate) to: u64,
    /// Where to ask: any node.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// How to reach a node's admin API.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// `host:port` of a node's `listen.admin`.
    #[arg(long, default_value = "127.0.0.1:9400", env = "MOORLINE_ADMIN")]
    pub(crate) admin: String,
}

/// `moorline cluster status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Where to ask.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Print the JSON as it came.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moorline cluster health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// What is asked.
    #[arg(value_enum)]
    pub(crate) check: HealthCheck,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// What can be asked of a node's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HealthCheck {
    /// Whether it works; nothing of other nodes.
    Live,
    /// Whether clients can be sent to it.
    Ready,
}

/// How to reach a broker as an MQTT client.
#[derive(Debug, Args, Clone)]
pub(crate) struct ClientArgs {
    /// The broker's host.
    #[arg(long, short = 'H', default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Its MQTT port.
    #[arg(long, short, default_value_t = 1883)]
    pub(crate) port: u16,
    /// The client id; made up if absent.
    #[arg(long, short = 'i')]
    pub(crate) id: Option<String>,
    /// The topic (pub) or filter (sub).
    #[arg(long, short)]
    pub(crate) topic: String,
    /// 0: at most once. 1: acknowledged when a majority has it on disk. 2: as 1, and exactly once.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
}

/// `moorline pub`.
#[derive(Debug, Args)]
pub(crate) struct PubArgs {
    /// Where and what about.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The message; without it, every line of standard input is one.
    #[arg(long, short)]
    pub(crate) message: Option<String>,
}

/// `moorline sub`.
#[derive(Debug, Args)]
pub(crate) struct SubArgs {
    /// Where and what about.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Keep the session: what comes while this client is away waits for the same `--id`.
    #[arg(long, requires = "id")]
    pub(crate) durable: bool,
    /// Stop after so many messages.
    #[arg(long, short = 'n')]
    pub(crate) count: Option<u64>,
}

/// `moorline config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with a file, all at once; exit code 2 if anything is.
    Check {
        /// The file.
        config: PathBuf,
    },
    /// Print every value that counts, those of the file and the defaults.
    Show {
        /// The file.
        config: PathBuf,
        /// Print where each comes from: a line of the file, or the defaults.
        #[arg(long)]
        origin: bool,
    },
    /// Have a node read its file again, as SIGHUP does; says what was taken and what needs a restart.
    Reload(ReloadArgs),
    /// Print what differs between a file and what a node runs with.
    Diff(DiffArgs),
}

/// `moorline bench …`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Publish and receive against any MQTT broker; prints rates, latencies and, with --pid, the brokers' CPU.
    Load(LoadArgs),
    /// Run Moorline and its peers one after the other in this run, and print the ratios.
    Compare(CompareArgs),
    /// The same for how brokers grow: queues of sessions that are away, one to many, connections that rest.
    Sizes(SizesArgs),
    /// Import many devices into three nodes: time, disk, memory, and how fast one is found among them.
    Registry(RegistryArgs),
    /// How long next and ack of a mail take on three quiet nodes, in multiples of one sync on a majority.
    Mailbox(MailboxArgs),
    /// Telemetry of ThingsBoard's devices, with latest values, history and a reader of events, beside plain publishes.
    Ingest(IngestArgs),
    /// How many devices a cluster lets in in a second, over TCP and TLS.
    Connect(ConnectArgs),
    /// How many thousand devices come back at once after a node died, and what those notice who are connected.
    Storm(StormArgs),
    /// Memory and time of the route trie, without a broker.
    Routes(RoutesArgs),
    /// How fast this disk syncs.
    Disk(DiskArgs),
    /// Hold connections until standard input ends: a part of `sizes`.
    #[command(hide = true)]
    Hold(HoldArgs),
}

/// What to offer a broker.
#[derive(Debug, Args, Clone)]
pub(crate) struct LoadArgs {
    /// Brokers' MQTT addresses; clients are dealt over them in turn, a pair's subscriber next to its publisher's node.
    #[arg(long, required = true, value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    /// Publishers, each with its own topic and one subscriber.
    #[arg(long, default_value_t = 64)]
    pub(crate) publishers: usize,
    /// Unacknowledged publishes per publisher.
    #[arg(long, default_value_t = 32)]
    pub(crate) window: u16,
    /// Payload bytes.
    #[arg(long, default_value_t = 256)]
    pub(crate) size: usize,
    /// Seconds of measurement, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Publish QoS.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Subscribers ask for clean sessions, not durable ones.
    #[arg(long)]
    pub(crate) clean: bool,
    /// Processes whose CPU time is the broker's.
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which peers to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// This program: three node processes, fsync on each.
    Moorline,
    /// NATS `JetStream`, three nodes, three replicas, sync always.
    NatsSync,
    /// NATS `JetStream`, three nodes, three replicas, without fsync.
    Nats,
    /// mosquitto: one node, in memory.
    Mosquitto,
    /// rumqttd: one node, in memory, embedded in `moorline-peers`.
    Rumqttd,
}

impl Peer {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Moorline => "moorline",
            Self::NatsSync => "nats-sync",
            Self::Nats => "nats",
            Self::Mosquitto => "mosquitto",
            Self::Rumqttd => "rumqttd",
        }
    }
}

/// The peers, and where they are found.
#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Which, in this order.
    #[arg(long, value_delimiter = ',', default_values_t = [Peer::Moorline, Peer::NatsSync, Peer::Nats, Peer::Mosquitto, Peer::Rumqttd], value_enum)]
    pub(crate) peers: Vec<Peer>,
    /// The NATS server program.
    #[arg(long, default_value = "nats-server", env = "MOORLINE_NATS_SERVER")]
    pub(crate) nats_server: PathBuf,
    /// The mosquitto program.
    #[arg(long, default_value = "mosquitto", env = "MOORLINE_MOSQUITTO")]
    pub(crate) mosquitto: PathBuf,
    /// The program that embeds rumqttd; beside this one if absent.
    #[arg(long, env = "MOORLINE_PEERS")]
    pub(crate) peers_program: Option<PathBuf>,
    /// Where data and logs go; must be on the disk you mean to measure. A temporary directory below it is removed.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Shards of the Moorline cluster.
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// Rounds.
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: usize,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moorline bench compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Beside whom; the order is reversed in every second round.
    #[command(flatten)]
    pub(crate) peers: PeersArgs,
    /// Publishers, each with its own topic and one subscriber.
    #[arg(long, default_value_t = 64)]
    pub(crate) publishers: usize,
    /// Unacknowledged publishes per publisher.
    #[arg(long, default_value_t = 32)]
    pub(crate) window: u16,
    /// Payload bytes.
    #[arg(long, default_value_t = 256)]
    pub(crate) size: usize,
    /// Seconds of measurement per peer.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
}

/// What `moorline bench sizes` offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Messages for durable sessions that are away, then all of them come back.
    Queueing,
    /// One publisher, many clean subscribers, QoS 0.
    FanOut,
    /// One publisher, many durable subscribers, QoS 1.
    FanOutDurable,
    /// Many clean connections that do nothing.
    Idle,
    /// Many durable sessions that do nothing.
    IdleDurable,
}

impl Workload {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queueing => "queueing",
            Self::FanOut => "fan-out",
            Self::FanOutDurable => "fan-out-durable",
            Self::Idle => "idle",
            Self::IdleDurable => "idle-durable",
        }
    }
}

/// `moorline bench sizes`.
#[derive(Debug, Args)]
pub(crate) struct SizesArgs {
    /// Beside whom.
    #[command(flatten)]
    pub(crate) peers: PeersArgs,
    /// Which.
    #[arg(long, value_delimiter = ',', default_values_t = [Workload::Queueing, Workload::FanOut, Workload::FanOutDurable, Workload::Idle, Workload::IdleDurable], value_enum)]
    pub(crate) workloads: Vec<Workload>,
    /// Sessions of `queueing`.
    #[arg(long, default_value_t = 200)]
    pub(crate) sessions: usize,
    /// Messages for each of them.
    #[arg(long, default_value_t = 100)]
    pub(crate) messages: usize,
    /// Payload bytes.
    #[arg(long, default_value_t = 256)]
    pub(crate) size: usize,
    /// Subscribers of the fan-outs.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) subscribers: usize,
    /// Connections of the idle workloads; fewer where a peer's processes may not have so many descriptors.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) connections: usize,
    /// Seconds of measurement of the fan-outs.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
}

/// `moorline bench registry`.
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// Devices, each with a secret.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) devices: u64,
    /// Devices that are looked up by the API, one after the other by 8 clients.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) lookups: u64,
    /// Devices that connect, the same way.
    #[arg(long, default_value_t = 8_000)]
    pub(crate) connects: u64,
    /// Shards.
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// Where data and logs go; must be on the disk you mean to measure. A temporary directory below it is removed.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moorline bench mailbox`.
#[derive(Debug, Args)]
pub(crate) struct MailboxArgs {
    /// Mails.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) mails: u64,
    /// Shards.
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// Where data and logs go; must be on the disk you mean to measure. A temporary directory below it is removed.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moorline bench ingest`.
#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// Devices, each with a connection.
    #[arg(long, default_value_t = 100)]
    pub(crate) devices: usize,
    /// Unacknowledged publishes of each.
    #[arg(long, default_value_t = 20)]
    pub(crate) window: u16,
    /// Rounds: plain publishes, then telemetry.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// How long each of both counts.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Shards.
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// Where data and logs go; must be on the disk you mean to measure. A temporary directory below it is removed.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moorline bench connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The directory of a demo that runs; without it one is started, and ended.
    #[arg(long)]
    pub(crate) demo: Option<PathBuf>,
    /// How, one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [Way::Tcp, Way::Tls, Way::Resumed], value_enum)]
    pub(crate) ways: Vec<Way>,
    /// Devices that connect at the same time; each place is at one node.
    #[arg(long, default_value_t = 48)]
    pub(crate) places: usize,
    /// Seconds of each way.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Where data and logs of a demo that is started go.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moorline bench storm`.
#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    /// Devices, each with a durable session and a subscription, dealt over three nodes.
    #[arg(long, default_value_t = 18_000)]
    pub(crate) devices: usize,
    /// Devices besides, at the nodes that live, that publish all the time and are measured.
    #[arg(long, default_value_t = 50)]
    pub(crate) steady: usize,
    /// Publishes a second of each of these, one after the other.
    #[arg(long, default_value_t = 10)]
    pub(crate) rate: u32,
    /// Tenants that the devices are of.
    #[arg(long, default_value_t = 8)]
    pub(crate) tenants: usize,
    /// All devices lose their connection and come back, not only those of the third node.
    #[arg(long)]
    pub(crate) all: bool,
    /// To how many of the other nodes they come.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) onto: u8,
    /// Devices subscribe with a wildcard, and again when they are back.
    #[arg(long)]
    pub(crate) wildcard: bool,
    /// Nobody dies: their connections are cut, so that what is measured is the storm alone.
    #[arg(long)]
    pub(crate) cut: bool,
    /// How devices connect.
    #[arg(long, default_value_t = Way::Tcp, value_enum)]
    pub(crate) way: Way,
    /// Seconds of measurement before the storm.
    #[arg(long, default_value_t = 10)]
    pub(crate) before_s: u64,
    /// Seconds within which all have to be back.
    #[arg(long, default_value_t = 300)]
    pub(crate) within_s: u64,
    /// A line of `[mqtt]` of the nodes, which have the defaults otherwise: `authentications-per-core-s = 300`.
    #[arg(long)]
    pub(crate) mqtt: Vec<String>,
    /// Shards.
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// Where data and logs go; must be on the disk you mean to measure. A temporary directory below it is removed.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `moorline bench routes`.
#[derive(Debug, Args)]
pub(crate) struct RoutesArgs {
    /// Filters.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) count: usize,
}

/// `moorline bench hold`.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// Brokers' MQTT addresses.
    #[arg(long, required = true, value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    /// The first connection's number.
    #[arg(long, default_value_t = 0)]
    pub(crate) first: usize,
    /// Connections.
    #[arg(long)]
    pub(crate) count: usize,
    /// Whether their sessions outlive them.
    #[arg(long)]
    pub(crate) durable: bool,
}

/// `moorline bench disk`.
#[derive(Debug, Args)]
pub(crate) struct DiskArgs {
    /// Where to write.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Bytes per write.
    #[arg(long, default_value_t = 512)]
    pub(crate) size: usize,
    /// How long.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
}
