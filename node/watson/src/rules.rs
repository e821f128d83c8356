//! What MQTT allows whom, in the place of the edge's own configuration: windows, sizes, sessions (§1.3, §1.4, §1.10 of the vendor's wire).
//!
//! Invariant: nothing here is larger than what the node's operator allows. Checked by `the_operators_limits_stay`.

use std::{num::NonZeroU16, sync::Arc};

use moorline_core::port::SessionLimits;
use moorline_dialects::watson::{
    connect::{
        Opening, PACKET_BYTES_MAX, SESSION_EXPIRY_S_DEFAULT, SESSION_EXPIRY_S_MAX,
        SHARED_KEEP_ALIVE_S_MAX, Version,
    },
    http,
    identity::{Class, ClientId},
};
use moorline_edge::EdgeConfig;
use moorline_mqtt::server;

use crate::quickstart;

/// A session that a request makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requested {
    /// Seconds it outlives the request.
    pub(crate) expiry_s: u32,
    pub(crate) limits: SessionLimits,
    pub(crate) sessions_max: u32,
}

/// The edge's configuration, and what it gets to be for whom.
#[derive(Debug)]
pub(crate) struct Rules {
    edge: EdgeConfig,
    /// By class, MQTT 3 before MQTT 5.
    made: Vec<[Arc<server::Config>; 2]>,
    /// For an `A` without an instance, whose sessions never last.
    passing: Arc<server::Config>,
    /// For quickstart, whose sessions don't either: by MQTT 3 and by MQTT 5.
    strangers: [Arc<server::Config>; 2],
}

impl Rules {
    pub(crate) fn new(edge: &EdgeConfig) -> Self {
        let of = |class| [make(edge, class, false), make(edge, class, true)].map(Arc::new);
        let passing = make(edge, Class::SharedApplication, true);
        let passing = Arc::new(server::Config { session_expiry_max_s: 0, ..passing });
        let stranger = |v5| {
            let like = make(edge, Class::Device, v5);
            Arc::new(server::Config { session_expiry_max_s: 0, ..like })
        };
        let strangers = [false, true].map(stranger);
        Self { edge: edge.clone(), made: Class::ALL.map(of).into(), passing, strangers }
    }

    /// For one connection.
    pub(crate) fn of(&self, opening: &Opening) -> Arc<server::Config> {
        let v5 = opening.version == Version::V5;
        let class = opening.client.class();
        if opening.client.is_quickstart() {
            return Arc::clone(&self.strangers[usize::from(v5)]);
        }
        if v5 && opening.session.name.is_none() {
            return Arc::clone(&self.passing);
        }
        let at = Class::ALL.iter().position(|of| *of == class).expect("all of them are there");
        Arc::clone(&self.made[at][usize::from(v5)])
    }

    /// For a session of a client that asks for its commands by requests. It is none that MQTT would make: by how long it lasts, a
    /// request knows the session of another one.
    pub(crate) fn session_of_requests(&self, class: Class) -> Requested {
        let most_s = self.edge.session_expiry_max_s;
        let fits = most_s >= http::SESSION_EXPIRY_S;
        let expiry_s = if fits { http::SESSION_EXPIRY_S } else { most_s.saturating_sub(1) };
        let (limits, sessions_max) = (self.session_of(class), self.edge.sessions_per_shard_max);
        Requested { expiry_s, limits, sessions_max }
    }

    /// For its session.
    pub(crate) fn session(&self, client: &ClientId) -> SessionLimits {
        let limits = self.session_of(client.class());
        if client.is_quickstart() { limits.min(quickstart::SESSION) } else { limits }
    }

    fn session_of(&self, class: Class) -> SessionLimits {
        let limits = class.limits();
        self.edge.session_limits().min(SessionLimits {
            queue_items: limits.queue_items_max,
            subscriptions: limits.subscriptions_max,
            queue_bytes: u32::MAX,
        })
    }
}

fn make(edge: &EdgeConfig, class: Class, v5: bool) -> server::Config {
    let config = edge.protocol();
    let limits = class.limits();
    let expiry_s = if v5 { SESSION_EXPIRY_S_MAX } else { SESSION_EXPIRY_S_DEFAULT };
    let wanted = if v5 { limits.receive_max } else { limits.unacknowledged_max };
    let packet = usize::try_from(PACKET_BYTES_MAX).expect("it fits any machine");
    server::Config {
        session_expiry_max_s: config.session_expiry_max_s.min(expiry_s),
        keep_alive_max_s: match (class, config.keep_alive_max_s) {
            (Class::SharedApplication, 0) => SHARED_KEEP_ALIVE_S_MAX,
            (Class::SharedApplication, max) => max.min(SHARED_KEEP_ALIVE_S_MAX),
            (Class::Device | Class::Gateway | Class::Application, max) => max,
        },
        receive_max: NonZeroU16::new(wanted)
            .map_or(config.receive_max, |max| max.min(config.receive_max)),
        // MQTT 3 counts the payload, which is looked at where messages are read.
        packet_bytes_max: if v5 {
            config.packet_bytes_max.min(packet)
        } else {
            config.packet_bytes_max
        },
        ..config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_limits_stay() {
        let edge = EdgeConfig {
            receive_max: 5,
            keep_alive_max_s: 60,
            session_expiry_max_s: 7,
            ..EdgeConfig::default()
        };
        for class in Class::ALL {
            let made = make(&edge, class, true);
            assert_eq!(
                (made.receive_max.get(), made.keep_alive_max_s, made.session_expiry_max_s),
                (5, 60, 7)
            );
        }
    }

    #[test]
    fn a_session_of_requests_lasts_as_none_of_mqtt_3() {
        let two_days = 2 * 24 * 3_600;
        for (most_s, expected) in [(u32::MAX, 1), (two_days + 1, 1), (two_days, -1)]
            .map(|(most, more)| (most, two_days.wrapping_add_signed(more)))
            .into_iter()
            .chain([(60, 59), (1, 0), (0, 0)])
        {
            let edge = EdgeConfig { session_expiry_max_s: most_s, ..EdgeConfig::default() };
            let made = Rules::new(&edge).session_of_requests(Class::Device);
            assert_eq!((made.expiry_s, made.limits.queue_items), (expected, 50), "{most_s}");
            let mqtt = make(&edge, Class::Device, false).session_expiry_max_s;
            assert!(made.expiry_s != mqtt || mqtt == 0, "{most_s}");
        }
    }

    #[test]
    fn strangers_keep_nothing() {
        let rules = Rules::new(&EdgeConfig::default());
        assert!(rules.strangers.iter().all(|config| config.session_expiry_max_s == 0));
        let of = |id: &str| rules.session(&ClientId::parse(id.as_bytes()).unwrap());
        assert_eq!(of("a:quickstart:app").subscriptions, 10);
        assert_eq!(of("a:abc123:app"), rules.session_of(Class::Application));
    }

    #[test]
    fn each_class_has_its_own() {
        let edge = EdgeConfig { keep_alive_max_s: 0, ..EdgeConfig::default() };
        let device = make(&edge, Class::Device, true);
        assert_eq!((device.receive_max.get(), device.packet_bytes_max), (10, 131_072));
        assert_eq!(device.keep_alive_max_s, 0);
        assert_eq!(device.session_expiry_max_s, 7 * 24 * 3_600);
        let shared = make(&edge, Class::SharedApplication, false);
        assert_eq!((shared.keep_alive_max_s, shared.session_expiry_max_s), (3_600, 2 * 24 * 3_600));
    }
}
