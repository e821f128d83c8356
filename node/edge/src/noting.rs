//! What is remembered of what a device said here and what it was told, for who asks why something did not arrive.
//!
//! Invariant: what is noted is what the device's own words were, and what it was answered: it is taken between the protocol machine and
//! whoever serves the connection. Checked below, and by the cluster tests (`explain.rs`).

use moorline_core::{
    ConnId, Delivery, Message, Offset, QoS, ShareNumber, Text, UnixMillis,
    port::{Ended, Filter, Notice, Opened, Refusal, Token},
};
use moorline_explain::{Became, Cause, Note, Stage, Trail};
use moorline_mqtt::server::{CloseReason, Counters, Limit};

/// Who notes for a connection; notes nothing before it is known whose connection it is.
#[derive(Debug, Default)]
pub(crate) struct Noting {
    trail: Option<Trail>,
    conn: u64,
}

impl Noting {
    /// It is this device's from now on.
    pub(crate) fn begin(
        &mut self,
        trail: Option<Trail>,
        conn: ConnId,
        at: UnixMillis,
        session: &Text,
    ) {
        *self = Self { trail, conn: conn.0 };
        self.waiting(Note::new(at, Stage::Session, session.as_str()), 0);
    }

    fn add(&self, note: impl FnOnce() -> Note) {
        if let Some(trail) = &self.trail {
            trail.add(Note { conn: self.conn, ..note() });
        }
    }

    fn waiting(&self, note: Note, token: Token) {
        self.add(|| Note { token, became: Became::Waiting, ..note });
    }

    fn became(&self, stage: Stage, token: Token, at: UnixMillis, became: Became) {
        if let Some(trail) = &self.trail {
            trail.became(self.conn, stage, token, at, became);
        }
    }

    /// It published something.
    pub(crate) fn publish(&self, at: UnixMillis, token: Token, message: &Message) {
        let passing = message.qos == QoS::AtMostOnce;
        self.add(|| Note {
            token,
            // Nobody answers it.
            became: if passing { Became::Done } else { Became::Waiting },
            ..of_message(at, Stage::Publish, message)
        });
    }

    /// It subscribes.
    pub(crate) fn subscribe(&self, at: UnixMillis, token: Token, filters: &[Filter]) {
        if self.trail.is_none() {
            return;
        }
        for Filter { filter, options } in filters {
            let note = Note::new(at, Stage::Subscribe, filter.as_str());
            self.waiting(Note { qos: Some(options.qos as u8), ..note }, token);
        }
    }

    /// It unsubscribes.
    pub(crate) fn unsubscribe(&self, at: UnixMillis, token: Token, filters: &[Text]) {
        if self.trail.is_none() {
            return;
        }
        for filter in filters {
            self.waiting(Note::new(at, Stage::Unsubscribe, filter.as_str()), token);
        }
    }

    /// It acknowledged deliveries of its queue.
    pub(crate) fn settled(&self, at: UnixMillis, offsets: &[Offset]) {
        self.acknowledged(at, offsets.iter().map(|offset| place(None, *offset)));
    }

    /// It acknowledged deliveries of shared subscriptions.
    pub(crate) fn settled_shared(&self, at: UnixMillis, items: &[(ShareNumber, Offset)]) {
        self.acknowledged(at, items.iter().map(|(share, offset)| place(Some(*share), *offset)));
    }

    /// Each delivery says how long that took; of those that are not remembered any more it is counted how many they are.
    fn acknowledged(&self, at: UnixMillis, places: impl Iterator<Item = Token>) {
        let Some(trail) = &self.trail else { return };
        let is_known = |place| trail.became(self.conn, Stage::Deliver, place, at, Became::Done);
        let unknown = places.filter(|place| !is_known(*place)).count();
        if unknown > 0 {
            let count = u32::try_from(unknown).unwrap_or(u32::MAX);
            trail.count(Note { conn: self.conn, count, ..Note::new(at, Stage::Settle, "") });
        }
    }

    /// Copies for it that were not sent: what the protocol machine counted, and what its inbox had no room for.
    pub(crate) fn dropped(&self, at: UnixMillis, counters: &Counters, slow: usize) {
        let Some(trail) = &self.trail else { return };
        let slow = u64::try_from(slow).unwrap_or(u64::MAX);
        for (count, cause) in [
            (counters.dropped_queue_full.saturating_add(slow), Cause::SlowClient),
            (counters.dropped_too_large, Cause::TooLargeForClient),
            (counters.expired, Cause::MessageExpired),
        ] {
            if count > 0 {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                let note = Note::new(at, Stage::Deliver, "");
                let became = Became::Dropped(cause);
                trail.count(Note { conn: self.conn, count, became, ..note });
            }
        }
    }

    /// What the protocol machine refused by itself, so that nobody was asked: topics and filters that are too long.
    pub(crate) fn refused(&self, at: UnixMillis, counters: &Counters) {
        let Some(trail) = &self.trail else { return };
        for limit in [Limit::TopicBytes, Limit::TopicLevels] {
            let times = counters.limits[limit as usize];
            if times > 0 {
                let count = u32::try_from(times).unwrap_or(u32::MAX);
                let note = Note::new(at, Stage::Request, limit.label());
                let became = Became::Refused(Cause::TopicNotAccepted);
                trail.again(Note { conn: self.conn, count, became, ..note });
            }
        }
    }

    /// It was let in, and comes too often.
    pub(crate) fn too_often(trail: Option<&Trail>, at: UnixMillis, session: &Text) {
        if let Some(trail) = trail {
            let became = Became::Refused(Cause::TooManyConnects);
            trail.again(Note { became, ..Note::new(at, Stage::Session, session.as_str()) });
        }
    }

    /// It is told this.
    pub(crate) fn notice(&self, at: UnixMillis, notice: &Notice) {
        if self.trail.is_none() {
            return;
        }
        match notice {
            Notice::Opened(opened) => self.opened(at, opened),
            Notice::Published { token, outcome } => {
                let became = match outcome {
                    Ok(published) if published.matched => Became::Done,
                    Ok(_) => Became::DoneBut(Cause::NobodyListens),
                    Err(refusal) => Became::Refused(Cause::of_publish(*refusal)),
                };
                self.became(Stage::Publish, *token, at, became);
            }
            Notice::Subscribed { token, granted: Ok(granted) } => {
                // The first filter's note is found last.
                for granted in granted.iter().rev() {
                    let became = granted.map_or_else(
                        |refusal| Became::Refused(Cause::of_subscribe(refusal)),
                        |_| Became::Done,
                    );
                    self.became(Stage::Subscribe, *token, at, became);
                }
            }
            Notice::Subscribed { token, granted: Err(refusal) } => {
                let became = Became::Refused(Cause::of_subscribe(*refusal));
                self.became(Stage::Subscribe, *token, at, became);
            }
            Notice::Unsubscribed { token, existed } => {
                let one = |became| self.became(Stage::Unsubscribe, *token, at, became);
                match existed {
                    Ok(existed) => existed.iter().for_each(|_| one(Became::Done)),
                    Err(refusal) => one(Became::Refused(Cause::of_subscribe(*refusal))),
                }
            }
            Notice::Deliver(deliveries) | Notice::Retained(deliveries) => {
                deliveries.iter().for_each(|delivery| self.deliver(at, delivery));
            }
            // What they mean is said when the connection ends.
            Notice::Completed { .. }
            | Notice::Released(_)
            | Notice::TakenOver
            | Notice::Stopping { .. }
            | Notice::Lost
            | Notice::Ended(
                Ended::Revoked
                | Ended::Misused
                | Ended::TooLarge
                | Ended::Limited
                | Ended::Finished,
            ) => {}
        }
    }

    fn opened(&self, at: UnixMillis, opened: &Result<Opened, Refusal>) {
        let became = match opened {
            Ok(_) => Became::Done,
            Err(refusal) => Became::Refused(Cause::of_session(*refusal)),
        };
        self.became(Stage::Session, 0, at, became);
    }

    fn deliver(&self, at: UnixMillis, delivery: &Delivery) {
        if delivery.released {
            // It went out before.
            return;
        }
        // What passes by is in no queue, and nobody hears whether it was acknowledged.
        let waits = delivery.qos != QoS::AtMostOnce && delivery.offset.is_some();
        self.add(|| Note {
            token: delivery.offset.map_or(0, |offset| place(delivery.share, offset)),
            became: if waits { Became::Waiting } else { Became::Done },
            offset: delivery.offset.map(|offset| offset.0),
            qos: Some(delivery.qos as u8),
            ..of_message(at, Stage::Deliver, &delivery.message)
        });
    }

    /// Its connection ended.
    pub(crate) fn closed(&self, at: UnixMillis, reason: CloseReason) {
        if let Some(trail) = &self.trail {
            trail.ended(self.conn);
        }
        let became = cause_of(reason).map_or(Became::Done, Became::DoneBut);
        self.add(|| Note { became, ..Note::new(at, Stage::End, reason.label()) });
    }
}

/// What a delivery is found by when it is acknowledged. Shares are few, and their offsets far below 2^40.
fn place(share: Option<ShareNumber>, offset: Offset) -> Token {
    offset.0 ^ share.map_or(0, |share| (u64::from(share.0) + 1) << 40)
}

fn of_message(at: UnixMillis, stage: Stage, message: &Message) -> Note {
    Note::of_message(at, stage, &message.topic, &message.payload, message.qos as u8)
}

/// Why a connection ended, where that is nobody's wish.
fn cause_of(reason: CloseReason) -> Option<Cause> {
    Some(match reason {
        CloseReason::ClientDisconnect | CloseReason::Finished => return None,
        // What was refused has its own note.
        CloseReason::ClientDisconnectWithWill
        | CloseReason::ConnectRefused
        | CloseReason::PublishRefused
        | CloseReason::SubscribeRefused
        | CloseReason::UnsubscribeRefused => return None,
        // Nobody's yet: it has not said who it is.
        CloseReason::ConnectTimeout | CloseReason::NotMqtt | CloseReason::UnsupportedVersion => {
            return None;
        }
        CloseReason::PeerGone => Cause::PeerGone,
        CloseReason::OpenTimeout => Cause::OpenTimeout,
        CloseReason::KeepAliveTimeout => Cause::Silent,
        CloseReason::WriteTimeout => Cause::TakesNothing,
        CloseReason::Malformed => Cause::Malformed,
        CloseReason::ProtocolError => Cause::ProtocolError,
        CloseReason::PacketTooLarge => Cause::TooLarge,
        CloseReason::QuotaExceeded => Cause::TooManyInPacket,
        CloseReason::ReceiveMaximumExceeded => Cause::TooManyUnanswered,
        CloseReason::TopicAliasInvalid => Cause::TopicAlias,
        CloseReason::TopicNotAccepted => Cause::TopicNotAccepted,
        CloseReason::NotSupported => Cause::NotSupported,
        CloseReason::TakenOver => Cause::TakenOver,
        CloseReason::Stopping => Cause::NodeStops,
        CloseReason::Lost => Cause::PromiseLost,
        CloseReason::Overrun => Cause::Overrun,
        CloseReason::Revoked => Cause::Revoked,
        CloseReason::Misused => Cause::Misused,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use moorline_core::TenantId;
    use moorline_explain::{Limits, Trails};

    use super::*;

    fn noting() -> (Noting, Trail) {
        let device = Text::from("d");
        let trail = Trails::new(Limits::default()).of(TenantId(1), &device).unwrap();
        let mut noting = Noting::default();
        noting.begin(Some(trail.clone()), ConnId(7), UnixMillis(1), &device);
        (noting, trail)
    }

    fn delivery(offset: Option<u64>, share: Option<u32>) -> Delivery {
        let message = Arc::new(Message {
            topic: Text::from("t"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            payload: Bytes::from_static(b"secret"),
        });
        let share = share.map(ShareNumber);
        Delivery { share, ..Delivery::new(offset.map(Offset), QoS::AtLeastOnce, message) }
    }

    fn deliveries(trail: &Trail) -> Vec<(Option<u64>, Became, Option<u32>)> {
        let notes = trail.since(UnixMillis(0)).into_iter();
        let sent = notes.filter(|note| note.stage == Stage::Deliver);
        sent.map(|note| (note.offset, note.became, note.took_us)).collect()
    }

    #[test]
    fn a_delivery_says_when_it_was_acknowledged_or_that_it_was_not() {
        let (noting, trail) = noting();
        let all = [
            delivery(Some(5), None),
            delivery(Some(5), Some(0)),
            delivery(None, None),
            delivery(Some(6), None),
        ];
        noting.notice(UnixMillis(10), &Notice::Deliver(all.to_vec()));
        noting.settled_shared(UnixMillis(25), &[(ShareNumber(0), Offset(5))]);
        let waits = Became::Waiting;
        let expected = [
            (Some(5), waits, None),
            (Some(5), Became::Done, Some(15_000)),
            (None, Became::Done, None),
            (Some(6), waits, None),
        ];
        assert_eq!(deliveries(&trail), expected);
        noting.settled(UnixMillis(30), &[Offset(5), Offset(4)]);
        noting.closed(UnixMillis(40), CloseReason::PeerGone);
        let expected = [
            (Some(5), Became::Done, Some(20_000)),
            (Some(5), Became::Done, Some(15_000)),
            (None, Became::Done, None),
            (Some(6), Became::DoneBut(Cause::Unacknowledged), None),
        ];
        assert_eq!(deliveries(&trail), expected);
        let notes = trail.since(UnixMillis(0));
        let older = notes.iter().find(|note| note.stage == Stage::Settle).unwrap();
        assert_eq!(older.count, 1, "of what is not remembered it is known how many");
        assert_eq!(notes[0].became, Became::DoneBut(Cause::ConnectionEnded), "no answer came");
        assert!(!format!("{notes:?}").contains("secret"), "payloads are not kept");
    }

    #[test]
    fn what_was_not_sent_is_counted_by_why() {
        let (noting, trail) = noting();
        let counters = Counters { dropped_too_large: 2, expired: 1, ..Counters::default() };
        noting.dropped(UnixMillis(2), &counters, 3);
        noting.dropped(UnixMillis(3), &Counters::default(), 0);
        noting.refused(UnixMillis(3), &Counters::default());
        noting.dropped(UnixMillis(4), &Counters { expired: 4, ..Counters::default() }, 0);
        let notes = trail.since(UnixMillis(2));
        let told: Vec<_> = notes.iter().map(|note| (note.became.cause(), note.count)).collect();
        let expected =
            [(Cause::SlowClient, 3), (Cause::TooLargeForClient, 2), (Cause::MessageExpired, 5)];
        assert_eq!(told, expected.map(|(cause, count)| (Some(cause), count)));
    }
}
