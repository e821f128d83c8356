//! How a node treats its MQTT clients.

use std::num::NonZeroU16;

use moorline_core::port::{SHARE_LENT_MAX, SessionLimits};
use moorline_mqtt::server;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{admission::CONNECT_WAIT_MS_MAX, bucket::Rate};

/// `[mqtt]`: how a node treats MQTT clients.
///
/// Every field has a default that works on a laptop; every duration says its unit. A key this version does not know is
/// an error, not a silence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EdgeConfig {
    /// Connections held at once, at all listeners together. Beyond it a client is turned away at once, so that those connected keep their share
    /// of memory (an idle one costs about 6 KiB, besides what the kernel needs for its socket).
    pub connections_max: u32,
    /// Connections of one address (of one /64 network, for IPv6) that have not said yet who they are; 0 for any number. Beyond
    /// it new ones are turned away at once. Behind a proxy all clients have its address.
    pub unauthenticated_per_address_max: u32,
    /// How often a second a client may connect in the long run, at this node; 0 for as often as it likes. One that comes too
    /// early waits for its turn, one that would wait for over two seconds is refused.
    pub connects_per_client_s: u32,
    /// How often it may do so at once, after a pause.
    pub connects_per_client_burst: u32,
    /// The same for all clients of a tenant together, a second's worth at once; 0 for as often as they like.
    pub connects_per_tenant_s: u32,
    /// Handshakes of TLS under way at once, for each core. A slow network keeps one for a while, so this is a matter of memory.
    pub handshakes_per_core: u32,
    /// Handshakes of TLS that begin in a second, for each core; 0 for as many as come. Who comes in between waits for its turn.
    pub handshakes_per_core_s: u32,
    /// Clients that are being judged, or whose session is being opened, at once and for each core.
    pub authentications_per_core: u32,
    /// Clients that are judged in a second, for each core; 0 for as many as come. Who comes in between waits for its turn. With
    /// HTTP it counts the first request of each connection.
    pub authentications_per_core_s: u32,
    /// How long a newcomer waits for either. One that would wait for longer is refused at once.
    pub admission_wait_ms: u64,
    /// Newcomers that wait for a handshake, and as many for an authentication. One more is refused at once.
    pub admission_waiting_max: u32,
    /// Copies that the messages of one tenant may be for clean sessions of this node in a second, all of them together; 0 for as
    /// many as there are. A message that comes when a second's worth is owed goes to none of them, and is counted.
    pub deliveries_per_tenant_s: u32,
    /// How long a client may take for the handshake of TLS.
    pub tls_handshake_ms: u64,
    /// How long it may then take to send its first packet, the handshake of WebSocket included.
    pub first_packet_ms: u64,
    /// The largest CONNECT: the memory that a stranger can make the node hold.
    pub connect_bytes_max: u32,
    /// How long a client may take nothing of what it is sent before its connection is closed.
    pub write_stall_ms: u64,
    /// How long a stopping node waits for its connections to end. They are told one after the other, a thousand in a second or
    /// all within half of this time, so that they do not come to the others at once.
    pub drain_ms: u64,
    /// The largest packet a client may send. MQTT 5 clients are told.
    pub packet_bytes_max: u32,
    /// Publishes of one client that may wait for their acknowledgement. MQTT 5 clients are told, others are not read
    /// from while so many wait.
    pub receive_max: u16,
    /// Deliveries that one client may leave unacknowledged, if it does not set a lower Receive Maximum itself.
    pub inflight_max: u16,
    /// Deliveries of a durable session fetched ahead of that window.
    pub prefetch_max: u16,
    /// Deliveries to a clean session that wait for a slow client. Beyond it the newest are dropped and counted.
    pub live_queue_max: u16,
    /// The longest time a session outlives its connection. The default lets it stay for ever.
    pub session_expiry_max_s: u32,
    /// The longest keep-alive, also for clients that want none; 0 for no such rule. MQTT 5 clients are told; others lose the
    /// connection if they are silent for one and a half times as long.
    pub keep_alive_max_s: u16,
    /// Bytes of a client id.
    pub client_id_bytes_max: u16,
    /// Bytes of a topic name or filter.
    pub topic_bytes_max: u16,
    /// Levels of a topic name or filter.
    pub topic_levels_max: u16,
    /// Topic aliases that a client may use, and that are used for it if it takes them. MQTT 5 clients are told; 0 for none.
    pub topic_alias_max: u16,
    /// User properties of one packet.
    pub user_properties_max: u16,
    /// Bytes of them and of the reason string of one packet.
    pub property_bytes_max: u32,
    /// Filters of one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_max: u16,
    /// Subscriptions of one session.
    pub subscriptions_max: u32,
    /// Messages that wait for a durable session. Beyond it the newest are dropped for that session, and counted; a publish
    /// that nobody has room for is refused.
    pub session_queue_max: u32,
    /// Bytes of them.
    pub session_queue_bytes_max: u32,
    /// Sessions of one shard. A client that would bring one more is refused.
    pub sessions_per_shard_max: u32,
    /// Connections that the kernel holds ready while the node is busy accepting others.
    pub backlog: u16,
}

/// A reconnecting fleet comes in one burst; the kernel caps it by `net.core.somaxconn`.
const BACKLOG: u16 = 4_096;
/// A command of the log has at most 512 KiB, so this leaves room, and a stranger can't hold more memory than that.
const PACKET_BYTES_MAX: u32 = 256 * 1024;
/// What a packet may be configured to hold: a message has to fit into one command of the log, with its topic and
/// properties.
const PACKET_BYTES_CEILING: u32 = 480 * 1024;

/// What a newcomer may be configured to wait.
const ADMISSION_WAIT_MS_CEILING: u64 = 30_000;

/// How much more than all its shared subscriptions lend at a time a client may hold: what one that it has ended lent may
/// still wait for it.
const SHARED_SLACK: usize = 2;

impl Default for EdgeConfig {
    fn default() -> Self {
        let mqtt = server::Config::default();
        let limits = SessionLimits::default();
        let large = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let small = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
        Self {
            connections_max: 100_000,
            unauthenticated_per_address_max: 50,
            connects_per_client_s: 1,
            connects_per_client_burst: 3,
            connects_per_tenant_s: 500,
            handshakes_per_core: 256,
            handshakes_per_core_s: 500,
            authentications_per_core: 128,
            authentications_per_core_s: 500,
            admission_wait_ms: 2_000,
            admission_waiting_max: 8_192,
            deliveries_per_tenant_s: 0,
            tls_handshake_ms: 5_000,
            first_packet_ms: mqtt.connect_deadline_ms,
            connect_bytes_max: large(mqtt.connect_bytes_max),
            write_stall_ms: mqtt.write_stall_ms,
            drain_ms: 5_000,
            packet_bytes_max: PACKET_BYTES_MAX,
            receive_max: mqtt.receive_max.get(),
            inflight_max: mqtt.inflight_max.get(),
            prefetch_max: u16::try_from(mqtt.prefetch_max).unwrap_or(u16::MAX),
            live_queue_max: small(mqtt.live_queue_max),
            session_expiry_max_s: mqtt.session_expiry_max_s,
            keep_alive_max_s: mqtt.keep_alive_max_s,
            client_id_bytes_max: small(mqtt.client_id_bytes_max),
            topic_bytes_max: small(mqtt.topic_bytes_max),
            topic_levels_max: small(mqtt.topic_levels_max),
            topic_alias_max: mqtt.topic_alias_max,
            user_properties_max: small(mqtt.user_properties_max),
            property_bytes_max: large(mqtt.property_bytes_max),
            filters_max: small(mqtt.filters_max),
            subscriptions_max: limits.subscriptions,
            session_queue_max: limits.queue_items,
            session_queue_bytes_max: limits.queue_bytes,
            sessions_per_shard_max: 1_000_000,
            backlog: BACKLOG,
        }
    }
}

/// `[ws]`: how a node treats WebSocket clients, over TLS or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct WsConfig {
    /// Web pages that may connect, as `scheme://host:port` the way browsers say it; empty for any. A client that is no
    /// browser names none, and may connect.
    pub origins: Vec<String>,
}

impl WsConfig {
    /// Checks what the types cannot. Called once, before anything listens.
    ///
    /// # Errors
    ///
    /// The first origin that no browser would ever send.
    pub fn check(&self) -> Result<(), EdgeConfigError> {
        let is_origin = |text: &String| {
            let (scheme, host) = text.split_once("://").unwrap_or_default();
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', ' ', '*'])
        };
        match self.origins.iter().find(|text| !is_origin(text)) {
            Some(text) => Err(EdgeConfigError::Origin(text.clone())),
            None => Ok(()),
        }
    }
}

/// A setting that cannot work; the text names the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EdgeConfigError {
    /// A limit that nothing could pass.
    #[error("{0} must not be 0")]
    Zero(&'static str),
    /// A packet that would fit into no command of the log.
    #[error(
        "packet-bytes-max: {0} is more than {PACKET_BYTES_CEILING}, which is what a log command holds"
    )]
    PacketTooLarge(u32),
    /// Nobody waits for so long.
    #[error(
        "admission-wait-ms: {0} is more than {ADMISSION_WAIT_MS_CEILING}, by when clients have given up"
    )]
    AdmissionWait(u64),
    /// An origin in another form than browsers send.
    #[error("origins: {0:?} is not scheme://host or scheme://host:port")]
    Origin(String),
    /// The protocol machine says no.
    #[error("{0}")]
    Protocol(#[from] server::ConfigError),
}

impl EdgeConfig {
    /// Checks what the types cannot. Called once, before anything listens.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), EdgeConfigError> {
        for (value, key) in [
            (u64::from(self.connections_max), "connections-max"),
            (self.tls_handshake_ms, "tls-handshake-ms"),
            (self.first_packet_ms, "first-packet-ms"),
            (u64::from(self.connects_per_client_burst), "connects-per-client-burst"),
            (u64::from(self.handshakes_per_core), "handshakes-per-core"),
            (u64::from(self.authentications_per_core), "authentications-per-core"),
            (self.admission_wait_ms, "admission-wait-ms"),
            (u64::from(self.admission_waiting_max), "admission-waiting-max"),
            (u64::from(self.subscriptions_max), "subscriptions-max"),
            (u64::from(self.session_queue_max), "session-queue-max"),
            (u64::from(self.session_queue_bytes_max), "session-queue-bytes-max"),
            (u64::from(self.sessions_per_shard_max), "sessions-per-shard-max"),
            (self.write_stall_ms, "write-stall-ms"),
            (self.drain_ms, "drain-ms"),
            (u64::from(self.receive_max), "receive-max"),
            (u64::from(self.inflight_max), "inflight-max"),
            (u64::from(self.backlog), "backlog"),
        ] {
            if value == 0 {
                return Err(EdgeConfigError::Zero(key));
            }
        }
        if self.admission_wait_ms > ADMISSION_WAIT_MS_CEILING {
            return Err(EdgeConfigError::AdmissionWait(self.admission_wait_ms));
        }
        if self.packet_bytes_max > PACKET_BYTES_CEILING {
            return Err(EdgeConfigError::PacketTooLarge(self.packet_bytes_max));
        }
        Ok(self.protocol().check()?)
    }

    /// How often one client may connect.
    #[must_use]
    pub fn client_rate(&self) -> Rate {
        Rate {
            per_s: self.connects_per_client_s,
            burst: self.connects_per_client_burst,
            wait_ms_max: CONNECT_WAIT_MS_MAX,
        }
    }

    /// What one session may take of its shard.
    #[must_use]
    pub fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            queue_items: self.session_queue_max,
            queue_bytes: self.session_queue_bytes_max,
            subscriptions: self.subscriptions_max,
        }
    }

    /// The same, as the protocol machine wants it.
    #[must_use]
    pub fn protocol(&self) -> server::Config {
        let not_0 = |value: u16| NonZeroU16::new(value).unwrap_or(NonZeroU16::MIN);
        let defaults = server::Config::default();
        let large = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        let packet_bytes_max = large(self.packet_bytes_max);
        server::Config {
            connect_deadline_ms: self.first_packet_ms,
            write_stall_ms: self.write_stall_ms,
            connect_bytes_max: large(self.connect_bytes_max).min(packet_bytes_max),
            packet_bytes_max,
            client_id_bytes_max: self.client_id_bytes_max.into(),
            topic_bytes_max: self.topic_bytes_max.into(),
            topic_levels_max: self.topic_levels_max.into(),
            topic_alias_max: self.topic_alias_max,
            user_properties_max: self.user_properties_max.into(),
            property_bytes_max: large(self.property_bytes_max),
            filters_max: self.filters_max.into(),
            session_expiry_max_s: self.session_expiry_max_s,
            keep_alive_max_s: self.keep_alive_max_s,
            receive_max: not_0(self.receive_max),
            inflight_max: not_0(self.inflight_max),
            prefetch_max: self.prefetch_max.into(),
            shared_max: SHARED_SLACK
                .saturating_mul(large(self.subscriptions_max))
                .saturating_mul(SHARE_LENT_MAX.into()),
            live_queue_max: self.live_queue_max.into(),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut EdgeConfig)) -> Result<(), String> {
        let mut config = EdgeConfig::default();
        change(&mut config);
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_work_and_errors_name_the_key() {
        assert_eq!(with(|_| {}), Ok(()));
        let error = |change: fn(&mut EdgeConfig)| with(change).unwrap_err();
        assert!(error(|c| c.connections_max = 0).contains("connections-max"));
        assert!(error(|c| c.packet_bytes_max = 1 << 20).contains("packet-bytes-max"));
        assert!(error(|c| c.authentications_per_core = 0).contains("authentications-per-core"));
        assert!(error(|c| c.admission_wait_ms = 30_001).contains("admission-wait-ms"));
        assert!(error(|c| c.topic_bytes_max = 0).contains("topic-bytes-max"));
        assert!(error(|c| c.packet_bytes_max = 1).contains("bytes-max"));
    }

    #[test]
    fn there_is_room_for_what_all_shared_subscriptions_lend() {
        for subscriptions_max in [1, 100, 250, 1_000] {
            let config = EdgeConfig { subscriptions_max, ..EdgeConfig::default() };
            let lent = subscriptions_max as usize * usize::from(SHARE_LENT_MAX);
            assert!(config.protocol().shared_max >= lent, "{subscriptions_max}");
        }
    }

    #[test]
    fn origins_are_what_browsers_send() {
        let check = |origin: &str| WsConfig { origins: vec![origin.to_owned()] }.check().is_ok();
        for good in ["https://a.example", "http://localhost:8080", "https://[::1]:9"] {
            assert!(check(good), "{good}");
        }
        for bad in ["", "a.example", "https://", "https://a.example/", "https://*.a", "null"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
