//! What `moorline doctor` looks at: facts alone, nothing is judged here.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::Method;
use moorline_edge::{ClientCertificates, TlsConfig};
use moorline_storage_rocks::space;

use crate::{
    bench,
    cluster::{self, ClusterView},
    config::{Config, ConfigError},
    http,
    server::{self, auth::now_ms},
};

/// How long the disk is measured.
const SYNC_FOR: Duration = Duration::from_millis(500);
/// Bytes of each sync: about an entry of a log.
const SYNC_BYTES: usize = 512;

/// This machine, as its node's file describes it.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// The file.
    pub(super) file: String,
    /// What is wrong with it, each as `key: what`.
    pub(super) problems: Vec<String>,
    /// Addresses that it names and can't have, by key.
    pub(super) withheld: Vec<(&'static str, SocketAddr, ErrorKind)>,
    /// What it leaves open to strangers, and which setting ends that.
    pub(super) open: Vec<(String, &'static str)>,
    /// Its data directory.
    pub(super) data: Option<Data>,
    /// Certificates it names: what for, and when they end, in seconds since 1970.
    pub(super) certificates: Vec<(&'static str, i64)>,
}

/// A data directory and its disk.
#[derive(Debug, Clone)]
pub(super) struct Data {
    /// Where.
    pub(super) dir: PathBuf,
    /// Its file system's type, if the system says.
    pub(super) file_system: Option<String>,
    /// Free and all bytes, or why nobody knows.
    pub(super) space: Result<(u64, u64), String>,
    /// Below so many free bytes new messages are refused.
    pub(super) low: u64,
    /// How long half of the syncs and all but one of a hundred take, or why nothing could be written.
    pub(super) sync: Result<(Duration, Duration), String>,
}

/// A node that was asked.
#[derive(Debug)]
pub(super) struct Asked {
    /// Where.
    pub(super) admin: String,
    /// What it sees, or why it does not say.
    pub(super) view: Result<ClusterView, String>,
    /// How far its clock is before this machine's, and by how much that may be wrong: half of what the question took.
    pub(super) ahead_ms: Option<(i64, i64)>,
    /// File descriptors it has open, and may have.
    pub(super) descriptors: Option<(u64, u64)>,
    /// When the certificate it shows clients ends, in seconds since 1970.
    pub(super) certificate_s: Option<i64>,
    /// When the one it shows other nodes ends.
    pub(super) wire_certificate_s: Option<i64>,
}

pub(super) fn now_s() -> i64 {
    i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX)
}

/// Reads the file.
pub(super) fn read(file: &Path) -> Result<Config, ConfigError> {
    Config::load(file)
}

/// Looks at this machine. Addresses are not tried if the node runs: it has them.
pub(super) fn machine(file: &Path, read: &Result<Config, ConfigError>, asked: &[Asked]) -> Machine {
    let file = file.display().to_string();
    let config = match read {
        Ok(config) => config,
        Err(ConfigError::Wrong { problems, .. }) => {
            return Machine { file, problems: problems.clone(), ..Machine::default() };
        }
        Err(error @ (ConfigError::Unreadable { .. } | ConfigError::Syntax { .. })) => {
            return Machine { file, problems: vec![error.to_string()], ..Machine::default() };
        }
    };
    let runs = asked.iter().filter_map(|asked| asked.view.as_ref().ok());
    let runs = runs.into_iter().any(|view| view.node == config.node.id);
    let listeners = if runs { Vec::new() } else { config.listen.all() };
    let withheld = listeners.into_iter().filter_map(|(key, address)| {
        let error = TcpListener::bind(address).err()?;
        Some((key, address, error.kind()))
    });
    Machine {
        file,
        problems: server::check_files(config),
        open: config.left_open(),
        withheld: withheld.collect(),
        data: Some(data(config)),
        certificates: certificates(config),
    }
}

fn data(config: &Config) -> Data {
    let dir = config.node.data_dir.clone();
    // Before the first start it is not there: it will be where its parent is.
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let space = space::measure(there).map(|space| (space.free, space.total));
    let sync = bench::measure_disk(there, SYNC_BYTES, SYNC_FOR);
    Data {
        file_system: file_system(there),
        space: space.map_err(|error| error.to_string()),
        low: config.storage.low_mib << 20,
        sync: sync.map(|disk| (disk.p50, disk.p99)).map_err(|error| format!("{error:#}")),
        dir,
    }
}

/// The type of the file system that a directory is on, as Linux says it.
fn file_system(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).ok()?;
    type_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, &dir)
}

/// The type of the mount that is the nearest above a directory; of two on one place the later.
fn type_of(mounts: &str, dir: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let (place, rest) = line.split_once(" - ")?;
        let place = place.split(' ').nth(4)?.replace("\\040", " ");
        let kind = rest.split(' ').next()?;
        dir.starts_with(&place).then(|| (place.len(), kind.to_owned()))
    });
    // Of those that are equally near, `max_by_key` gives the last.
    mounts.max_by_key(|(near, _)| *near).map(|(_, kind)| kind)
}

fn certificates(config: &Config) -> Vec<(&'static str, i64)> {
    let of_clients = config.tls.as_ref().map(|files| ("tls.cert", files.clone()));
    let of_nodes = config.cluster.tls.as_ref().map(|files| {
        let client_certificates = ClientCertificates::Off;
        let (cert, key) = (files.cert.clone(), files.key.clone());
        ("cluster.tls.cert", TlsConfig { cert, key, client_certificates })
    });
    // Files that can't be read are among the file's problems.
    let end = |(key, files): (&'static str, TlsConfig)| Some((key, files.load().ok()?.expires_s()));
    [of_clients, of_nodes].into_iter().flatten().filter_map(end).collect()
}

/// Asks a node.
pub(super) async fn ask(admin: &str) -> Asked {
    let before = now_ms();
    let view = cluster::view(admin).await;
    let after = now_ms();
    let ahead_ms = view.as_ref().ok().filter(|view| view.clock_ms > 0).map(|view| {
        let middle = before.midpoint(after).cast_signed();
        (view.clock_ms.cast_signed() - middle, (after - before.min(after)).cast_signed() / 2 + 1)
    });
    let metrics = http::request(Method::GET, admin, "/metrics", Vec::new()).await;
    let metrics = metrics.map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
    let metrics = metrics.unwrap_or_default();
    let open = gauge(&metrics, "process_open_fds").zip(gauge(&metrics, "process_max_fds"));
    let end = |name: &str| gauge(&metrics, name).map(|at| at as i64).filter(|at| *at > 0);
    Asked {
        admin: admin.to_owned(),
        view: view.map_err(|error| format!("{error:#}")),
        ahead_ms,
        descriptors: open.map(|(open, max)| (open as u64, max as u64)),
        certificate_s: end("moorline_cert_expiry_timestamp_seconds"),
        wire_certificate_s: end("moorline_wire_cert_expiry_timestamp_seconds"),
    }
}

/// A metric without labels.
fn gauge(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_says_the_type() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      30 22 0:26 / /run rw,nosuid - tmpfs tmpfs rw,size=1G\n\
                      31 22 0:27 / /var/lib/my\\040data rw shared:2 - xfs /dev/sdb1 rw\n\
                      40 22 0:28 / /srv rw - ext4 /dev/sdc1 rw\n\
                      41 40 0:29 / /srv rw - nfs4 far:/srv rw\n";
        let table = [
            ("/var/lib/moorline", Some("ext4")),
            ("/run/moorline", Some("tmpfs")),
            ("/runner", Some("ext4")),
            ("/var/lib/my data/node1", Some("xfs")),
            ("/srv/node1", Some("nfs4")),
        ];
        for (dir, kind) in table {
            assert_eq!(type_of(mounts, Path::new(dir)).as_deref(), kind, "{dir}");
        }
        assert_eq!(type_of("nonsense", Path::new("/")), None);
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let metrics = "# HELP process_open_fds x\nprocess_open_fds 12\nprocess_open_fds_more 9\n";
        assert_eq!(gauge(metrics, "process_open_fds"), Some(12.0));
        assert_eq!(gauge(metrics, "process_open"), None);
        assert_eq!(gauge("", "process_open_fds"), None);
    }
}
