//! QoS 2's other packets: PUBREC, PUBREL and PUBCOMP, both ways (3.5 to 3.7, 4.3.3), and the client's PUBACKs (3.4).
//!
//! ```text
//!   PUBLISH ──► Publishing ──PUBREC──► Received ──PUBREL──► Completing ──PUBCOMP──► (the packet id is free)
//!               PUBREL of an id that this connection does not know ──► Asked ──PUBCOMP──► (as before)
//! ```
//!
//! What deliveries wait for is in [`super::outbound`].

use std::collections::BTreeMap;

use moorline_core::Offset;

use crate::{
    Now,
    codec::{Ack, PacketId, PacketType, Reason},
};

use super::{Connection, Event, close::Ending, outbound::Awaits, packet_id_of};

/// How far a QoS 2 publish of the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The service has it; its PUBREC was not sent.
    Publishing,
    /// The PUBREC was sent.
    Received,
    /// The PUBREL came; the service has it.
    Completing,
    /// A PUBREL came for what an earlier connection may have received; the service has it.
    Asked,
}

/// The client's QoS 2 publishes that are not complete, by packet id: at most as many as there are ids.
#[derive(Debug, Default)]
pub(super) struct Flows {
    stages: BTreeMap<PacketId, Stage>,
    /// Those that are [`Stage::Completing`] or [`Stage::Asked`].
    completing: usize,
    /// Those that are [`Stage::Received`] or [`Stage::Completing`].
    received: usize,
}

impl Flows {
    pub(super) fn stage(&self, id: PacketId) -> Option<Stage> {
        self.stages.get(&id).copied()
    }

    pub(super) fn set(&mut self, id: PacketId, stage: Stage) {
        self.end(id);
        self.stages.insert(id, stage);
        self.completing += usize::from(is_completing(stage));
        self.received += usize::from(is_received(stage));
    }

    pub(super) fn end(&mut self, id: PacketId) {
        if let Some(stage) = self.stages.remove(&id) {
            self.completing -= usize::from(is_completing(stage));
            self.received -= usize::from(is_received(stage));
        }
    }

    /// PUBRELs that wait for the service.
    pub(super) fn completing(&self) -> usize {
        self.completing
    }

    /// Publishes of this connection that were received and are not complete.
    pub(super) fn received(&self) -> usize {
        self.received
    }
}

fn is_completing(stage: Stage) -> bool {
    match stage {
        Stage::Completing | Stage::Asked => true,
        Stage::Publishing | Stage::Received => false,
    }
}

fn is_received(stage: Stage) -> bool {
    match stage {
        Stage::Received | Stage::Completing => true,
        Stage::Publishing | Stage::Asked => false,
    }
}

impl Connection {
    // ---- what the client publishes

    pub(super) fn on_pubrel(&mut self, now: Now, ack: &Ack) {
        let stage = match self.inbound.flows.stage(ack.id) {
            Some(Stage::Publishing) => {
                return self.fail(now, &Ending::protocol("PUBREL before the PUBREC"));
            }
            // The one PUBCOMP is for both.
            Some(Stage::Completing | Stage::Asked) => return,
            Some(Stage::Received) => Stage::Completing,
            // No earlier connection has left anything.
            None if !self.peer.resumed => {
                self.counters.unknown_acks += 1;
                // Whatever it was about is over, which is what the client wants to know: docs/decisions/013-which-error.md.
                return self.send_ack(PacketType::PubComp, ack.id, Reason::Success);
            }
            None => Stage::Asked,
        };
        self.inbound.flows.set(ack.id, stage);
        self.events.push_back(Event::Complete(ack.id));
    }

    pub(super) fn on_completed(&mut self, packet: u16, known: bool) {
        let Some(id) = PacketId::new(packet) else { return };
        match self.inbound.flows.stage(id) {
            Some(Stage::Completing) => {}
            Some(Stage::Asked) => self.counters.unknown_acks += u64::from(!known),
            Some(Stage::Publishing | Stage::Received) | None => return,
        }
        self.inbound.flows.end(id);
        self.send_ack(PacketType::PubComp, id, Reason::Success);
    }

    // ---- what the client is sent

    pub(super) fn on_puback(&mut self, now: Now, ack: &Ack) {
        match self.outbound.awaits(ack.id) {
            None => self.counters.unknown_acks += 1,
            // A reason of 0x80 or above is an answer too: the client does not want it again (4.4).
            Some(Awaits::PubAck) => self.delivered(ack.id),
            Some(Awaits::PubRec | Awaits::Release | Awaits::PubComp) => {
                self.fail(now, &Ending::protocol("PUBACK for a QoS 2 delivery"));
            }
        }
    }

    pub(super) fn on_pubrec(&mut self, now: Now, ack: &Ack) {
        let (id, refused) = (ack.id, ack.reason.is_error());
        match self.outbound.awaits(id) {
            None => {
                self.counters.unknown_acks += 1;
                // A PUBREL would free the id at the client, which would then take the PUBLISH that is still to go out
                // again for a new one. That PUBLISH, or the PUBREL of a delivery that was released, is the answer.
                if !refused && !self.outbound.is_queued(id) {
                    self.send_ack(PacketType::PubRel, id, Reason::Success);
                }
            }
            Some(Awaits::PubAck) => {
                self.fail(now, &Ending::protocol("PUBREC for a QoS 1 delivery"));
            }
            // The client does not want it, and the flow ends here (4.3.3).
            Some(Awaits::PubRec) if refused => self.delivered(id),
            Some(Awaits::PubRec) => match self.outbound.received(id) {
                Some(offset) => self.received.push(offset),
                None => self.send_ack(PacketType::PubRel, id, Reason::Success),
            },
            // Its PUBREL is on its way.
            Some(Awaits::Release) => {}
            Some(Awaits::PubComp) if refused => {}
            Some(Awaits::PubComp) => self.send_ack(PacketType::PubRel, id, Reason::Success),
        }
    }

    /// The PUBLISHes of these will never go out again.
    pub(super) fn on_released(&mut self, offsets: &[Offset]) {
        for &offset in offsets {
            let id = packet_id_of(offset);
            if self.outbound.released(id, offset) {
                self.send_ack(PacketType::PubRel, id, Reason::Success);
            }
        }
    }

    pub(super) fn on_pubcomp(&mut self, now: Now, ack: &Ack) {
        match self.outbound.awaits(ack.id) {
            None => self.counters.unknown_acks += 1,
            Some(Awaits::PubComp) => self.delivered(ack.id),
            Some(Awaits::PubAck) => {
                self.fail(now, &Ending::protocol("PUBCOMP for a QoS 1 delivery"));
            }
            Some(Awaits::PubRec | Awaits::Release) => {
                self.fail(now, &Ending::protocol("PUBCOMP before the PUBREL"));
            }
        }
    }

    /// A delivery is over.
    fn delivered(&mut self, id: PacketId) {
        self.counters.deliveries_acked += 1;
        self.settled.extend(self.outbound.end(id));
        self.settled_shared.extend(self.outbound.acknowledge_shared(id));
    }
}
