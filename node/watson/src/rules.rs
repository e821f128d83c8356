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
    identity::Class,
};
use moorline_edge::EdgeConfig;
use moorline_mqtt::server;

/// The edge's configuration, and what it gets to be for whom.
#[derive(Debug)]
pub(crate) struct Rules {
    edge: EdgeConfig,
    /// By class, MQTT 3 before MQTT 5.
    made: Vec<[Arc<server::Config>; 2]>,
    /// For an `A` without an instance, whose sessions never last.
    passing: Arc<server::Config>,
}

impl Rules {
    pub(crate) fn new(edge: &EdgeConfig) -> Self {
        let of = |class| [make(edge, class, false), make(edge, class, true)].map(Arc::new);
        let passing = make(edge, Class::SharedApplication, true);
        let passing = Arc::new(server::Config { session_expiry_max_s: 0, ..passing });
        Self { edge: edge.clone(), made: Class::ALL.map(of).into(), passing }
    }

    /// For one connection.
    pub(crate) fn of(&self, opening: &Opening) -> Arc<server::Config> {
        let v5 = opening.version == Version::V5;
        let class = opening.client.class();
        if v5 && opening.session.name.is_none() {
            return Arc::clone(&self.passing);
        }
        let at = Class::ALL.iter().position(|of| *of == class).expect("all of them are there");
        Arc::clone(&self.made[at][usize::from(v5)])
    }

    /// For its session.
    pub(crate) fn session(&self, class: Class) -> SessionLimits {
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
