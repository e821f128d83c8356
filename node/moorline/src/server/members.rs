//! What an operator asks a node about membership: tokens, joining, draining, leaving, removal, leaders moved by hand.
//!
//! Nothing is done here but a command to the meta group: the leaders of the groups see it and act (`mover`).

use std::time::Duration;

use anyhow::bail;
use moorline_core::{
    Incarnation, NodeId, ShardId, Text,
    level::{Levels, REPLICAS_CHANGE},
};
use moorline_machine::{Answer, Command, MemberState, Refused, command::NodeRecord};
use moorline_router::SubmitError;
use sha2::{Digest, Sha256};

use super::{
    join::{JoinAnswer, JoinRequest},
    node::Node,
};
use crate::guarantees;

/// How long a command to the meta group may take.
pub(super) const COMMAND_WAIT: Duration = Duration::from_secs(8);
/// What is said of a command that was sent and not answered.
const MAYBE_LATER: &str =
    "it was sent, and may still be carried out: see `moorline cluster status` before you ask again";
/// How long a token lets a node in: long enough to write it into a file and start a node.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// How often a removal is repeated while there is more to drop.
const REPEATS_MAX: usize = 1000;

/// What the meta group's log and rows hold of a token: whoever reads them cannot join with it. Half of a SHA-256 is as
/// hard to turn round as the token is to guess.
fn hash(token: u128) -> u128 {
    let digest = Sha256::digest(token.to_be_bytes());
    let half = digest.first_chunk().expect("32 bytes");
    u128::from_be_bytes(*half)
}

/// What a command about membership came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is so, as of this index of the meta group's log.
    At(u64),
    /// There is more to do: ask again.
    Partly,
    /// It is not so.
    Refused(Refused),
}

impl Node {
    /// Proposes a command to the meta group.
    pub(crate) async fn ask_meta(&self, command: &Command) -> anyhow::Result<Outcome> {
        // What is sent waits for a leader, and would be carried out long after it was refused.
        if let Some(lost) = self.meta_lost() {
            bail!("{lost}; nothing was sent");
        }
        let asked = self.router().ask(ShardId::META, command);
        let answer = match tokio::time::timeout(COMMAND_WAIT, asked).await {
            Ok(Err(problem @ SubmitError::Unanswered { .. })) => {
                bail!("{problem}; {MAYBE_LATER}")
            }
            Ok(answered) => answered?,
            Err(_) => bail!("the meta group did not answer in time; {MAYBE_LATER}"),
        };
        if let Answer::At(index) = answer {
            Ok(Outcome::At(index))
        } else if let Answer::Partly(_) = answer {
            Ok(Outcome::Partly)
        } else if let Answer::Refused(why) = answer {
            Ok(Outcome::Refused(why))
        } else {
            bail!("the meta group answered {answer:?}")
        }
    }

    /// Why nothing can be written into the meta group, as far as this node sees.
    fn meta_lost(&self) -> Option<String> {
        let groups = self.groups().status();
        let voters = groups.into_iter().find(|group| group.shard == ShardId::META)?.voters;
        let own = self.config().node_id();
        let is_down = |node: &&NodeId| **node != own && !self.is_up(**node);
        let down: Vec<String> = voters.iter().filter(is_down).map(ToString::to_string).collect();
        let (all, up) = (voters.len(), voters.len() - down.len());
        (all > 0 && up <= all / 2).then(|| {
            let down = down.join(" and ");
            format!("the meta group has no majority, {up} of {all} votes: start the nodes {down}")
        })
    }

    /// A token that lets one node join within the hour.
    pub(crate) async fn token(&self) -> anyhow::Result<String> {
        let token: u128 = rand::random();
        let lifetime_ms = u64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(u64::MAX);
        let token_hash = hash(token);
        match self.ask_meta(&Command::AddToken { token_hash, lifetime_ms }).await? {
            Outcome::At(_) => Ok(format!("{token:032x}")),
            Outcome::Refused(Refused::TooManyRoutes) => bail!("too many tokens wait to be used"),
            other @ (Outcome::Partly | Outcome::Refused(_)) => {
                bail!("the meta group answered {other:?}")
            }
        }
    }

    /// Lets a node in whose program knows these levels. The outer error: try again; the inner one: it must not come in.
    pub(crate) async fn let_in(
        &self,
        request: &JoinRequest,
        levels: Levels,
    ) -> anyhow::Result<Result<JoinAnswer, String>> {
        // Before its token is used up, and before it is a member that counts.
        if let Err(misfit) = levels.check(self.level()) {
            self.metrics().joins_misfit.inc();
            return Ok(Err(misfit.to_string()));
        }
        if request.cluster != self.config().cluster.name {
            let ours = &self.config().cluster.name;
            return Ok(Err(format!(
                "this is cluster {ours:?}, not {:?} (cluster.name)",
                request.cluster
            )));
        }
        let (Ok(token), Ok(store)) =
            (u128::from_str_radix(&request.token, 16), u128::from_str_radix(&request.store, 16))
        else {
            return Ok(Err("the token or the store is not in hex".to_owned()));
        };
        let shards = self.config().cluster.shards;
        if let Some(theirs) = request.shards.filter(|theirs| *theirs != shards) {
            return Ok(Err(format!(
                "cluster.shards is {shards} here and {theirs} in its file; correct that, and empty its data directory"
            )));
        }
        let record = NodeRecord {
            node: NodeId(request.node),
            store,
            incarnation: Incarnation(request.incarnation),
            address: Text::from(request.address.as_str()),
        };
        let token_hash = hash(token);
        let refusal = match self.ask_meta(&Command::JoinNode { token_hash, record }).await? {
            Outcome::At(index) => {
                // So that the members this answer names have the new one among them.
                self.groups().wait_applied(ShardId::META, index, COMMAND_WAIT).await;
                let members = self.member_addresses();
                let members = members.into_iter().map(|(node, at)| (node.0, at)).collect();
                return Ok(Ok(JoinAnswer { shards, members, level: self.level() }));
            }
            Outcome::Refused(Refused::NoToken) => {
                "there is no such token, or it was used, or its time is over"
            }
            Outcome::Refused(Refused::NodeIdTaken) => "its id belongs to another data directory",
            Outcome::Refused(Refused::NodeRemoved) => {
                "its id was removed from the cluster: give it a new one"
            }
            Outcome::Refused(Refused::WrongState) => "the cluster is not made yet",
            Outcome::Refused(_) => {
                "its id or its address cannot be right, or there are too many nodes"
            }
            other @ Outcome::Partly => bail!("the meta group answered {other:?}"),
        };
        Ok(Err(refusal.to_owned()))
    }

    /// Changes how a node stands.
    pub(crate) async fn set_member(&self, node: u64, state: MemberState) -> anyhow::Result<()> {
        let node = NodeId(node);
        let runs = node == self.config().node_id() || self.is_up(node);
        if state == MemberState::Removed && runs {
            bail!("node {node} runs: let it leave instead");
        }
        for _ in 0..REPEATS_MAX {
            match self.ask_meta(&Command::SetMember { node, state }).await? {
                Outcome::At(_) => return Ok(()),
                Outcome::Partly => {}
                Outcome::Refused(Refused::NodeRemoved) => bail!("node {node} was removed for good"),
                Outcome::Refused(Refused::WrongState) => {
                    bail!("node {node} is not known, or no other node is active")
                }
                other @ Outcome::Refused(_) => bail!("the meta group answered {other:?}"),
            }
        }
        bail!("node {node} left too much behind: ask again")
    }

    /// Changes how many copies each shard is to have. Says what will be.
    pub(crate) async fn set_replicas(&self, replicas: u8) -> anyhow::Result<String> {
        let level = self.level();
        if level < REPLICAS_CHANGE {
            bail!(
                "the cluster is at level {level}, and programs of that level can't read this: when every node runs this version, \
                 `moorline cluster upgrade`, then again"
            );
        }
        match self.ask_meta(&Command::SetReplicas { replicas }).await? {
            Outcome::At(index) => {
                // So that what this node says next is so.
                self.groups().wait_applied(ShardId::META, index, COMMAND_WAIT).await;
            }
            Outcome::Refused(Refused::WrongState) => bail!("the cluster is not made yet"),
            other @ (Outcome::Partly | Outcome::Refused(_)) => {
                bail!("the meta group answered {other:?}")
            }
        }
        let active = self.groups().read(ShardId::META, |machine, _| {
            let meta = machine.meta();
            let is_active = |node: &&NodeId| meta.member(**node) == Some(MemberState::Active);
            meta.nodes().keys().filter(is_active).count()
        });
        let copies = if replicas == 1 { "1 copy".to_owned() } else { format!("{replicas} copies") };
        let wanted = format!(
            "{copies} of each shard from now on; `moorline cluster status` shows how far it is"
        );
        Ok(guarantees::too_few(replicas, active.unwrap_or_default()).unwrap_or(wanted))
    }

    /// Makes a node the preferred leader of a group; the leadership follows within seconds.
    pub(crate) async fn transfer(&self, group: u16, to: u64) -> anyhow::Result<()> {
        let (group, to) = (ShardId(group), NodeId(to));
        let from = self
            .groups()
            .read(ShardId::META, |machine, _| machine.meta().voters(group).to_vec())
            .unwrap_or_default();
        let Some(at) = from.iter().position(|voter| *voter == to) else {
            bail!("node {to} has no vote in group {group}; who has: {from:?}");
        };
        let mut voters = from.clone();
        voters[..=at].rotate_right(1);
        match self.ask_meta(&Command::Place { group, from, to: voters }).await? {
            Outcome::At(_) => Ok(()),
            Outcome::Refused(Refused::WrongState) => bail!("the group is being moved: ask again"),
            other @ (Outcome::Partly | Outcome::Refused(_)) => {
                bail!("the meta group answered {other:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_token_stays_what_it_was() {
        // Frozen: a node of another version may take the token that this one gave.
        assert_eq!(hash(0), 0x374708fff7719dd5979ec875d56cd228);
        assert_ne!(hash(1), hash(2));
    }
}
