//! The ways a connection ends, and what the client is told.

use moorline_core::{
    Text,
    port::{Close, Failure, PlatformReason, Refusal},
};

use crate::{
    Now,
    codec::{
        Carrier, ConnAck, ConnAckProperties, DecodeError, Disconnect, Packet, Quota, Reason,
        Version,
    },
};

use super::{CloseReason, Closed, Connection, Fate, Limit, State};

/// Why the server ends a connection, and how it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) closed: CloseReason,
    /// For a DISCONNECT, and for a CONNACK if it fits there.
    pub(super) reason: Reason,
    /// For a CONNACK, if the reason can't stand there.
    connack: Reason,
    /// Whether 3.1.1 has a return code for it before the session is open. Without one the socket is just closed.
    connack_v3: bool,
    /// Whether nothing is said at all.
    silent: bool,
    /// For the Reason String: what the client did, or what happened.
    why: Option<Text>,
    server_reference: Option<Text>,
    /// The limit that was reached, if it was one.
    pub(super) limit: Option<Limit>,
}

/// An ending of the server's own, whose words are the same each time.
macro_rules! ending {
    ($name:ident, $closed:ident, $reason:ident, $connack:ident, $v3:expr, $limit:expr) => {
        pub(super) const $name: Self = Self {
            closed: CloseReason::$closed,
            reason: Reason::$reason,
            connack: Reason::$connack,
            connack_v3: $v3,
            silent: false,
            why: None,
            server_reference: None,
            limit: $limit,
        };
    };
}

impl Ending {
    ending!(TAKEN_OVER, TakenOver, SessionTakenOver, ServerUnavailable, true, None);
    ending!(LOST, Lost, ServerBusy, ServerUnavailable, true, None);
    ending!(OVERRUN, Overrun, ServerBusy, ServerUnavailable, true, None);
    ending!(REVOKED, Revoked, NotAuthorized, NotAuthorized, true, None);
    ending!(MISUSED, Misused, ImplementationSpecificError, UnspecifiedError, false, None);
    ending!(MESSAGE_TOO_LARGE, PacketTooLarge, PacketTooLarge, PacketTooLarge, false, None);
    ending!(LIMITED, QuotaExceeded, QuotaExceeded, QuotaExceeded, false, None);
    ending!(FINISHED, Finished, Success, ServerUnavailable, true, None);
    ending!(STOPPING, Stopping, ServerShuttingDown, ServerUnavailable, true, None);
    ending!(
        CONNECT_TIMEOUT,
        ConnectTimeout,
        UnspecifiedError,
        UnspecifiedError,
        false,
        Some(Limit::FirstPacket)
    );
    ending!(OPEN_TIMEOUT, OpenTimeout, ServerUnavailable, ServerUnavailable, true, None);
    ending!(KEEP_ALIVE_TIMEOUT, KeepAliveTimeout, KeepAliveTimeout, UnspecifiedError, false, None);
    ending!(
        WRITE_TIMEOUT,
        WriteTimeout,
        UnspecifiedError,
        UnspecifiedError,
        false,
        Some(Limit::WriteStall)
    );
    ending!(ANSWER_TOO_LARGE, PacketTooLarge, PacketTooLarge, PacketTooLarge, false, None);

    /// The client's right to be here has ended, as its platform says it.
    pub(super) fn revoked(reason: Reason) -> Self {
        Self { reason, ..Self::REVOKED }
    }

    /// The client broke a rule.
    pub(super) fn of(closed: CloseReason, reason: Reason, why: &str) -> Self {
        Self {
            closed,
            reason,
            connack: Reason::UnspecifiedError,
            connack_v3: false,
            silent: false,
            why: Some(Text::from(why)),
            server_reference: None,
            limit: None,
        }
    }

    /// The same, because a limit was reached.
    pub(super) fn by(self, limit: Limit) -> Self {
        Self { limit: Some(limit), ..self }
    }

    pub(super) fn protocol(why: &str) -> Self {
        Self::of(CloseReason::ProtocolError, Reason::ProtocolError, why)
    }

    /// A CONNECT is refused, politely in every version.
    pub(super) fn refuse(reason: Reason, why: Option<&str>) -> Self {
        Self {
            closed: CloseReason::ConnectRefused,
            reason,
            connack: Reason::UnspecifiedError,
            connack_v3: true,
            silent: false,
            why: why.map(Text::from),
            server_reference: None,
            limit: None,
        }
    }
}

impl From<DecodeError> for Ending {
    fn from(error: DecodeError) -> Self {
        let closed = match error {
            DecodeError::Malformed(_) | DecodeError::Unreadable(_) => CloseReason::Malformed,
            DecodeError::Protocol(_) => CloseReason::ProtocolError,
            DecodeError::TopicAlias => CloseReason::TopicAliasInvalid,
            DecodeError::TooLarge { .. } => CloseReason::PacketTooLarge,
            DecodeError::Quota(_) => CloseReason::QuotaExceeded,
            DecodeError::UnsupportedVersion(_) => CloseReason::UnsupportedVersion,
            DecodeError::NotConnect => CloseReason::NotMqtt,
        };
        let silent = matches!(error, DecodeError::Unreadable(_));
        let limit = match error {
            DecodeError::TooLarge { .. } => Some(Limit::PacketBytes),
            DecodeError::Quota(Quota::UserProperties) => Some(Limit::UserProperties),
            DecodeError::Quota(Quota::PropertyBytes) => Some(Limit::PropertyBytes),
            DecodeError::Quota(Quota::Filters) => Some(Limit::Filters),
            DecodeError::Malformed(_)
            | DecodeError::Unreadable(_)
            | DecodeError::Protocol(_)
            | DecodeError::TopicAlias
            | DecodeError::UnsupportedVersion(_)
            | DecodeError::NotConnect => None,
        };
        Self { silent, limit, ..Self::of(closed, error.reason(), &error.to_string()) }
    }
}

/// The reason that a platform gives.
pub(super) fn platform_reason(reason: PlatformReason) -> Reason {
    match reason {
        PlatformReason::Unspecified => Reason::UnspecifiedError,
        PlatformReason::Unsupported => Reason::ImplementationSpecificError,
        PlatformReason::Wildcard => Reason::WildcardSubscriptionsNotSupported,
    }
}

/// What the service hears of an ending of the server's own.
fn close_of(reason: CloseReason) -> Close {
    match reason {
        CloseReason::KeepAliveTimeout => Close::Failed(Failure::Silent),
        CloseReason::PacketTooLarge => Close::Failed(Failure::TooLarge),
        CloseReason::Revoked => Close::Failed(Failure::Revoked),
        CloseReason::PublishRefused
        | CloseReason::SubscribeRefused
        | CloseReason::UnsubscribeRefused => Close::Failed(Failure::Refused),
        CloseReason::WriteTimeout | CloseReason::Overrun => Close::Failed(Failure::Slow),
        CloseReason::NotMqtt
        | CloseReason::UnsupportedVersion
        | CloseReason::Malformed
        | CloseReason::ProtocolError
        | CloseReason::QuotaExceeded
        | CloseReason::ReceiveMaximumExceeded
        | CloseReason::TopicAliasInvalid
        | CloseReason::TopicNotAccepted
        | CloseReason::NotSupported => Close::Failed(Failure::Malformed),
        CloseReason::ClientDisconnect
        | CloseReason::ClientDisconnectWithWill
        | CloseReason::PeerGone
        | CloseReason::ConnectTimeout
        | CloseReason::OpenTimeout
        | CloseReason::ConnectRefused
        | CloseReason::TakenOver
        | CloseReason::Stopping
        | CloseReason::Lost
        | CloseReason::Misused
        | CloseReason::Finished => Close::Broken,
    }
}

/// What a refused CONNECT is told in words (MQTT 5, 3.2.2.3.9).
const WHY_NOT: [(Reason, &str); 8] = [
    (Reason::UnsupportedProtocolVersion, "this version of MQTT is not spoken here"),
    (Reason::ClientIdentifierNotValid, "the client id is not valid"),
    (Reason::BadUserNameOrPassword, "the user name or the password is wrong"),
    (Reason::NotAuthorized, "not authorised"),
    (Reason::ServerUnavailable, "the service does not answer"),
    (Reason::ServerBusy, "the server is busy"),
    (Reason::Banned, "it failed too often and is not heard for a while"),
    (Reason::ConnectionRateExceeded, "it connects too often"),
];

/// What a refusal is called on the wire.
pub(super) fn refusal_text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Busy => "the cluster is busy",
        Refusal::Unavailable => "the shard did not answer in time",
        Refusal::Quota => "a quota is used up",
        Refusal::DiskFull => "the cluster is out of disk space",
        Refusal::NotAuthorised => "not authorised",
        Refusal::TooLarge => "larger than a limit allows",
        Refusal::Topic => "there is no such topic",
        Refusal::Payload => "the payload can't be read",
        Refusal::Platform(_) => "refused by its platform",
    }
}

impl Connection {
    /// Ends the connection from this side, and tells the client why where its version and state allow it.
    pub(super) fn fail(&mut self, now: Now, ending: &Ending) {
        match self.state {
            State::Closed => return,
            _ if ending.silent => {}
            State::AwaitConnect if ending.closed == CloseReason::UnsupportedVersion => {
                // A version from before or after ours: this is the answer that the most clients can read.
                self.peer.version = Version::V311;
                self.refuse(ending);
            }
            State::AwaitConnect => {
                if let Some(version) = self.decoder.version() {
                    self.peer.version = version;
                    self.refuse(ending);
                }
            }
            State::Opening => self.refuse(ending),
            State::Open if self.peer.version.is_v5() => self.say_goodbye(ending),
            State::Open => {}
        }
        if let Some(limit) = ending.limit {
            self.reached(limit);
        }
        self.end(now, close_of(ending.closed), ending.closed);
    }

    /// The refusal of a CONNECT, if this version can say it.
    fn refuse(&mut self, ending: &Ending) {
        let v5 = self.peer.version.is_v5();
        if !v5 && !ending.connack_v3 && ending.closed != CloseReason::UnsupportedVersion {
            return;
        }
        let fits = !v5 || ending.reason.fits(Carrier::ConnAck);
        let mut connack = ConnAck {
            session_present: false,
            reason: if fits { ending.reason } else { ending.connack },
            properties: ConnAckProperties {
                reason_string: ending.why.clone(),
                server_reference: ending.server_reference.clone(),
                ..ConnAckProperties::default()
            },
        };
        if !self.try_send(&Packet::ConnAck(Box::new(connack.clone()))) {
            connack.properties = ConnAckProperties::default();
            self.try_send(&Packet::ConnAck(Box::new(connack)));
        }
    }

    fn say_goodbye(&mut self, ending: &Ending) {
        let fits = ending.reason.fits(Carrier::Disconnect);
        let mut disconnect = Disconnect {
            reason: if fits { ending.reason } else { Reason::UnspecifiedError },
            reason_string: ending.why.clone(),
            server_reference: ending.server_reference.clone(),
            ..Disconnect::default()
        };
        if !self.try_send(&Packet::Disconnect(Box::new(disconnect.clone()))) {
            (disconnect.reason_string, disconnect.server_reference) = (None, None);
            self.try_send(&Packet::Disconnect(Box::new(disconnect)));
        }
    }

    /// Ends the connection; nothing but what was queued is sent.
    fn end(&mut self, now: Now, close: Close, reason: CloseReason) {
        self.state = State::Closed;
        self.closed = Some(Closed { close, reason });
        self.timers.closed(now.at);
        let unanswered = self.inbound.clear();
        self.counters.fates[Fate::Unanswered as usize] += unanswered as u64;
        self.outbound.clear();
        self.requests.clear();
    }

    /// Refuses the CONNECT that was handed out, with an error code. Too late once the service has answered.
    ///
    /// # Panics
    ///
    /// If `reason` is not an error.
    pub fn reject(&mut self, now: Now, reason: Reason) {
        assert!(reason.is_error(), "{reason:?} is no refusal");
        if self.state == State::Opening {
            let why = WHY_NOT.iter().find(|(of, _)| *of == reason).map(|(_, why)| *why);
            self.fail(now, &Ending::refuse(reason, why));
        }
    }

    /// The CONNECT is not answered at all: the socket is closed.
    pub fn ignore(&mut self, now: Now) {
        if self.state == State::Opening {
            self.fail(now, &Ending { silent: true, ..Ending::refuse(Reason::NotAuthorized, None) });
        }
    }

    /// The node stops: says where to go instead, if that is known (`host:port`), and closes.
    pub fn stop(&mut self, now: Now, server_reference: Option<&str>) {
        let mut ending = Ending::STOPPING;
        if let Some(reference) = server_reference {
            ending.reason = Reason::UseAnotherServer;
            ending.server_reference = Some(Text::from(reference));
        }
        self.fail(now, &ending);
    }

    /// The client's socket was closed, was reset, or failed.
    pub fn peer_gone(&mut self, now: Now) {
        if self.state != State::Closed {
            self.control.clear();
            self.end(now, Close::Broken, CloseReason::PeerGone);
        }
    }

    pub(super) fn on_disconnect(&mut self, now: Now, disconnect: &Disconnect) {
        let expiry_s = disconnect.session_expiry_s;
        if expiry_s.is_some_and(|expiry| expiry > 0) && self.peer.expiry_sent_s == 0 {
            // Judged by what the CONNECT said, also where the server chose another expiry.
            let why = "a session that was to end with the connection can't be kept";
            return self.fail(now, &Ending::protocol(why));
        }
        let expiry_s = expiry_s.map(|expiry| expiry.min(self.config.session_expiry_max_s));
        let reason = if disconnect.reason == Reason::Success {
            CloseReason::ClientDisconnect
        } else {
            CloseReason::ClientDisconnectWithWill
        };
        let with_will = reason == CloseReason::ClientDisconnectWithWill;
        self.end(now, Close::Clean { expiry_s, with_will }, reason);
    }
}
