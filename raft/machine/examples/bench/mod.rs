//! A replica that is timed: a machine on an overlay over a store in memory, with a checkpoint now and then.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use moorline_core::{ShardId, TenantId, UnixMillis};
use moorline_machine::{Answer, BatchBuilder, Command, Machine, RunBuilder, command::ProducerId};
use moorline_storage::{Store, mem::MemStore, overlay::Overlay};

pub(crate) const TENANT: TenantId = TenantId(1);
const CHECKPOINT_BYTES: usize = 64 * 1024 * 1024;

pub(crate) type Failed = Box<dyn Error>;

pub(crate) struct Bench {
    machine: Machine,
    rows: Overlay<Arc<MemStore>>,
    run: RunBuilder,
    index: u64,
    /// What applying took.
    pub(crate) spent: Duration,
    /// How many effects came of it.
    pub(crate) effects: usize,
}

impl Bench {
    pub(crate) fn new() -> Result<Self, Failed> {
        let rows = Overlay::new(Arc::new(MemStore::new()));
        let machine = Machine::open(ShardId(1), &rows)?;
        let run = RunBuilder::new(ProducerId(1), 1);
        Ok(Self { machine, rows, run, index: 0, spent: Duration::ZERO, effects: 0 })
    }

    /// Applies commands as one batch of one entry.
    pub(crate) fn apply(&mut self, commands: &[Command]) -> Result<Vec<Answer>, Failed> {
        for command in commands {
            self.run.push(command)?;
        }
        let confirmed = self.run.next_seq() - commands.len() as u64;
        let mut batch = BatchBuilder::new();
        batch.push(&self.run.take(confirmed).ok_or("no commands")?);
        self.index += 1;
        let batch = batch.finish(UnixMillis(self.index));
        let mut effects = Vec::new();

        let begun = Instant::now();
        let mut answers = self.machine.apply(&mut self.rows, self.index, &batch, &mut effects)?;
        self.effects += effects.len();
        drop(effects);
        self.spent += begun.elapsed();

        if self.rows.active_bytes() > CHECKPOINT_BYTES {
            let frozen = self.rows.freeze();
            self.rows.base().write(frozen.to_batch())?;
            self.rows.thaw_done();
        }
        Ok(answers.pop().ok_or("no answers")?.answers)
    }
}
