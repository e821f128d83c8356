//! Has all shards forget what deleted devices and tenants left: the leader of the group that deleted them sees to it.
//!
//! # Invariants
//!
//! - **What was begun is finished**, by this leader or the next one: the group remembers until a round that began
//!   [`KEPT`] after the deletion is through in every shard. A connection that had not heard of it yet may have left
//!   something behind the first round. Checked by the cluster tests (`rights.rs`).
//! - **Bounded**: [`FORGET_AT_ONCE_MAX`] owners a round and group, one command a shard at a time.
//!
//! # Deliberately absent
//!
//! What goes, and how much at once (`raft/machine`, `forget.rs`).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use moorline_core::{ShardId, TenantId, Text, UnixMillis};
use moorline_machine::{
    Answer, Command,
    forget::{FORGET_AT_ONCE_MAX, Forget, Forgotten},
    registry::Owner,
};
use tokio::time::sleep;
use tracing::debug;

use crate::service::Inner;

/// How often groups led here are asked whether there is something to forget.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a group remembers: longer than a connection lives whose device is gone, and than what it has sent is under way.
const KEPT: Duration = Duration::from_secs(30);
/// The pause before a shard that did not answer is asked again.
const AGAIN_PAUSE: Duration = Duration::from_millis(200);
/// How often a shard is asked to forget more: a round is given up then, and begins anew.
const PIECES_MAX: usize = 10_000;

/// Who was seen to, once, by this process.
type Seen = BTreeSet<(ShardId, TenantId, u64, Text)>;

/// What is to be done for a group.
#[derive(Debug, Default)]
struct Round {
    /// Was never begun here.
    first: Vec<Owner>,
    /// Is old enough that nothing comes behind it.
    last: Vec<Owner>,
}

impl Inner {
    pub(crate) async fn keep_forgetting(self: Arc<Self>) {
        let mut seen = Seen::new();
        loop {
            sleep(LOOK_INTERVAL).await;
            let led = self.led_here();
            seen.retain(|(group, ..)| led.contains(group));
            for group in led {
                let Round { first, last } = self.to_forget(group, &seen);
                if !first.is_empty() && self.forget_everywhere(group, &first).await {
                    let of = |owner: Owner| (group, owner.tenant, owner.born, owner.device);
                    seen.extend(first.into_iter().map(of));
                }
                if !last.is_empty() && self.forget_everywhere(group, &last).await {
                    let forgotten = Command::Forgotten(Forgotten { owners: last.clone() });
                    if self.below().router.ask(group, &forgotten).await.is_ok() {
                        for Owner { tenant, device, born } in last {
                            seen.remove(&(group, tenant, born, device));
                        }
                    }
                }
            }
        }
    }

    fn to_forget(&self, group: ShardId, seen: &Seen) -> Round {
        let now = self.log_time(group);
        let kept = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        let round = self.below().groups.read(group, |machine, _| {
            let mut round = Round::default();
            for (owner, UnixMillis(at)) in machine.forgetting() {
                let Owner { tenant, device, born } = &owner;
                if at.saturating_add(kept) <= now.0 {
                    round.last.push(owner);
                } else if !seen.contains(&(group, *tenant, *born, device.clone())) {
                    round.first.push(owner);
                }
                if round.first.len().max(round.last.len()) >= FORGET_AT_ONCE_MAX {
                    break;
                }
            }
            round
        });
        round.unwrap_or_default()
    }

    /// Whether nothing is left of them in any shard.
    async fn forget_everywhere(&self, group: ShardId, owners: &[Owner]) -> bool {
        let command = Command::Forget(Forget { owners: owners.to_vec() });
        for shard in self.shards.all() {
            let mut pieces = 0;
            loop {
                match self.below().router.ask(shard, &command).await {
                    Ok(Answer::Partly(_)) if pieces < PIECES_MAX => pieces += 1,
                    Ok(Answer::Released(_)) => break,
                    Ok(_) => return false,
                    Err(problem) => {
                        debug!(%group, %shard, %problem, "what was deleted is forgotten later");
                        sleep(AGAIN_PAUSE).await;
                        return false;
                    }
                }
            }
        }
        true
    }
}
