//! What a server allows: one struct, every limit named, with the reason and the price.

use std::num::NonZeroU16;

use moorline_core::{QoS, port::SHARE_LENT_MAX};
use thiserror::Error;

use crate::codec::{Limits, Reason};

/// Smallest packet limits that make sense: a CONNECT with a client id, and an answer to it.
const PACKET_BYTES_MIN: usize = 128;

/// What a server offers its clients. What is off is refused, and said in the CONNACK (MQTT 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether MQTT 3.1 (`MQIsdp`) is spoken.
    pub mqtt31: bool,
    /// The highest QoS of a publish. A SUBSCRIBE is granted no more.
    pub qos_max: QoS,
    /// Retained messages: a PUBLISH with RETAIN=1 reaches the service.
    pub retain: bool,
    /// `$share/…` filters reach the service.
    pub shared: bool,
    /// Subscription identifiers.
    pub subscription_ids: bool,
    /// No Local subscriptions.
    pub no_local: bool,
    /// Wills reach the edge with the CONNECT.
    pub wills: bool,
    /// Enhanced authentication (AUTH).
    pub enhanced_auth: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            mqtt31: true,
            qos_max: QoS::ExactlyOnce,
            retain: true,
            shared: true,
            subscription_ids: true,
            no_local: true,
            wills: true,
            enhanced_auth: false,
        }
    }
}

/// The rules of a server's connections, shared by all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What is offered at all.
    pub capabilities: Capabilities,
    /// How long a client may take to send its CONNECT.
    pub connect_deadline_ms: u64,
    /// How long the service may take to open a session: then the client is told that the server is unavailable.
    pub open_deadline_ms: u64,
    /// How long a client may take nothing of what it is sent before the connection is closed.
    pub write_stall_ms: u64,
    /// Bytes of a CONNECT: the memory a stranger can make the server hold.
    pub connect_bytes_max: usize,
    /// Bytes of any later packet (MQTT 5: Maximum Packet Size).
    pub packet_bytes_max: usize,
    /// Bytes of a client id. The standard allows 65,535; each session's key holds it.
    pub client_id_bytes_max: usize,
    /// Bytes of a topic name or filter.
    pub topic_bytes_max: usize,
    /// Levels of a topic name or filter: each costs a step in the routes.
    pub topic_levels_max: usize,
    /// User properties of one packet.
    pub user_properties_max: usize,
    /// Bytes of them and of its reason string.
    pub property_bytes_max: usize,
    /// Filters of one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_max: usize,
    /// Longest session expiry in seconds; `u32::MAX` lets sessions stay for ever. MQTT 5 clients are told.
    pub session_expiry_max_s: u32,
    /// Longest keep-alive in seconds, also for clients that want none; 0 for no such rule. MQTT 5 clients are told to
    /// use it; older ones can't be told, and lose the connection if they are silent for longer.
    pub keep_alive_max_s: u16,
    /// Publishes of one client under way (MQTT 5: Receive Maximum): QoS 1 until the PUBACK, QoS 2 until the PUBCOMP. Older
    /// clients are not read from while this many wait for the service; what waits for their PUBREL does not count, or
    /// it would never be read.
    pub receive_max: NonZeroU16,
    /// Bytes of those publishes. At the limit the client is not read from.
    pub unanswered_bytes_max: usize,
    /// SUBSCRIBEs and UNSUBSCRIBEs that wait for an answer. At the limit the client is not read from.
    pub requests_max: usize,
    /// Deliveries in flight to one client, if its own Receive Maximum is not lower.
    pub inflight_max: NonZeroU16,
    /// Deliveries of a durable session fetched ahead of the window, so that an acknowledgement is followed by the next
    /// delivery at once.
    pub prefetch_max: u32,
    /// Items of shared subscriptions that one client may hold: at least what the service lends to all that it may have.
    pub shared_max: usize,
    /// Deliveries that are not stored anywhere and wait for a slow client. Beyond it the newest are dropped, counted.
    pub live_queue_max: usize,
    /// Bytes of those.
    pub live_queue_bytes_max: usize,
    /// Bytes written ahead of the socket: above it no further delivery is encoded.
    pub output_bytes_max: usize,
    /// Topic aliases in each direction: as many as a client may use, and as many at most of those it takes. 0 for none.
    pub topic_alias_max: u16,
    /// What a client of MQTT 5 is told whose right to be here has ended.
    pub revoked: Reason,
    /// Whether a SUBSCRIBE with an identifier, where none are offered, is refused alone. The standard has the connection end.
    pub stays_with_subscription_id: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capabilities: Capabilities::default(),
            connect_deadline_ms: 5_000,
            open_deadline_ms: 30_000,
            write_stall_ms: 10_000,
            connect_bytes_max: 16 * 1024,
            packet_bytes_max: Limits::PACKET_BYTES,
            client_id_bytes_max: 1_024,
            topic_bytes_max: 256,
            topic_levels_max: 16,
            user_properties_max: Limits::USER_PROPERTIES,
            property_bytes_max: Limits::PROPERTY_BYTES,
            filters_max: Limits::FILTERS,
            session_expiry_max_s: u32::MAX,
            keep_alive_max_s: 3_600,
            receive_max: NonZeroU16::new(1_024).expect("not 0"),
            unanswered_bytes_max: 4 * 1024 * 1024,
            requests_max: 16,
            inflight_max: NonZeroU16::new(32).expect("not 0"),
            prefetch_max: 256,
            shared_max: 100 * SHARE_LENT_MAX as usize,
            live_queue_max: 1_000,
            live_queue_bytes_max: 4 * 1024 * 1024,
            output_bytes_max: 64 * 1024,
            topic_alias_max: 10,
            revoked: Reason::NotAuthorized,
            stays_with_subscription_id: false,
        }
    }
}

/// A setting that can't work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A capability that this session machine does not have.
    #[error("{0} can't be switched on: this version does not have it")]
    NotBuilt(&'static str),
    /// A limit under which no client could work.
    #[error("{0} is too small")]
    TooSmall(&'static str),
    /// A limit beyond what the protocol can say.
    #[error("{0} is larger than MQTT allows")]
    TooLarge(&'static str),
}

impl Config {
    /// Checks what the types can't. Called once, before anything listens.
    ///
    /// # Errors
    ///
    /// The first setting that can't work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let offered = &self.capabilities;
        for (on, name) in [(offered.enhanced_auth, "enhanced authentication")] {
            if on {
                return Err(ConfigError::NotBuilt(name));
            }
        }
        for (value, least, name) in [
            (self.connect_bytes_max, PACKET_BYTES_MIN, "connect-bytes-max"),
            (self.packet_bytes_max, PACKET_BYTES_MIN, "packet-bytes-max"),
            (self.client_id_bytes_max, 1, "client-id-bytes-max"),
            (self.topic_bytes_max, 1, "topic-bytes-max"),
            (self.topic_levels_max, 1, "topic-levels-max"),
            (self.filters_max, 1, "filters-max"),
            (self.unanswered_bytes_max, 1, "unanswered-bytes-max"),
            (self.requests_max, 1, "requests-max"),
            (self.shared_max, 1, "shared-max"),
            (self.live_queue_max, 1, "live-queue-max"),
            (self.live_queue_bytes_max, 1, "live-queue-bytes-max"),
            (self.output_bytes_max, 1, "output-bytes-max"),
        ] {
            if value < least {
                return Err(ConfigError::TooSmall(name));
            }
        }
        if u32::try_from(self.packet_bytes_max).is_err() {
            return Err(ConfigError::TooLarge("packet-bytes-max"));
        }
        Ok(())
    }

    pub(super) fn connect_limits(&self) -> Limits {
        self.limits(self.connect_bytes_max)
    }

    pub(super) fn packet_limits(&self) -> Limits {
        self.limits(self.packet_bytes_max)
    }

    fn limits(&self, packet_bytes: usize) -> Limits {
        Limits {
            packet_bytes,
            user_properties: self.user_properties_max,
            property_bytes: self.property_bytes_max,
            filters: self.filters_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_what_is_not_built_is_refused() {
        assert_eq!(Config::default().check(), Ok(()));
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check()
        };
        assert!(with(|c| c.capabilities.enhanced_auth = true).is_err());
        assert!(with(|c| c.requests_max = 0).is_err());
        assert!(with(|c| c.packet_bytes_max = usize::MAX).is_err());
        assert_eq!(with(|c| c.capabilities.retain = true), Ok(()));
    }
}
