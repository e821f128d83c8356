//! The end of a run: whether every replica is where it should be and has the same, and what the clients' queue holds there.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context;
use moorline_core::{NodeId, ShardId};

use crate::{
    client,
    node::{self, Machine, SHARD},
    simulation::Run,
    witness::Event,
};

impl Run<'_> {
    /// Those that are to vote in a group.
    fn voting(&self, shard: ShardId) -> impl Iterator<Item = &Arc<Machine>> {
        let target = self.target(shard);
        self.machines.iter().filter(move |machine| target.contains(&machine.id))
    }

    /// Whether they do, and no others.
    fn is_moved(&self, shard: ShardId) -> bool {
        let target = self.target(shard).into_iter().map(NodeId).collect::<BTreeSet<_>>();
        let mut groups = self.machines.iter().filter_map(|machine| machine.groups());
        groups.any(|groups| {
            groups.members(shard).is_some_and(|members| members.voters == [target.clone()])
        })
    }

    /// Whether every replica has applied the same, in all groups.
    pub(crate) fn is_equal(&mut self) -> bool {
        node::all_groups().all(|shard| {
            let applied = |machine: &Arc<Machine>| {
                let groups = machine.groups()?;
                groups.applied(shard).map(|applied| *applied.borrow())
            };
            let first = self.voting(shard).next().and_then(applied);
            let all = self.voting(shard).all(|machine| applied(machine) == first);
            first.is_some() && all && self.is_moved(shard)
        })
    }

    /// Looks at every replica of the groups without the clients' queue.
    fn compare(&self) -> anyhow::Result<()> {
        for shard in node::all_groups().filter(|shard| *shard != SHARD) {
            for machine in self.voting(shard) {
                let groups = machine.groups().context("a node that runs")?;
                let applied = groups.applied(shard).context("a replica")?;
                let index = *applied.borrow();
                let read = groups.read(shard, |machine, rows| {
                    machine.assert_derived(rows)?;
                    machine.digest(rows)
                });
                let digest = read.context("rows")??;
                // Not the digests that replicas make by themselves: those are of other indices.
                self.tell(Event::Digest { node: machine.id, shard, index, digest });
            }
        }
        Ok(())
    }

    pub(crate) fn look(&mut self) -> anyhow::Result<()> {
        self.compare()?;
        let session = *self.cluster.session.lock().expect("no panic while it is locked");
        let session = session.context("a session")?;
        for machine in self.voting(SHARD) {
            let groups = machine.groups().context("a node that runs")?;
            let applied = groups.applied(SHARD).context("a replica")?;
            let applied = *applied.borrow();
            let read = groups.read(SHARD, |machine, rows| {
                machine.assert_derived(rows)?;
                let info = machine.session(session).expect("it never expires");
                let items = usize::try_from(info.tail.0).expect("not so many");
                let queue = machine.queue_read(rows, session, info.head, items, usize::MAX)?;
                Ok::<_, moorline_storage::StorageError>((queue, machine.digest(rows)?))
            });
            let (queue, digest) = read.context("rows")??;
            let queue = queue.iter().map(|delivery| client::of_payload(&delivery.message.payload));
            let queue: Option<Vec<_>> = queue.collect();
            let queue = queue.context("a message that no client made")?;
            self.tell(Event::Final { node: machine.id, queue, applied, digest });
        }
        Ok(())
    }
}
