//! Small histories, told step by step, into which the tests plant violations.

use crate::history::{Event, Fault, Leave, MessageId, Op, Phase, Stage};
use crate::loads::{
    Churn, ChurnAct, Held, Load, RetainAsk, Retained, Share, ShareAct, Will, WillAct,
};
use crate::requests::{MailAnswer, MailAsk, RecordAnswer, RecordAsk};
use crate::{Rules, Verdict, judge};

/// A millisecond, in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;

/// A history in the making. Every event is a millisecond after the one before, unless [`Story::wait`] says more.
pub(crate) struct Story {
    pub(crate) events: Vec<Event>,
    now_ns: u64,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self { events: Vec::new(), now_ns: 0 }
    }

    /// Publisher `p0` on connection 1 to node 1, subscriber `s0` on connection 2 to node 2, subscribed to `t/#`.
    pub(crate) fn with_clients() -> Self {
        let mut story = Self::new();
        story.connect("p0", 1, 1).connect("s0", 2, 2).subscribe("s0", 2, "t/#");
        story.mark(Stage::Publishing);
        story
    }

    pub(crate) fn wait(&mut self, ms: u64) -> &mut Self {
        self.now_ns += ms * MS;
        self
    }

    pub(crate) fn push(&mut self, p: &str, ph: Phase, node: Option<u32>, op: Op) -> &mut Self {
        self.now_ns += MS;
        let i = self.events.len() as u64;
        self.events.push(Event { i, ns: self.now_ns, p: p.into(), ph, op, node, err: None });
        self
    }

    pub(crate) fn connect(&mut self, p: &str, conn: u64, node: u32) -> &mut Self {
        let seen = self.events.iter().any(|event| event.p == p);
        self.connect_with(p, conn, node, seen)
    }

    pub(crate) fn connect_with(
        &mut self,
        p: &str,
        conn: u64,
        node: u32,
        present: bool,
    ) -> &mut Self {
        let op = Op::Connect { conn, clean: p.starts_with('p'), present, receive_max: 2 };
        self.push(p, Phase::Ok, Some(node), op)
    }

    pub(crate) fn leave(&mut self, p: &str, conn: u64) -> &mut Self {
        self.push(p, Phase::Ok, None, Op::Leave { conn, why: Leave::Lost })
    }

    pub(crate) fn subscribe(&mut self, p: &str, conn: u64, filter: &str) -> &mut Self {
        self.push(p, Phase::Ok, None, Op::Subscribe { conn, filters: vec![filter.into()] })
    }

    /// A half of publisher 0's attempt at message `seq`, topic `t/a`, node 1.
    pub(crate) fn publish(&mut self, ph: Phase, conn: u64, seq: u64) -> &mut Self {
        let message = MessageId { publisher: 0, seq };
        self.push(
            "p0",
            ph,
            Some(1),
            Op::Publish { conn, message, topic: "t/a".into(), once: false },
        )
    }

    /// A whole acknowledged publish.
    pub(crate) fn acked(&mut self, conn: u64, seq: u64) -> &mut Self {
        self.publish(Phase::Invoke, conn, seq).publish(Phase::Ok, conn, seq)
    }

    /// `s0` gets message `seq` under a packet id of the same number.
    pub(crate) fn deliver(&mut self, conn: u64, seq: u64) -> &mut Self {
        let packet = u16::try_from(seq).unwrap();
        self.deliver_as(conn, seq, packet, "t/a", true)
    }

    pub(crate) fn deliver_as(
        &mut self,
        conn: u64,
        seq: u64,
        packet: u16,
        topic: &str,
        intact: bool,
    ) -> &mut Self {
        let message = Some(MessageId { publisher: 0, seq });
        let op = Op::Deliver {
            conn,
            message,
            topic: topic.into(),
            packet,
            dup: false,
            intact,
            once: false,
        };
        self.push("s0", Phase::Ok, None, op)
    }

    pub(crate) fn ack(&mut self, p: &str, conn: u64, packet: u16) -> &mut Self {
        self.push(p, Phase::Ok, None, Op::Ack { conn, packet })
    }

    /// `s0` gets message `seq` and acknowledges it.
    pub(crate) fn taken(&mut self, conn: u64, seq: u64) -> &mut Self {
        self.deliver(conn, seq).ack("s0", conn, u16::try_from(seq).unwrap())
    }

    pub(crate) fn fault(&mut self, fault: Fault, node: u32) -> &mut Self {
        self.push("nemesis", Phase::Ok, Some(node), Op::Fault { fault, leader: true })
    }

    pub(crate) fn mark(&mut self, stage: Stage) -> &mut Self {
        self.push("harness", Phase::Ok, None, Op::Mark { stage })
    }

    pub(crate) fn digest(&mut self, node: u32, index: u64, digest: &str) -> &mut Self {
        let op = Op::Digest { shard: 0, index, digest: digest.into() };
        self.push("harness", Phase::Ok, Some(node), op)
    }

    /// A half of a request about the record of device `d`.
    pub(crate) fn record(
        &mut self,
        ph: Phase,
        op: u64,
        ask: RecordAsk,
        answer: Option<RecordAnswer>,
    ) -> &mut Self {
        self.push("w4", ph, Some(1), Op::Record { op, device: "d".into(), ask, answer })
    }

    /// A half of a request about the mailbox of device `d`.
    pub(crate) fn mail(
        &mut self,
        ph: Phase,
        op: u64,
        ask: MailAsk,
        answer: Option<MailAnswer>,
    ) -> &mut Self {
        self.push("w3", ph, Some(1), Op::Mail { op, device: "d".into(), ask, answer })
    }

    /// An event of share 0.
    pub(crate) fn share(&mut self, ph: Phase, p: &str, act: ShareAct) -> &mut Self {
        self.push(p, ph, Some(1), Op::Load(Load::Share(Share { group: 0, act })))
    }

    /// An event of a life with a will, or of who watches.
    pub(crate) fn will(&mut self, ph: Phase, p: &str, life: u64, act: WillAct) -> &mut Self {
        self.push(p, ph, Some(1), Op::Load(Load::Will(Will { life, act })))
    }

    /// An event of device `d`, whose credentials come and go.
    pub(crate) fn churn(&mut self, ph: Phase, node: u32, act: ChurnAct) -> &mut Self {
        let churn = Churn { device: "d".into(), act };
        self.push("w8", ph, Some(node), Op::Load(Load::Churn(churn)))
    }

    /// A half of a request about what topic `t` retains.
    pub(crate) fn retained(
        &mut self,
        ph: Phase,
        op: u64,
        ask: RetainAsk,
        held: Option<Held>,
    ) -> &mut Self {
        let retained = Retained { op, topic: "t".into(), ask, held };
        self.push("w6", ph, Some(1), Op::Load(Load::Retained(retained)))
    }

    /// A whole request about the mailbox, with nothing beside it.
    pub(crate) fn mailed(&mut self, ask: MailAsk, answer: MailAnswer) -> &mut Self {
        let op = self.events.len() as u64;
        self.mail(Phase::Invoke, op, ask, None).mail(Phase::Ok, op, ask, Some(answer))
    }

    /// A whole request about the record.
    pub(crate) fn recorded(&mut self, ask: RecordAsk, answer: RecordAnswer) -> &mut Self {
        let op = self.events.len() as u64;
        self.record(Phase::Invoke, op, ask, None).record(Phase::Ok, op, ask, Some(answer))
    }

    /// The verdict under rules that ask for nothing more than what is in the story.
    pub(crate) fn judged(&mut self) -> Verdict {
        self.mark(Stage::Drained);
        let rules = Rules { acked_min: 0, faults_min: 0, replicas: 0, ..Rules::default() };
        judge(&self.events, &rules)
    }

    /// How many violations the named check finds.
    pub(crate) fn found(&mut self, check: &str) -> u64 {
        self.judged().check(check).unwrap().found
    }
}
