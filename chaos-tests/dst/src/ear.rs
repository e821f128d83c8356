//! Hears what the groups of one process tell, before its service does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use moorline_core::ShardId;
use moorline_group::{Role, Sink};
use moorline_machine::Effect;
use moorline_service::Service;

use crate::{
    disk::SimLog,
    witness::{Event, Witness},
};

/// Tells the witness, then the service.
pub(crate) struct Ear {
    pub(crate) node: u64,
    pub(crate) process: u64,
    pub(crate) log: Arc<SimLog>,
    pub(crate) witness: Witness,
    pub(crate) service: Arc<Service>,
    /// How far each group was applied when it was heard of last.
    pub(crate) applied: Mutex<BTreeMap<ShardId, u64>>,
}

impl Sink for Ear {
    fn applied(&self, shard: ShardId, index: u64, effects: Vec<Effect>) {
        let (node, process) = (self.node, self.process);
        let before = {
            let mut applied = self.applied.lock().expect("no panic while it is locked");
            // A replica that was deleted and came back begins anew.
            applied.insert(shard, index).filter(|before| *before < index)
        };
        for index in before.map_or(index, |before| before + 1)..=index {
            // The log engine counts from 1.
            if let Some(entry) = self.log.entry(shard, index + 1) {
                self.witness.tell(Event::Committed { node, shard, index, entry });
            }
        }
        self.witness.tell(Event::Applied { node, process, shard, index });
        for effect in &effects {
            if let Effect::Digest { index, digest } = effect {
                self.witness.tell(Event::Digest { node, shard, index: *index, digest: *digest });
            }
        }
        self.service.applied(shard, index, effects);
    }

    fn role(&self, shard: ShardId, role: Role) {
        self.witness.tell(Event::Role { node: self.node, shard, role });
        self.service.role(shard, role);
    }
}
