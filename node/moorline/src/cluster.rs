//! `moorline cluster …`: questions to the admin API, answers for eyes. How a node joins is in `server::join`.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::{
    cli::{ClusterCommand, HealthArgs, HealthCheck, MemberArgs, ReplicasArgs, StatusArgs},
    guarantees, http, server,
};

/// What `GET /api/v1/cluster` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClusterView {
    /// The node that answers.
    pub(crate) node: u64,
    /// Its clock, in milliseconds since 1970; 0 if it does not say.
    #[serde(default)]
    pub(crate) clock_ms: u64,
    /// The cluster's name.
    pub(crate) name: String,
    /// The cluster's random id, in hex; empty before `cluster init`.
    pub(crate) cluster: String,
    /// How many shards it has, the meta group not counted; 0 before it is made.
    #[serde(default)]
    pub(crate) shards: u16,
    /// How many copies each shard is to have; 0 before it is made, and if the node is of before this could change.
    #[serde(default)]
    pub(crate) replicas: u8,
    /// The level of the cluster; 0 if the node is of before there were levels.
    #[serde(default)]
    pub(crate) level: u16,
    /// The level that every node knows, if it is above it: it can be raised.
    #[serde(default)]
    pub(crate) next_level: Option<u16>,
    /// Whether this node serves clients, and if not, what it waits for.
    pub(crate) ready: bool,
    /// Why not, if not.
    pub(crate) waiting_for: Vec<String>,
    /// Every node the cluster knows.
    pub(crate) nodes: Vec<NodeView>,
    /// Every group with a replica on this node.
    pub(crate) groups: Vec<GroupView>,
}

/// One node, as another sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeView {
    /// Its id.
    pub(crate) id: u64,
    /// Its cluster address.
    pub(crate) address: String,
    /// Whether it is connected.
    pub(crate) alive: bool,
    /// How it stands: active, draining, leaving, removed.
    pub(crate) state: String,
    /// What it runs, as far as the answering node knows.
    #[serde(default)]
    pub(crate) program: Option<ProgramView>,
}

/// What a node runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProgramView {
    /// The program's version.
    pub(crate) version: String,
    /// The lowest level it knows.
    pub(crate) level_min: u16,
    /// The highest.
    pub(crate) level_max: u16,
}

/// One group, as its replica on the answering node sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GroupView {
    /// The shard; 0 is the meta group.
    pub(crate) shard: u16,
    /// Its leader, if one is known.
    pub(crate) leader: Option<u64>,
    /// The Raft term.
    pub(crate) term: u64,
    /// The last log index here.
    pub(crate) last_log: u64,
    /// The last index known to be committed.
    pub(crate) committed: u64,
    /// The last index applied here.
    pub(crate) applied: u64,
    /// Who votes.
    pub(crate) voters: Vec<u64>,
    /// Who gets the log and does not vote.
    pub(crate) learners: Vec<u64>,
    /// Who is to vote, while that is not known to be so.
    #[serde(default)]
    pub(crate) target: Vec<u64>,
    /// What each other member has confirmed to be on its disk; empty unless the answering node leads. Nodes of an older
    /// version do not say it.
    #[serde(default)]
    pub(crate) confirmed: BTreeMap<u64, u64>,
    /// The index of the last digest command, if there was one.
    pub(crate) digest_index: Option<u64>,
    /// The digest of this replica's rows at that index, in hex.
    pub(crate) digest: Option<String>,
}

/// What `GET /api/v1/shares` answers for each share of the shards with a replica on the answering node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShareView {
    /// Names it, and its place in the list.
    pub(crate) id: String,
    /// The whole filter.
    pub(crate) filter: String,
    /// The shard it lives in.
    pub(crate) shard: u16,
    /// Sessions that take part.
    pub(crate) members: usize,
    /// Messages that nobody has acknowledged.
    pub(crate) queued_messages: u64,
}

/// What `GET /api/v1/sessions?client=…` answers: one durable or connected session, as a replica of its shard on the
/// answering node has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionView {
    /// The client id.
    pub(crate) client: String,
    /// The shard it lives in.
    pub(crate) shard: u16,
    /// The node it is connected to, if it is.
    pub(crate) connected_to: Option<u64>,
    /// Messages that wait for it or for its acknowledgement.
    pub(crate) queued_messages: u64,
    /// Their bytes.
    pub(crate) queued_bytes: u64,
    /// Messages that found its queue full, ever.
    pub(crate) dropped_messages: u64,
    /// Its subscriptions.
    pub(crate) subscriptions: u32,
    /// Seconds it outlives its connection; `null`: for ever.
    pub(crate) expiry_s: Option<u32>,
}

/// Runs `moorline cluster …`.
pub(crate) async fn run(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Init(args) => {
            init(&args.admin).await?;
            println!("the cluster is made");
            Ok(())
        }
        ClusterCommand::Status(args) => status(&args).await,
        ClusterCommand::Health(args) => health(&args).await,
        ClusterCommand::Token(args) => {
            let answer = post(&args.admin, "/api/v1/cluster/token").await?;
            println!("{}", answer["token"].as_str().context("no token came")?);
            Ok(())
        }
        ClusterCommand::Join(args) => {
            let (node, already) = server::join::by_command(&args).await?;
            let joined = if already { "is a member already" } else { "may join" };
            println!(
                "node {node} {joined}; start it: moorline server --config {}",
                args.config.display()
            );
            Ok(())
        }
        ClusterCommand::Members(args) => {
            print!("{}", members(&view(&args.admin).await?));
            Ok(())
        }
        ClusterCommand::Leave(args) => change(&args, "leave").await,
        ClusterCommand::Drain(args) => change(&args, "drain").await,
        ClusterCommand::Resume(args) => change(&args, "resume").await,
        ClusterCommand::Remove(args) => change(&args, "remove").await,
        ClusterCommand::Replicas(args) => replicas(&args).await,
        ClusterCommand::Upgrade(args) => {
            let answer = post(&args.admin, "/api/v1/cluster/upgrade").await?;
            println!("the cluster is at level {}", answer["level"]);
            Ok(())
        }
        ClusterCommand::Transfer(args) => {
            let path = format!("/api/v1/cluster/transfer?group={}&to={}", args.group, args.to);
            post(&args.admin.admin, &path).await?;
            println!(
                "node {} is the preferred leader of group {} now; the leadership follows within a minute",
                args.to, args.group
            );
            Ok(())
        }
    }
}

/// Prints what a node says of itself; an error if it is not well.
async fn health(args: &HealthArgs) -> anyhow::Result<()> {
    let path = match args.check {
        HealthCheck::Live => "/livez",
        HealthCheck::Ready => "/readyz",
    };
    let admin = &args.admin.admin;
    let (status, body) = http::request(Method::GET, admin, path, Vec::new()).await?;
    println!("{}", String::from_utf8_lossy(&body));
    if !status.is_success() {
        bail!("{admin}: {path} says {status}");
    }
    Ok(())
}

/// How many copies of a shard may be asked for; of other numbers, why not.
pub(crate) fn copies(said: &str) -> Result<u8, String> {
    let number: u8 = said.parse().map_err(|_| format!("{said:?} is no number of copies"))?;
    match number {
        1 | 3 | 5 => Ok(number),
        0 => Err("no copies keep nothing: 1, 3 or 5".to_owned()),
        2 => {
            Err("2 copies survive no more than 1 does, since both have to answer: 1, 3 or 5"
                .to_owned())
        }
        4 => {
            Err("4 copies survive the loss of 1 node, as 3 do, and cost one more: 3 or 5"
                .to_owned())
        }
        _ => {
            Err("more than 5 copies make every write slower and no cluster safer: 1, 3 or 5"
                .to_owned())
        }
    }
}

async fn replicas(args: &ReplicasArgs) -> anyhow::Result<()> {
    if args.copies == 1 && !args.yes {
        bail!("with 1 copy, what was acknowledged is gone with one disk; if that is meant: --yes");
    }
    let path = format!("/api/v1/cluster/replicas?copies={}", args.copies);
    let answer = post(&args.admin.admin, &path).await?;
    println!("{}", answer["detail"].as_str().context("no answer that we know came")?);
    Ok(())
}

/// Asks a node to make its configured peers a cluster. Done already counts as done.
pub(crate) async fn init(admin: &str) -> anyhow::Result<()> {
    let (status, body) =
        http::request(Method::POST, admin, "/api/v1/cluster/init", Vec::new()).await?;
    if !status.is_success() {
        bail!("{admin} answered {status}: {}", reason(&body));
    }
    Ok(())
}

/// What a problem's body says to a human: its detail, if it is one of ours.
pub(crate) fn reason(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    detail.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

async fn change(args: &MemberArgs, verb: &str) -> anyhow::Result<()> {
    post(&args.admin.admin, &format!("/api/v1/cluster/{verb}?node={}", args.node)).await?;
    println!("done; `moorline cluster status` shows how far it is");
    Ok(())
}

async fn post(admin: &str, path: &str) -> anyhow::Result<serde_json::Value> {
    let (status, body) = http::request(Method::POST, admin, path, Vec::new()).await?;
    if !status.is_success() {
        bail!("{admin} answered {status}: {}", reason(&body));
    }
    serde_json::from_slice(&body).with_context(|| format!("{admin} gave an answer we do not know"))
}

/// Reads a node's view of the cluster.
pub(crate) async fn view(admin: &str) -> anyhow::Result<ClusterView> {
    let (status, body) = http::request(Method::GET, admin, "/api/v1/cluster", Vec::new()).await?;
    if !status.is_success() {
        bail!("{admin} answered {status}");
    }
    serde_json::from_slice(&body).with_context(|| format!("{admin} gave an answer we do not know"))
}

async fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let view = view(&args.admin.admin).await?;
    if args.json {
        println!("{}", serde_json::to_string(&view)?);
    } else {
        print!("{}", table(&view));
    }
    Ok(())
}

/// The view as a table.
fn table(view: &ClusterView) -> String {
    let mut out = format!("cluster {} seen by node {}", view.name, view.node);
    if view.ready {
        out += ", ready\n";
    } else {
        out += &format!(", not ready: {}\n", view.waiting_for.join(", "));
    }
    out += &level(view);
    for sentence in guarantees::of(view).sentences {
        out += &format!("  {sentence}\n");
    }
    out += &members(view);
    out += "  group  leader  term  applied   committed  last log  voters, learners\n";
    for group in &view.groups {
        let name = if group.shard == 0 { "meta".to_owned() } else { group.shard.to_string() };
        let leader = group.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let GroupView { term, applied, committed, last_log, voters, learners, .. } = group;
        out += &format!(
            "  {name:<5}  {leader:<6}  {term:<4}  {applied:<8}  {committed:<9}  {last_log:<8}  {voters:?} {learners:?}\n"
        );
    }
    out
}

/// The level, and what is in the way of the next; nothing of a node that knows none.
fn level(view: &ClusterView) -> String {
    match (view.level, view.next_level) {
        (0, _) => String::new(),
        (level, None) => format!("  level {level}\n"),
        (level, Some(next)) => format!("  level {level}; every node knows level {next}\n"),
    }
}

/// The nodes, a line each.
fn members(view: &ClusterView) -> String {
    let line = |node: &NodeView| {
        let alive = if node.alive { "up" } else { "DOWN" };
        let NodeView { id, address, state, .. } = node;
        let program = node.program.as_ref().map_or_else(String::new, |program| {
            let ProgramView { version, level_min, level_max } = program;
            format!("  version {version}, levels {level_min} to {level_max}")
        });
        format!("  node {id:<3} {address:<24} {alive:<5} {state}{program}\n")
    };
    view.nodes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_odd_and_few_and_the_reason_is_said() {
        assert_eq!(["1", "3", "5"].map(copies), [Ok(1), Ok(3), Ok(5)]);
        let table = [
            ("0", "keep nothing"),
            ("2", "no more than 1 does"),
            ("4", "as 3 do"),
            ("6", "no cluster safer"),
            ("7", "no cluster safer"),
            ("many", "no number"),
            ("-1", "no number"),
        ];
        for (said, because) in table {
            let refused = copies(said).unwrap_err();
            assert!(refused.contains(because), "{said}: {refused}");
        }
    }

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        let problem = br#"{"status":409,"code":"not-done","detail":"node 9 is not known"}"#;
        assert_eq!(reason(problem), "node 9 is not known");
        assert_eq!(reason(b"Bad Gateway"), "Bad Gateway", "somebody else's words stay as they are");
    }
}
