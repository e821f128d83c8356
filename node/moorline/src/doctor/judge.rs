//! What of the facts is a finding, what it means, and what to type. Pure.
//!
//! # Invariants
//!
//! - **A finding says all three**: what there is, what that means, what to do. Checked by this file's tests.
//! - **What several nodes say is found once.** Checked by the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    time::Duration,
};

use moorline_core::level::KNOWN;
use serde::Serialize;

use super::facts::{Asked, Data, Machine};
use crate::{
    cluster::{ClusterView, NodeView},
    guarantees::{self, About},
};

/// A certificate that ends sooner is a warning, as the alert says it.
const CERTIFICATE_SOON_S: i64 = 14 * 24 * 3600;
/// Half of the syncs slower than this: every acknowledgement is.
const SYNC_SLOW: Duration = Duration::from_millis(10);
/// And so slow that elections come: a heartbeat waits for the disk too.
const SYNC_TOO_SLOW: Duration = Duration::from_millis(250);
/// Clocks this far apart are a warning: deadlines and silences are counted by them.
const CLOCKS_APART_MS: i64 = 1_000;
/// And this far an error.
const CLOCKS_FAR_APART_MS: i64 = 30_000;
/// A node that may have fewer descriptors has fewer clients: each takes one.
const DESCRIPTORS_FEW: u64 = 65_536;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Something is wrong.
    Error,
    /// Something will be, or is worth a look.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Note => "note",
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) severity: Severity,
    /// What was looked at: `config`, `ports`, `disk`, `certificates`, `clock`, `descriptors`, `nodes`, `versions`, `groups`, `balance`.
    pub(super) check: &'static str,
    /// What there is.
    pub(super) what: String,
    /// What that means.
    pub(super) means: String,
    /// What to do, with what to type.
    pub(super) next: String,
}

/// Findings so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        check: &'static str,
        what: String,
        means: &str,
        next: impl Into<String>,
    ) {
        if !self.0.iter().any(|known| known.check == check && known.what == what) {
            let (means, next) = (means.to_owned(), next.into());
            self.0.push(Finding { severity, check, what, means, next });
        }
    }
}

/// Everything that is found, the worst first. `now_s`: seconds since 1970.
pub(super) fn judge(machine: Option<&Machine>, asked: &[Asked], now_s: i64) -> Vec<Finding> {
    let mut found = Findings::default();
    if let Some(machine) = machine {
        files(&mut found, machine);
        ports(&mut found, machine);
        if let Some(data) = &machine.data {
            disk(&mut found, data);
        }
        for (key, end) in &machine.certificates {
            certificate(&mut found, &format!("{key} of {}", machine.file), *end, now_s);
        }
    }
    for node in asked {
        one_node(&mut found, node, now_s);
    }
    clocks(&mut found, asked);
    if let Some(view) = merged(asked) {
        nodes(&mut found, &view);
        versions(&mut found, &view);
        groups(&mut found, &view);
        balance(&mut found, &view);
    }
    found.0.sort_by_key(|finding| finding.severity);
    found.0
}

fn files(found: &mut Findings, machine: &Machine) {
    let file = &machine.file;
    for problem in &machine.problems {
        let next = format!("correct it, then: moorline config check {file}");
        let means = "A node does not start with this file.";
        found.add(Severity::Error, "config", problem.clone(), means, next);
    }
    for (what, next) in &machine.open {
        let means = "Nothing keeps strangers away but the network.";
        found.add(Severity::Warning, "config", what.clone(), means, *next);
    }
}

fn ports(found: &mut Findings, machine: &Machine) {
    for (key, address, why) in &machine.withheld {
        let port = address.port();
        let (what, next) = if *why == ErrorKind::AddrInUse {
            let who = format!("see who has it: ss -ltnp 'sport = :{port}'");
            (format!("{key}: another program listens on {address}"), who)
        } else if *why == ErrorKind::AddrNotAvailable {
            let which = format!("see which it has: ip address; then correct {key}");
            (format!("{key}: this machine has no address {}", address.ip()), which)
        } else if *why == ErrorKind::PermissionDenied {
            let may =
                "a port from 1024 on, or AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit";
            (format!("{key}: who runs this may not listen on {address}"), may.to_owned())
        } else {
            (format!("{key}: {address} can't be had: {why}"), format!("correct {key}"))
        };
        found.add(Severity::Error, "ports", what, "The node does not start.", next);
    }
}

fn disk(found: &mut Findings, data: &Data) {
    let dir = data.dir.display();
    match data.file_system.as_deref() {
        Some(kind @ ("tmpfs" | "ramfs")) => found.add(
            Severity::Error,
            "disk",
            format!("{dir} is on {kind}, in memory"),
            "What is acknowledged there is gone with the next restart of the machine.",
            "set node.data-dir to a directory on a disk",
        ),
        Some(kind) if is_remote(kind) => found.add(
            Severity::Warning,
            "disk",
            format!("{dir} is on {kind}, which is not this machine's"),
            "A sync means there what the other side makes of it, and copies of several nodes may be on one disk.",
            "use a disk of this machine, if there is one",
        ),
        Some(kind @ "overlay") => found.add(
            Severity::Warning,
            "disk",
            format!("{dir} is on {kind}"),
            "In a container that goes with the container, and a node without its directory can't come back under its id.",
            "mount a volume on node.data-dir",
        ),
        Some(_) | None => {}
    }
    space(found, data);
    match &data.sync {
        Err(why) => found.add(
            Severity::Error,
            "disk",
            format!("nothing can be written below {dir}: {why}"),
            "The node does not start, or stops.",
            format!("run the doctor as the node's user, and look at: ls -ld {dir}"),
        ),
        Ok((half, most)) if *half > SYNC_SLOW => {
            let severity = if *half > SYNC_TOO_SLOW { Severity::Error } else { Severity::Warning };
            let [half, most] = [half, most].map(|of| of.as_secs_f64() * 1e3);
            found.add(
                severity,
                "disk",
                format!("a sync takes {half:.1} ms, 1 of 100 more than {most:.1} ms"),
                "Each acknowledgement waits for it on a majority of nodes.",
                format!("measure it longer: moorline bench disk --seconds 30 --dir {dir}; then another disk, or fewer programs on it"),
            );
        }
        Ok(_) => {}
    }
}

fn is_remote(kind: &str) -> bool {
    const REMOTE: [&str; 8] =
        ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "virtiofs"];
    REMOTE.contains(&kind) || kind.starts_with("fuse.")
}

fn space(found: &mut Findings, data: &Data) {
    let dir = data.dir.display();
    let mib = |bytes: u64| bytes >> 20;
    match &data.space {
        Err(why) => found.add(
            Severity::Warning,
            "disk",
            format!("nobody knows how much is free at {dir}: {why}"),
            "A node refuses new messages before its disk is full, and can't tell here.",
            format!("df {dir}"),
        ),
        Ok((free, _)) if *free < data.low => found.add(
            Severity::Error,
            "disk",
            format!(
                "{} MiB are free at {dir}, less than storage.low-mib = {}",
                mib(*free),
                mib(data.low)
            ),
            "The node refuses new messages.",
            format!("make room: du -xh {dir} | sort -h | tail; or add a disk"),
        ),
        Ok((free, all)) if *free < all / 10 || *free < data.low * 2 => found.add(
            Severity::Warning,
            "disk",
            format!("{} of {} MiB are free at {dir}", mib(*free), mib(*all)),
            "Below storage.low-mib the node refuses new messages.",
            format!("see what takes it: du -xh {dir} | sort -h | tail"),
        ),
        Ok(_) => {}
    }
}

fn certificate(found: &mut Findings, whose: &str, end_s: i64, now_s: i64) {
    let days = (end_s - now_s) / (24 * 3600);
    let next = "write a new one over it: a node looks every 10 seconds; \
                moorline ca issue makes one, if the authority is ours";
    if end_s <= now_s {
        let what = format!("the certificate of {whose} has expired");
        let means = "Who checks it does not connect any more.";
        found.add(Severity::Error, "certificates", what, means, next);
    } else if end_s - now_s < CERTIFICATE_SOON_S {
        let what = format!("the certificate of {whose} expires in {days} days");
        let means = "Then who checks it does not connect any more.";
        found.add(Severity::Warning, "certificates", what, means, next);
    }
}

/// What one node says of itself alone.
fn one_node(found: &mut Findings, node: &Asked, now_s: i64) {
    let admin = &node.admin;
    let view = match &node.view {
        Ok(view) => view,
        Err(why) => {
            let means = "What that node sees was not looked at.";
            let next = format!(
                "on its machine: systemctl status moorline, journalctl -u moorline; another one: moorline doctor --admin HOST:PORT, \
                 not {admin}"
            );
            return found.add(Severity::Error, "nodes", why.clone(), means, next);
        }
    };
    let id = view.node;
    if !view.ready && !view.cluster.is_empty() {
        let what = format!("node {id} is not ready: {}", view.waiting_for.join(", "));
        let next = format!("curl http://{admin}/health/ready says each check");
        found.add(Severity::Warning, "nodes", what, "No clients should be sent there.", next);
    }
    if let Some((open, max)) = node.descriptors {
        let next = "LimitNOFILE=1048576 in its unit (ulimit -n for a shell), then restart it";
        if open > max / 10 * 9 {
            let what = format!("node {id} has {open} of {max} file descriptors open");
            let means = "Soon no client gets in, and files can't be opened.";
            found.add(Severity::Error, "descriptors", what, means, next);
        } else if max < DESCRIPTORS_FEW {
            let what = format!("node {id} may open {max} files");
            let means = "Each client takes one, so there can't be more of them.";
            found.add(Severity::Warning, "descriptors", what, means, next);
        }
    }
    if let Some(end) = node.certificate_s {
        certificate(found, &format!("node {id}"), end, now_s);
    }
    if let Some(end) = node.wire_certificate_s {
        certificate(found, &format!("node {id} for other nodes"), end, now_s);
    }
}

/// The most that two clocks differ for sure, this machine's among them.
fn clocks(found: &mut Findings, asked: &[Asked]) {
    let of = |asked: &Asked| {
        let (ahead, unsure) = asked.ahead_ms?;
        let view = asked.view.as_ref().ok()?;
        Some((format!("that of node {}", view.node), ahead, unsure))
    };
    let mut clocks = vec![("this machine's".to_owned(), 0, 0)];
    clocks.extend(asked.iter().filter_map(of));
    let (Some(first), Some(last)) = (
        clocks.iter().max_by_key(|(_, ahead, unsure)| ahead - unsure),
        clocks.iter().min_by_key(|(_, ahead, unsure)| ahead + unsure),
    ) else {
        return;
    };
    let apart = (first.1 - first.2) - (last.1 + last.2);
    if apart > CLOCKS_APART_MS {
        let severity =
            if apart > CLOCKS_FAR_APART_MS { Severity::Error } else { Severity::Warning };
        let what = format!(
            "two clocks differ by {:.1} s: {} is ahead of {}",
            apart as f64 / 1e3,
            first.0,
            last.0
        );
        let means = "Deadlines, expiry and tokens are counted by the leader's clock: when another node leads, they come sooner or later.";
        found.add(severity, "clock", what, means, "on both: timedatectl; chronyc tracking");
    }
}

/// What all that were asked see together: each group as its leader sees it, if that was asked.
fn merged(asked: &[Asked]) -> Option<ClusterView> {
    let mut views = asked.iter().filter_map(|asked| asked.view.as_ref().ok());
    let mut all = views.next()?.clone();
    for view in views {
        for group in &view.groups {
            match all.groups.iter_mut().find(|known| known.shard == group.shard) {
                None => all.groups.push(group.clone()),
                Some(known) if known.confirmed.is_empty() && !group.confirmed.is_empty() => {
                    known.clone_from(group);
                }
                Some(_) => {}
            }
        }
        for node in &mut all.nodes {
            node.alive |= node.id == view.node;
        }
    }
    all.groups.sort_by_key(|group| group.shard);
    Some(all)
}

fn nodes(found: &mut Findings, view: &ClusterView) {
    for node in &view.nodes {
        let NodeView { id, address, alive, state, program } = node;
        // At the first level nobody notes what nodes said, so nobody knows whether one ever ran.
        let silent = program.is_none() && view.level > moorline_core::level::FIRST;
        match (state.as_str(), *alive) {
            ("removed", _) => {}
            (_, false) if silent => found.add(
                Severity::Warning,
                "nodes",
                format!("node {id} ({address}) was let in and has never run"),
                "Nothing moves there, and the level of the cluster can't be raised before it runs.",
                format!("on its machine: moorline server --config FILE; or give it up: moorline cluster remove {id}"),
            ),
            (_, false) => found.add(
                Severity::Warning,
                "nodes",
                format!("node {id} ({address}) is down"),
                "Groups that it votes in survive one loss less.",
                format!(
                    "on its machine: systemctl start moorline; if it never comes back: moorline cluster token, join a new node, \
                     moorline cluster remove {id}"
                ),
            ),
            ("draining" | "leaving", true) => found.add(
                Severity::Note,
                "nodes",
                format!("node {id} is {state}"),
                "It takes no clients, and its votes move away.",
                format!("if that is over: moorline cluster resume {id}"),
            ),
            (_, true) => {}
        }
    }
}

fn versions(found: &mut Findings, view: &ClusterView) {
    let mut versions: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for node in view.nodes.iter().filter(|node| node.state != "removed") {
        let Some(program) = &node.program else { continue };
        versions.entry(&program.version).or_default().push(node.id);
        if view.level > program.level_max {
            found.add(
                Severity::Error,
                "versions",
                format!(
                    "node {} knows levels up to {}, the cluster is at {}",
                    node.id, program.level_max, view.level
                ),
                "It can't read what the others write, and stops.",
                "start the newer program there",
            );
        }
    }
    if versions.len() > 1 {
        let each = versions.iter().map(|(version, nodes)| format!("{version} on {nodes:?}"));
        let what = format!("nodes run different versions: {}", each.collect::<Vec<_>>().join(", "));
        let means = "That works for the time of an upgrade.";
        let next = "go on with the upgrade, one node after the other: docs/upgrades.md";
        found.add(Severity::Note, "versions", what, means, next);
    }
    if let Some(next) = view.next_level {
        let what =
            format!("the cluster is at level {}, and every node knows level {next}", view.level);
        let means = "Until it is raised, nodes can still go back to the program before.";
        found.add(
            Severity::Note,
            "versions",
            what,
            means,
            "when the new version has done well: moorline cluster upgrade",
        );
    }
    if view.level > KNOWN.max {
        let what = format!("this program knows levels {KNOWN}, the cluster is at {}", view.level);
        let means = "It may not understand all it is told.";
        found.add(Severity::Warning, "versions", what, means, "use the newer program here too");
    }
}

fn groups(found: &mut Findings, view: &ClusterView) {
    let of = guarantees::of(view);
    for (about, what) in guarantees::said(view, &of.groups) {
        let down: BTreeSet<u64> = of.groups.iter().flat_map(|group| group.down.clone()).collect();
        let numbers: Vec<String> = down.iter().map(u64::to_string).collect();
        let catches_up = of.groups.iter().any(|group| !group.behind.is_empty());
        let start = if numbers.is_empty() && catches_up {
            "it catches up by itself: moorline cluster status".to_owned()
        } else if numbers.is_empty() {
            "let another node in: moorline cluster token".to_owned()
        } else {
            let numbers = numbers.join(" and ");
            format!(
                "start node {numbers}: systemctl start moorline on its machine, then: journalctl -u moorline"
            )
        };
        let (severity, means, next) = match about {
            About::Fine | About::Scope => continue,
            About::NoCluster => {
                let next = "a new cluster: on one node, once: moorline cluster init; one that is restored: start the restored node, make none"
                    .to_owned();
                (Severity::Warning, "Nobody is served yet.", next)
            }
            About::Lost => {
                let means = "What it was asked to keep is kept, and it takes nothing new and confirms no reads.";
                (Severity::Error, means, start)
            }
            About::OneCopy => {
                let next = "more nodes, then: moorline cluster replicas 3".to_owned();
                (Severity::Note, "That is as it was asked for.", next)
            }
            About::Thin => {
                (Severity::Warning, "With one more loss it takes nothing any more.", start)
            }
            About::Leaderless => {
                let next = "ask again in some seconds; then: journalctl -u moorline on its voters"
                    .to_owned();
                (Severity::Warning, "It takes nothing until one is elected, within seconds.", next)
            }
            About::Lag => {
                let next = "watch it: moorline cluster status; slow disk or network of that node"
                    .to_owned();
                (Severity::Warning, "A voter catches up.", next)
            }
            About::Way => {
                let next = "moorline cluster status shows how far it is".to_owned();
                (Severity::Note, "It goes on by itself.", next)
            }
        };
        found.add(severity, "groups", what, means, next);
    }
}

/// Votes and leaderships that are not spread though nothing moves. Only if every shard was seen.
fn balance(found: &mut Findings, view: &ClusterView) {
    let active: Vec<&NodeView> = view.nodes.iter().filter(|node| node.state == "active").collect();
    let moving = view.groups.iter().any(|group| !group.target.is_empty());
    let all = view.shards > 0 && view.groups.len() == usize::from(view.shards) + 1;
    if !all || moving || active.len() < 2 || active.iter().any(|node| !node.alive) {
        return;
    }
    let shards = || view.groups.iter().filter(|group| group.shard != 0);
    let votes = |id: u64| shards().filter(|group| group.voters.contains(&id)).count();
    let leads = |id: u64| shards().filter(|group| group.leader == Some(id)).count();
    let spread = |of: &dyn Fn(u64) -> usize| {
        let of: Vec<(u64, usize)> = active.iter().map(|node| (node.id, of(node.id))).collect();
        let most = of.iter().max_by_key(|(_, count)| *count).copied().unwrap_or_default();
        let least = of.iter().min_by_key(|(_, count)| *count).copied().unwrap_or_default();
        (most.1 > least.1 + 1).then_some((most, least))
    };
    if let Some((most, least)) = spread(&votes) {
        found.add(
            Severity::Warning,
            "balance",
            format!("node {} has {} votes, node {} has {}, and nothing moves", most.0, most.1, least.0, least.1),
            "Load is not spread as it could be.",
            "look again in a minute; then: journalctl -u moorline | grep 'votes are to move' on the leader of the meta group",
        );
    }
    if let Some((most, least)) = spread(&leads) {
        found.add(
            Severity::Note,
            "balance",
            format!("node {} leads {} shards, node {} leads {}", most.0, most.1, least.0, least.1),
            "Leaderships spread by themselves, one every 2 seconds, to who has been there for a while.",
            "look again in a minute",
        );
    }
}

#[cfg(test)]
mod tests;
