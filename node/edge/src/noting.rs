//! What is remembered of what a device said here and what it was told, for who asks why something did not arrive.
//!
//! Invariant: what is noted is what the device's own words were, and what it was answered: it is taken between the protocol machine and
//! whoever serves the connection. Checked by `tests/trail.rs`.

use moorline_core::{
    ConnId, Delivery, Message, Offset, QoS, Text, UnixMillis,
    port::{Ended, Filter, Notice, Opened, PlatformReason, Refusal, Token},
};
use moorline_explain::{Became, Cause, Note, Stage, Trail};
use moorline_mqtt::server::CloseReason;

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

    /// It acknowledged deliveries.
    pub(crate) fn settled(&self, at: UnixMillis, offsets: &[Offset]) {
        let Some(trail) = &self.trail else { return };
        let count = u32::try_from(offsets.len()).unwrap_or(u32::MAX);
        let note = Note { conn: self.conn, count, ..Note::new(at, Stage::Settle, "") };
        trail.count(note);
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
                    Err(refusal) => Became::Refused(of_publish(*refusal)),
                };
                self.became(Stage::Publish, *token, at, became);
            }
            Notice::Subscribed { token, granted: Ok(granted) } => {
                // The first filter's note is found last.
                for granted in granted.iter().rev() {
                    let became = granted.map_or_else(
                        |refusal| Became::Refused(of_subscribe(refusal)),
                        |_| Became::Done,
                    );
                    self.became(Stage::Subscribe, *token, at, became);
                }
            }
            Notice::Subscribed { token, granted: Err(refusal) } => {
                let became = Became::Refused(of_subscribe(*refusal));
                self.became(Stage::Subscribe, *token, at, became);
            }
            Notice::Unsubscribed { token, existed } => {
                let one = |became| self.became(Stage::Unsubscribe, *token, at, became);
                match existed {
                    Ok(existed) => existed.iter().for_each(|_| one(Became::Done)),
                    Err(refusal) => one(Became::Refused(of_subscribe(*refusal))),
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
            Err(refusal) => Became::Refused(of_session(*refusal)),
        };
        self.became(Stage::Session, 0, at, became);
    }

    fn deliver(&self, at: UnixMillis, delivery: &Delivery) {
        if delivery.released {
            // It went out before.
            return;
        }
        self.add(|| Note {
            offset: delivery.offset.map(|offset| offset.0),
            qos: Some(delivery.qos as u8),
            ..of_message(at, Stage::Deliver, &delivery.message)
        });
    }

    /// Its connection ended.
    pub(crate) fn closed(&self, at: UnixMillis, reason: CloseReason) {
        let became = cause_of(reason).map_or(Became::Done, Became::DoneBut);
        self.add(|| Note { became, ..Note::new(at, Stage::End, reason.label()) });
    }
}

fn of_message(at: UnixMillis, stage: Stage, message: &Message) -> Note {
    Note::of_message(at, stage, &message.topic, &message.payload, message.qos as u8)
}

fn of_session(refusal: Refusal) -> Cause {
    match refusal {
        Refusal::Busy => Cause::SessionBusy,
        Refusal::Unavailable => Cause::SessionUnavailable,
        Refusal::Quota => Cause::SessionsFull,
        Refusal::DiskFull => Cause::DiskFull,
        Refusal::NotAuthorised => Cause::NotAuthorised,
        Refusal::TooLarge => Cause::TooLarge,
        Refusal::Topic => Cause::UnknownTopic,
        Refusal::Payload => Cause::UnreadablePayload,
        Refusal::Platform(_) => Cause::PlatformRefused,
    }
}

fn of_publish(refusal: Refusal) -> Cause {
    match refusal {
        Refusal::Busy => Cause::PublishBusy,
        Refusal::Unavailable => Cause::PublishUnavailable,
        Refusal::Quota => Cause::QueueFull,
        Refusal::DiskFull => Cause::DiskFull,
        Refusal::NotAuthorised => Cause::PublishForbidden,
        Refusal::TooLarge => Cause::TooLarge,
        Refusal::Topic => Cause::UnknownTopic,
        Refusal::Payload => Cause::UnreadablePayload,
        Refusal::Platform(_) => Cause::PlatformRefused,
    }
}

fn of_subscribe(refusal: Refusal) -> Cause {
    match refusal {
        Refusal::Busy | Refusal::Unavailable => Cause::SubscribeUnavailable,
        Refusal::Quota => Cause::SubscriptionsFull,
        Refusal::DiskFull => Cause::DiskFull,
        Refusal::NotAuthorised => Cause::SubscribeForbidden,
        Refusal::TooLarge => Cause::TooLarge,
        Refusal::Topic
        | Refusal::Payload
        | Refusal::Platform(
            PlatformReason::Unspecified | PlatformReason::Unsupported | PlatformReason::Wildcard,
        ) => Cause::FilterRefused,
    }
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
        CloseReason::PeerGone => Cause::PeerGone,
        CloseReason::ConnectTimeout => Cause::ConnectTimeout,
        CloseReason::OpenTimeout => Cause::OpenTimeout,
        CloseReason::KeepAliveTimeout => Cause::Silent,
        CloseReason::WriteTimeout => Cause::TakesNothing,
        CloseReason::NotMqtt => Cause::NotMqtt,
        CloseReason::UnsupportedVersion => Cause::VersionRefused,
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
