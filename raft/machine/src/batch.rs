//! Many commands in one log entry: what a producer sends ([`Run`]), and what a leader proposes ([`Batch`]).
//!
//! ```text
//!   batch   version u8 | ts_ms u64 | runs u16 | run*
//!   run     producer u64 | first_seq u64 | answered_below u64 | count u16 | len u32 | command frame*
//!   frame   len u32 | kind u8 | body
//! ```
//!
//! A command is encoded once, by the router, into the [`RunBuilder`]; the same bytes go over the wire, are copied once
//! into the batch, and are what the log holds and `apply` reads.
//!
//! # Invariants
//!
//! - **A run is whole.** `commands` holds exactly `count` frames. Checked by [`Run::decode`] and [`Batch::decode`].
//! - **A batch has at most 65,535 commands**, so that a command's place fits the versions it makes. Checked by
//!   [`BatchBuilder::push`] and [`Batch::decode`].

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::UnixMillis;

use crate::{
    codec::{COMMAND_BYTES_MAX, FRAME_HEADER_BYTES, Malformed, Reader, TooLarge, frame_len},
    command::{Command, ProducerId, Run},
};

/// What a batcher aims at: a round costs the same for one command as for so many, and beyond it only latency grows.
/// A run with more is split or taken whole.
pub const COMMANDS_PER_BATCH_MAX: usize = 256;
/// The largest log entry: what one frame between nodes and one write to the log may carry.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// What a batch has before its first run.
pub const BATCH_HEADER_BYTES: usize = 1 + 8 + 2;
/// What a run has before its first command.
pub const RUN_HEADER_BYTES: usize = 8 + 8 + 8 + 2 + 4;
/// The version of a batch's bytes.
const BATCH_VERSION: u8 = 1;
/// How many commands a batch can number ([`crate::machine`] makes versions of it).
const COMMANDS_PER_BATCH_HARD_MAX: usize = u16::MAX as usize;

/// Every run of one command fits a batch of its own.
const _: () = assert!(
    BATCH_HEADER_BYTES + RUN_HEADER_BYTES + FRAME_HEADER_BYTES + COMMAND_BYTES_MAX
        <= BATCH_BYTES_MAX
);

impl Run {
    /// The sequence number after the last command's.
    #[must_use]
    pub fn end_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count))
    }

    /// How many bytes [`Run::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        RUN_HEADER_BYTES + self.commands.len()
    }

    /// Appends the run to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_len());
        out.put_u64(self.producer.0);
        out.put_u64(self.first_seq);
        out.put_u64(self.answered_below);
        out.put_u16(self.count);
        out.put_u32(u32::try_from(self.commands.len()).expect("a run fits a batch"));
        out.put_slice(&self.commands);
    }

    /// Takes one run off the front of `bytes`; its commands stay a slice of it.
    ///
    /// # Errors
    ///
    /// When the bytes are no run: also when `commands` does not hold exactly `count` frames.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(std::mem::take(bytes), "run");
        let run = Self::read(&mut reader)?;
        *bytes = reader.into_rest();
        Ok(run)
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let producer = ProducerId(reader.u64()?);
        let first_seq = reader.u64()?;
        let answered_below = reader.u64()?;
        let count = reader.u16()?;
        let len = reader.u32()? as usize;
        let commands = reader.slice(len)?;
        let run = Self { producer, first_seq, answered_below, count, commands };
        // Sequence numbers begin at 1, and must not run over.
        if count == 0 || first_seq == 0 || first_seq.checked_add(u64::from(count)).is_none() {
            return Err(reader.malformed());
        }
        let frames = run.frames().try_fold(0_usize, |frames, frame| frame.map(|_| frames + 1))?;
        if frames == usize::from(count) { Ok(run) } else { Err(reader.malformed()) }
    }

    /// The frames of the commands, each for [`Command::decode`]. Ends after the first error.
    pub fn frames(&self) -> impl Iterator<Item = Result<Bytes, Malformed>> {
        let mut rest = self.commands.clone();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let len = frame_len(&rest);
            if len.is_err() {
                rest.clear();
            }
            Some(len.map(|len| rest.split_to(len)))
        })
    }

    /// Reads every command. A leader does so with what came from another process before it proposes it: replicas stop
    /// at a command they can't read, rather than disagree.
    ///
    /// # Errors
    ///
    /// When a command is not what [`Command::encode`] of this version writes.
    pub fn check(&self) -> Result<(), Malformed> {
        for frame in self.frames() {
            Command::decode(&frame?)?;
        }
        Ok(())
    }

    /// Splits off the commands beyond `commands_max`, or beyond `bytes_max` of encoded run; the first part has at least
    /// one command. Copies nothing.
    #[must_use]
    pub fn split(mut self, commands_max: usize, bytes_max: usize) -> (Self, Option<Self>) {
        if usize::from(self.count) <= commands_max && self.encoded_len() <= bytes_max {
            return (self, None);
        }
        let (mut count, mut at) = (0_u16, 0_usize);
        while count < self.count {
            let len = frame_len(&self.commands[at..]).expect("a run is whole");
            let full =
                usize::from(count) >= commands_max || RUN_HEADER_BYTES + at + len > bytes_max;
            if count > 0 && full {
                break;
            }
            count += 1;
            at += len;
        }
        if count == self.count {
            return (self, None);
        }
        let rest = Self {
            first_seq: self.first_seq + u64::from(count),
            count: self.count - count,
            commands: self.commands.split_off(at),
            ..self
        };
        self.count = count;
        (self, Some(rest))
    }

    /// Whether this run goes on where `earlier` ends.
    #[must_use]
    pub fn follows(&self, earlier: &Self) -> bool {
        self.producer == earlier.producer && self.first_seq == earlier.end_seq()
    }

    /// Joins a run that [`follows`](Self::follows) this one. One copy of both.
    ///
    /// # Panics
    ///
    /// If it does not follow, or both together have more commands than a run can count.
    #[must_use]
    pub fn concat(self, next: &Self) -> Self {
        assert!(next.follows(&self), "{} does not follow {}", next.first_seq, self.end_seq());
        let count = self.count.checked_add(next.count).expect("a run counts 65,535 commands");
        let mut commands = BytesMut::with_capacity(self.commands.len() + next.commands.len());
        commands.put_slice(&self.commands);
        commands.put_slice(&next.commands);
        Self {
            answered_below: self.answered_below.max(next.answered_below),
            count,
            commands: commands.freeze(),
            ..self
        }
    }
}

/// Collects the commands of one producer, encoding each once.
#[derive(Debug)]
pub struct RunBuilder {
    producer: ProducerId,
    first_seq: u64,
    count: u16,
    commands: BytesMut,
}

impl RunBuilder {
    /// For a producer whose next command gets the number `next_seq` (the first of all: 1).
    #[must_use]
    pub fn new(producer: ProducerId, next_seq: u64) -> Self {
        assert!(next_seq > 0, "sequence numbers begin at 1");
        Self { producer, first_seq: next_seq, count: 0, commands: BytesMut::new() }
    }

    /// Encodes a command; gives its sequence number.
    ///
    /// # Errors
    ///
    /// When it is too large. Nothing was added then.
    ///
    /// # Panics
    ///
    /// If 65,535 commands are in it already: take it before ([`COMMANDS_PER_BATCH_MAX`]).
    pub fn push(&mut self, command: &Command) -> Result<u64, TooLarge> {
        let count = self.count.checked_add(1).expect("taken before it is so full");
        command.encode(&mut self.commands)?;
        let seq = self.next_seq();
        self.count = count;
        Ok(seq)
    }

    /// The number that the next command gets.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.first_seq + u64::from(self.count)
    }

    /// How many commands are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether no command is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes the run will have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        RUN_HEADER_BYTES + self.commands.len()
    }

    /// Takes what was collected and goes on behind it. `None` if there is nothing.
    pub fn take(&mut self, answered_below: u64) -> Option<Run> {
        if self.count == 0 {
            return None;
        }
        let run = Run {
            producer: self.producer,
            first_seq: self.first_seq,
            answered_below,
            count: self.count,
            commands: self.commands.split().freeze(),
        };
        self.first_seq = run.end_seq();
        self.count = 0;
        Some(run)
    }
}

/// Collects the runs of one log entry.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    runs: u16,
    commands: usize,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = BytesMut::with_capacity(4096);
        bytes.put_bytes(0, BATCH_HEADER_BYTES);
        Self { bytes, runs: 0, commands: 0 }
    }

    /// Whether `run` can be added within the hard limits. An empty batch has room for every run that
    /// [`Run::split`] made no larger than `BATCH_BYTES_MAX - BATCH_HEADER_BYTES`.
    #[must_use]
    pub fn fits(&self, run: &Run) -> bool {
        self.bytes.len() + run.encoded_len() <= BATCH_BYTES_MAX
            && self.commands + usize::from(run.count) <= COMMANDS_PER_BATCH_HARD_MAX
            && self.runs < u16::MAX
    }

    /// Adds a run: one copy of its bytes.
    ///
    /// # Panics
    ///
    /// If it does not fit.
    pub fn push(&mut self, run: &Run) {
        assert!(self.fits(run), "a run of {} bytes does not fit", run.encoded_len());
        run.encode(&mut self.bytes);
        self.runs += 1;
        self.commands += usize::from(run.count);
    }

    /// Whether there is no run in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs == 0
    }

    /// How many commands are in it.
    #[must_use]
    pub fn len_commands(&self) -> usize {
        self.commands
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Stamps the batch and gives its bytes.
    #[must_use]
    pub fn finish(mut self, ts: UnixMillis) -> Bytes {
        let mut header = &mut self.bytes[..BATCH_HEADER_BYTES];
        header.put_u8(BATCH_VERSION);
        header.put_u64(ts.0);
        header.put_u16(self.runs);
        // Entries are kept for a while, and a small one must not keep the room of a large one.
        if self.bytes.len() < self.bytes.capacity() / 2 {
            return Bytes::copy_from_slice(&self.bytes);
        }
        self.bytes.freeze()
    }
}

/// One log entry, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The leader's clock when it proposed; `apply` makes it monotone.
    pub ts: UnixMillis,
    /// What it carries. The commands are slices of the entry.
    pub runs: Vec<Run>,
}

impl Batch {
    /// Reads a log entry.
    ///
    /// # Errors
    ///
    /// When the bytes are not what [`BatchBuilder`] of this version makes.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes.clone(), "batch");
        if reader.u8()? != BATCH_VERSION {
            return Err(Malformed { what: "batch version" });
        }
        let ts = reader.millis()?;
        let count = usize::from(reader.u16()?);
        reader.need(count * RUN_HEADER_BYTES)?;
        let mut runs = Vec::with_capacity(count);
        let mut commands = 0;
        for _ in 0..count {
            let run = Run::read(&mut reader)?;
            commands += usize::from(run.count);
            runs.push(run);
        }
        if commands > COMMANDS_PER_BATCH_HARD_MAX {
            return Err(reader.malformed());
        }
        reader.end()?;
        Ok(Self { ts, runs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u64) -> Run {
        let mut builder = RunBuilder::new(ProducerId(9), first);
        for seq in first..first + count {
            let tenant = moorline_core::TenantId(u32::try_from(seq).unwrap());
            let seq = builder.push(&Command::SetTenant { tenant, name: "n".into() }).unwrap();
            assert_eq!(seq + 1, builder.next_seq());
        }
        builder.take(2).unwrap()
    }

    #[test]
    fn batches_keep_their_bytes() {
        // Frozen: logs hold these.
        let mut builder = RunBuilder::new(ProducerId(9), 3);
        assert_eq!(builder.take(1), None);
        builder.push(&Command::Tick).unwrap();
        builder.push(&Command::Digest).unwrap();
        let run = builder.take(2).unwrap();
        let mut batch = BatchBuilder::new();
        batch.push(&run);
        let bytes = batch.finish(UnixMillis(0xAB));
        let expected = "01 00000000000000ab 0001 \
             0000000000000009 0000000000000003 0000000000000002 0002 0000000a \
             00000001 08 00000001 09";
        assert_eq!(crate::codec::hex(&bytes), expected.replace(' ', ""));
        assert_eq!(Batch::decode(&bytes).unwrap(), Batch { ts: UnixMillis(0xAB), runs: vec![run] });
        for len in 0..bytes.len() {
            assert!(Batch::decode(&bytes.slice(..len)).is_err(), "{len}");
        }
    }

    #[test]
    fn a_run_builder_goes_on_where_it_was() {
        let mut builder = RunBuilder::new(ProducerId(9), 1);
        for expected in [1..3, 3..4] {
            for seq in expected.clone() {
                assert_eq!(builder.push(&Command::Tick), Ok(seq));
            }
            let len = builder.bytes();
            let run = builder.take(1).unwrap();
            assert_eq!((run.first_seq..run.end_seq(), run.encoded_len()), (expected, len));
        }
        assert!(builder.is_empty());
    }

    #[test]
    fn a_run_survives_its_bytes_and_what_follows_it() {
        let mut out = BytesMut::new();
        run(1, 3).encode(&mut out);
        run(4, 1).encode(&mut out);
        let mut bytes = out.freeze();
        assert_eq!(Run::decode(&mut bytes), Ok(run(1, 3)));
        assert_eq!(Run::decode(&mut bytes), Ok(run(4, 1)));
        assert!(bytes.is_empty());
        assert_eq!(run(1, 3).check(), Ok(()));
    }

    #[test]
    fn runs_that_do_not_hold_what_they_say_are_errors() {
        let whole = run(1, 3);
        let table = [
            ("empty", Run { count: 0, commands: Bytes::new(), ..whole.clone() }),
            ("too few", Run { count: 4, ..whole.clone() }),
            ("too many", Run { count: 2, ..whole.clone() }),
            ("before the first", Run { first_seq: 0, ..whole.clone() }),
            ("beyond the last", Run { first_seq: u64::MAX - 1, ..whole.clone() }),
            ("cut", Run { commands: whole.commands.slice(..whole.commands.len() - 1), ..whole }),
        ];
        for (name, run) in table {
            let mut out = BytesMut::new();
            run.encode(&mut out);
            assert!(Run::decode(&mut out.freeze()).is_err(), "{name}");
        }
        let unknown =
            Run { count: 1, commands: Bytes::from_static(&[0, 0, 0, 1, 99]), ..run(1, 1) };
        assert!(unknown.check().is_err());
    }

    #[test]
    fn a_run_is_split_at_either_limit_and_joined_again() {
        let whole = run(5, 6);
        let frame = whole.commands.len() / 6;
        #[rustfmt::skip]
        let table = [
            (6, usize::MAX, 6), (7, usize::MAX, 6), (2, usize::MAX, 2), (0, usize::MAX, 1),
            (9, RUN_HEADER_BYTES + 3 * frame, 3), (9, RUN_HEADER_BYTES + 3 * frame - 1, 2), (9, 0, 1),
        ];
        for (commands_max, bytes_max, expected) in table {
            let (first, rest) = whole.clone().split(commands_max, bytes_max);
            assert_eq!(first, run(5, expected), "{commands_max} {bytes_max}");
            match rest {
                Some(rest) => {
                    assert_eq!(rest, run(5 + expected, 6 - expected));
                    assert!(rest.follows(&first) && !first.follows(&rest));
                    assert_eq!(first.concat(&rest), whole);
                }
                None => assert_eq!(expected, 6),
            }
        }
    }

    #[test]
    fn a_batch_takes_what_fits_and_no_more() {
        let big = |bytes| {
            let mut builder = RunBuilder::new(ProducerId(1), 1);
            let message = moorline_core::Message {
                topic: "t".into(),
                qos: moorline_core::QoS::AtLeastOnce,
                retain: false,
                properties: Bytes::new(),
                expires_at: None,
                payload: Bytes::from(vec![0; bytes]),
            };
            let tenant = moorline_core::TenantId(1);
            builder.push(&Command::Publish { tenant, from: None, message }).unwrap();
            builder.take(1).unwrap()
        };
        let largest = big(COMMAND_BYTES_MAX - 16);
        assert_eq!(largest.commands.len(), FRAME_HEADER_BYTES + COMMAND_BYTES_MAX);
        let mut batch = BatchBuilder::new();
        assert!(batch.is_empty() && batch.fits(&largest));
        batch.push(&largest);
        assert!(!batch.fits(&largest) && batch.fits(&big(1000)));
        assert_eq!(batch.len_commands(), 1);
        assert_eq!(batch.bytes(), BATCH_HEADER_BYTES + largest.encoded_len());
        assert_eq!(Batch::decode(&batch.finish(UnixMillis(1))).unwrap().runs, [largest]);
    }
}
