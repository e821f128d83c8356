//! CONNECT and its answer (3.1, 3.2).

use std::{num::NonZeroU32, sync::Arc};

use moorline_core::{
    QoS, Text,
    port::{Opened, Refusal},
};

use crate::{
    Now,
    codec::{ConnAck, ConnAckProperties, Connect, Packet, Reason, Version},
};

use super::{
    CloseReason, Config, ConnectRequest, Connection, Event, Limit, State,
    close::{Ending, platform_reason, refusal_text},
    inbound::over_limit,
};

/// What the client said of itself.
#[derive(Debug)]
pub(super) struct Peer {
    /// Meaningless before the CONNECT.
    pub(super) version: Version,
    /// A client id for a client without one. Taken at most once.
    spare_id: Text,
    /// Whether the spare id was taken.
    assigned: bool,
    /// Whole packets larger than this are not sent.
    pub(super) packet_max: usize,
    /// Whether acknowledgements may carry a Reason String.
    pub(super) wants_problems: bool,
    /// Session expiry in the words of the CONNECT; absent is 0 (3.1.2.11.2).
    pub(super) expiry_sent_s: u32,
    expiry_s: u32,
    keep_alive_sent_s: u16,
    keep_alive_s: u16,
    /// Whether an earlier session goes on.
    pub(super) resumed: bool,
}

impl Peer {
    pub(super) fn new(spare_id: Text) -> Self {
        Self {
            version: Version::V311,
            spare_id,
            assigned: false,
            packet_max: usize::MAX,
            wants_problems: true,
            expiry_sent_s: 0,
            expiry_s: 0,
            keep_alive_sent_s: 0,
            keep_alive_s: 0,
            resumed: false,
        }
    }

    fn learn(&mut self, connect: &Connect, config: &Config) {
        let properties = &connect.properties;
        self.version = connect.version;
        let packet_max = properties.packet_max.map(NonZeroU32::get).map(usize::try_from);
        self.packet_max = packet_max.and_then(Result::ok).unwrap_or(usize::MAX);
        self.wants_problems = properties.request_problem.unwrap_or(true);
        self.expiry_sent_s = match (self.version.is_v5(), connect.clean_start) {
            (true, _) => properties.session_expiry_s.unwrap_or(0),
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        self.keep_alive_sent_s = connect.keep_alive_s;
        self.limit(config);
    }

    /// Within the server's limits.
    fn limit(&mut self, config: &Config) {
        self.expiry_s = self.expiry_sent_s.min(config.session_expiry_max_s);
        self.keep_alive_s = match (self.keep_alive_sent_s, config.keep_alive_max_s) {
            (sent, 0) => sent,
            // Only MQTT 5 can be told. An older client that is silent for longer loses its connection, which a server may
            // do to it (3.1.2.10 there), rather than keep a place for ever that nobody may be behind.
            (0, max) => max,
            (sent, max) => sent.min(max),
        };
    }
}

impl Connection {
    pub(super) fn on_connect(&mut self, now: Now, connect: Connect) {
        let config = self.config.clone();
        self.peer.learn(&connect, &config);
        if self.peer.keep_alive_s != self.peer.keep_alive_sent_s {
            self.reached(Limit::KeepAlive);
        }
        if let Some(ending) = objection(&connect, &config) {
            return self.fail(now, &ending);
        }
        self.decoder.set_limits(config.packet_limits());
        self.state = State::Opening;
        self.timers.opening(now.at, &config);
        let window = connect
            .properties
            .receive_max
            .map_or(config.inflight_max, |theirs| theirs.min(config.inflight_max));
        let credit = u32::from(window.get()).saturating_add(config.prefetch_max);
        self.outbound.set_window(usize::from(window.get()), credit);
        let aliases = connect.properties.alias_max.unwrap_or(0).min(config.topic_alias_max);
        self.outbound.aliases.allow(aliases);
        self.peer.assigned = connect.client_id.is_empty();
        // A copy: the id lives as long as the session, and shares the buffer that the CONNECT was read into.
        let client = if self.peer.assigned {
            self.peer.spare_id.clone()
        } else {
            Text::from(connect.client_id.as_str())
        };
        self.events.push_back(Event::Connect(Box::new(ConnectRequest {
            version: connect.version,
            client,
            assigned: self.peer.assigned,
            username: connect.username,
            password: connect.password,
            clean_start: connect.clean_start,
            expiry_s: self.peer.expiry_s,
            keep_alive_s: self.peer.keep_alive_s,
            keep_alive_sent_s: self.peer.keep_alive_sent_s,
            credit,
            window: window.get(),
            user_properties: connect.properties.user,
            will: connect.will,
        })));
    }

    /// Other rules from now on: those of the platform that the client turned out to belong to. To be called while its session
    /// is not open; answers its session's expiry under them, for `Open::expiry_s`. The windows of its deliveries stay.
    pub fn adopt(&mut self, config: Arc<Config>) -> u32 {
        if self.state == State::Opening {
            self.peer.limit(&config);
            self.decoder.set_limits(config.packet_limits());
            self.config = config;
        }
        self.peer.expiry_s
    }

    pub(super) fn on_opened(&mut self, now: Now, opened: Opened) {
        if self.state != State::Opening {
            return;
        }
        let connack = ConnAck {
            session_present: opened.present,
            reason: Reason::Success,
            properties: if self.peer.version.is_v5() {
                self.connack_properties()
            } else {
                ConnAckProperties::default()
            },
        };
        if !self.try_send(&Packet::ConnAck(Box::new(connack))) {
            // Not even a refusal is smaller than what this client takes, or it would take this one.
            return self.fail(now, &Ending::ANSWER_TOO_LARGE);
        }
        self.state = State::Open;
        // Many connections do nothing for long: they keep no room for events.
        self.events.shrink_to_fit();
        self.peer.resumed = opened.present;
        self.outbound
            .set_queue(opened.first, if opened.present { opened.end } else { opened.first });
        self.timers.opened(now.at, self.peer.keep_alive_s);
    }

    fn connack_properties(&self) -> ConnAckProperties {
        let (config, peer) = (&self.config, &self.peer);
        let offered = &config.capabilities;
        let off = |offered: bool| if offered { None } else { Some(false) };
        let packet_max = u32::try_from(config.packet_bytes_max).unwrap_or(u32::MAX);
        ConnAckProperties {
            session_expiry_s: (peer.expiry_s != peer.expiry_sent_s).then_some(peer.expiry_s),
            receive_max: Some(config.receive_max),
            qos_max: Some(offered.qos_max).filter(|&qos| qos != QoS::ExactlyOnce),
            retain: off(offered.retain),
            packet_max: NonZeroU32::new(packet_max),
            assigned_client_id: peer.assigned.then(|| peer.spare_id.clone()),
            alias_max: Some(config.topic_alias_max).filter(|&max| max > 0),
            subscription_ids: off(offered.subscription_ids),
            shared: off(offered.shared),
            server_keep_alive_s: (peer.keep_alive_s != peer.keep_alive_sent_s)
                .then_some(peer.keep_alive_s),
            ..ConnAckProperties::default()
        }
    }

    pub(super) fn on_open_refused(&mut self, now: Now, refusal: Refusal) {
        if self.state != State::Opening {
            return;
        }
        let reason = match refusal {
            Refusal::Busy => Reason::ServerBusy,
            Refusal::Unavailable => Reason::ServerUnavailable,
            Refusal::Quota | Refusal::DiskFull => Reason::QuotaExceeded,
            Refusal::NotAuthorised => Reason::NotAuthorized,
            Refusal::TooLarge => Reason::PacketTooLarge,
            Refusal::Topic => Reason::TopicNameInvalid,
            Refusal::Payload => Reason::PayloadFormatInvalid,
            Refusal::Platform(reason) => platform_reason(reason),
        };
        if refusal == Refusal::Quota {
            self.reached(Limit::Sessions);
        }
        self.fail(now, &Ending::refuse(reason, Some(refusal_text(refusal))));
    }
}

/// Why this CONNECT can't become a session here, whoever sends it.
fn objection(connect: &Connect, config: &Config) -> Option<Ending> {
    let offered = &config.capabilities;
    if connect.version == Version::V31 && !offered.mqtt31 {
        let mut ending = Ending::refuse(Reason::UnsupportedProtocolVersion, None);
        ending.closed = CloseReason::UnsupportedVersion;
        return Some(ending);
    }
    if connect.properties.auth_method.is_some() && !offered.enhanced_auth {
        return Some(Ending::refuse(Reason::BadAuthenticationMethod, None));
    }
    let id = &connect.client_id;
    // 3.1 wants an id always, 3.1.1 unless the session is a clean one ([MQTT-3.1.3-8] there).
    let needs_id = match connect.version {
        Version::V31 => true,
        Version::V311 => !connect.clean_start,
        Version::V5 => false,
    };
    if id.is_empty() && needs_id {
        return Some(Ending::refuse(Reason::ClientIdentifierNotValid, None));
    }
    if id.len() > config.client_id_bytes_max {
        let why = format!("a client id has at most {} bytes here", config.client_id_bytes_max);
        let ending = Ending::refuse(Reason::ClientIdentifierNotValid, Some(&why));
        return Some(ending.by(Limit::ClientIdBytes));
    }
    let will = connect.will.as_ref()?;
    if let Some(limit) = over_limit(will.topic.as_bytes(), config) {
        let why = "the will's topic is too long";
        Some(Ending::refuse(Reason::TopicNameInvalid, Some(why)).by(limit))
    } else if !offered.wills {
        let why = "wills are not supported by this server";
        Some(Ending::refuse(Reason::ImplementationSpecificError, Some(why)))
    } else if will.qos > offered.qos_max {
        Some(Ending::refuse(Reason::QoSNotSupported, Some("the will's QoS")))
    } else if will.retain && !offered.retain {
        Some(Ending::refuse(Reason::RetainNotSupported, Some("the will's RETAIN")))
    } else {
        None
    }
}
